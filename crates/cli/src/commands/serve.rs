//! `holdfast serve`: one node, until it is told to stop.
//!
//! Settings come in layers, each overriding the one before: built-in defaults, the TOML file, environment
//! variables (`HOLDFAST_RAFT__HEARTBEAT_MS` for `raft.heartbeat_ms`), `--set`, and the flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use holdfast_node::Config;
use holdfast_node::config::LogFormat;
use serde_json::json;

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
        let source = serve.config.as_deref().map_or("the configuration".into(), |path| path.display().to_string());
        return Err(Failure::usage(format!("{source} cannot be used:{}", listed.concat())));
    }
    if serve.check_config {
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
    start_logging(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("holdfast")
        .build()
        .map_err(|error| Failure::io("cannot start the runtime", &error))?;
    let ended = runtime.block_on(serve_until_told(config));
    // Blocking work that hangs (a disk that does not answer) must not keep a stopped node from exiting.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ended
}

/// Merges the layers.
fn load(serve: &Serve, environment: impl Iterator<Item = (String, String)>) -> Result<Config, Failure> {
    let wrong = |error: config::ConfigError| Failure::usage(format!("configuration: {error}"));
    let mut builder = config::Config::builder();
    if let Some(path) = &serve.config {
        if !path.exists() {
            return Err(Failure::usage(format!("there is no configuration file {}", path.display())));
        }
        builder = builder.add_source(config::File::from(path.as_path()).format(config::FileFormat::Toml));
    }
    let environment = config::Environment::default().separator("__").source(Some(node_settings(environment)));
    builder = builder.add_source(environment.try_parsing(true));
    for (name, value) in &serve.settings {
        builder = builder.set_override(name, scalar(value)).map_err(wrong)?;
    }
    let flags: [(&str, Option<config::Value>); 5] = [
        ("node.id", serve.node_id.map(Into::into)),
        ("node.data_dir", serve.data_dir.as_deref().map(|path: &Path| path.to_string_lossy().into_owned().into())),
        ("log.format", serve.log_format.clone().map(Into::into)),
        ("log.level", serve.log_level.clone().map(Into::into)),
        ("insecure", serve.insecure.then_some(true).map(Into::into)),
    ];
    for (name, value) in flags {
        builder = builder.set_override_option(name, value).map_err(wrong)?;
    }
    builder.build().and_then(config::Config::try_deserialize).map_err(wrong)
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
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.level)
        .map_err(|error| Failure::usage(format!("log.level: {error}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match config.log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Human => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
    };
    installed.map_err(|error| Failure::new(Exit::Internal, format!("logging: {error}")))
}
