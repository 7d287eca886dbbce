//! `holdfast serve`: one node, until it is told to stop.
//!
//! Settings come in layers, each overriding the one before: built-in defaults, the TOML file, environment
//! variables (`HOLDFAST_RAFT__HEARTBEAT_MS` for `raft.heartbeat_ms`), `--set`, and the flags.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use holdfast_node::config::LogFormat;
use holdfast_node::{Config, StartError, SystemClock};
use holdfast_storage_rocksdb::{OpenOptions, RocksEngine};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Metadata;
use tracing::subscriber::Interest;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

/// Options of `serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The node's configuration, TOML.
    #[arg(long, short, value_name = "FILE", env = "HOLDFAST_CONFIG")]
    config: Option<PathBuf>,
    /// Check the configuration, say what is wrong with it, and exit.
    #[arg(long)]
    check_config: bool,
    /// Listen beyond loopback although there is no TLS. Whoever reaches the ports can read and change
    /// everything.
    #[arg(long)]
    insecure: bool,
    /// Overrides `node.id`.
    #[arg(long, value_name = "N")]
    node_id: Option<u64>,
    /// Overrides `node.data_dir`.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Overrides `log.format`: human or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Overrides `log.level`, as in `info` or `info,holdfast_consensus=debug`.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Overrides any setting, as in `--set raft.heartbeat_ms=50`.
    #[arg(long = "set", value_name = "SETTING=VALUE", value_parser = crate::args::pair)]
    settings: Vec<(String, String)>,
}

/// Runs the node.
pub(crate) fn run(serve: &Serve, format: Format) -> Result<(), Failure> {
    let config = load(serve, std::env::vars())?;
    if let Err(problems) = config.validate() {
        let listed: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        let source = serve
            .config
            .as_deref()
            .map_or("the configuration".into(), |path| path.display().to_string());
        return Err(Failure::usage(format!(
            "{source} cannot be used:{}",
            listed.concat()
        )));
    }
    if serve.check_config {
        holdfast_node::check_certificates(&config).map_err(|error| Failure::usage(error.to_string()))?;
        return output::result(format, &json!({ "ok": true, "node_id": config.node.id }), || {
            format!(
                "configuration is fine: node {} of cluster {}, client port {}, admin port {}, data in {}",
                config.node.id,
                config.cluster.id,
                config.listen_client(),
                config.listen_admin(),
                config.node.data_dir.display()
            )
        });
    }
    make_data_dir(&config.node.data_dir)?;
    start_logging(&config)?;
    log_panics();
    raise_open_files();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.limits.worker_threads > 0 {
        builder.worker_threads(config.limits.worker_threads);
    }
    let runtime = builder
        .enable_all()
        .thread_name("holdfast")
        .build()
        .map_err(|error| Failure::io("cannot start the runtime", &error))?;
    // The hook has said where.
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(serve_until_told(config))))
        .unwrap_or_else(|_| {
            Err(Failure::new(
                Exit::Internal,
                "the node stopped by a defect; start it again",
            ))
        });
    // Blocking work that hangs (a disk that does not answer) must not keep a stopped node from exiting.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ended
}

/// A node that had to stop by itself.
fn fatal(node_id: u64, reason: &str) -> Failure {
    Failure::new(Exit::Fatal, format!("node {node_id} stopped: {reason}"))
}

/// A directory that cannot be made is a mistake in the configuration, not a reason to fear for data.
fn make_data_dir(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path).map_err(|error| {
        Failure::usage(format!(
            "node.data_dir: {} cannot be made a directory: {error}",
            path.display()
        ))
        .hint("is the path right, and may this user write there?")
    })?;
    let usable = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(path, usable).map_err(|error| {
        Failure::usage(format!(
            "node.data_dir: {} cannot be written: {error}",
            path.display()
        ))
        .hint("may this user write there, and is the file system mounted for writing?")
    })
}

/// Merges the layers.
fn load(serve: &Serve, environment: impl Iterator<Item = (String, String)>) -> Result<Config, Failure> {
    let wrong = |error: config::ConfigError| Failure::usage(format!("configuration: {error}"));
    let mut builder = config::Config::builder();
    if let Some(path) = &serve.config {
        if !path.exists() {
            return Err(Failure::usage(format!(
                "there is no configuration file {}",
                path.display()
            )));
        }
        builder = builder.add_source(config::File::from(path.as_path()).format(config::FileFormat::Toml));
    }
    let environment = config::Environment::default()
        .separator("__")
        .source(Some(node_settings(environment)));
    builder = builder.add_source(environment.try_parsing(true));
    for (name, value) in &serve.settings {
        builder = builder.set_override(name, scalar(value)).map_err(wrong)?;
    }
    let flags: [(&str, Option<config::Value>); 5] = [
        ("node.id", serve.node_id.map(Into::into)),
        (
            "node.data_dir",
            serve
                .data_dir
                .as_deref()
                .map(|path: &Path| path.to_string_lossy().into_owned().into()),
        ),
        ("log.format", serve.log_format.clone().map(Into::into)),
        ("log.level", serve.log_level.clone().map(Into::into)),
        ("insecure", serve.insecure.then_some(true).map(Into::into)),
    ];
    for (name, value) in flags {
        builder = builder.set_override_option(name, value).map_err(wrong)?;
    }
    builder
        .build()
        .and_then(config::Config::try_deserialize)
        .map_err(wrong)
}

