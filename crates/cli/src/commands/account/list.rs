//! `holdfast account list`

use clap::Args;
use holdfast_client::v1;

use crate::args::{Freshness, Global};
use crate::exit::{Exit, Failure};
use crate::json::{AccountJson, state};
use crate::output::{self, Format};

/// List accounts, page by page, in the service's order.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only accounts in this state (active, suspended, pending-deletion, deleted). May be repeated. By default
    /// all except deleted ones.
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Vec<v1::AccountState>,
    /// Stop after this many accounts; 0: list all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
    /// Accounts to ask for at a time, at most 1000.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(i32).range(1..=1000))]
    page_size: i32,
    #[command(flatten)]
    freshness: Freshness,
}

/// Runs the command.
pub(crate) async fn run(list: &List, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let mut left = if list.limit == 0 { u64::MAX } else { list.limit };
    let mut page_token = String::new();
    let mut rows = Vec::new();
    let mut more = false;
    while left > 0 {
        let request = v1::ListAccountsRequest {
            parent: global.realm_name(),
            page_size: list.page_size.min(i32::try_from(left).unwrap_or(i32::MAX)),
            page_token,
            states: list.state.iter().map(|state| (*state).into()).collect(),
            consistency: list.freshness.consistency()?,
        };
        let page = client.list_accounts(request, &global.call()).await?;
        for account in page.accounts {
            let account = AccountJson::from(account);
            match global.output {
                Format::Json => {
                    let line = serde_json::to_string(&account)
                        .map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
                    output::line(&line)?;
                }
                Format::Human => rows.push(row(&account)),
            }
            left -= 1;
        }
        page_token = page.next_page_token;
        more = !page_token.is_empty();
        if !more {
            break;
        }
        // A long list is shown as it comes, not when it is over.
        if rows.len() >= 1_000 {
            show(&mut rows)?;
        }
    }
    if global.output == Format::Human {
        show(&mut rows)?;
        if more {
            eprintln!("there are more; --limit 0 lists all");
        }
    }
    Ok(())
}

fn show(rows: &mut Vec<Vec<String>>) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    output::line(&output::table(
        &["ACCOUNT", "STATE", "ETAG", "NAME", "IDENTIFIERS"],
        std::mem::take(rows),
    ))
}

fn row(account: &AccountJson) -> Vec<String> {
    let mut identifiers: Vec<&str> = account
        .identifiers
        .iter()
        .take(2)
        .map(|i| i.value.as_str())
        .collect();
    if account.identifiers.len() > 2 {
        identifiers.push("…");
    }
    vec![
        account.account_id.clone(),
        account.state.clone(),
        account.etag.clone(),
        account.display_name.clone(),
        identifiers.join(" "),
    ]
}
