//! Fresh request ids.

use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_types::{Millis, RequestId};

/// A new request id (UUIDv7), born now.
///
/// Ids of one process are not ordered within a millisecond; nothing needs that, and a shared counter would make
/// two runs of one simulation differ.
pub fn new_request_id() -> RequestId {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64;
    let mut entropy = [0; 10];
    getrandom::fill(&mut entropy).expect("an id that is not random could collide; there is no safe fallback");
    RequestId::from_parts(Millis(now_ms), entropy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_version_7_and_born_now() {
        let id = new_request_id();
        assert_ne!(id, new_request_id());
        assert_eq!(RequestId::parse(&id.to_string()), Ok(id));
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        assert!(now_ms - id.birth().0 < 10_000);
    }
}
