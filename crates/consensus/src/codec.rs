//! Raft's own metadata on disk: votes, log ids, memberships, marks and identity.
//!
//! A format byte, then bincode 2 in its standard configuration over the structs of this file, which are ours:
//! what openraft's types look like inside does not reach the disk. bincode is unmaintained
//! (RUSTSEC-2025-0141), so nothing outside this module names it; a change of format is a new format byte.

use std::collections::{BTreeMap, BTreeSet};

use bincode::config::{Configuration, standard};
use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::config::{Directory, PeerAddresses};
use crate::type_config::{LogId, Membership, StoredMembership, Vote, log_id};

/// The only format so far.
const FORMAT: u8 = 1;

/// The bytes are not what this build writes: damage, or a newer release. Fatal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// The format byte is missing or unknown.
    #[error("{what} has format {found:?}; this release knows format {FORMAT}")]
    Format { what: &'static str, found: Option<u8> },
    /// The rest does not decode.
    #[error("{what} does not decode: {why}")]
    Body { what: &'static str, why: String },
}

/// A value with a stored form.
pub(crate) trait Stored: Sized {
    /// What it is called in errors.
    const WHAT: &'static str;
    /// The struct of this file that is written.
    type Record: Encode + Decode<()>;

    fn to_record(&self) -> Self::Record;
    fn from_record(record: Self::Record) -> Result<Self, String>;
}

/// The stored form of a value.
pub(crate) fn encode<T: Stored>(value: &T) -> Bytes {
    let mut out = vec![FORMAT];
    bincode::encode_into_std_write(value.to_record(), &mut out, standard())
        .expect("a vector takes every byte and these records always encode");
    out.into()
}

/// Reads a stored form. Every byte must be accounted for.
pub(crate) fn decode<T: Stored>(bytes: &[u8]) -> Result<T, CodecError> {
    let body = |why: String| CodecError::Body { what: T::WHAT, why };
    match bytes.split_first() {
        Some((&FORMAT, rest)) => {
            let (record, used) = bincode::decode_from_slice::<T::Record, Configuration>(rest, standard())
                .map_err(|error| body(error.to_string()))?;
            if used != rest.len() {
                return Err(body(format!("{} bytes are left over", rest.len() - used)));
            }
            T::from_record(record).map_err(body)
        }
        other => Err(CodecError::Format {
            what: T::WHAT,
            found: other.map(|(byte, _)| *byte),
        }),
    }
}

#[derive(Encode, Decode)]
pub(crate) struct VoteRecord {
    term: u64,
    node_id: u64,
    committed: bool,
}

impl Stored for Vote {
    const WHAT: &'static str = "the stored vote";
    type Record = VoteRecord;

    fn to_record(&self) -> VoteRecord {
        VoteRecord {
            term: self.leader_id.term,
            node_id: self.leader_id.voted_for,
            committed: self.committed,
        }
    }

    fn from_record(record: VoteRecord) -> Result<Self, String> {
        Ok(if record.committed {
            Vote::new_committed(record.term, record.node_id)
        } else {
            Vote::new(record.term, record.node_id)
        })
    }
}

#[derive(Encode, Decode)]
pub(crate) struct LogIdRecord {
    term: u64,
    index: u64,
}

impl From<LogId> for LogIdRecord {
    fn from(id: LogId) -> Self {
        LogIdRecord {
            term: id.leader_id.term,
            index: id.index,
        }
    }
}

impl Stored for LogId {
    const WHAT: &'static str = "a stored log id";
    type Record = LogIdRecord;

    fn to_record(&self) -> LogIdRecord {
        (*self).into()
    }

    fn from_record(record: LogIdRecord) -> Result<Self, String> {
        Ok(log_id(record.term, record.index))
    }
}

#[derive(Encode, Decode)]
pub(crate) struct NodeRecord {
    id: u64,
    peer: String,
    client: String,
    admin: String,
    directory: Option<[u8; 16]>,
}

#[derive(Encode, Decode)]
pub(crate) struct MembershipRecord {
    configs: Vec<Vec<u64>>,
    nodes: Vec<NodeRecord>,
}

impl Stored for Membership {
    const WHAT: &'static str = "a stored membership";
    type Record = MembershipRecord;

    fn to_record(&self) -> MembershipRecord {
        MembershipRecord {
            configs: self
                .get_joint_config()
                .iter()
                .map(|ids| ids.iter().copied().collect())
                .collect(),
            nodes: self
                .nodes()
                .map(|(id, node)| NodeRecord {
                    id: *id,
                    peer: node.peer.clone(),
                    client: node.client.clone(),
                    admin: node.admin.clone(),
                    directory: node.directory,
                })
                .collect(),
        }
    }

    fn from_record(record: MembershipRecord) -> Result<Self, String> {
        let configs: Vec<BTreeSet<u64>> = record
            .configs
            .into_iter()
            .map(|ids| ids.into_iter().collect())
            .collect();
        let nodes: BTreeMap<u64, PeerAddresses> = record
            .nodes
            .into_iter()
            .map(|node| {
                (
                    node.id,
                    PeerAddresses {
                        peer: node.peer,
                        client: node.client,
                        admin: node.admin,
                        directory: node.directory,
                    },
                )
            })
            .collect();
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(configs, nodes).map_err(|error| error.to_string())
    }
}

#[derive(Encode, Decode)]
pub(crate) struct StoredMembershipRecord {
    log_id: Option<LogIdRecord>,
    membership: MembershipRecord,
}

impl Stored for StoredMembership {
    const WHAT: &'static str = "the stored membership in force";
    type Record = StoredMembershipRecord;

    fn to_record(&self) -> StoredMembershipRecord {
        StoredMembershipRecord {
            log_id: self.log_id().map(Into::into),
            membership: self.membership().to_record(),
        }
    }

    fn from_record(record: StoredMembershipRecord) -> Result<Self, String> {
        let membership = Membership::from_record(record.membership)?;
        Ok(StoredMembership::new(
            record.log_id.map(|id| log_id(id.term, id.index)),
            membership,
        ))
    }
}

/// A snapshot whose rows are staged completely and that is being installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installing {
    /// The last entry it includes.
    pub(crate) last_log_id: Option<LogId>,
    /// The membership as of that entry.
    pub(crate) membership: StoredMembership,
}

