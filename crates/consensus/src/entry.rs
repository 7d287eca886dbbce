//! The stored form of a log entry, which is also its form on the wire.
//!
//! ```text
//! format (1)  crc32 of everything after it (4)  term (8)  index (8)  kind (1)  payload
//! ```
//!
//! Big-endian. Kinds: 0 blank, 1 command (the command's own bytes), 2 membership ([`codec`](crate::codec)).
//! An entry that does not decode is never skipped: that would be a silent loss.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec;
use crate::type_config::{EncodedCommand, LogEntry, Membership, Payload, log_id};

const FORMAT: u8 = 1;
const HEADER_LEN: usize = 1 + 4 + 8 + 8 + 1;
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The bytes are no entry of a format this build knows. Fatal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("a log entry has format {0:?}; this release knows format {FORMAT}")]
    Format(Option<u8>),
    #[error("a log entry is only {0} bytes long")]
    Short(usize),
    #[error("a log entry's checksum is {stored:08x} but its bytes have {computed:08x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("log entry {index} has the unknown kind {kind}")]
    Kind { index: u64, kind: u8 },
    #[error("log entry {index} says it is blank but carries {len} bytes")]
    NotBlank { index: u64, len: usize },
    #[error("log entry {index}: {error}")]
    Membership { index: u64, error: codec::CodecError },
}

/// The stored form; shared, if the entry still remembers it.
pub(crate) fn encode(entry: &LogEntry) -> Bytes {
    if let Some(encoded) = &entry.encoded {
        return encoded.clone();
    }
    let (kind, payload) = match &entry.payload {
        Payload::Blank => (BLANK, Bytes::new()),
        Payload::Normal(command) => (COMMAND, command.0.clone()),
        Payload::Membership(membership) => (MEMBERSHIP, codec::encode(membership)),
    };
    let mut out = BytesMut::with_capacity(HEADER_LEN + payload.len());
    out.put_u8(FORMAT);
    out.put_u32(0);
    out.put_u64(entry.log_id.leader_id.term);
    out.put_u64(entry.log_id.index);
    out.put_u8(kind);
    out.put_slice(&payload);
    let checksum = crc32fast::hash(&out[5..]);
    out[1..5].copy_from_slice(&checksum.to_be_bytes());
    out.freeze()
}

/// Reads a stored form; the payload shares its bytes, and the entry remembers them.
pub(crate) fn decode(bytes: &Bytes) -> Result<LogEntry, EntryError> {
    match bytes.first() {
        Some(&FORMAT) if bytes.len() >= HEADER_LEN => {}
        Some(&FORMAT) => return Err(EntryError::Short(bytes.len())),
        other => return Err(EntryError::Format(other.copied())),
    }
    let stored = u32::from_be_bytes(array(&bytes[1..5]));
    let computed = crc32fast::hash(&bytes[5..]);
    if stored != computed {
        return Err(EntryError::Checksum { stored, computed });
    }
    let term = u64::from_be_bytes(array(&bytes[5..13]));
    let index = u64::from_be_bytes(array(&bytes[13..21]));
    let rest = bytes.slice(HEADER_LEN..);
    let payload = match bytes[21] {
        BLANK if rest.is_empty() => Payload::Blank,
        BLANK => {
            return Err(EntryError::NotBlank {
                index,
                len: rest.len(),
            });
        }
        COMMAND => Payload::Normal(EncodedCommand(rest)),
        MEMBERSHIP => Payload::Membership(
            codec::decode::<Membership>(&rest).map_err(|error| EntryError::Membership { index, error })?,
        ),
        kind => return Err(EntryError::Kind { index, kind }),
    };
    Ok(LogEntry {
        log_id: log_id(term, index),
        payload,
        encoded: Some(bytes.clone()),
    })
}

fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(slice);
    out
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;

    use super::*;

    #[test]
    fn golden_bytes() {
        let entry = LogEntry::new(
            log_id(2, 3),
            Payload::Normal(EncodedCommand(Bytes::from_static(b"hi"))),
        );
        let bytes = encode(&entry);
        let tail = [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 1, b'h', b'i'];
        assert_eq!(bytes[0], 1);
        assert_eq!(bytes[1..5], crc32fast::hash(&tail).to_be_bytes());
        assert_eq!(bytes[5..], tail);
        assert_eq!(
            crc32fast::hash(&tail),
            0xbc0e_aa7a,
            "the checksum is CRC-32 (IEEE)"
        );

        let back = decode(&bytes).unwrap();
        assert_eq!(back.log_id, log_id(2, 3));
        assert!(matches!(&back.payload, Payload::Normal(command) if &command.0[..] == b"hi"));
        assert_eq!(
            encode(&back).as_ptr(),
            bytes.as_ptr(),
            "the bytes are shared, not written again"
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode(&LogEntry::new(log_id(2, 3), Payload::Blank));
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(decode(&damaged.into()).is_err(), "bit {at}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes.slice(..len)).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_new_log_id_forgets_the_old_bytes() {
        let mut entry = decode(&encode(&LogEntry::new(log_id(1, 1), Payload::Blank))).unwrap();
        entry.set_log_id(log_id(5, 6));
        assert_eq!(decode(&encode(&entry)).unwrap().log_id, log_id(5, 6));
    }
}
