//! The frame around each stored value: format byte, key id, stamp (big-endian), body.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_types::Stamp;

/// The only format so far.
pub const FORMAT: u8 = 1;
/// Bytes before the body.
pub const HEADER_LEN: usize = 10;

/// A value taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The encryption key of the body; 0: none.
    pub key_id: u8,
    /// When the row was last written.
    pub stamp: Stamp,
    /// The record.
    pub body: Bytes,
}

/// The bytes are no envelope of a format this build knows: damage, or a newer release wrote them. Fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored value has format {format:?}; this build knows format {FORMAT}")]
pub struct UnknownEnvelope {
    /// The format byte found, if there was one.
    pub format: Option<u8>,
}

/// Frames a record.
pub fn encode(key_id: u8, stamp: Stamp, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_LEN + body.len());
    out.put_u8(FORMAT);
    out.put_u8(key_id);
    out.put_u64(stamp.0);
    out.put_slice(body);
    out.freeze()
}

/// Takes a stored value apart without copying the body.
pub fn decode(value: &Bytes) -> Result<Envelope, UnknownEnvelope> {
    match value.first() {
        Some(&FORMAT) if value.len() >= HEADER_LEN => {
            let mut stamp = [0; 8];
            stamp.copy_from_slice(&value[2..HEADER_LEN]);
            Ok(Envelope {
                key_id: value[1],
                stamp: Stamp(u64::from_be_bytes(stamp)),
                body: value.slice(HEADER_LEN..),
            })
        }
        other => Err(UnknownEnvelope {
            format: other.copied(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let value = encode(0, Stamp(0x0102_0304_0506_0708), b"hi");
        assert_eq!(&value[..], &[1, 0, 1, 2, 3, 4, 5, 6, 7, 8, b'h', b'i']);
        assert_eq!(decode(&value).unwrap().body, Bytes::from_static(b"hi"));
        assert_eq!(decode(&Bytes::new()), Err(UnknownEnvelope { format: None }));
        assert_eq!(
            decode(&Bytes::from_static(&[9; 20])),
            Err(UnknownEnvelope { format: Some(9) })
        );
    }
}
