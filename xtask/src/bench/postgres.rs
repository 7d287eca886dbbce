//! PostgreSQL: data directories laid out by its own tools, and its command line.
//!
//! The system's cluster, if the package made one, is not touched. The server refuses to run as root, so root becomes
//! `postgres`, the package's user, for it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::store::Store;
use crate::{Failure, local, prerequisites};

/// What every node has, from the repository.
const COMMON: &str = include_str!("../../../benches/peers/settings/postgresql.conf");

/// How long a server that was just started may take to accept connections.
const ACCEPT_LIMIT: Duration = Duration::from_secs(30);

/// One of PostgreSQL's programs, as the user that may run it.
fn program(bin: &Path, name: &str) -> Command {
    let path = bin.join(name);
    if !prerequisites::is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"])
        .arg(path);
    command
}

/// The data directory of a primary, new.
pub(crate) fn lay_out_primary(bin: &Path, data: &Path) -> Result<(), Failure> {
    let mut command = program(bin, "initdb");
    command
        .args([
            "--no-locale",
            "--encoding=UTF8",
            "--auth=trust",
            "--username=postgres",
            "-D",
        ])
        .arg(data);
    finish(command)?;
    let path = data.join("postgresql.conf");
    let own = fs::read_to_string(&path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
    fs::write(&path, format!("{own}\n{COMMON}"))
        .map_err(|why| format!("cannot write {}: {why}", path.display()))
}

/// The data directory of a standby: a copy of the primary's, settings included.
pub(crate) fn lay_out_standby(bin: &Path, data: &Path, store: Store) -> Result<(), Failure> {
    let mut command = program(bin, "pg_basebackup");
    command
        // -R: it shall be a standby.
        .args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-X",
            "stream",
            "-c",
            "fast",
            "-R",
            "-p",
        ])
        .arg(store.client_port(1).to_string())
        .arg("-D")
        .arg(data);
    finish(command)
}

/// The server at this place. The first is the primary.
pub(crate) fn server(bin: &Path, data: &Path, store: Store, place: usize) -> Command {
    let mut command = program(bin, "postgres");
    command
        .arg("-D")
        .arg(data)
        .args(["-p", &store.client_port(place).to_string()])
        .args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
        ]);
    if place > 1 {
        command.arg("-c").arg(format!(
            "primary_conninfo=host=127.0.0.1 port={} user=postgres application_name=standby{}",
            store.client_port(1),
            place - 1
        ));
    }
    command
}

/// Waits until the server at this place accepts connections.
pub(crate) fn wait_for(bin: &Path, store: Store, place: usize) -> Result<(), Failure> {
    let accepts = || {
        Command::new(bin.join("pg_isready"))
            .args([
                "-q",
                "-h",
                "127.0.0.1",
                "-p",
                &store.client_port(place).to_string(),
            ])
            .status()
            .is_ok_and(|status| status.success())
    };
    if local::wait_until(ACCEPT_LIMIT, accepts) {
        Ok(())
    } else {
        Err(format!(
            "node {place} of {} accepts no connections within {} s",
            store.name(),
            ACCEPT_LIMIT.as_secs()
        ))
    }
}

/// Gives a new, empty directory to the user who runs the server.
pub(crate) fn own(directory: &Path) -> Result<(), Failure> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(directory, mode)
        .map_err(|why| format!("cannot change {}: {why}", directory.display()))?;
    if !prerequisites::is_root() {
        return Ok(());
    }
    let mut command = Command::new("chown");
    command.arg("postgres:").arg(directory);
    finish(command)
}

/// Writes everything that is only in memory and the log into the tables' files, so that the disk is at rest.
pub(crate) fn checkpoint(bin: &Path, store: Store) {
    for place in store.places() {
        let mut command = Command::new(bin.join("psql"));
        command
            .args([
                "-q",
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-c",
                "CHECKPOINT",
                "-p",
            ])
            .arg(store.client_port(place).to_string());
        if let Err(why) = finish(command) {
            println!("no checkpoint: {why}");
        }
    }
}

fn finish(mut command: Command) -> Result<(), Failure> {
    let output = command
        .output()
        .map_err(|why| format!("cannot run {:?}: {why}", command.get_program()))?;
    if output.status.success() {
        Ok(())
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?} failed: {}", errors.trim()))
    }
}
