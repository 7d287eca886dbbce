//! `holdfast export`: all accounts as JSON Lines, as they were at one position of the change log.
//!
//! A file appears under its name only once it is complete. Its position is written beside it
//! (`FILE.position.json`), so that a reader of changes can go on from there.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_client::{Client, v1};
use serde_json::{Value, json};

use crate::args::{Freshness, Global, token_text};
use crate::exit::{Exit, Failure};
use crate::json::{AccountJson, state};
use crate::output::Format;
use crate::progress::{Progress, thousands};

/// How often an export to a file is begun again before giving up.
const ATTEMPTS_MAX: u32 = 5;

/// Export all accounts as JSON Lines.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The file to write, which appears once it is complete; without one, standard output.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same as FILE.
    #[arg(long, short, value_name = "FILE", conflicts_with = "file")]
    out: Option<PathBuf>,
    /// Only accounts in this state (active, suspended, pending-deletion, deleted). May be repeated. By default
    /// all except deleted ones.
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Vec<v1::AccountState>,
    /// Show no progress.
    #[arg(long)]
    no_progress: bool,
    #[command(flatten)]
    freshness: Freshness,
}

/// Runs the command.
pub(crate) async fn run(export: &Export, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let request = v1::ExportAccountsRequest {
        parent: global.realm_name(),
        states: export.state.iter().map(|state| (*state).into()).collect(),
        consistency: export.freshness.consistency()?,
    };
    let human = global.output == Format::Human;
    let file = export.file.as_ref().or(export.out.as_ref());
    let visible = human && !export.no_progress && std::io::stderr().is_terminal() && file.is_some();
    let Some(path) = file else {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let position = copy(&client, &request, global, &mut out, false).await?.0;
        out.flush().map_err(output_failed)?;
        eprintln!("{}", json!({ "position": position }));
        return Ok(());
    };
    // Before anything is written beside it.
    if path.is_dir() {
        return Err(Failure::usage(format!(
            "{} is a directory; name the file to write",
            path.display()
        )));
    }
    let mut attempt = 1;
    let (position, accounts) = loop {
        match to_file(&client, &request, global, path, visible).await {
            Err(failure) if failure.exit == Exit::Unavailable && attempt < ATTEMPTS_MAX => {
                eprintln!("the export broke off ({}); beginning again", failure.message);
                attempt += 1;
            }
            other => break other?,
        }
    };
    let document = json!({ "file": path.display().to_string(), "accounts": accounts, "position": position });
    crate::output::result(global.output, &document, || {
        format!(
            "{} accounts in {}, position in {}",
            thousands(accounts),
            path.display(),
            beside(path, ".position.json").display()
        )
    })
}

/// Writes a temporary file beside `path`, and gives it its name when everything is in it and on the disk.
async fn to_file(
    client: &Client,
    request: &v1::ExportAccountsRequest,
    global: &Global,
    path: &Path,
    visible: bool,
) -> Result<(Value, u64), Failure> {
    let partial = beside(path, ".partial");
    let failed = |error: std::io::Error| Failure::io(partial.display(), &error);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&partial).map_err(failed)?);
    let copied = copy(client, request, global, &mut out, visible).await;
    let (position, accounts) = match copied {
        Ok(copied) => copied,
        Err(failure) => {
            drop(out);
            let _ = std::fs::remove_file(&partial);
            return Err(failure);
        }
    };
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    let position_path = beside(path, ".position.json");
    std::fs::write(&position_path, format!("{position}\n"))
        .map_err(|error| Failure::io(position_path.display(), &error))?;
    std::fs::rename(&partial, path).map_err(|error| Failure::io(path.display(), &error))?;
    Ok((position, accounts))
}

/// Copies one export to `out`. Returns its position and how many accounts it has.
async fn copy(
    client: &Client,
    request: &v1::ExportAccountsRequest,
    global: &Global,
    out: &mut impl Write,
    visible: bool,
) -> Result<(Value, u64), Failure> {
    let mut export = client.export_accounts(request.clone(), &global.call()).await?;
    let mut progress = Progress::new(None, visible);
    let mut accounts = 0;
    while let Some(batch) = export.next_batch().await? {
        for account in batch {
            let mut line = serde_json::to_vec(&AccountJson::from(account))
                .map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
            line.push(b'\n');
            out.write_all(&line).map_err(output_failed)?;
            accounts += 1;
            progress.settled(true, accounts);
        }
    }
    progress.finish();
    Ok((position(&export.header), accounts))
}

fn position(header: &v1::ExportHeader) -> Value {
    let shards: Vec<Value> = header
        .positions
        .iter()
        .map(|shard| json!({ "shard": shard.shard, "epoch": shard.epoch, "log_index": shard.log_index }))
        .collect();
    json!({ "shards": shards, "consistency_token": token_text(&header.consistency_token) })
}

fn output_failed(error: std::io::Error) -> Failure {
    Failure::new(Exit::Internal, format!("cannot write the accounts: {error}"))
}

/// `path` with `suffix` added to its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
