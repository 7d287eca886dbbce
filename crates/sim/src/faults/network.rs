//! A network that is cut, slow, lossy and rude.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_storage::choices::SplitMix64;
use madsim::task::NodeId as Place;
use tokio::time::{Instant, sleep};
use tonic::network;

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
            network::cut(from, to);
        }
    }

    /// Takes one [`cut`](Self::cut) back.
    pub(crate) fn mend(&self, from: Place, to: Place) {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = cuts.get_mut(&(from, to)) {
            *count -= 1;
            if *count == 0 {
                cuts.remove(&(from, to));
                network::mend(from, to);
            }
        }
    }

    /// No link is cut any more.
    pub(crate) fn mend_all(&self) {
        let cuts = std::mem::take(&mut *self.cuts.lock().unwrap_or_else(PoisonError::into_inner));
        for (from, to) in cuts.into_keys() {
            network::mend(from, to);
        }
    }
}

/// The weather over all links: fair, or slow by as much as the slowest of the spells that last. Not by their product, which
/// would keep what is sent under a few of them for longer than a run.
pub(crate) struct Spells {
    fair: Network,
    factors: Mutex<Vec<u32>>,
}

impl Spells {
    /// Sets fair weather.
    pub(crate) fn none(fair: &Network) -> Self {
        let spells = Spells {
            fair: fair.clone(),
            factors: Mutex::default(),
        };
        spells.end_all();
        spells
    }

    /// Sets fair weather again, whatever made it worse.
    pub(crate) fn end_all(&self) {
        let mut factors = self.factors.lock().unwrap_or_else(PoisonError::into_inner);
        factors.clear();
        self.set_latencies(&factors);
        network::change_weather(|weather| {
            weather.loss = self.fair.loss;
            weather.silent = self.fair.silent;
            weather.duplicates = 0.0;
        });
    }

    fn begin(&self, factor: u32) {
        let mut factors = self.factors.lock().unwrap_or_else(PoisonError::into_inner);
        factors.push(factor);
        self.set_latencies(&factors);
    }

    /// Takes one [`begin`](Self::begin) back.
    fn end(&self, factor: u32) {
        let mut factors = self.factors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = factors.iter().position(|other| *other == factor) {
            factors.swap_remove(at);
        }
        self.set_latencies(&factors);
    }

    fn set_latencies(&self, factors: &[u32]) {
        let slowest = factors.iter().copied().max().unwrap_or(1);
        let (least, most) = (self.fair.latency_min_us, self.fair.latency_max_us);
        network::change_weather(|weather| {
            weather.latency_min = Duration::from_micros(least) * slowest;
            weather.latency_max = Duration::from_micros(most.max(least)) * slowest;
        });
    }
}

/// Two groups cannot reach each other, or one of them the other.
pub(super) async fn partition(run: &Run, side: &[Node], one_way: bool, lasting: Duration) -> bool {
    let ids = run.cluster.ids();
    let links = pairs(run, &ids, |from, to| {
        side.contains(&from) && !side.contains(&to) || !one_way && !side.contains(&from) && side.contains(&to)
    });
    cut_for(run, links, lasting).await
}

/// A node and the others do not hear each other, or one does not hear the other. Clients reach them all.
pub(super) async fn isolate(run: &Run, target: Target, heard: bool, hears: bool, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let links = pairs(run, &run.cluster.ids(), |from, to| {
        from == id && !heard || to == id && !hears
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
        let mut links = pairs(run, &ids, |_, _| true);
        for outsider in run.cluster.outsiders() {
            for id in &ids {
                let place = run.cluster.place(*id);
                links.extend([(outsider, place), (place, outsider)]);
            }
        }
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

/// Requests of clients do not reach a node. It can still tell them what it was asked before.
pub(super) async fn lose_requests(run: &Run, target: Target, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let to = run.cluster.place(id);
    let links = run
        .cluster
        .outsiders()
        .into_iter()
        .map(|from| (from, to))
        .collect();
    cut_for(run, links, lasting).await
}

/// Messages from one node to another take longer, and more of them are lost: nobody else has it so bad.
pub(super) async fn poor_link(
    run: &Run,
    from: Node,
    to: Node,
    latency: Duration,
    loss: f64,
    lasting: Duration,
) -> bool {
    let ids = run.cluster.ids();
    if from == to || !ids.contains(&from) || !ids.contains(&to) {
        return false;
    }
    let (from, to) = (run.cluster.place(from), run.cluster.place(to));
    network::worsen(from, to, Some(network::Poor { latency, loss }));
    sleep(lasting).await;
    network::worsen(from, to, None);
    true
}

/// All streams of a node break at once, and once more every so often.
pub(super) async fn reset_streams(run: &Run, target: Target, every_ms: u64, lasting: Duration) -> bool {
    let Some(id) = run.find(target) else { return false };
    let until = Instant::now() + lasting;
    while Instant::now() < until {
        trace::event("reset", &format!("node={id}"));
        network::reset(run.cluster.place(id));
        sleep(Duration::from_millis(every_ms.max(1))).await;
    }
    true
}

/// Everything is slow.
pub(super) async fn slow(run: &Run, factor: u64, lasting: Duration) -> bool {
    let factor = u32::try_from(factor).unwrap_or(u32::MAX).max(1);
    let spells = run.cluster.spells();
    spells.begin(factor);
    sleep(lasting).await;
    spells.end(factor);
    true
}

/// Everything is lossy.
pub(super) async fn lossy(loss: f64, lasting: Duration) -> bool {
    network::change_weather(|weather| weather.loss += loss);
    sleep(lasting).await;
    network::change_weather(|weather| weather.loss = (weather.loss - loss).max(0.0));
    true
}

/// Requests arrive twice, the second time much later.
pub(super) async fn duplicates(share: f64, lasting: Duration) -> bool {
    network::change_weather(|weather| weather.duplicates += share);
    sleep(lasting).await;
    network::change_weather(|weather| weather.duplicates = (weather.duplicates - share).max(0.0));
    true
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

/// A machine and all nodes do not hear each other.
pub(super) async fn alone(run: &Run, place: Place, lasting: Duration) {
    let others = run.cluster.ids().into_iter().map(|id| run.cluster.place(id));
    let links = others
        .filter(|other| *other != place)
        .flat_map(|other| [(place, other), (other, place)])
        .collect();
    cut_for(run, links, lasting).await;
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
