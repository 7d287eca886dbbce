//! AccountService.

use holdfast_accounts::{self as accounts, Claim, ClaimState, View as _, lookup_accepts};
use holdfast_markers::{planted, reached};
use holdfast_storage::schema::RowView;
use holdfast_types::{Account, AccountState, CanonicalIdentifier, FieldViolation, Rejection};
use holdfast_wire::convert::reads::{Freshness, LOOKUP_VALUE_FIELD};
use holdfast_wire::convert::{accounts as messages, mutations, reads};
use holdfast_wire::status::{Problem, Reason};
use holdfast_wire::v1;
use holdfast_wire::v1::account_service_server::AccountService;
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::{Service, export, import, list};
use crate::core::Core;
use crate::driver::unreadable;
use crate::failure::Failure;
use crate::methods;
use crate::reads::fresh_view;
use crate::realms;

/// An answer stops growing here, so that clients with gRPC's default limit of 4 MiB can take it.
pub(super) const ANSWER_BYTES: usize = 3 * 1024 * 1024;

#[tonic::async_trait]
impl AccountService for Service {
    async fn create_account(
        &self,
        request: Request<v1::CreateAccountRequest>,
    ) -> Result<Response<v1::CreateAccountResponse>, Status> {
        self.mutate(&methods::CREATE_ACCOUNT, request, mutations::create_account)
            .await
    }

    async fn update_account(
        &self,
        request: Request<v1::UpdateAccountRequest>,
    ) -> Result<Response<v1::UpdateAccountResponse>, Status> {
        self.mutate(&methods::UPDATE_ACCOUNT, request, mutations::update_account)
            .await
    }

    async fn change_identifiers(
        &self,
        request: Request<v1::ChangeIdentifiersRequest>,
    ) -> Result<Response<v1::ChangeIdentifiersResponse>, Status> {
        self.mutate(
            &methods::CHANGE_IDENTIFIERS,
            request,
            mutations::change_identifiers,
        )
        .await
    }

    async fn delete_account(
        &self,
        request: Request<v1::DeleteAccountRequest>,
    ) -> Result<Response<v1::DeleteAccountResponse>, Status> {
        self.mutate(&methods::DELETE_ACCOUNT, request, mutations::delete_account)
            .await
    }

    async fn undelete_account(
        &self,
        request: Request<v1::UndeleteAccountRequest>,
    ) -> Result<Response<v1::UndeleteAccountResponse>, Status> {
        self.mutate(&methods::UNDELETE_ACCOUNT, request, mutations::undelete_account)
            .await
    }

    async fn get_account(
        &self,
        request: Request<v1::GetAccountRequest>,
    ) -> Result<Response<v1::GetAccountResponse>, Status> {
        self.call(&methods::GET_ACCOUNT, request, async |message, call, _permit| {
            let read = reads::get_account(message)?;
            let fresh = fresh_view(&self.core, &read.freshness, call.deadline).await?;
            let realm = realms::by_name(&self.core, &fresh.view, &read.realm)?;
            let found = RowView::new(fresh.view, realm.clone()).account(&read.account);
            let account = readable(
                found
                    .map_err(|error| unreadable(&self.core, &error))?
                    .map(|row| row.value),
            )?;
            Ok(v1::GetAccountResponse {
                account: Some(messages::to_message(&realm.value.id, account)),
                consistency_token: self.core.token(realm.value.number, fresh.index),
            })
        })
        .await
    }

    async fn batch_get_accounts(
        &self,
        request: Request<v1::BatchGetAccountsRequest>,
    ) -> Result<Response<v1::BatchGetAccountsResponse>, Status> {
        self.call(
            &methods::BATCH_GET_ACCOUNTS,
            request,
            async |message, call, _permit| {
                let read = reads::batch_get_accounts(message)?;
                let fresh = fresh_view(&self.core, &read.freshness, call.deadline).await?;
                let realm = realms::by_name(&self.core, &fresh.view, &read.realm)?;
                let rows = RowView::new(fresh.view, realm.clone());
                let mut answer = v1::BatchGetAccountsResponse {
                    consistency_token: self.core.token(realm.value.number, fresh.index),
                    ..v1::BatchGetAccountsResponse::default()
                };
                let mut bytes = 0;
                for id in &read.accounts {
                    let name = messages::account_name(&realm.value.id, id);
                    if bytes >= ANSWER_BYTES {
                        answer.unread_names.push(name);
                        continue;
                    }
                    let found = rows.account(id).map_err(|error| unreadable(&self.core, &error))?;
                    match readable(found.map(|row| row.value)) {
                        Ok(account) => {
                            let account = messages::to_message(&realm.value.id, account);
                            bytes += account.encoded_len();
                            answer.accounts.push(account);
                        }
                        Err(_) => answer.not_found_names.push(name),
                    }
                }
                Ok(answer)
            },
        )
        .await
    }

