//! RealmService, method by method.

use holdfast_wire::v1;
use holdfast_wire::v1::realm_service_client::RealmServiceClient;

use crate::call::Effect;
use crate::client::Client;
use crate::config::CallOptions;
use crate::error::ClientError;

impl Client {
    /// Reads a realm and its rules.
    pub async fn get_realm(
        &self,
        mut request: v1::GetRealmRequest,
        options: &CallOptions,
    ) -> Result<v1::GetRealmResponse, ClientError> {
        request.consistency = request.consistency.or_else(|| options.consistency.clone());
        self.admin_call(options, Effect::Read)?
            .run(request, |channel, request| async move {
                RealmServiceClient::new(channel).get_realm(request).await
            })
            .await
    }

    /// Changes a realm's rules. It has no request id: after an unknown outcome, read and compare.
    pub async fn update_realm(
        &self,
        request: v1::UpdateRealmRequest,
        options: &CallOptions,
    ) -> Result<v1::UpdateRealmResponse, ClientError> {
        self.admin_call(options, Effect::Plain)?
            .run(request, |channel, request| async move {
                RealmServiceClient::new(channel).update_realm(request).await
            })
            .await
    }
}
