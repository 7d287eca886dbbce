use holdfast_accounts::{ChangeIdentifiers, IdentifierChange, IdentifierRef, NewAccount, Update};
use holdfast_types::{IdentifierKind, Millis};

use super::*;

fn all_reasons() -> impl Iterator<Item = Reason> {
    (1..).map_while(|number| Reason::try_from(number).ok())
}

#[test]
fn every_reason_has_a_code_and_comes_back() {
    assert!(all_reasons().count() > 30);
    for reason in all_reasons() {
        let problem = Problem::new(reason, "why");
        let status = problem.to_status();
        assert_ne!(status.code(), Code::Ok);
        assert_eq!(
            status.code() == Code::Internal,
            reason == Reason::Internal,
            "{reason:?}"
        );
        let view = ErrorView::of(&status).unwrap();
        assert_eq!(view.known_reason(), reason);
        assert_eq!(view.outcome, OutcomeView::NotApplied);
        assert_eq!(view.retry_after, problem.retry_after);
    }
}

#[test]
fn the_reference_names_the_code_of_every_reason() {
    let reference = include_str!("../../../../proto/holdfast/v1/errors.proto");
    for reason in all_reasons() {
        let (before, _) = reference
            .split_once(&format!("  {} = ", reason.as_str_name()))
            .unwrap();
        let comment_start = before.rfind(";\n").unwrap();
        let comment = &before[comment_start..];
        let code = format!("{:?}", Problem::new(reason, "").code());
        let mut upper = String::new();
        for c in code.chars() {
            if c.is_uppercase() && !upper.is_empty() {
                upper.push('_');
            }
            upper.push(c.to_ascii_uppercase());
        }
        assert!(
            comment.contains(&format!("// {upper}:")),
            "{reason:?} is documented as {comment}"
        );
    }
}

#[test]
fn one_error_info_and_what_belongs_beside_it() {
    let status = Problem::rejected(&Rejection::Invalid(vec![
        FieldViolation::new("name", "is required"),
        FieldViolation::new("account.identifiers[2].value", "is not an email address"),
    ]))
    .to_status();
    let details = status.get_error_details_vec();
    let infos = details
        .iter()
        .filter(|detail| matches!(detail, tonic_types::ErrorDetail::ErrorInfo(_)));
    assert_eq!(infos.count(), 1);
    assert_eq!(status.code(), Code::InvalidArgument);
    let view = ErrorView::of(&status).unwrap();
    assert_eq!(view.violations[1].field, "account.identifiers[2].value");
    assert_eq!(view.retry_after, None);
    assert!(view.metadata.is_empty());
}

#[test]
fn unavailable_identifiers_say_neither_whose_nor_why() {
    let refusal = Refusal::IdentifierUnavailable {
        kind: IdentifierKind::Email,
        index: 3,
    };
    let status = Problem::refused(&refusal, &Operation::Create(NewAccount::default())).to_status();
    assert_eq!(status.code(), Code::AlreadyExists);
    let view = ErrorView::of(&status).unwrap();
    assert_eq!(view.known_reason(), Reason::IdentifierUnavailable);
    let facts: Vec<_> = view
        .metadata
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(facts, ["index=3", "kind=EMAIL"]);
    assert_eq!(status.message(), "identifier 3 (EMAIL) is not available");
}

#[test]
fn a_missing_identifier_is_named_by_its_kind() {
    let phone = IdentifierRef {
        kind: IdentifierKind::Phone,
        issuer: String::new(),
        value: "+41446681800".into(),
    };
    let change = Operation::ChangeIdentifiers(ChangeIdentifiers {
        changes: vec![IdentifierChange::Remove(phone)],
        ..ChangeIdentifiers::default()
    });
    let status = Problem::refused(&Refusal::IdentifierNotFound { index: 0 }, &change).to_status();
    assert_eq!(status.message(), "the account does not have identifier 0 (PHONE)");
    let view = ErrorView::of(&status).unwrap();
    assert_eq!(view.metadata["kind"], "PHONE");
    assert_eq!(view.metadata["index"], "0");
}

