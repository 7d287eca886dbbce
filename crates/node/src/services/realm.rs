//! RealmService: the rules of a realm, on the admin port.

use std::sync::Arc;

use holdfast_accounts::{check_config, renames_claims};
use holdfast_storage::engine::View;
use holdfast_storage::schema;
use holdfast_types::{FieldViolation, Realm, RealmConfig, Rejection};
use holdfast_wire::convert::{reads, realms as messages};
use holdfast_wire::status::{Problem, Reason};
use holdfast_wire::v1;
use holdfast_wire::v1::realm_service_server::RealmService;
use tonic::{Request, Response, Status};

use super::Service;
use crate::admission::Permit;
use crate::call::Call;
use crate::core::Core;
use crate::driver::{self, Settled, propose, settled};
use crate::failure::Failure;
use crate::methods;
use crate::reads::{barrier, fresh_view};
use crate::realms;
use crate::router::Mutation;

/// How often a change is tried against a concurrent one; the second look finds the etag stale.
const ATTEMPTS: u32 = 3;

#[tonic::async_trait]
impl RealmService for Service {
    async fn get_realm(
        &self,
        request: Request<v1::GetRealmRequest>,
    ) -> Result<Response<v1::GetRealmResponse>, Status> {
        let core = &self.core;
        self.call(
            &methods::GET_REALM,
            request,
            async |message, call: Call, _permit| {
                let read = reads::get_realm(message)?;
                let fresh = fresh_view(core, &read.freshness, call.deadline).await?;
                let realm = &realms::by_name(core, &fresh.view, &read.realm)?.value;
                Ok(v1::GetRealmResponse {
                    realm: Some(messages::to_message(realm)),
                    consistency_token: core.token(realm.number, fresh.index),
                })
            },
        )
        .await
    }

    async fn update_realm(
        &self,
        request: Request<v1::UpdateRealmRequest>,
    ) -> Result<Response<v1::UpdateRealmResponse>, Status> {
        self.mutate(&methods::UPDATE_REALM, request, messages::update_realm)
            .await
    }
}

impl Mutation for v1::UpdateRealmRequest {
    type Response = v1::UpdateRealmResponse;
    const NAME: &'static str = "holdfast.v1.RealmService/UpdateRealm";
    /// There is no request id; the etag makes a second one fail.
    const REPEATABLE: bool = false;

    async fn run(
        self,
        core: &Arc<Core>,
        call: &Call,
        _permit: Option<Arc<Permit>>,
    ) -> Result<v1::UpdateRealmResponse, Failure> {
        let mut update = messages::update_realm(self)?;
        call.complete(&mut update.actor);
        for _ in 0..ATTEMPTS {
            // What is said about the etag must be true of everything acknowledged.
            barrier(core, call.deadline).await?;
            let term = driver::leading(core)?;
            let index = core.group.applied_index();
            let view = core.group.view();
            let found = realms::by_name(core, &view, &update.realm)?;
            let current = messages::etag(&found.value);
            if current != update.etag {
                let message = "the realm's rules have changed since this etag was read";
                return Err(Problem::new(Reason::EtagMismatch, message)
                    .fact("current_etag", current)
                    .into());
            }
            let config = update.apply(&found.value.config);
            let mut violations = check_config(&config);
            violations.extend(fixed_by_accounts(core, &*view, &found.value, &config)?);
            if !violations.is_empty() {
                return Err(Rejection::Invalid(violations).into());
            }
            let realm = Realm {
                config,
                revision: found.value.revision + 1,
                ..found.value.clone()
            };
            let answer = |index| v1::UpdateRealmResponse {
                realm: Some(messages::to_message(&realm)),
                consistency_token: core.token(realm.number, index),
            };
            if update.validate_only {
                return Ok(answer(index));
            }
            let mutation = schema::realm::change(&found, &realm);
            if let Settled::Applied { index } = settled(propose(core, mutation, term, ()).await)? {
                tracing::info!(
                    realm = %realm.id,
                    revision = realm.revision,
                    actor = update.actor.actor,
                    reason = update.actor.reason,
                    "the realm's rules were changed"
                );
                return Ok(answer(index));
            }
        }
        Err(Failure::new(
            Reason::Contention,
            "others keep changing the realm's rules",
        ))
    }
}

/// Rules that name claims cannot change once there are some. The proposal is guarded by the same.
fn fixed_by_accounts(
    core: &Core,
    view: &dyn View,
    realm: &Realm,
    config: &RealmConfig,
) -> Result<Option<FieldViolation>, Failure> {
    if !renames_claims(&realm.config, config) {
        return Ok(None);
    }
    let inhabited = schema::inhabited::read(view, realm.number);
    if !inhabited.map_err(|error| driver::unreadable(core, &error))? {
        return Ok(None);
    }
    Ok(Some(FieldViolation::new(
        "realm.config.email_local_part_case_insensitive",
        "cannot change once the realm has had an account",
    )))
}
