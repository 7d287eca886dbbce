//! How large an account's record counts: a sum over its fields that is the same in every release and on every
//! node, unlike the length of an encoding.

use holdfast_types::{Account, AttributeValue, Identifier};

/// What each record, identifier, attribute, label or restriction counts besides its texts: numbers, times and
/// framing.
const OVERHEAD_BYTES: u64 = 16;

/// The size of an account in bytes, as `RealmConfig::max_record_bytes` limits it: the UTF-8 length of each text,
/// the length of each byte string, 8 for each number, and 16 for the record and each of its elements.
pub fn record_bytes(account: &Account) -> u64 {
    let texts = [
        account.id.as_str(),
        &account.display_name,
        &account.locale,
        &account.time_zone,
    ];
    let attributes = account.attributes.iter().map(|(name, attribute)| {
        OVERHEAD_BYTES + len(name) + len(&attribute.source) + value_bytes(&attribute.value)
    });
    let labels = account
        .labels
        .iter()
        .map(|(name, value)| OVERHEAD_BYTES + len(name) + len(value));
    let restrictions = account
        .restrictions
        .iter()
        .map(|restriction| OVERHEAD_BYTES + len(&restriction.code));
    OVERHEAD_BYTES
        + texts.into_iter().map(len).sum::<u64>()
        + account.identifiers.iter().map(identifier_bytes).sum::<u64>()
        + attributes.sum::<u64>()
        + labels.sum::<u64>()
        + restrictions.sum::<u64>()
}

fn identifier_bytes(identifier: &Identifier) -> u64 {
    let canonical = &identifier.canonical;
    let method = identifier
        .verification
        .as_ref()
        .map_or(0, |proof| len(&proof.method));
    OVERHEAD_BYTES + len(&identifier.value) + len(&canonical.issuer) + len(&canonical.text) + method
}

fn value_bytes(value: &AttributeValue) -> u64 {
    match value {
        AttributeValue::String(text) => len(text),
        AttributeValue::Bytes(bytes) => bytes.len() as u64,
        AttributeValue::Strings(texts) => texts.iter().map(|text| 8 + len(text)).sum(),
        AttributeValue::Int64(_) | AttributeValue::Double(_) | AttributeValue::Timestamp(..) => 8,
        AttributeValue::Bool(_) => 1,
    }
}

fn len(text: &str) -> u64 {
    text.len() as u64
}
