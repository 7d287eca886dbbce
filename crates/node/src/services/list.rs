//! ListAccounts: pages in (slot, id) order.
//!
//! A page is a key range of one view, so each page is as fresh as asked for and needs no memory of the one
//! before. A filter that matches little does not make a call slow: a page ends after a budget of records looked
//! at, short or even empty, with a token to go on from.

use holdfast_storage::schema;
use holdfast_wire::convert::accounts as messages;
use holdfast_wire::convert::page::{self, Position};
use holdfast_wire::convert::reads::ListAccounts;
use holdfast_wire::v1;
use prost::Message;

use super::account::ANSWER_BYTES;
use crate::core::Core;
use crate::deadline::Deadline;
use crate::driver::unreadable;
use crate::failure::Failure;
use crate::reads::fresh_view;
use crate::realms;

/// Records between two chances for other tasks to run.
pub(super) const ROWS_PER_TURN: usize = 256;

/// One page.
pub(super) async fn page(
    core: &Core,
    list: ListAccounts,
    deadline: Deadline,
) -> Result<v1::ListAccountsResponse, Failure> {
    let fresh = fresh_view(core, &list.freshness, deadline).await?;
    let realm = &realms::by_name(core, &fresh.view, &list.parameters.realm)?.value;
    let after = list.after.as_ref().map(|position| &position.account);
    let mut answer = v1::ListAccountsResponse {
        consistency_token: core.token(realm.number, fresh.index),
        ..v1::ListAccountsResponse::default()
    };
    let mut bytes = 0;
    let mut scanned = 0_usize;
    let mut rows = schema::account::accounts_after(&*fresh.view, realm, after).peekable();
    while let Some(row) = rows.next() {
        let account = row.map_err(|error| unreadable(core, &error))?.value;
        scanned += 1;
        let id = account.id.clone();
        if list.parameters.states.contains(&account.state()) {
            let message = messages::to_message(&realm.id, account);
            bytes += message.encoded_len();
            answer.accounts.push(message);
        }
        let full = answer.accounts.len() >= list.page_size || bytes >= ANSWER_BYTES;
        let spent = scanned >= core.config.limits.scan_budget_rows || deadline.passed();
        if (full || spent) && rows.peek().is_some() {
            let slot = schema::account::slot(realm, &id);
            let position = Position { slot, account: id };
            answer.next_page_token = page::encode(&list.parameters, &position);
            break;
        }
        if scanned.is_multiple_of(ROWS_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
    answer.scanned_records = u32::try_from(scanned).unwrap_or(u32::MAX);
    Ok(answer)
}
