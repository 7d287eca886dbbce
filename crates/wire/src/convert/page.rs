//! The page token of ListAccounts: opaque to clients, checked when it comes back.
//!
//! Layout, before base64 (URL alphabet, no padding): format byte, digest of the parameters (8 bytes), slot (2),
//! account id, CRC-32 of all that (4). Only the parameters that choose the accounts are in the digest, so that a
//! client may change the page size on the way.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast_types::{AccountId, AccountState, RealmId, Slot};

const FORMAT: u8 = 1;

/// Where a page ended: the next one begins after this account, in (slot, id) order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The slot of the last record looked at.
    pub slot: Slot,
    /// Its id.
    pub account: AccountId,
}

/// What a list is of. A token serves only the list that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The realm.
    pub realm: RealmId,
    /// The states asked for.
    pub states: BTreeSet<AccountState>,
}

impl Parameters {
    fn digest(&self) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.realm.as_str().as_bytes());
        for state in &self.states {
            hasher.update(b"/").update(state.name().as_bytes());
        }
        let mut digest = [0; 8];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        digest
    }
}

/// The token for the page after `position`.
pub fn encode(parameters: &Parameters, position: &Position) -> String {
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&parameters.digest());
    bytes.extend_from_slice(&position.slot.0.to_be_bytes());
    bytes.extend_from_slice(position.account.as_str().as_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Where the page before ended, or what is wrong with the token.
pub fn decode(parameters: &Parameters, token: &str) -> Result<Position, &'static str> {
    const DAMAGED: &str = "is not a page token of this service; pass `next_page_token` unchanged";
    const FOREIGN: &str =
        "belongs to another list; the other fields must be as they were for the page before";
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| DAMAGED)?;
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(DAMAGED)?;
    if crc32fast::hash(body) != u32::from_be_bytes(*crc) || body.first() != Some(&FORMAT) {
        return Err(DAMAGED);
    }
    let (digest, rest) = body[1..].split_first_chunk::<8>().ok_or(DAMAGED)?;
    if *digest != parameters.digest() {
        return Err(FOREIGN);
    }
    let (slot, account) = rest.split_first_chunk::<2>().ok_or(DAMAGED)?;
    let account = std::str::from_utf8(account)
        .ok()
        .and_then(|id| AccountId::new(id).ok())
        .ok_or(DAMAGED)?;
    Ok(Position {
        slot: Slot(u16::from_be_bytes(*slot)),
        account,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_belong_to_one_list() {
        let parameters = Parameters {
            realm: RealmId::default_realm(),
            states: [AccountState::Active].into_iter().collect(),
        };
        let position = Position {
            slot: Slot(40_000),
            account: AccountId::new("user-1").unwrap(),
        };
        let token = encode(&parameters, &position);
        assert_eq!(decode(&parameters, &token), Ok(position.clone()));

        let other = Parameters {
            states: BTreeSet::new(),
            ..parameters.clone()
        };
        assert!(decode(&other, &token).unwrap_err().contains("another list"));
        for at in 0..token.len() {
            let mut bad = token.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).unwrap();
            assert!(decode(&parameters, &bad).is_err(), "changed at {at}");
        }
        for bad in ["", "x", "AAAA", "ü", &"A".repeat(4_000)] {
            assert!(decode(&parameters, bad).is_err(), "{bad:?}");
        }
    }
}