/// The environment variables that are settings of a node: those of a section, and `HOLDFAST_INSECURE`. The
/// others that begin with `HOLDFAST_` belong to the commands that talk to a cluster.
fn node_settings(environment: impl Iterator<Item = (String, String)>) -> config::Map<String, String> {
    environment
        .filter_map(|(name, value)| Some((name.strip_prefix("HOLDFAST_")?.to_lowercase(), value)))
        .filter(|(name, _)| name.contains("__") || name == "insecure")
        .collect()
}

/// A value of the command line with the type it looks like.
fn scalar(text: &str) -> config::Value {
    if let Ok(number) = text.parse::<i64>() {
        number.into()
    } else if let Ok(flag) = text.parse::<bool>() {
        flag.into()
    } else {
        text.into()
    }
}

fn start_logging(config: &Config) -> Result<(), Failure> {
    // openraft tells its inner life at `info`, and each attempt to reach a dead peer at `warn`, where an alarm of
    // ours says it once. Who wants to hear it says `openraft=info`.
    let filter = tracing_subscriber::EnvFilter::try_new(format!("openraft=error,{}", config.log.level))
        .map_err(|error| Failure::usage(format!("log.level: {error}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match config.log.format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .finish()
            .with(QuietEnd)
            .try_init(),
        LogFormat::Human => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .finish()
            .with(QuietEnd)
            .try_init(),
    };
    installed.map_err(|error| Failure::new(Exit::Internal, format!("logging: {error}")))
}

/// Whether this node was told to stop.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Keeps back what openraft says of a node that was told to stop: it calls it an error that messages of its peers no
/// longer find it. A node that stops by itself is heard to its end.
struct QuietEnd;

impl QuietEnd {
    fn concerns(metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("openraft")
    }
}

impl<S: tracing::Subscriber> Layer<S> for QuietEnd {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if QuietEnd::concerns(metadata) {
            Interest::sometimes()
        } else {
            Interest::always()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        !(QuietEnd::concerns(metadata) && STOPPING.load(Ordering::Relaxed))
    }
}

/// A panic is a defect of ours. The log gets one line with its place, instead of a trace on a terminal that nobody
/// watches; `RUST_BACKTRACE=1` adds the trace. What becomes of the node is not decided here: a task that it cannot
/// do without reports its own end as fatal, and any other takes one call with it.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        let trace = std::backtrace::Backtrace::capture();
        let trace = (trace.status() == std::backtrace::BacktraceStatus::Captured).then(|| trace.to_string());
        tracing::error!(
            place,
            message,
            trace,
            "a task panicked; this is a defect, please report it"
        );
    }));
}

/// Lets this process open as many files and connections as the system allows it; the default of many shells is
/// below what RocksDB and a few hundred clients need.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(open_files_max = ?limit.maximum, "raised the limit of open files"),
        Err(error) => {
            tracing::warn!(%error, open_files_max = ?limit.current, "the limit of open files stays as it is")
        }
    }
}

/// Opens the engine, starts the node, and stops it in an orderly way when told to.
async fn serve_until_told(config: Config) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let options = OpenOptions {
        directory: config.node.data_dir.clone(),
        // The other half is for requests, Raft's queues and the process itself.
        memory_budget_bytes: config.limits.memory_budget_mib * 1024 * 1024 / 2,
        ballast_bytes: config.disk.ballast_mib * 1024 * 1024,
    };
    // Recovery reads files for as long as it takes.
    let opened = tokio::task::spawn_blocking(move || RocksEngine::open(options)).await;
    let engine = opened
        .map_err(|error| Failure::new(Exit::Internal, format!("opening the data directory: {error}")))?
        .map_err(|error| Failure::new(Exit::Fatal, error.to_string()))?;
    let node_id = config.node.id;
    let node = holdfast_node::start(config, Arc::new(engine), Arc::new(SystemClock))
        .await
        .map_err(|error| not_started(&error))?;
    tokio::select! {
        biased;
        // Nothing may be acknowledged any more, so there is nothing to end in an orderly way.
        reason = node.wait_fatal() => Err(fatal(node_id, &reason)),
        signal = signals.next() => {
            STOPPING.store(true, Ordering::Relaxed);
            tracing::info!(signal, "stopping: handing leadership over, then finishing what is under way");
            tokio::select! {
                biased;
                reason = node.wait_fatal() => Err(fatal(node_id, &reason)),
                () = node.shutdown() => Ok(()),
                signal = signals.next() => {
                    let why = format!("a second {signal} came while stopping; stopped at once");
                    Err(Failure::new(Exit::Interrupted, why))
                }
            }
        }
    }
}