#[derive(Encode, Decode)]
pub(crate) struct InstallingRecord {
    last_log_id: Option<LogIdRecord>,
    membership: StoredMembershipRecord,
}

impl Stored for Installing {
    const WHAT: &'static str = "the mark of a snapshot being installed";
    type Record = InstallingRecord;

    fn to_record(&self) -> InstallingRecord {
        InstallingRecord {
            last_log_id: self.last_log_id.map(Into::into),
            membership: self.membership.to_record(),
        }
    }

    fn from_record(record: InstallingRecord) -> Result<Self, String> {
        Ok(Installing {
            last_log_id: record.last_log_id.map(|id| log_id(id.term, id.index)),
            membership: StoredMembership::from_record(record.membership)?,
        })
    }
}

/// Whose directory this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The cluster, 16 bytes.
    pub(crate) cluster_id: [u8; 16],
    /// The node.
    pub(crate) node_id: u64,
    /// The directory itself: random, drawn once.
    pub(crate) directory: Directory,
    /// The layout of everything in the directory.
    pub(crate) format: u32,
}

#[derive(Encode, Decode)]
pub(crate) struct IdentityRecord {
    cluster_id: [u8; 16],
    node_id: u64,
    directory: [u8; 16],
    format: u32,
}

impl Stored for Identity {
    const WHAT: &'static str = "the directory's identity";
    type Record = IdentityRecord;

    fn to_record(&self) -> IdentityRecord {
        IdentityRecord {
            cluster_id: self.cluster_id,
            node_id: self.node_id,
            directory: self.directory,
            format: self.format,
        }
    }

    fn from_record(record: IdentityRecord) -> Result<Self, String> {
        Ok(Identity {
            cluster_id: record.cluster_id,
            node_id: record.node_id,
            directory: record.directory,
            format: record.format,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden<T: Stored + PartialEq + std::fmt::Debug>(value: T, bytes: &[u8]) {
        assert_eq!(
            &encode(&value)[..],
            bytes,
            "the stored form of {} changed",
            T::WHAT
        );
        assert_eq!(decode::<T>(bytes), Ok(value));
    }

    fn membership() -> Membership {
        let node = |id: u64| PeerAddresses {
            peer: format!("p{id}"),
            client: "c".into(),
            admin: String::new(),
            directory: (id == 2).then_some([8; 16]),
        };
        Membership::new(
            vec![BTreeSet::from([1, 2]), BTreeSet::from([2])],
            BTreeMap::from([(1, node(1)), (2, node(2))]),
        )
        .unwrap()
    }

    #[test]
    fn golden_bytes() {
        golden(Vote::new_committed(300, 2), &[1, 251, 44, 1, 2, 1]);
        golden(Vote::new(1, 7), &[1, 1, 7, 0]);
        golden(log_id(3, 1_000), &[1, 3, 251, 232, 3]);
        let members = [
            2, 2, 1, 2, 1, 2, 2, 1, 2, b'p', b'1', 1, b'c', 0, 0, 2, 2, b'p', b'2', 1, b'c', 0, 1, 8, 8, 8,
            8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
        ];
        golden(membership(), &[&[1][..], &members].concat());
        golden(
            StoredMembership::new(Some(log_id(3, 4)), membership()),
            &[&[1, 1, 3, 4][..], &members].concat(),
        );
        golden(
            Installing {
                last_log_id: None,
                membership: StoredMembership::default(),
            },
            &[1, 0, 0, 0, 0],
        );
        let mut identity = vec![1];
        identity.extend([9; 16]);
        identity.push(5);
        identity.extend([8; 16]);
        identity.push(1);
        golden(
            Identity {
                cluster_id: [9; 16],
                node_id: 5,
                directory: [8; 16],
                format: 1,
            },
            &identity,
        );
    }

    #[test]
    fn anything_else_is_an_error() {
        assert_eq!(
            decode::<Vote>(&[]),
            Err(CodecError::Format {
                what: Vote::WHAT,
                found: None
            })
        );
        assert_eq!(
            decode::<Vote>(&[2, 0, 0, 0]),
            Err(CodecError::Format {
                what: Vote::WHAT,
                found: Some(2)
            })
        );
        assert!(matches!(decode::<Vote>(&[1, 1, 7]), Err(CodecError::Body { .. })));
        assert!(matches!(
            decode::<Vote>(&[1, 1, 7, 0, 0]),
            Err(CodecError::Body { .. })
        ));
        // Voters without an address.
        assert!(matches!(
            decode::<Membership>(&[1, 1, 1, 9, 0]),
            Err(CodecError::Body { .. })
        ));
    }
}
