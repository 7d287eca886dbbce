//! Reads that are gathered into batches.

use std::collections::BTreeSet;

use futures::future::join_all;
use holdfast_client::Gather;

use super::*;

/// Accounts that one answer has room for.
const ROOM: usize = 60;

/// What the service answers: an account for each name, none for those of nobodies; the rest stays unread.
pub(crate) fn answer(
    request: v1::BatchGetAccountsRequest,
    template: Response<v1::BatchGetAccountsResponse>,
) -> Response<v1::BatchGetAccountsResponse> {
    let names = request.names;
    assert!(
        (1..=100).contains(&names.len()),
        "{} names in one batch",
        names.len()
    );
    assert_eq!(
        names.iter().collect::<BTreeSet<_>>().len(),
        names.len(),
        "a name twice"
    );
    let mut template = template;
    let answer = template.get_mut();
    for name in names {
        if name.contains("nobody") {
            answer.not_found_names.push(name);
        } else if answer.accounts.len() < ROOM {
            answer.accounts.push(v1::Account {
                name,
                ..v1::Account::default()
            });
        } else {
            answer.unread_names.push(name);
        }
    }
    template
}

fn gather(server: &Scripted) -> Gather {
    client(&[&server.address]).gather("realms/default", CallOptions::default())
}

#[tokio::test]
async fn reads_that_wait_together_travel_together_and_each_gets_its_own() {
    let server = Scripted::start([]).await;
    let gather = gather(&server);
    // Some ids twice, some of nobody.
    let ids: Vec<String> = (0..500)
        .map(|read| match read % 5 {
            0 => format!("nobody{read}"),
            1 => "twin".to_owned(),
            _ => format!("account{read}"),
        })
        .collect();
    let answers = join_all(ids.iter().map(|id| gather.get_account(id))).await;
    for (id, answer) in ids.iter().zip(answers) {
        let expected = (!id.starts_with("nobody")).then(|| format!("realms/default/accounts/{id}"));
        assert_eq!(answer.unwrap().map(|account| account.name), expected, "{id}");
    }
    // 401 names, of which 301 are accounts: at least as many answers as have room for them.
    let calls = server.calls();
    assert!((6..=50).contains(&calls), "{calls} calls");

    // One alone does not wait for company.
    assert!(gather.get_account("lonely").await.unwrap().is_some());
    assert_eq!(server.calls(), calls + 1);
}

#[tokio::test]
async fn a_batch_that_fails_fails_for_all_in_it_and_the_next_one_flies() {
    let not_found = Reason::AccountNotFound;
    let server = Scripted::start([problem(not_found)]).await;
    let gather = gather(&server);
    let answers = join_all(["a", "b", "a"].map(|id| gather.get_account(id))).await;
    for answer in answers {
        assert_eq!(answer.unwrap_err().reason, "ACCOUNT_NOT_FOUND");
    }
    assert!(gather.get_account("c").await.unwrap().is_some());
}

#[tokio::test]
async fn a_read_in_a_batch_that_never_comes_back_ends_by_its_deadline() {
    let server = Scripted::start([Act::Freeze, Act::Freeze, Act::Freeze, Act::Freeze]).await;
    let options = CallOptions::deadline(Duration::from_millis(200));
    let gather = client(&[&server.address]).gather("realms/default", options);
    let begun = Instant::now();
    let answers = join_all((0..300).map(|read| {
        let gather = gather.clone();
        async move { gather.get_account(&format!("account{read}")).await }
    }))
    .await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!(error.code, Code::DeadlineExceeded, "{error:?}");
    }
}
