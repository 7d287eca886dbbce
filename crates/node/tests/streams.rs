//! Imports, exports and lists on three nodes in one process.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic, too")]

mod common;

use std::collections::BTreeSet;

use common::{Cluster, create, reason};
use futures::stream;
use holdfast_wire::v1;
use holdfast_wire::v1::export_accounts_response::Payload as Exported;
use holdfast_wire::v1::import_accounts_request::Payload as Asked;
use holdfast_wire::v1::import_accounts_response::Payload as Answer;
use tonic::{Code, Status};
use uuid::Uuid;

fn options(import_id: Uuid, mode: v1::ImportMode) -> v1::ImportAccountsRequest {
    let options = v1::ImportOptions {
        parent: "realms/default".into(),
        import_id: import_id.to_string(),
        mode: mode.into(),
        context: None,
    };
    v1::ImportAccountsRequest {
        payload: Some(Asked::Options(options)),
    }
}

fn item(index: u64, email: &str) -> v1::ImportAccountsRequest {
    let account = create(email).account;
    let item = v1::ImportItem {
        index,
        account_id: String::new(),
        account,
    };
    v1::ImportAccountsRequest {
        payload: Some(Asked::Item(item)),
    }
}

/// What an import answered: where its header says to resume, results, and the last position.
struct Imported {
    resume_after: u64,
    results: Vec<v1::ImportItemResult>,
    position: u64,
}

async fn import(
    cluster: &Cluster,
    node: u64,
    messages: Vec<v1::ImportAccountsRequest>,
) -> Result<Imported, Status> {
    let mut answers = cluster
        .accounts(node)
        .import_accounts(stream::iter(messages))
        .await?
        .into_inner();
    let mut imported = Imported {
        resume_after: 0,
        results: Vec::new(),
        position: 0,
    };
    while let Some(answer) = answers.message().await? {
        imported.position = answer.resume_after_index;
        match answer.payload.unwrap() {
            Answer::Header(header) => imported.resume_after = header.resume_after_index,
            Answer::Result(result) => imported.results.push(result),
        }
    }
    Ok(imported)
}

async fn list_all(cluster: &Cluster, page_size: i32) -> Vec<String> {
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListAccountsRequest {
            parent: "realms/default".into(),
            page_size,
            page_token,
            ..v1::ListAccountsRequest::default()
        };
        let page = cluster
            .accounts(cluster.follower())
            .list_accounts(request)
            .await
            .unwrap()
            .into_inner();
        assert!(page.accounts.len() <= page_size as usize);
        names.extend(page.accounts.into_iter().map(|account| account.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return names;
        }
    }
}

/// Through a follower: every item has one result, in order; collisions are rejected; sent again, the import has
/// the same results and no further effect; list and export agree on what there is.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_takes_effect_once() {
    let cluster = Cluster::started(3).await;
    let follower = cluster.follower();
    let import_id = Uuid::now_v7();
    let mut messages = vec![options(import_id, v1::ImportMode::Create)];
    // Every tenth address occurs twice, and one item is malformed.
    messages.extend((1..=500_u64).map(|index| match index {
        77 => item(index, "not an email"),
        index if index % 10 == 0 => item(index, &format!("user{}@example.com", index - 1)),
        index => item(index, &format!("user{index}@example.com")),
    }));
    let first = import(&cluster, follower, messages.clone()).await.unwrap();
    assert_eq!(first.resume_after, 0);
    assert_eq!(first.position, 500, "the last result tells that all are stored");
    let indexes: Vec<_> = first.results.iter().map(|result| result.index).collect();
    assert_eq!(indexes, (1..=500).collect::<Vec<_>>());
    for result in &first.results {
        match result.index {
            77 => {
                assert_eq!(
                    (result.code, result.reason()),
                    (Code::InvalidArgument as i32, v1::Reason::InvalidField)
                );
                assert_eq!(result.violations[0].field, "account.identifiers[0].value");
            }
            _ => assert!(matches!(result.code, 0 | 6), "{result:?}"),
        }
    }
    // Of two with the same address one wins; mostly, not always, the first.
    let created: BTreeSet<_> = first
        .results
        .iter()
        .filter(|result| result.code == 0)
        .map(|result| result.name.clone())
        .collect();
    assert_eq!(created.len(), 449);

    let again = import(&cluster, cluster.leader().unwrap(), messages)
        .await
        .unwrap();
    assert_eq!(again.resume_after, 500);
    assert_eq!(again.results, first.results);

    let listed = list_all(&cluster, 100).await;
    assert_eq!(listed.len(), 449, "each once");
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), created);

    let request = v1::ExportAccountsRequest {
        parent: "realms/default".into(),
        ..Default::default()
    };
    let mut answers = cluster
        .accounts(follower)
        .export_accounts(request)
        .await
        .unwrap()
        .into_inner();
    let mut exported = Vec::new();
    let Some(Exported::Header(header)) = answers.message().await.unwrap().unwrap().payload else {
        panic!("the header comes first")
    };
    assert!(header.positions[0].log_index > 0);
    while let Some(answer) = answers.message().await.unwrap() {
        let Some(Exported::Batch(batch)) = answer.payload else {
            panic!("only batches follow")
        };
        exported.extend(batch.accounts.into_iter().map(|account| account.name));
    }
    assert_eq!(exported, listed, "the same order, too");
}

/// Upsert and skip say what they did; indexes must rise; options come first.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_says_what_it_did() {
    let cluster = Cluster::started(1).await;
    let named = |index, name: &str| {
        let account = v1::Account {
            display_name: name.into(),
            ..v1::Account::default()
        };
        let item = v1::ImportItem {
            index,
            account_id: "user-1".into(),
            account: Some(account),
        };
        v1::ImportAccountsRequest {
            payload: Some(Asked::Item(item)),
        }
    };
    let mut actions = Vec::new();
    for (mode, name) in [
        (v1::ImportMode::Upsert, "a"),
        (v1::ImportMode::Upsert, "b"),
        (v1::ImportMode::Skip, "c"),
        (v1::ImportMode::Create, "d"),
    ] {
        let messages = vec![options(Uuid::now_v7(), mode), named(1, name)];
        let imported = import(&cluster, 1, messages).await.unwrap();
        actions.push((imported.results[0].action(), imported.results[0].revision));
    }
    use v1::ImportAction::{Created, Rejected, Skipped, Updated};
    assert_eq!(actions, [(Created, 1), (Updated, 2), (Skipped, 2), (Rejected, 0)]);

    let options = || options(Uuid::now_v7(), v1::ImportMode::Create);
    for bad in [
        vec![named(1, "a")],
        vec![options(), options()],
        vec![options(), named(2, "a"), named(1, "b")],
        vec![options(), named(0, "a")],
    ] {
        let error = import(&cluster, 1, bad).await.err().expect("it is malformed");
        assert_eq!(
            (error.code(), reason(&error).as_str()),
            (Code::InvalidArgument, "INVALID_FIELD")
        );
    }
}
