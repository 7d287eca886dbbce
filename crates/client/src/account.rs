//! AccountService, method by method. A mutation without a request id gets one; a read without a consistency
//! gets the one of its options.

use holdfast_wire::v1;
use holdfast_wire::v1::account_service_client::AccountServiceClient;
use tonic::transport::Channel;

use crate::client::{ANSWER_BYTES_MAX, Client};
use crate::config::CallOptions;
use crate::error::ClientError;

pub(crate) fn service(channel: Channel) -> AccountServiceClient<Channel> {
    AccountServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

impl Client {
    /// Creates an account.
    pub async fn create_account(
        &self,
        request: v1::CreateAccountRequest,
        options: &CallOptions,
    ) -> Result<v1::CreateAccountResponse, ClientError> {
        self.mutate(
            request,
            |m| &mut m.request_id,
            options,
            |channel, request| async move { service(channel).create_account(request).await },
        )
        .await
    }

    /// Reads one account by name.
    pub async fn get_account(
        &self,
        mut request: v1::GetAccountRequest,
        options: &CallOptions,
    ) -> Result<v1::GetAccountResponse, ClientError> {
        request.consistency = request.consistency.or_else(|| options.consistency.clone());
        self.read(request, options, |channel, request| async move {
            service(channel).get_account(request).await
        })
        .await
    }

    /// Reads several accounts in one view.
    pub async fn batch_get_accounts(
        &self,
        mut request: v1::BatchGetAccountsRequest,
        options: &CallOptions,
    ) -> Result<v1::BatchGetAccountsResponse, ClientError> {
        request.consistency = request.consistency.or_else(|| options.consistency.clone());
        self.read(request, options, |channel, request| async move {
            service(channel).batch_get_accounts(request).await
        })
        .await
    }

    /// Reads the account that an identifier belongs to.
    pub async fn lookup_account(
        &self,
        mut request: v1::LookupAccountRequest,
        options: &CallOptions,
    ) -> Result<v1::LookupAccountResponse, ClientError> {
        request.consistency = request.consistency.or_else(|| options.consistency.clone());
        self.read(request, options, |channel, request| async move {
            service(channel).lookup_account(request).await
        })
        .await
    }

    /// Changes fields and attributes.
    pub async fn update_account(
        &self,
        request: v1::UpdateAccountRequest,
        options: &CallOptions,
    ) -> Result<v1::UpdateAccountResponse, ClientError> {
        self.mutate(
            request,
            |m| &mut m.request_id,
            options,
            |channel, request| async move { service(channel).update_account(request).await },
        )
        .await
    }

    /// Adds, removes and replaces identifiers, all or nothing.
    pub async fn change_identifiers(
        &self,
        request: v1::ChangeIdentifiersRequest,
        options: &CallOptions,
    ) -> Result<v1::ChangeIdentifiersResponse, ClientError> {
        self.mutate(
            request,
            |m| &mut m.request_id,
            options,
            |channel, request| async move { service(channel).change_identifiers(request).await },
        )
        .await
    }

    /// Asks for an account's deletion.
    pub async fn delete_account(
        &self,
        request: v1::DeleteAccountRequest,
        options: &CallOptions,
    ) -> Result<v1::DeleteAccountResponse, ClientError> {
        self.mutate(
            request,
            |m| &mut m.request_id,
            options,
            |channel, request| async move { service(channel).delete_account(request).await },
        )
        .await
    }

    /// Takes a deletion back.
    pub async fn undelete_account(
        &self,
        request: v1::UndeleteAccountRequest,
        options: &CallOptions,
    ) -> Result<v1::UndeleteAccountResponse, ClientError> {
        self.mutate(
            request,
            |m| &mut m.request_id,
            options,
            |channel, request| async move { service(channel).undelete_account(request).await },
        )
        .await
    }

    /// Lists accounts, one page.
    pub async fn list_accounts(
        &self,
        mut request: v1::ListAccountsRequest,
        options: &CallOptions,
    ) -> Result<v1::ListAccountsResponse, ClientError> {
        request.consistency = request.consistency.or_else(|| options.consistency.clone());
        self.read(request, options, |channel, request| async move {
            service(channel).list_accounts(request).await
        })
        .await
    }
}
