//! Operations in a few words, for the trace.

use crate::history::{Consistency, Input, Outcome, Output};

/// What is asked.
pub(super) fn input(input: &Input) -> String {
    match input {
        Input::Create {
            account,
            fingerprint,
            identifiers,
        } => {
            format!(
                "create={account} name={fingerprint} with={}",
                identifiers.join(",")
            )
        }
        Input::Update {
            account,
            if_etag,
            fingerprint,
        } => {
            format!("update={account} name={fingerprint}{}", etag(*if_etag))
        }
        Input::ChangeIdentifiers {
            account,
            if_etag,
            add,
            remove,
        } => {
            let (add, remove) = (add.join(","), remove.join(","));
            format!("change={account} add={add} remove={remove}{}", etag(*if_etag))
        }
        Input::Delete { account, if_etag } => format!("delete={account}{}", etag(*if_etag)),
        Input::Undelete { account, if_etag } => format!("undelete={account}{}", etag(*if_etag)),
        Input::ImportItem {
            import,
            index,
            account,
            fingerprint,
            ..
        } => {
            format!("import={import}/{index} account={account} name={fingerprint}")
        }
        Input::Get { account, consistency } => format!("get={account}{}", freshness(*consistency)),
        Input::BatchGet {
            accounts,
            consistency,
        } => {
            format!("batch={}{}", accounts.join(","), freshness(*consistency))
        }
        Input::Lookup {
            identifier,
            consistency,
        } => format!("lookup={identifier}{}", freshness(*consistency)),
        Input::List {
            scan,
            page,
            consistency,
        } => format!("list={scan}/{page}{}", freshness(*consistency)),
        Input::Export { consistency } => format!("export{}", freshness(*consistency)),
    }
}

/// What came of it.
pub(super) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok { output, position } => {
            let at = position.map(|at| format!(" at={at}")).unwrap_or_default();
            format!("ok {}{at}", self::output(output))
        }
        Outcome::DefinitelyNot(reason) => format!("no {reason:?}"),
        Outcome::Unknown => "unknown".into(),
    }
}

fn output(output: &Output) -> String {
    match output {
        Output::Changed { revision, .. } => format!("revision={revision}"),
        Output::Imported { action, revision } => format!("{action:?} revision={revision}"),
        Output::Account(view) => {
            format!("{}@{} name={}", view.account, view.revision, view.fingerprint)
        }
        Output::NotFound => "not_found".into(),
        Output::Purged => "purged".into(),
        Output::Batch {
            accounts, not_found, ..
        } => format!("found={} missing={}", accounts.len(), not_found.len()),
        Output::Page { accounts, last } => format!("page={} last={last}", accounts.len()),
    }
}

fn etag(revision: Option<u64>) -> String {
    revision
        .map(|revision| format!(" etag={revision}"))
        .unwrap_or_default()
}

fn freshness(consistency: Consistency) -> String {
    match consistency {
        Consistency::Linearizable => String::new(),
        Consistency::Stale { max_ms: None } => " stale".into(),
        Consistency::Stale { max_ms: Some(bound) } => format!(" stale={bound}"),
        Consistency::AtLeast { operation, position } => format!(" after={operation}:{position}"),
    }
}