#[test]
fn refusals_and_rejections_carry_their_facts() {
    let create = Operation::Create(NewAccount::default());
    let view = |problem: Problem| {
        let status = problem.to_status();
        (status.code(), ErrorView::of(&status).unwrap())
    };

    let (code, stale) = view(Problem::rejected(&Rejection::EtagMismatch {
        current: "7".into(),
    }));
    assert_eq!(
        (code, stale.metadata["current_etag"].as_str()),
        (Code::Aborted, "7")
    );

    let state = Refusal::StateForbids {
        state: AccountState::PendingDeletion,
    };
    let (code, state) = view(Problem::refused(&state, &create));
    assert_eq!(
        (code, state.metadata["state"].as_str()),
        (Code::FailedPrecondition, "PENDING_DELETION")
    );

    let (code, missing) = view(Problem::refused(&Refusal::AccountNotFound, &create));
    let (same_code, purged) = view(Problem::refused(&Refusal::AccountPurged, &create));
    assert_eq!((code, same_code), (Code::NotFound, Code::NotFound));
    assert_ne!(missing.reason, purged.reason);

    let (code, expired) = view(Problem::rejected(&Rejection::RequestIdExpired {
        oldest: Millis(12),
    }));
    assert_eq!(
        (code, expired.metadata["oldest_birth_ms"].as_str()),
        (Code::InvalidArgument, "12")
    );
    assert_eq!(expired.violations[0].field, "request_id");

    let unknown = Problem::outcome_unknown();
    let (code, unknown) = view(unknown);
    assert_eq!((code, unknown.outcome), (Code::Unavailable, OutcomeView::Unknown));
    assert!(unknown.retry_after.is_some());
}

#[test]
fn limits_blame_the_field_that_exceeds_them() {
    let limit = |what: &str| Refusal::LimitExceeded {
        what: what.into(),
        limit: 1,
        actual: 2,
    };
    let field = |what, operation| {
        Problem::refused(&limit(what), &operation).violations[0]
            .field
            .clone()
    };
    let changes = Operation::ChangeIdentifiers(ChangeIdentifiers::default());
    assert_eq!(
        field("labels", Operation::Create(NewAccount::default())),
        "account.labels"
    );
    assert_eq!(
        field("record_bytes", Operation::Create(NewAccount::default())),
        "account"
    );
    assert_eq!(
        field("attributes", Operation::Update(Update::default())),
        "set_attributes"
    );
    assert_eq!(field("identifiers", changes), "changes");
}

#[test]
fn details_fit_into_a_trailer() {
    let violations = (0..5_000)
        .map(|at| FieldViolation::new(format!("names[{at}]"), "is not a name"))
        .collect();
    let status = Problem::invalid(violations).to_status();
    assert!(status.details().len() < 6_000, "{}", status.details().len());
    assert!(status.message().contains("4999 more"));
    assert!(!ErrorView::of(&status).unwrap().violations.is_empty());
    let long = Problem::new(Reason::Internal, "é".repeat(10_000)).to_status();
    assert!(long.message().len() < 600);
}

#[test]
fn statuses_of_others_are_not_ours() {
    assert_eq!(ErrorView::of(&Status::unavailable("connection refused")), None);
    let foreign = ErrorDetails::with_error_info("NO_LEADER", "example.org", HashMap::new());
    assert_eq!(
        ErrorView::of(&Status::with_error_details(Code::Unavailable, "", foreign)),
        None
    );
    let newer = ErrorDetails::with_error_info("FROM_THE_FUTURE", DOMAIN, HashMap::new());
    let view = ErrorView::of(&Status::with_error_details(Code::Unavailable, "", newer)).unwrap();
    assert_eq!(
        (view.known_reason(), view.outcome),
        (Reason::Unspecified, OutcomeView::Unknown)
    );
}