    async fn lookup_account(
        &self,
        request: Request<v1::LookupAccountRequest>,
    ) -> Result<Response<v1::LookupAccountResponse>, Status> {
        self.call(
            &methods::LOOKUP_ACCOUNT,
            request,
            async |message, call, _permit| {
                let mut read = reads::lookup_account(message)?;
                let mut again = true;
                loop {
                    let early = planted!("lookup-without-recheck").then(|| self.core.group.view());
                    let fresh = fresh_view(&self.core, &read.freshness, call.deadline).await?;
                    let realm = realms::by_name(&self.core, &fresh.view, &read.realm)?;
                    let typed = &read.identifier;
                    let identifier = accounts::normalize::canonicalize(
                        typed.kind,
                        &typed.value,
                        &typed.issuer,
                        &realm.value.config,
                    )
                    .map_err(|wrong| {
                        Rejection::Invalid(vec![FieldViolation::new(LOOKUP_VALUE_FIELD, wrong)])
                    })?;
                    let early = early.map(|view| RowView::new(view, realm.clone()));
                    let rows = RowView::new(fresh.view, realm.clone());
                    match find(&self.core, early.as_ref().unwrap_or(&rows), &rows, &identifier)? {
                        Found::Account(account) => {
                            return Ok(v1::LookupAccountResponse {
                                account: Some(messages::to_message(&realm.value.id, *account)),
                                consistency_token: self.core.token(realm.value.number, fresh.index),
                            });
                        }
                        // The claim and the account are read one after the other: look once more, at all that was
                        // acknowledged.
                        Found::Disagreement if again => {
                            again = false;
                            read.freshness = Freshness::default();
                        }
                        Found::Nothing | Found::Disagreement => {
                            return Err(Failure::new(
                                Reason::IdentifierNotFound,
                                "no account answers to this identifier",
                            ));
                        }
                    }
                }
            },
        )
        .await
    }

    async fn list_accounts(
        &self,
        request: Request<v1::ListAccountsRequest>,
    ) -> Result<Response<v1::ListAccountsResponse>, Status> {
        self.call(
            &methods::LIST_ACCOUNTS,
            request,
            async |message, call, _permit| {
                list::page(&self.core, reads::list_accounts(message)?, call.deadline).await
            },
        )
        .await
    }

    type ImportAccountsStream = import::Answers;

    async fn import_accounts(
        &self,
        request: Request<Streaming<v1::ImportAccountsRequest>>,
    ) -> Result<Response<import::Answers>, Status> {
        import::start(&self.core, request).await
    }

    type ExportAccountsStream = export::Answers;

    async fn export_accounts(
        &self,
        request: Request<v1::ExportAccountsRequest>,
    ) -> Result<Response<export::Answers>, Status> {
        self.call(
            &methods::EXPORT_ACCOUNTS,
            request,
            async |message, call, permit| {
                export::start(&self.core, reads::export_accounts(message)?, &call, permit).await
            },
        )
        .await
    }
}

/// The account, unless it never was or is a tombstone.
fn readable(found: Option<Account>) -> Result<Account, Problem> {
    match found {
        None => Err(Problem::not_readable(None)),
        Some(account) => match account.state() {
            state @ AccountState::Deleted => {
                reached!("account.tombstone-not-readable");
                Err(Problem::not_readable(Some(state)))
            }
            _ => Ok(account),
        },
    }
}

/// What a lookup came upon.
enum Found {
    Account(Box<Account>),
    Nothing,
    /// There is a claim, but its owner does not hold the identifier.
    Disagreement,
}

/// The account that the claim in `claims` leads to, if the row in `rows` agrees.
fn find(
    core: &Core,
    claims: &RowView,
    rows: &RowView,
    identifier: &CanonicalIdentifier,
) -> Result<Found, Failure> {
    let claim = claims
        .claim(identifier)
        .map_err(|error| unreadable(core, &error))?;
    let Some(Claim {
        owner,
        state: ClaimState::Held { .. },
    }) = claim.map(|row| row.value)
    else {
        return Ok(Found::Nothing);
    };
    let account = rows
        .account(&owner)
        .map_err(|error| unreadable(core, &error))?
        .map(|row| row.value);
    if planted!("lookup-without-recheck") {
        return Ok(account.map_or(Found::Nothing, |account| Found::Account(Box::new(account))));
    }
    let listed = |account: &Account| {
        let bytes = identifier.claim_bytes();
        account
            .identifiers
            .iter()
            .any(|listed| listed.canonical.claim_bytes() == bytes)
    };
    Ok(match account {
        Some(account) if lookup_accepts(&account, identifier, &rows.realm().config) => {
            Found::Account(Box::new(account))
        }
        Some(account) if listed(&account) => Found::Nothing,
        _ => Found::Disagreement,
    })
}