/// A wrong setting or a taken port is the operator's to change; a data directory that cannot be used is a reason to
/// stay away from it.
fn not_started(error: &StartError) -> Failure {
    let exit = match error {
        StartError::Config(_) | StartError::Transport(_) | StartError::Found(_) => Exit::Usage,
        StartError::Consensus(_)
        | StartError::IdUsed { .. }
        | StartError::Removed { .. }
        | StartError::OtherCluster { .. } => Exit::Fatal,
    };
    Failure::new(exit, error.to_string())
}

/// What tells a process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::io("signals", &error));
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(config: Option<PathBuf>) -> Serve {
        Serve {
            config,
            check_config: true,
            insecure: false,
            node_id: None,
            data_dir: None,
            log_format: None,
            log_level: None,
            settings: Vec::new(),
        }
    }

    fn environment(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        pairs.into_iter()
    }

    #[test]
    fn each_layer_overrides_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.toml");
        std::fs::write(
            &file,
            "[node]\nid = 1\n[raft]\nheartbeat_ms = 60\nelection_timeout_ms_min = 400\n",
        )
        .unwrap();
        let mut serve = serve(Some(file));
        let variables = [
            ("HOLDFAST_RAFT__HEARTBEAT_MS", "70"),
            ("HOLDFAST_NODE__ID", "2"),
            ("HOLDFAST_CLUSTER__ID", "8c1f1e0c-6d0b-4b57-9a42-6f3f0d2f5a10"),
            // Those of the other commands are no settings of a node.
            ("HOLDFAST_ENDPOINTS", "127.0.0.1:1"),
            ("PATH", "/bin"),
        ];
        let config = load(&serve, environment(&variables)).unwrap();
        assert_eq!(
            (
                config.node.id,
                config.raft.heartbeat_ms,
                config.raft.election_timeout_ms_min
            ),
            (2, 70, 400)
        );
        assert_eq!(
            config.raft.election_timeout_ms_max,
            Config::default().raft.election_timeout_ms_max
        );
        assert_eq!(
            config.cluster.id.to_string(),
            "8c1f1e0c-6d0b-4b57-9a42-6f3f0d2f5a10"
        );

        serve.settings = vec![
            ("raft.heartbeat_ms".into(), "80".into()),
            ("log.level".into(), "debug".into()),
        ];
        serve.node_id = Some(3);
        serve.insecure = true;
        serve.data_dir = Some("elsewhere".into());
        let config = load(&serve, environment(&variables)).unwrap();
        assert_eq!(
            (config.node.id, config.raft.heartbeat_ms, config.insecure),
            (3, 80, true)
        );
        assert_eq!(
            (config.log.level.as_str(), config.node.data_dir.to_str()),
            ("debug", Some("elsewhere"))
        );
    }

    #[test]
    fn the_end_is_quiet_only_for_who_was_told_to_stop() {
        #[derive(Clone, Default)]
        struct Written(Arc<std::sync::Mutex<Vec<u8>>>);
        impl std::io::Write for Written {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish()
            .with(QuietEnd);
        tracing::subscriber::with_default(subscriber, || {
            for stopping in [false, true] {
                STOPPING.store(stopping, Ordering::Relaxed);
                tracing::error!(target: "openraft::raft::raft_inner", stopping, "raft");
                tracing::error!(target: "holdfast_node", stopping, "ours");
            }
            STOPPING.store(false, Ordering::Relaxed);
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let said = |who: &str| text.lines().filter(|line| line.contains(who)).count();
        assert_eq!(
            (said("raft stopping=false"), said("ours stopping")),
            (1, 2),
            "{text}"
        );
        assert_eq!(said("raft stopping=true"), 0, "{text}");
    }

    #[test]
    fn mistakes_are_usage_errors() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.toml");
        for text in [
            "[raft]\nhartbeat_ms = 1\n",
            "[raft]\nheartbeat_ms = \"soon\"\n",
            "[raft\n",
        ] {
            std::fs::write(&file, text).unwrap();
            let failure = load(&serve(Some(file.clone())), environment(&[])).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{text}");
        }
        let missing = load(&serve(Some("no/such/file.toml".into())), environment(&[])).unwrap_err();
        assert_eq!(missing.exit, Exit::Usage);
        let misspelt = load(&serve(None), environment(&[("HOLDFAST_RAFT__HARTBEAT_MS", "1")])).unwrap_err();
        assert!(misspelt.message.contains("hartbeat_ms"), "{}", misspelt.message);
    }
}
