//! What a seed means: everything a run is, drawn from one number.
//!
//! Changing anything here changes what every seed means; stored runs keep their configuration and do not care.

use holdfast_storage::choices::SplitMix64;

use crate::config::{Configuration, Disk, Network};
use crate::{faults, workload};

/// The configuration of a seed.
pub fn draw(seed: u64) -> Configuration {
    // The simulator and the disks draw from the seed too: these are other numbers.
    let mut choices = SplitMix64::new(seed ^ 0x686f_6c64_6661_7374);
    let nodes = [3, 3, 3, 4, 5, 5][choices.below(6) as usize];
    let safety_ms = 15_000 + choices.below(30_000);
    let network = network(&mut choices);
    let disk = Disk {
        sync_min_us: 50 + choices.below(3_000),
        sync_jitter_us: 1 + choices.below(8_000),
    };
    let (workload, realm) = workload::draw(&mut choices);
    let (faults, ending) = faults::draw(&mut choices, nodes, safety_ms);
    let founding = faults::draw_founding(&mut choices);
    Configuration {
        seed,
        scenario: "swarm".to_owned(),
        nodes,
        safety_ms,
        network,
        disk,
        realm,
        workload,
        founding,
        faults,
        ending,
        planted: None,
    }
}

fn network(choices: &mut SplitMix64) -> Network {
    let latency_min_us = 50 + choices.below(2_000);
    Network {
        latency_min_us,
        latency_max_us: latency_min_us + 100 + choices.below(10_000),
        loss: [0.0, 0.0, 0.001, 0.01][choices.below(4) as usize],
        silent: [0.0, 0.5, 1.0][choices.below(3) as usize],
    }
}
