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
    batch(vec![item])
}

fn batch(items: Vec<v1::ImportItem>) -> v1::ImportAccountsRequest {
    v1::ImportAccountsRequest {
        payload: Some(Asked::Batch(v1::ImportBatch { items })),
    }
}

/// What an import answered: where its header says to resume, results, and the last position.
struct Imported {
    resume_after: u64,
    results: Vec<v1::ImportItemResult>,
    answers: usize,
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
        answers: 0,
        position: 0,
    };
    while let Some(answer) = answers.message().await? {
        imported.position = answer.resume_after_index;
        imported.answers += 1;
        match answer.payload.unwrap() {
            Answer::Header(header) => imported.resume_after = header.resume_after_index,
            Answer::Batch(batch) => imported.results.extend(batch.results),
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
        batch(vec![item])
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
        vec![options(), batch(vec![])],
        vec![options(), batch(vec![v1::ImportItem::default(); 1001])],
    ] {
        let error = import(&cluster, 1, bad).await.err().expect("it is malformed");
        assert_eq!(
            (error.code(), reason(&error).as_str()),
            (Code::InvalidArgument, "INVALID_FIELD")
        );
    }
}

/// Ten thousand tiny items as fast as they can be written, which one message each would not survive.
#[tokio::test(flavor = "multi_thread")]
async fn items_come_and_go_in_batches() {
    let cluster = Cluster::started(1).await;
    let mut messages = vec![options(Uuid::now_v7(), v1::ImportMode::Skip)];
    for first in (1..=10_000_u64).step_by(1_000) {
        let items = (first..first + 1_000).map(|index| v1::ImportItem {
            index,
            account_id: format!("tiny-{}", index % 10),
            account: Some(v1::Account::default()),
        });
        messages.push(batch(items.collect()));
    }
    let imported = import(&cluster, 1, messages).await.unwrap();
    let indexes: Vec<_> = imported.results.iter().map(|result| result.index).collect();
    assert_eq!(indexes, (1..=10_000).collect::<Vec<_>>());
    assert_eq!(imported.position, 10_000);
    assert!(
        imported.answers < 5_000,
        "results come together: {}",
        imported.answers
    );
}

/// The items of one import need more memory than the node has for requests: it must work some off before it
/// takes more.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_larger_than_memory_goes_on() {
    let mut cluster = Cluster::new(1);
    cluster.configs.get_mut(&1).unwrap().limits.memory_budget_mib = 64;
    cluster.start(1).await;
    cluster.wait_ready().await;
    let large = |index: u64| {
        let value = v1::attribute::Value::StringValue("x".repeat(60 * 1024));
        let attribute = v1::Attribute {
            value: Some(value),
            ..Default::default()
        };
        let attributes = (0..3).map(|number| (format!("bulk{number}"), attribute.clone()));
        let account = v1::Account {
            attributes: attributes.collect(),
            ..v1::Account::default()
        };
        batch(vec![v1::ImportItem {
            index,
            account_id: format!("large-{index}"),
            account: Some(account),
        }])
    };
    let mut messages = vec![options(Uuid::now_v7(), v1::ImportMode::Create)];
    messages.extend((1..=80).map(large));
    let importing = import(&cluster, 1, messages);
    let imported = tokio::time::timeout(std::time::Duration::from_secs(60), importing)
        .await
        .expect("it waited for memory that it held itself")
        .unwrap();
    assert!(imported.results.iter().all(|result| result.code == 0));
    assert_eq!(imported.position, 80);
}

/// What an import has done so far is not what another mode would have done.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_resumed_in_its_own_mode() {
    let cluster = Cluster::started(1).await;
    let import_id = Uuid::now_v7();
    let begin = |mode| vec![options(import_id, mode), item(1, "ann@example.com")];
    let first = import(&cluster, 1, begin(v1::ImportMode::Create)).await.unwrap();
    assert_eq!(first.results.len(), 1);
    let error = import(&cluster, 1, begin(v1::ImportMode::Upsert))
        .await
        .err()
        .expect("another mode");
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::InvalidArgument, "INVALID_FIELD")
    );
    let view = holdfast_wire::status::ErrorView::of(&error).unwrap();
    assert_eq!(view.violations[0].field, "options.mode");
    assert!(view.violations[0].description.contains("CREATE"), "{view:?}");
    let again = import(&cluster, 1, begin(v1::ImportMode::Create)).await.unwrap();
    assert_eq!(again.results, first.results);
}
