//! The rows that evaluation reads and writes, by typed name. How they are stored is the storage schema's
//! business.

use holdfast_types::{
    Account, AccountId, Caller, CanonicalIdentifier, Millis, Realm, RealmNumber, RequestId, Stamp,
};

use crate::{Claim, DueAction, Request, RequestRecord};

/// A row's value and the stamp of the entry that last wrote it; the stamp is what a guard compares.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The record.
    pub value: T,
    /// When it was last written.
    pub stamp: Stamp,
}

/// The name of a row within a realm.
///
/// Two [`CanonicalIdentifier`]s name the same claim row when their `claim_bytes` are equal, even if kind or
/// normaliser version differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// An account.
    Account(AccountId),
    /// The claim on an identifier.
    Claim(CanonicalIdentifier),
    /// What a request id did.
    Request(RequestKey),
    /// A deadline.
    Due(DueKey),
    /// A realm's own record.
    Realm(RealmNumber),
}

/// The value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// An account.
    Account(Account),
    /// The claim on an identifier.
    Claim(Claim),
    /// What a request id did.
    Request(RequestRecord),
    /// A deadline.
    Due(DueAction),
    /// A realm's own record.
    Realm(Realm),
}

/// Names a request record. It lives in the bucket of the account it is about, so that both can be written by
/// one shard; a request id is therefore remembered per account, and a retry must name (or derive) the same one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey {
    /// The account the request is about.
    pub home: AccountId,
    /// The request id.
    pub request: RequestId,
    /// Whose request id it is: two callers may draw the same.
    pub caller: Caller,
}

impl RequestKey {
    /// The record of this request; none if it has no request id.
    pub fn of(request: &Request) -> Option<Self> {
        let id = request.request_id?;
        Some(RequestKey {
            home: request.account.clone(),
            request: id,
            caller: request.caller.clone(),
        })
    }
}

/// Names a deadline. It lives in the bucket of its subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DueKey {
    /// When it falls due, in log time.
    pub deadline: Millis,
    /// The account that it is about.
    pub subject: AccountId,
}

/// A consistent view of one realm's applied rows.
pub trait View {
    /// Why a read failed.
    type Error;

    /// The account with this id, tombstones included.
    fn account(&self, id: &AccountId) -> Result<Option<Versioned<Account>>, Self::Error>;

    /// The claim on this identifier.
    fn claim(&self, identifier: &CanonicalIdentifier) -> Result<Option<Versioned<Claim>>, Self::Error>;

    /// The record of this request.
    fn request(&self, key: &RequestKey) -> Result<Option<Versioned<RequestRecord>>, Self::Error>;

    /// What happens at this deadline.
    fn due(&self, key: &DueKey) -> Result<Option<Versioned<DueAction>>, Self::Error>;
}
