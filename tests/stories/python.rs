//! A client in another language, generated from `proto/` with nothing but its own tools.

use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_tests::cluster::{Cluster, binary};
use holdfast_tests::skip;

const TEST: &str = "a_python_client_generated_from_the_protos_works";

/// grpcio-tools in a virtual environment beside the binary under test, made once.
fn environment() -> Result<PathBuf, String> {
    let directory = binary().parent().unwrap().join("python-venv");
    let python = directory.join("bin/python");
    let ready = |python: &Path| {
        Command::new(python)
            .args(["-c", "import grpc_tools"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if ready(&python) {
        return Ok(python);
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&directory))?;
    run(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "grpcio-tools",
    ]))?;
    if ready(&python) {
        Ok(python)
    } else {
        Err("grpcio-tools does not load".to_owned())
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|why| format!("{command:?}: {why}"))?;
    let err = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{command:?}: {}", err.lines().last().unwrap_or("failed")))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_generated_from_the_protos_works() {
    let python = match environment() {
        Ok(python) => python,
        Err(why) => return skip(TEST, &why),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let generated = tempfile::tempdir().unwrap();
    let mut protoc = Command::new(&python);
    protoc
        .args(["-m", "grpc_tools.protoc", "--proto_path"])
        .arg(root.join("proto"));
    for flag in ["--python_out", "--grpc_python_out"] {
        protoc.arg(flag).arg(generated.path());
    }
    for directory in ["holdfast/v1", "google/api"] {
        for entry in std::fs::read_dir(root.join("proto").join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "proto") {
                protoc.arg(path);
            }
        }
    }
    run(&mut protoc).unwrap();

    let cluster = Cluster::start().await;
    let story = root.join("tests/python/story.py");
    let address = cluster.client_address(3);
    let said = tokio::task::spawn_blocking(move || {
        run(Command::new(python).arg(story).arg(generated.path()).arg(address))
    });
    assert_eq!(said.await.unwrap().unwrap().trim(), "created, found, updated");
}
