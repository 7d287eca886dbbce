//! Bad input, and what the caller is told: code, reason, and where it helps, which field.

use holdfast_tests::api::{self, Accounts};
use holdfast_tests::cluster::Cluster;
use holdfast_wire::v1::{self, IdentifierKind};
use tonic::{Code, Status};

async fn created(accounts: &mut Accounts, id: &str) -> v1::Account {
    let create = api::create(id, &format!("{id}@example.com"), &api::request_id());
    accounts
        .create_account(api::request(create, api::CALL_LIMIT))
        .await
        .unwrap()
        .into_inner()
        .account
        .unwrap()
}

fn violated_fields(status: &Status) -> Vec<String> {
    let view = holdfast_wire::status::ErrorView::of(status).unwrap();
    view.violations
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_name_every_field_that_is_wrong() {
    let cluster = Cluster::start().await;
    // A follower's answer: malformed input is refused where it arrives.
    let mut accounts = api::accounts(&cluster.client_address(cluster.follower().await))
        .await
        .unwrap();

    let mut create = api::create("two-wrongs", "no-at-sign", &api::request_id());
    let account = create.account.as_mut().unwrap();
    account
        .identifiers
        .push(api::identifier(IdentifierKind::Phone, "+4912"));
    account
        .identifiers
        .push(api::identifier(IdentifierKind::Username, "looks@like.example"));
    let answer = accounts
        .create_account(api::request(create, api::CALL_LIMIT))
        .await;
    let status = api::assert_status(answer, Code::InvalidArgument, "INVALID_FIELD");
    let fields = violated_fields(&status);
    for at in 0..3 {
        let field = format!("account.identifiers[{at}].value");
        assert!(fields.contains(&field), "{field} is missing in {fields:?}");
    }

    let update = v1::UpdateAccountRequest {
        account: Some(v1::Account {
            name: api::account_name("anyone"),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["revision".to_owned(), "shoe_size".to_owned()],
        }),
        request_id: api::request_id(),
        ..Default::default()
    };
    let answer = accounts
        .update_account(api::request(update, api::CALL_LIMIT))
        .await;
    let status = api::assert_status(answer, Code::InvalidArgument, "INVALID_FIELD");
    assert!(
        violated_fields(&status)
            .iter()
            .any(|field| field.starts_with("update_mask")),
        "{status:?}"
    );

    let list = v1::ListAccountsRequest {
        parent: api::REALM.to_owned(),
        page_token: "bm90IG9uZQ".to_owned(),
        ..Default::default()
    };
    let answer = accounts.list_accounts(api::request(list, api::CALL_LIMIT)).await;
    let status = api::assert_status(answer, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(violated_fields(&status), ["page_token"]);

    let answer = accounts
        .create_account(api::request(
            api::create("x", "x@example.com", "17"),
            api::CALL_LIMIT,
        ))
        .await;
    let status = api::assert_status(answer, Code::InvalidArgument, "INVALID_FIELD");
    assert_eq!(violated_fields(&status), ["request_id"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_have_a_largest_size() {
    let cluster = Cluster::start().await;
    let mut accounts = api::accounts(&cluster.client_address(1)).await.unwrap();
    let mut create = api::create("whale", "whale@example.com", &api::request_id());
    for number in 0..10 {
        let value = v1::attribute::Value::StringValue("x".repeat(40 * 1024));
        let attribute = v1::Attribute {
            value: Some(value),
            ..Default::default()
        };
        create
            .account
            .as_mut()
            .unwrap()
            .attributes
            .insert(format!("bulk{number}"), attribute);
    }
    let answer = accounts
        .create_account(api::request(create, api::CALL_LIMIT))
        .await;
    let status = answer.expect_err("400 KiB exceed the default of 256");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(!violated_fields(&status).is_empty(), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_etag_is_answered_with_the_current_one() {
    let cluster = Cluster::start().await;
    let mut accounts = api::accounts(&cluster.client_address(1)).await.unwrap();
    let first = created(&mut accounts, "etagged").await;
    let update = v1::UpdateAccountRequest {
        etag: first.etag.clone(),
        ..api::set_counter("etagged", 1, &api::request_id())
    };
    let second = accounts
        .update_account(api::request(update, api::CALL_LIMIT))
        .await
        .unwrap()
        .into_inner();
    let current = second.account.unwrap().etag;
    assert_ne!(first.etag, current);

    let stale = v1::UpdateAccountRequest {
        etag: first.etag,
        ..api::set_counter("etagged", 2, &api::request_id())
    };
    let answer = accounts
        .update_account(api::request(stale, api::CALL_LIMIT))
        .await;
    let status = api::assert_status(answer, Code::Aborted, "ETAG_MISMATCH");
    assert_eq!(api::error_info(&status).1["current_etag"], current);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_and_what_the_state_forbids_are_told_apart() {
    let cluster = Cluster::start().await;
    let mut accounts = api::accounts(&cluster.client_address(1)).await.unwrap();

    let answer = accounts
        .get_account(api::request(api::get("nobody"), api::CALL_LIMIT))
        .await;
    api::assert_status(answer, Code::NotFound, "ACCOUNT_NOT_FOUND");
    let answer = accounts
        .lookup_account(api::request(api::lookup("nobody@example.com"), api::CALL_LIMIT))
        .await;
    api::assert_status(answer, Code::NotFound, "IDENTIFIER_NOT_FOUND");

    created(&mut accounts, "leaving").await;
    let answer = accounts
        .create_account(api::request(
            api::create("leaving", "again@example.com", &api::request_id()),
            api::CALL_LIMIT,
        ))
        .await;
    api::assert_status(answer, Code::AlreadyExists, "ACCOUNT_EXISTS");

    let delete = v1::DeleteAccountRequest {
        name: api::account_name("leaving"),
        request_id: api::request_id(),
        ..Default::default()
    };
    accounts
        .delete_account(api::request(delete, api::CALL_LIMIT))
        .await
        .unwrap();
    let update = api::set_counter("leaving", 1, &api::request_id());
    let answer = accounts
        .update_account(api::request(update, api::CALL_LIMIT))
        .await;
    let status = api::assert_status(answer, Code::FailedPrecondition, "STATE_FORBIDS");
    assert_eq!(api::error_info(&status).1["state"], "PENDING_DELETION");

    let undelete = v1::UndeleteAccountRequest {
        name: api::account_name("leaving"),
        request_id: api::request_id(),
        ..Default::default()
    };
    accounts
        .undelete_account(api::request(undelete, api::CALL_LIMIT))
        .await
        .unwrap();
    let update = api::set_counter("leaving", 1, &api::request_id());
    accounts
        .update_account(api::request(update, api::CALL_LIMIT))
        .await
        .unwrap();
}

/// The same id with other content is a mistake of the caller's, not a retry; and an id from before the window is
/// not known to be fresh.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_ids_are_used_once_and_soon() {
    let cluster = Cluster::start().await;
    let mut accounts = api::accounts(&cluster.client_address(1)).await.unwrap();
    created(&mut accounts, "reused").await;
    let request_id = api::request_id();
    let update = api::set_counter("reused", 1, &request_id);
    accounts
        .update_account(api::request(update, api::CALL_LIMIT))
        .await
        .unwrap();
    let other = api::set_counter("reused", 2, &request_id);
    let answer = accounts
        .update_account(api::request(other, api::CALL_LIMIT))
        .await;
    let status = api::assert_status(answer, Code::InvalidArgument, "REQUEST_ID_REUSED");
    assert_eq!(
        api::outcome(&status),
        holdfast_wire::status::OutcomeView::NotApplied
    );

    // Born in 2023.
    let ancient = api::set_counter("reused", 3, "018bcfe5-6800-7000-8000-000000000001");
    let answer = accounts
        .update_account(api::request(ancient, api::CALL_LIMIT))
        .await;
    api::assert_status(answer, Code::InvalidArgument, "REQUEST_ID_EXPIRED");
}
