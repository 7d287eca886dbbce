//! A process that may open no more files: in a process of its own, since the limit is the process's.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic, too")]

mod common;

use std::fs::File;
use std::time::Duration;

use common::{Cluster, create};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Whoever is connected is served meanwhile, whoever comes is accepted later, and the node does not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_descriptors_waits_for_some() {
    let cluster = Cluster::started(1).await;
    let mut connected = cluster.accounts(1);
    connected.create_account(create("ann@example.com")).await.unwrap();

    let before = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(256),
            maximum: before.maximum,
        },
    )
    .unwrap();
    let mut files = Vec::new();
    // Connections that were made to see that the cluster serves may still be closing.
    let mut quiet = 0;
    while quiet < 10 {
        let before = files.len();
        files.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        quiet = if files.len() == before { quiet + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // One for this end of a connection; none is left for the other.
    files.pop().expect("fewer than 256 were open");
    let mut waiting = TcpStream::connect(cluster.configs[&1].listen_metrics())
        .await
        .unwrap();
    waiting
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let answered = tokio::time::timeout(Duration::from_millis(500), waiting.read_u8()).await;
    assert!(answered.is_err(), "there was no descriptor to accept it with");
    connected.create_account(create("bob@example.com")).await.unwrap();

    drop(files);
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(10), waiting.read_to_string(&mut text))
        .await
        .expect("it is accepted now")
        .unwrap();
    assert!(
        text.contains("holdfast_accept_errors_total{port=\"metrics\"}"),
        "{text}"
    );
    setrlimit(Resource::Nofile, before).unwrap();
}
