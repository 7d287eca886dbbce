//! The account mutations, as the leader carries them out.

use std::sync::Arc;

use holdfast_markers::reached;
use holdfast_types::RealmId;
use holdfast_wire::convert::{accounts, mutations};
use holdfast_wire::status::Reason;
use holdfast_wire::v1;

use crate::admission::Permit;
use crate::call::Call;
use crate::core::Core;
use crate::driver::{self, Done};
use crate::failure::Failure;
use crate::realms;
use crate::router::Mutation;

/// The mutations that answer with the account. `grows`: refused while the disk is nearly full.
macro_rules! account_mutations {
    ($($request:ident => $response:ident, $method:literal, $convert:path, grows: $grows:literal;)*) => {
        $(
            impl Mutation for v1::$request {
                type Response = v1::$response;
                const NAME: &'static str = concat!("holdfast.v1.AccountService/", $method);
                const REPEATABLE: bool = true;

                async fn run(
                    self,
                    core: &Arc<Core>,
                    call: &Call,
                    permit: Option<Arc<Permit>>,
                ) -> Result<v1::$response, Failure> {
                    let mutation = $convert(self)?;
                    if $grows {
                        room_to_grow(core)?;
                    }
                    let (realm, done) = carry_out(core, mutation, call, permit).await?;
                    Ok(v1::$response {
                        account: Some(accounts::to_message(&realm, done.account)),
                        revision: done.revision,
                        consistency_token: core.token(done.realm, done.index),
                    })
                }
            }
        )*
    };
}

account_mutations! {
    CreateAccountRequest => CreateAccountResponse, "CreateAccount", mutations::create_account, grows: true;
    UpdateAccountRequest => UpdateAccountResponse, "UpdateAccount", mutations::update_account, grows: false;
    ChangeIdentifiersRequest => ChangeIdentifiersResponse, "ChangeIdentifiers", mutations::change_identifiers,
        grows: false;
    DeleteAccountRequest => DeleteAccountResponse, "DeleteAccount", mutations::delete_account, grows: false;
    UndeleteAccountRequest => UndeleteAccountResponse, "UndeleteAccount", mutations::undelete_account,
        grows: false;
}

/// Runs a well-formed mutation through the driver.
pub(super) async fn carry_out(
    core: &Arc<Core>,
    mutation: mutations::Mutation,
    call: &Call,
    permit: Option<Arc<Permit>>,
) -> Result<(RealmId, Done), Failure> {
    driver::leading(core)?;
    let realm = realms::by_name(core, &core.group.view(), &mutation.realm)?;
    let name = mutation.realm.clone();
    let mut request = mutation.into_request(&realm.value, call.caller.clone());
    call.complete(&mut request.actor);
    let done = driver::run(core, request, call, permit).await?;
    Ok((name, done))
}

/// Says no while the disks that hold the log are nearly full.
pub(super) fn room_to_grow(core: &Core) -> Result<(), Failure> {
    if core.disk.nearly_full() || core.disk.quorum_nearly_full() {
        reached!("disk.growth-refused");
        return Err(Failure::new(
            Reason::DiskFull,
            "the disk is nearly full: creates and imports wait until there is room; deletes and reads go on",
        ));
    }
    Ok(())
}
