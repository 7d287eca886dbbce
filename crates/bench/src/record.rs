//! Accounts to load a store with, each made from nothing but a seed and its number.
//!
//! So any client, in any process and against any store, knows the email of account 123,456 without remembering or
//! asking. Ids and identifiers are scattered, as real ones are: neighbours by number are strangers in every index. The
//! payload is random bytes, so that no store gains by compressing what real, encrypted or photographic, data would not
//! let it compress.

/// The accounts of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Population {
    /// Populations of different seeds have nothing in common.
    pub seed: u32,
    /// The length of each payload, bytes.
    pub payload_bytes: usize,
}

/// One account, as it is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number in the population.
    pub number: u64,
    /// Its id, `bench-…`.
    pub id: String,
    /// Its first unique identifier.
    pub email: String,
    /// Its second.
    pub username: String,
    /// What it is about, incompressible.
    pub payload: Vec<u8>,
}

/// Steps that make the three names of one account look unrelated.
const ID: u64 = 0x2545_f491_4f6c_dd1d;
const EMAIL: u64 = 0x5851_f42d_4c95_7f2d;
const USERNAME: u64 = 0x1405_7b7e_f767_814f;

impl Population {
    /// Account `number` as it is created.
    pub fn record(&self, number: u64) -> Record {
        Record {
            number,
            id: self.id(number),
            email: self.email(number),
            username: self.username(number),
            payload: self.payload(number, 1),
        }
    }

    /// The id of account `number`.
    pub fn id(&self, number: u64) -> String {
        format!("bench-{}-{:016x}", self.seed, scatter(number ^ ID))
    }

    /// The email of account `number`.
    pub fn email(&self, number: u64) -> String {
        format!("u{:016x}@bench{}.example", scatter(number ^ EMAIL), self.seed)
    }

    /// The user name of account `number`.
    pub fn username(&self, number: u64) -> String {
        format!("bench{}_{:016x}", self.seed, scatter(number ^ USERNAME))
    }

    /// The payload of account `number` in one of its editions; the first is 1.
    pub fn payload(&self, number: u64, edition: u64) -> Vec<u8> {
        let mut state = scatter(number ^ scatter(edition ^ (u64::from(self.seed) << 32)));
        let mut payload = Vec::with_capacity(self.payload_bytes + 8);
        while payload.len() < self.payload_bytes {
            state = state.wrapping_add(GOLDEN);
            payload.extend_from_slice(&finish(state).to_le_bytes());
        }
        payload.truncate(self.payload_bytes);
        payload
    }
}

/// Steele, Lea and Flood's SplitMix64: the increment.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64: the output function, one-to-one.
fn finish(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One-to-one: no two numbers share an id.
fn scatter(number: u64) -> u64 {
    finish(number.wrapping_add(GOLDEN))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PEOPLE: Population = Population {
        seed: 1,
        payload_bytes: 1000,
    };

    #[test]
    fn an_account_is_the_same_in_every_process_and_release() {
        let record = PEOPLE.record(7);
        assert_eq!(record, PEOPLE.record(7));
        // Golden: a store filled by an earlier release must be found again.
        assert_eq!(record.id, GOLDEN_ID);
        assert_eq!(record.email, GOLDEN_EMAIL);
        assert_eq!(record.username, GOLDEN_USERNAME);
        assert_eq!(record.payload[..8], GOLDEN_PAYLOAD);
        assert_eq!((record.payload.len(), record.number), (1000, 7));
    }

    const GOLDEN_ID: &str = "bench-1-c13a5e122c6c4d0f";
    const GOLDEN_EMAIL: &str = "ufae33298a8399d50@bench1.example";
    const GOLDEN_USERNAME: &str = "bench1_f885d1e977a6a84a";
    const GOLDEN_PAYLOAD: [u8; 8] = [157, 33, 50, 83, 0, 171, 129, 238];

    #[test]
    fn no_two_accounts_share_anything() {
        let mut seen = BTreeSet::new();
        for seed in [1, 2] {
            let people = Population { seed, ..PEOPLE };
            for number in (0..2_000).chain(u64::MAX - 100..u64::MAX) {
                let record = people.record(number);
                for name in [record.id, record.email, record.username] {
                    assert!(seen.insert(name.clone()), "{name}");
                }
                assert!(
                    seen.insert(format!("{:?}", record.payload)),
                    "payload of {number}"
                );
            }
        }
        assert_ne!(PEOPLE.payload(3, 1), PEOPLE.payload(3, 2), "an update changes it");
    }

    #[test]
    fn a_payload_has_the_size_asked_for_and_does_not_compress() {
        for payload_bytes in [0, 1, 7, 8, 9, 1024, 100_000] {
            let people = Population {
                seed: 1,
                payload_bytes,
            };
            assert_eq!(people.payload(1, 1).len(), payload_bytes);
        }
        // All byte values about equally often, which no entropy coder can use.
        let mut counts = [0_u32; 256];
        for byte in (Population {
            seed: 1,
            payload_bytes: 256_000,
        })
        .payload(1, 1)
        {
            counts[usize::from(byte)] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1_200).contains(count)),
            "{counts:?}"
        );
    }
}
