//! Reading an account by one of its identifiers.

use holdfast_types::{Account, CanonicalIdentifier, RealmConfig, UnverifiedPolicy};

/// Whether a look-up that was led from the claim on `identifier` to this account may answer with it.
///
/// The claim and the account are two rows, read one after the other and one day from two shards: the account
/// must still list the identifier. And under [`UnverifiedPolicy::HoldOnly`] it must be verified.
pub fn lookup_accepts(account: &Account, identifier: &CanonicalIdentifier, config: &RealmConfig) -> bool {
    let bytes = identifier.claim_bytes();
    let listed = account
        .identifiers
        .iter()
        .find(|listed| listed.canonical.claim_bytes() == bytes);
    listed.is_some_and(|listed| match config.unverified {
        UnverifiedPolicy::LookupAndHold => true,
        UnverifiedPolicy::HoldOnly => listed.verification.is_some(),
    })
}
