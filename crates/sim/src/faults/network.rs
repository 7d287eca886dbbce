//! A network that is cut, slow, lossy and rude.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_storage::choices::SplitMix64;
use madsim::net::NetSim;
use madsim::task::NodeId as Place;
use tokio::time::{Instant, sleep};

use super::Run;
use crate::config::{Network, Node, Target};
use crate::trace;

/// Which directed links are cut, and by how many.
#[derive(Default)]
pub(crate) struct Links {
    cuts: Mutex<BTreeMap<(Place, Place), u32>>,
}

impl Links {
    /// Messages from one machine to another do not arrive until as many have mended the link as cut it.
    pub(crate) fn cut(&self, from: Place, to: Place) {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = cuts.entry((from, to)).or_default();
        *count += 1;
        if *count == 1 {
            NetSim::current().clog_link(from, to);
        }
    }

    /// Takes one [`cut`](Self::cut) back.
    pub(crate) fn mend(&self, from: Place, to: Place) {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = cuts.get_mut(&(from, to)) {
            *count -= 1;
            if *count == 0 {
                cuts.remove(&(from, to));
                NetSim::current().unclog_link(from, to);
            }
        }
    }

    /// No link is cut any more.
    pub(crate) fn mend_all(&self) {
        let cuts = std::mem::take(&mut *self.cuts.lock().unwrap_or_else(PoisonError::into_inner));
        for (from, to) in cuts.into_keys() {
            NetSim::current().unclog_link(from, to);
        }
    }
}

/// Sets latency and loss of all links.
pub(super) fn weather(network: &Network) {
    NetSim::current().update_config(|config| {
        config.packet_loss_rate = network.loss;
        config.send_latency =
            Duration::from_micros(network.latency_min_us)..Duration::from_micros(network.latency_max_us + 1);
    });
}

/// Two groups cannot reach each other, or one of them the other.
pub(super) async fn partition(run: &Run, side: &[Node], one_way: bool, lasting: Duration) -> bool {
    let ids = run.cluster.ids();
    let links = pairs(run, &ids, |from, to| {
        side.contains(&from) && !side.contains(&to) || !one_way && !side.contains(&from) && side.contains(&to)
    });
    cut_for(run, links, lasting).await
}

/// Two groups see each other only through one node.
pub(super) async fn bridge(run: &Run, over: Node, side: &[Node], lasting: Duration) -> bool {
    let ids = run.cluster.ids();
    let links = pairs(run, &ids, |from, to| {
        from != over && to != over && side.contains(&from) != side.contains(&to)
    });
    cut_for(run, links, lasting).await
}

/// Directed links fail and recover by themselves, one after another.
pub(super) async fn random_clogs(
    run: &Run,
    every_ms: u64,
    lasting: Duration,
    choices: &mut SplitMix64,
) -> bool {
    let until = Instant::now() + lasting;
    let mut cut = Vec::new();
    let mut happened = false;
    while Instant::now() < until {
        let ids = run.cluster.ids();
        let links = pairs(run, &ids, |_, _| true);
        if !links.is_empty() {
            let (from, to) = links[choices.below(links.len() as u64) as usize];
            match cut.iter().position(|link| *link == (from, to)) {
                Some(at) => {
                    cut.remove(at);
                    run.cluster.links().mend(from, to);
                }
                None => {
                    happened = true;
                    cut.push((from, to));
                    run.cluster.links().cut(from, to);
                }
            }
        }
        sleep(Duration::from_millis(1 + choices.below(2 * every_ms.max(1)))).await;
    }
    for (from, to) in cut {
        run.cluster.links().mend(from, to);
    }
    happened
}

/// Answers of a node reach no client.
pub(super) async fn lose_answers(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let from = run.cluster.place(id);
    let links = run.cluster.outsiders().into_iter().map(|to| (from, to)).collect();
    cut_for(run, links, lasting).await
}

/// All streams of a node break at once, and once more every so often.
pub(super) async fn reset_streams(run: &Run, target: Target, every_ms: u64, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let until = Instant::now() + lasting;
    while Instant::now() < until {
        trace::event("reset", &format!("node={id}"));
        sleep(Duration::from_millis(every_ms.max(1))).await;
    }
    true
}

/// Everything is slow.
pub(super) async fn slow(factor: u64, lasting: Duration) -> bool {
    scale(|config| {
        config.send_latency.start *= factor as u32;
        config.send_latency.end *= factor as u32;
    });
    sleep(lasting).await;
    scale(|config| {
        config.send_latency.start /= factor as u32;
        config.send_latency.end /= factor as u32;
    });
    true
}

/// Everything is lossy.
pub(super) async fn lossy(loss: f64, lasting: Duration) -> bool {
    scale(|config| config.packet_loss_rate += loss);
    sleep(lasting).await;
    scale(|config| config.packet_loss_rate = (config.packet_loss_rate - loss).max(0.0));
    true
}

fn scale(change: impl FnOnce(&mut madsim::net::Config)) {
    NetSim::current().update_config(change);
}

/// The links of all running machines that `chosen` wants.
fn pairs(run: &Run, ids: &[Node], chosen: impl Fn(Node, Node) -> bool) -> Vec<(Place, Place)> {
    let mut links = Vec::new();
    for from in ids {
        for to in ids {
            if from != to && chosen(*from, *to) {
                links.push((run.cluster.place(*from), run.cluster.place(*to)));
            }
        }
    }
    links
}

async fn cut_for(run: &Run, links: Vec<(Place, Place)>, lasting: Duration) -> bool {
    for (from, to) in &links {
        run.cluster.links().cut(*from, *to);
    }
    trace::event("cut", &format!("links={}", links.len()));
    sleep(lasting).await;
    for (from, to) in &links {
        run.cluster.links().mend(*from, *to);
    }
    trace::event("mended", &format!("links={}", links.len()));
    !links.is_empty()
}
