//! What machines say to each other: the latest of it is kept for reports, and the judge of failed nodes listens.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::network::{self, Said};

use crate::cluster::Cluster;
use crate::fail_stop::FailStop;
use crate::trace;

/// How many messages are kept: all of most runs.
const KEPT_MAX: usize = 200_000;

static LATEST: Mutex<VecDeque<(u64, network::Overheard)>> = Mutex::new(VecDeque::new());

/// Listens from now on.
pub(crate) fn listen(cluster: &Arc<Cluster>, fail_stop: &Arc<FailStop>) {
    let (cluster, fail_stop) = (Arc::clone(cluster), Arc::clone(fail_stop));
    network::overhear(move |overheard| {
        fail_stop.heard(&cluster, &overheard);
        let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() == KEPT_MAX {
            latest.pop_front();
        }
        latest.push_back((trace::now(), overheard));
    });
}

/// What is kept, as lines that begin like those of the trace. Machines have the simulator's numbers.
pub(crate) fn take() -> Vec<String> {
    let Ok(mut latest) = LATEST.try_lock() else {
        return vec!["the messages are lost: one was being written down".to_owned()];
    };
    let lines = std::mem::take(&mut *latest).into_iter().map(|(at, overheard)| {
        let mut line = format!(
            "{at:>14} message {} -> {} {} ",
            overheard.from,
            overheard.to,
            overheard.path.path()
        );
        // Writing to a string does not fail.
        let _ = match overheard.said {
            Said::Asks => write!(line, "asks"),
            Said::AsksMore => write!(line, "asks more"),
            Said::Answers => write!(line, "answers"),
            Said::Refuses(code) => write!(line, "refuses: {code:?}"),
        };
        line
    });
    lines.collect()
}
