//! What a store has to be able to do to be put under load: the seam between the generator and a driver.
//!
//! A driver answers with what it found and never judges: whether an answer is the right one is decided by the
//! generator, in the same way for every store. It repeats nothing by itself, unless the client library it drives does
//! so for everybody who uses it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::record::Record;

/// A store under load: makes one [`Session`] for each client.
pub trait Store: Send + Sync + 'static {
    /// What one client talks through.
    type Session: Session;

    /// The name that tables have for it, such as `holdfast`.
    fn name(&self) -> &str;

    /// How it is reached and set up, for the record: connections, the driver's settings, versions.
    fn settings(&self) -> BTreeMap<String, String>;

    /// The session of client number `client`, connected: nothing is left to be set up at its first call. Clients may
    /// share connections, as is best practice with the store's own client library.
    fn session(&self, client: usize) -> impl Future<Output = Result<Self::Session, Failure>> + Send;
}

/// One client of a store. Calls come one after the other.
pub trait Session: Send + 'static {
    /// Creates an account that does not exist, with its two unique identifiers. Returns its version, which is 1 unless
    /// the store counts otherwise. That it, or one of its identifiers, exists already is [`Class::Refused`].
    fn create(&mut self, record: Record) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// Replaces the payload, only while the account has this version.
    fn update(&mut self, change: Change<'_>) -> impl Future<Output = Result<Updated, Failure>> + Send;

    /// Reads an account by id, linearizably where the store can. `None`: there is none.
    fn get(&mut self, id: &str) -> impl Future<Output = Result<Option<Found>, Failure>> + Send;

    /// Reads the account that this email belongs to, in the same way.
    fn lookup(&mut self, email: &str) -> impl Future<Output = Result<Option<Found>, Failure>> + Send;

    /// Like [`Session::get`], but the driver may send reads that wait at the same moment in any client of this
    /// process together, as one batch. Without that, it is a get.
    fn gathered_get(&mut self, id: &str) -> impl Future<Output = Result<Option<Found>, Failure>> + Send {
        self.get(id)
    }

    /// Stores many accounts by the quickest way that is as durable as a create. It is called with some hundred.
    fn import(
        &mut self,
        records: Vec<Record>,
        existing: Existing,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A new payload for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<'a> {
    /// The account.
    pub id: &'a str,
    /// The version it must still have.
    pub version: u64,
    /// What its payload becomes.
    pub payload: Vec<u8>,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Updated {
    /// It was made; this is the version now.
    To(u64),
    /// The account had another version.
    Conflict {
        /// Which, if the store says so in the same answer. Otherwise the generator reads it.
        current: Option<u64>,
    },
}

/// An account as a read found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id, from the stored record and not from the request.
    pub id: String,
    /// Its version.
    pub version: u64,
    /// The length of its payload, bytes.
    pub payload_bytes: usize,
}

/// What an import does about an account that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is an error.
    Refuse,
    /// It stays as it is.
    Keep,
}

/// Why an operation was no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub class: Class,
    /// A sentence for people, printed for the first of each class.
    pub message: String,
}

impl Failure {
    /// A failure of this class.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Failure {
            class,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.message)
    }
}

impl std::error::Error for Failure {}

/// The kinds of failure that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The store said no: it exists, it is taken, it is malformed.
    Refused,
    /// An account that should be there is not.
    Missing,
    /// The answer was a wrong one: another account, another size.
    WrongAnswer,
    /// The store asked to come back later.
    Overloaded,
    /// Nobody answered, and nothing was changed.
    Unavailable,
    /// It may have happened, or not: the deadline passed or the connection broke.
    Unknown,
    /// The same account changed again and again under an update.
    Contended,
    /// The store cannot do this at all.
    Unsupported,
    /// Anything else: a defect on either side.
    Other,
}

impl Class {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Class::Refused => "refused",
            Class::Missing => "missing",
            Class::WrongAnswer => "wrong_answer",
            Class::Overloaded => "overloaded",
            Class::Unavailable => "unavailable",
            Class::Unknown => "unknown",
            Class::Contended => "contended",
            Class::Unsupported => "unsupported",
            Class::Other => "other",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
