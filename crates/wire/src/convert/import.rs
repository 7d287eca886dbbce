//! The messages of ImportAccounts.
//!
//! An item is a mutation like any other; only its ids are derived. Both come from the import's id and the item's
//! index, so an item that is sent again meets its own request record and takes effect once. The account id is
//! the same for ever; the request id also depends on a birth that the node chooses, because an import may take
//! longer than the request window.

use holdfast_accounts::{ImportMode, Operation};
use holdfast_types::{Actor, Millis, RealmId, Rejection, RequestId};

use super::accounts::new_account;
use super::check::Check;
use super::mutations::{AccountChoice, Mutation};
use crate::status::Problem;
use crate::v1;

/// What an import is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// The realm.
    pub realm: RealmId,
    /// The import's id.
    pub import_id: RequestId,
    /// What to do about an account that exists.
    pub mode: ImportMode,
    /// On whose behalf and why.
    pub actor: Actor,
}

/// Reads the first message of an import.
pub fn options(message: v1::ImportOptions) -> Result<ImportOptions, Rejection> {
    let mut check = Check::new();
    let realm = check.realm_name("options.parent", &message.parent);
    let import_id = check.request_id("options.import_id", &message.import_id);
    let mode = mode(message.mode());
    if mode.is_none() {
        check.wrong("options.mode", "must be CREATE, UPSERT or SKIP");
    }
    let actor = check.actor(message.context);
    let options = (|| {
        Some(ImportOptions {
            realm: realm?,
            import_id: import_id?,
            mode: mode?,
            actor,
        })
    })();
    check.finish(options)
}

/// A mode; none: it is not said.
pub fn mode(message: v1::ImportMode) -> Option<ImportMode> {
    match message {
        v1::ImportMode::Create => Some(ImportMode::Create),
        v1::ImportMode::Upsert => Some(ImportMode::Upsert),
        v1::ImportMode::Skip => Some(ImportMode::Skip),
        v1::ImportMode::Unspecified => None,
    }
}

/// Refuses to go on with an import in another mode than it began with: what it did so far would not be what the
/// caller now asks for.
pub fn same_mode(begun: Option<ImportMode>, now: Option<ImportMode>) -> Result<(), Rejection> {
    let mut check = Check::new();
    if let (Some(begun), Some(now)) = (begun, now)
        && begun != now
    {
        let begun = match begun {
            ImportMode::Create => "CREATE",
            ImportMode::Upsert => "UPSERT",
            ImportMode::Skip => "SKIP",
        };
        check.wrong(
            "options.mode",
            format!("this import was begun with {begun}; resume it with that, or choose another import_id"),
        );
    }
    check.finish(Some(()))
}

/// Reads an item. `birth` is the birth of its request id.
pub fn item(options: &ImportOptions, birth: Millis, message: v1::ImportItem) -> Result<Mutation, Rejection> {
    let import_id = options.import_id;
    let mut check = Check::new();
    if message.index == 0 {
        check.wrong("index", "counts from 1");
    }
    let account = check.optional_account_id("account_id", &message.account_id);
    let new = check
        .required("account", message.account)
        .map(|new| new_account(&mut check, "account", new));
    let mutation = (|| {
        Some(Mutation {
            realm: options.realm.clone(),
            account: AccountChoice::new(
                account?,
                item_request_id(import_id, message.index, import_id.birth()),
            ),
            request_id: item_request_id(import_id, message.index, birth),
            actor: options.actor.clone(),
            operation: Operation::Import {
                mode: options.mode,
                account: new?,
            },
        })
    })();
    check.finish(mutation)
}

/// The request id of an item.
pub fn item_request_id(import_id: RequestId, index: u64, birth: Millis) -> RequestId {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(b"import-item")
        .update(import_id.as_bytes())
        .update(&index.to_be_bytes());
    let mut entropy = [0; 10];
    entropy.copy_from_slice(&hasher.finalize().as_bytes()[..10]);
    RequestId::from_parts(birth, entropy)
}

/// The result of an item that was turned down.
pub fn rejected(index: u64, problem: &Problem) -> v1::ImportItemResult {
    v1::ImportItemResult {
        index,
        code: problem.code() as i32,
        reason: problem.reason.into(),
        message: problem.message.clone(),
        violations: problem
            .violations
            .iter()
            .map(|violation| v1::FieldViolation {
                field: violation.field.clone(),
                description: violation.description.clone(),
            })
            .collect(),
        action: v1::ImportAction::Rejected.into(),
        name: String::new(),
        revision: 0,
    }
}
