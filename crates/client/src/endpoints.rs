//! Where to send the next attempt: the leader if known, otherwise the endpoints in turn.
//!
//! Any node answers any request, so nothing here is needed for correctness: going to the leader saves a hop,
//! and moving on after a failure finds a node that lives. A leader is learned from answers and errors. An
//! address that just failed is not believed again as a leader for a while, because followers go on naming a
//! dead leader until they have elected another, and because an address may not be reachable from here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Channel;

use crate::transport::{Connector, InvalidEndpoint};

/// How long an address that failed is not believed to be the leader.
const DISTRUST: Duration = Duration::from_millis(1_500);

/// One set of addresses that serve the same services, with their channels.
pub(crate) struct Endpoints {
    connector: Connector,
    /// Only the one seed is ever asked: the caller means that node.
    pinned: bool,
    state: Mutex<State>,
}

struct State {
    /// What the caller configured, in order, canonical.
    seeds: Vec<String>,
    /// The seed to use while no leader is known.
    cursor: usize,
    leader: Option<String>,
    /// Addresses that failed, and until when they are not believed to lead.
    distrusted: BTreeMap<String, Instant>,
    channels: BTreeMap<String, Channel>,
}

/// The target of one attempt.
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) channel: Channel,
}

impl Endpoints {
    /// `start` chooses the first seed, so that many clients do not all begin with the same node.
    pub(crate) fn new(seeds: &[String], connector: Connector, start: usize) -> Result<Self, InvalidEndpoint> {
        let mut channels = BTreeMap::new();
        let mut canonical = Vec::new();
        for seed in seeds {
            let address = canonical_address(seed);
            if address.is_empty() {
                continue;
            }
            channels.insert(address.clone(), connector.channel(&address)?);
            canonical.push(address);
        }
        if canonical.is_empty() {
            return Err(InvalidEndpoint {
                endpoint: String::new(),
                why: "no endpoint was given".into(),
            });
        }
        let state = State {
            cursor: start % canonical.len(),
            seeds: canonical,
            leader: None,
            distrusted: BTreeMap::new(),
            channels,
        };
        Ok(Endpoints {
            connector,
            pinned: false,
            state: Mutex::new(state),
        })
    }

    /// One node and no other, whoever leads.
    pub(crate) fn pinned(address: &str, connector: Connector) -> Result<Self, InvalidEndpoint> {
        let endpoints = Self::new(&[address.to_owned()], connector, 0)?;
        Ok(Endpoints {
            pinned: true,
            ..endpoints
        })
    }

    /// How many addresses the caller configured.
    pub(crate) fn len(&self) -> usize {
        self.lock().seeds.len()
    }

    /// Where the next attempt goes.
    pub(crate) fn pick(&self) -> Target {
        let mut state = self.lock();
        if let Some(leader) = state.leader.clone() {
            match state.channels.get(&leader).cloned() {
                Some(channel) => {
                    return Target {
                        address: leader,
                        channel,
                    };
                }
                None => match self.connector.channel(&leader) {
                    Ok(channel) => {
                        state.channels.insert(leader.clone(), channel.clone());
                        return Target {
                            address: leader,
                            channel,
                        };
                    }
                    // A node announced an address that is none; the seeds still work.
                    Err(_) => state.leader = None,
                },
            }
        }
        let address = state.seeds[state.cursor % state.seeds.len()].clone();
        let channel = state
            .channels
            .get(&address)
            .cloned()
            .expect("every seed has a channel from the start");
        Target { address, channel }
    }

    /// A node said that `address` leads. Returns whether that is news worth acting on at once.
    pub(crate) fn leader_is(&self, address: &str) -> bool {
        if self.pinned {
            return false;
        }
        let mut state = self.lock();
        // Every answer says it, and nearly always this.
        if state.leader.as_deref() == Some(address) {
            return false;
        }
        let address = canonical_address(address);
        let now = Instant::now();
        state.distrusted.retain(|_, until| *until > now);
        if address.is_empty() || state.distrusted.contains_key(&address) {
            return false;
        }
        let news = state.leader.as_deref() != Some(address.as_str());
        state.leader = Some(address);
        news
    }

    /// An attempt on `address` failed in a way that another node may cure.
    pub(crate) fn failed(&self, address: &str) {
        let mut state = self.lock();
        state
            .distrusted
            .insert(address.to_owned(), Instant::now() + DISTRUST);
        if state.leader.as_deref() == Some(address) {
            state.leader = None;
        }
        if state.seeds[state.cursor % state.seeds.len()] == address {
            state.cursor = (state.cursor + 1) % state.seeds.len();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it; were it to, the state is still a valid choice of address.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `host:port`, without scheme and surrounding space, so that one node has one name here.
pub(crate) fn canonical_address(address: &str) -> String {
    let address = address.trim().trim_end_matches('/');
    let address = address
        .strip_prefix("http://")
        .or_else(|| address.strip_prefix("https://"))
        .unwrap_or(address);
    address.to_owned()
}

// Clippy knows a test module by `cfg(test)` alone.
#[allow(clippy::unwrap_used)]
#[cfg(all(test, not(madsim)))]
mod tests {
    use super::*;
    use crate::config::ClientConfig;

    fn endpoints(seeds: &[&str]) -> Endpoints {
        let seeds: Vec<String> = seeds.iter().map(|s| (*s).to_owned()).collect();
        Endpoints::new(&seeds, Connector::new(&ClientConfig::default()).unwrap(), 0).unwrap()
    }

    #[tokio::test]
    async fn seeds_take_turns_when_they_fail() {
        let endpoints = endpoints(&["a:1", "http://b:2/", "c:3"]);
        let mut seen = Vec::new();
        for _ in 0..4 {
            let target = endpoints.pick();
            endpoints.failed(&target.address);
            seen.push(target.address);
        }
        assert_eq!(seen, ["a:1", "b:2", "c:3", "a:1"]);
    }

    #[tokio::test]
    async fn the_leader_is_preferred_until_it_fails() {
        let endpoints = endpoints(&["a:1", "b:2"]);
        assert!(endpoints.leader_is("c:3"), "also one that was not configured");
        assert!(!endpoints.leader_is("c:3"), "no news the second time");
        assert_eq!(endpoints.pick().address, "c:3");
        endpoints.failed("c:3");
        assert_eq!(
            endpoints.pick().address,
            "a:1",
            "the seed was not the one that failed"
        );
        assert!(!endpoints.leader_is("c:3"), "not believed right after it failed");
        assert_eq!(endpoints.pick().address, "a:1");
    }

    #[tokio::test]
    async fn an_announced_address_that_is_none_is_ignored() {
        let endpoints = endpoints(&["a:1"]);
        endpoints.leader_is("not an address");
        assert_eq!(endpoints.pick().address, "a:1");
        assert!(Endpoints::new(&[], Connector::new(&ClientConfig::default()).unwrap(), 0).is_err());
    }
}
