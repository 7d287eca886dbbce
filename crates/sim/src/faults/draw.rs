//! What goes wrong in a run, drawn from its seed.
//!
//! Swarm testing (Groce and others, 2012): each run leaves most kinds of faults out, so that those it has get
//! deep, and so that no fault hides what another would have shown. Some runs have none, some exactly one kind.

use std::collections::BTreeSet;

use holdfast_storage::choices::SplitMix64;

use crate::config::{Ending, Fault, FoundingCrash, Misnamed, Node, Part, Scheduled, Target};

/// Quiet at the beginning, so that there is something to lose.
const QUIET_MS: u64 = 3_000;
/// Between two steps that lead to a crash point.
const PROVOCATION_MS: u64 = 600;

/// Makes a fault of some kind for a cluster of so many founders.
type Make = fn(&mut SplitMix64, u64) -> Fault;

/// A kind of fault: how it is drawn, how long it lasts, and how often it may happen.
struct Kind {
    make: Make,
    lasts_ms: (u64, u64),
    times_max: u64,
}

const fn kind(make: Make, lasts_ms: (u64, u64), times_max: u64) -> Kind {
    Kind {
        make,
        lasts_ms,
        times_max,
    }
}

const KINDS: &[Kind] = &[
    kind(partition, (500, 8_000), 4),
    kind(isolate, (500, 8_000), 4),
    kind(bridge, (500, 8_000), 3),
    kind(random_clogs, (4_000, 15_000), 2),
    kind(
        |c, _| Fault::Slow {
            factor: 2 + c.below(30),
        },
        (2_000, 10_000),
        3,
    ),
    kind(
        |c, _| Fault::Lossy {
            loss: (1 + c.below(25)) as f64 / 100.0,
        },
        (2_000, 10_000),
        3,
    ),
    kind(
        |c, _| Fault::Duplicates {
            share: (1 + c.below(30)) as f64 / 100.0,
        },
        (2_000, 15_000),
        3,
    ),
    kind(
        |c, n| Fault::LoseAnswers { target: target(c, n) },
        (1_000, 6_000),
        4,
    ),
    kind(
        |c, n| Fault::LoseRequests { target: target(c, n) },
        (1_000, 6_000),
        3,
    ),
    kind(poor_link, (3_000, 20_000), 4),
    kind(reset_point, (4_000, 15_000), 4),
    kind(
        |c, n| Fault::ResetStreams {
            target: target(c, n),
            every_ms: 50 + c.below(2_000),
        },
        (2_000, 10_000),
        3,
    ),
    kind(|c, n| Fault::Kill { target: target(c, n) }, (100, 6_000), 6),
    kind(|c, n| Fault::CutPower { target: target(c, n) }, (100, 6_000), 6),
    kind(crash_point, (6_000, 15_000), 6),
    kind(|c, n| Fault::Stop { target: target(c, n) }, (500, 8_000), 4),
    kind(
        |c, n| Fault::RestartStorm {
            target: target(c, n),
            every_ms: 30 + c.below(1_500),
        },
        (2_000, 8_000),
        2,
    ),
    kind(|c, n| Fault::Pause { target: target(c, n) }, (300, 6_000), 5),
    kind(|_, _| Fault::Blackout, (10, 2_000), 3),
    kind(
        |c, n| Fault::LongAbsence { target: target(c, n) },
        (15_000, 30_000),
        1,
    ),
    kind(
        |c, n| Fault::SlowSyncs {
            target: target(c, n),
            delay_ms: 20 + c.below(400),
        },
        (2_000, 10_000),
        4,
    ),
    kind(
        |c, n| Fault::StalledSyncs { target: target(c, n) },
        (500, 30_000),
        3,
    ),
    kind(|c, n| Fault::FailedSync { target: target(c, n) }, (500, 3_000), 3),
    kind(|c, n| Fault::ReadErrors { target: target(c, n) }, (20, 2_000), 2),
    kind(bit_flip, (8_000, 18_000), 2),
    kind(|c, n| Fault::BitRot { target: target(c, n) }, (8_000, 18_000), 1),
    kind(disk_point, (6_000, 15_000), 4),
    kind(
        |c, n| Fault::Wipe {
            target: target(c, n),
            told: c.below(2) == 0,
        },
        (8_000, 18_000),
        1,
    ),
    kind(|c, n| Fault::Full { target: target(c, n) }, (2_000, 10_000), 3),
    kind(clock_offset, (1_000, 12_000), 5),
    kind(clock_drift, (4_000, 20_000), 3),
    kind(|_, _| Fault::AddNode, (6_000, 15_000), 2),
    kind(
        |c, n| Fault::RemoveNode { target: target(c, n) },
        (3_000, 8_000),
        2,
    ),
    kind(
        |c, n| Fault::ReplaceNode { target: target(c, n) },
        (6_000, 15_000),
        2,
    ),
    kind(|_, _| Fault::TransferLeadership, (500, 3_000), 6),
    kind(|c, n| Fault::Drain { target: target(c, n) }, (2_000, 8_000), 3),
    kind(
        |c, n| Fault::TriggerSnapshot { target: target(c, n) },
        (100, 1_000),
        6,
    ),
    kind(
        |c, n| Fault::Reconfigure { target: target(c, n) },
        (3_000, 10_000),
        2,
    ),
    kind(
        |c, n| Fault::Misname {
            target: target(c, n),
            what: [Misnamed::Cluster, Misnamed::Node][c.below(2) as usize],
        },
        (1_000, 5_000),
        2,
    ),
    kind(|_, _| Fault::Stranger, (4_000, 8_000), 2),
];

/// Every kind of fault that is drawn, and every variety of it that has its own name.
pub fn varieties() -> BTreeSet<String> {
    let points = super::crash_points::POINTS.iter().map(|point| Fault::CutPowerAt {
        point: (*point).to_owned(),
        passes: 0,
    });
    let disk_points = super::crash_points::DISK_POINTS
        .iter()
        .map(|(point, how)| Fault::DiskFailsAt {
            point: (*point).to_owned(),
            passes: 0,
            how: *how,
        });
    let resets = super::crash_points::RESET_POINTS
        .iter()
        .map(|point| Fault::ResetAt {
            point: (*point).to_owned(),
            passes: 0,
        });
    let flips = Part::ALL.iter().map(|part| Fault::BitFlip {
        target: Target::Leader,
        part: *part,
    });
    let mut choices = SplitMix64::new(1);
    let kinds = KINDS.iter().map(|kind| (kind.make)(&mut choices, 5));
    let founding = super::crash_points::FOUNDING_POINTS.iter();
    let founding = founding.map(|point| format!("founding-crash {point}"));
    let named = points.chain(disk_points).chain(resets).chain(flips);
    let unnamed = kinds.filter(|fault| fault.variety() == fault.kind());
    let drawn = named.chain(unnamed).map(|fault| fault.variety());
    drawn.chain(founding).collect()
}

/// Where the power of a founder is cut while the cluster is founded, if it is.
pub fn draw_founding(choices: &mut SplitMix64) -> Option<FoundingCrash> {
    let points = super::crash_points::FOUNDING_POINTS;
    let point = points[choices.below(points.len() as u64) as usize];
    let passes = choices.below(3);
    (choices.below(8) == 0).then(|| FoundingCrash {
        point: point.to_owned(),
        passes,
    })
}

/// The faults of a run of a cluster of `nodes` founders, in the order of time, and what is left of them.
pub fn draw(choices: &mut SplitMix64, nodes: u64, safety_ms: u64) -> (Vec<Scheduled>, Ending) {
    let chosen: Vec<&Kind> = match choices.below(16) {
        0 => Vec::new(),
        1 | 2 => vec![&KINDS[choices.below(KINDS.len() as u64) as usize]],
        _ => {
            // A share of its own for each run, so that rich and poor mixtures both occur.
            let share = 10 + choices.below(45);
            KINDS.iter().filter(|_| choices.below(100) < share).collect()
        }
    };
    // How much at once: from one now and then to many on top of each other.
    let intensity = 1 + choices.below(3);
    let mut faults = Vec::new();
    for kind in chosen {
        let times = 1 + choices
            .below(kind.times_max * intensity / 2 + 1)
            .min(kind.times_max);
        for _ in 0..times {
            faults.extend(place(choices, kind, nodes, safety_ms));
        }
    }
    provoke(choices, &mut faults, nodes);
    faults.sort_by_key(|scheduled| scheduled.at_ms);
    let ending = match choices.below(6) {
        0 => Ending::MinorityDown,
        1 => Ending::OneWayLink,
        _ => Ending::Healed,
    };
    (faults, ending)
}

/// Adds what leads to the crash points that are waited for, a moment after the waiting begins.
fn provoke(choices: &mut SplitMix64, faults: &mut Vec<Scheduled>, nodes: u64) {
    let mut provocations = Vec::new();
    for scheduled in &*faults {
        if let Fault::CutPowerAt { point, .. }
        | Fault::DiskFailsAt { point, .. }
        | Fault::ResetAt { point, .. } = &scheduled.fault
        {
            for (number, fault) in provocation(point, choices, nodes).into_iter().enumerate() {
                let after_ms = 200 + PROVOCATION_MS * number as u64;
                provocations.push(Scheduled {
                    at_ms: scheduled.at_ms + after_ms,
                    for_ms: scheduled.for_ms.saturating_sub(after_ms),
                    fault,
                });
            }
        }
    }
    faults.extend(provocations);
}

/// Puts a fault somewhere in the safety phase such that it also ends there; none if it does not fit.
fn place(choices: &mut SplitMix64, kind: &Kind, nodes: u64, safety_ms: u64) -> Option<Scheduled> {
    let room = safety_ms.checked_sub(QUIET_MS)?;
    let (least, most) = kind.lasts_ms;
    let most = most.min(room);
    if most < least {
        return None;
    }
    let for_ms = least + choices.below(most - least + 1);
    Some(Scheduled {
        at_ms: QUIET_MS + choices.below(room - for_ms + 1),
        for_ms,
        fault: (kind.make)(choices, nodes),
    })
}

fn target(choices: &mut SplitMix64, nodes: u64) -> Target {
    match choices.below(4) {
        0 | 1 => Target::Leader,
        2 => Target::Follower,
        _ => Target::Node(1 + choices.below(nodes)),
    }
}

fn partition(choices: &mut SplitMix64, nodes: u64) -> Fault {
    Fault::Partition {
        side: side(choices, nodes),
        one_way: choices.below(3) == 0,
    }
}

fn isolate(choices: &mut SplitMix64, nodes: u64) -> Fault {
    let (heard, hears) = [(false, false), (false, true), (true, false)][choices.below(3) as usize];
    Fault::Isolate {
        target: target(choices, nodes),
        heard,
        hears,
    }
}

fn bridge(choices: &mut SplitMix64, nodes: u64) -> Fault {
    Fault::Bridge {
        over: 1 + choices.below(nodes),
        side: side(choices, nodes),
    }
}

/// Some of the nodes, but not all.
fn side(choices: &mut SplitMix64, nodes: u64) -> Vec<Node> {
    let size = 1 + choices.below(nodes - 1);
    let mut left: Vec<Node> = (1..=nodes).collect();
    let mut side: Vec<Node> = (0..size)
        .map(|_| left.swap_remove(choices.below(left.len() as u64) as usize))
        .collect();
    side.sort_unstable();
    side
}

fn random_clogs(choices: &mut SplitMix64, _nodes: u64) -> Fault {
    Fault::RandomClogs {
        every_ms: 50 + choices.below(1_500),
    }
}

fn crash_point(choices: &mut SplitMix64, _nodes: u64) -> Fault {
    let points = super::crash_points::POINTS;
    let point = points[choices.below(points.len() as u64) as usize];
    let passes_max = match point.split('.').next() {
        // Only who was cut off as a leader passes it.
        Some("log") if point.ends_with("truncation-queued") => 1,
        // Each write passes these.
        Some("log" | "apply") => 300,
        Some("import" | "export") => 3,
        // Seldom passed more than once while it is waited for.
        Some("install" | "membership" | "start" | "stop") => 1,
        // Passed a few times in a run.
        _ => 3,
    };
    Fault::CutPowerAt {
        point: point.to_owned(),
        passes: choices.below(passes_max),
    }
}

fn poor_link(choices: &mut SplitMix64, nodes: u64) -> Fault {
    let from = 1 + choices.below(nodes);
    Fault::PoorLink {
        from,
        to: 1 + (from + choices.below(nodes - 1)) % nodes,
        latency_ms: [0, 20, 100, 400][choices.below(4) as usize],
        loss: [0.02, 0.1, 0.3, 0.6][choices.below(4) as usize],
    }
}

fn reset_point(choices: &mut SplitMix64, _nodes: u64) -> Fault {
    let points = super::crash_points::RESET_POINTS;
    Fault::ResetAt {
        point: points[choices.below(points.len() as u64) as usize].to_owned(),
        passes: choices.below(4),
    }
}

fn disk_point(choices: &mut SplitMix64, _nodes: u64) -> Fault {
    let points = super::crash_points::DISK_POINTS;
    let (point, how) = points[choices.below(points.len() as u64) as usize];
    Fault::DiskFailsAt {
        point: point.to_owned(),
        passes: choices.below(if point.starts_with("log.") { 200 } else { 2 }),
        how,
    }
}

/// What makes it likely that a crash point is passed, step by step.
fn provocation(point: &str, choices: &mut SplitMix64, nodes: u64) -> Vec<Fault> {
    let target = target(choices, nodes);
    match point.split('.').next() {
        // A new node gets the log as long as all of it is there.
        Some("install") => vec![
            Fault::TriggerSnapshot {
                target: Target::Leader,
            },
            Fault::AddNode,
        ],
        Some("start") => vec![Fault::AddNode],
        Some("log") if point.ends_with("truncation-queued") => vec![Fault::Isolate {
            target: Target::Leader,
            heard: false,
            hears: false,
        }],
        Some("membership") if point.ends_with("not-removed") => vec![Fault::RemoveNode { target }],
        Some("membership") if choices.below(2) == 0 => vec![Fault::AddNode],
        Some("membership") => vec![Fault::ReplaceNode { target }],
        Some("snapshot") if choices.below(2) == 0 => vec![Fault::AddNode],
        Some("snapshot") => vec![Fault::TriggerSnapshot { target }],
        Some("stop") => vec![Fault::Stop { target }],
        Some("leadership" | "vote") => vec![Fault::TransferLeadership],
        _ => Vec::new(),
    }
}

fn bit_flip(choices: &mut SplitMix64, nodes: u64) -> Fault {
    Fault::BitFlip {
        target: target(choices, nodes),
        part: Part::ALL[choices.below(Part::ALL.len() as u64) as usize],
    }
}

fn clock_offset(choices: &mut SplitMix64, nodes: u64) -> Fault {
    // Within what nodes tolerate, a little beyond it, and absurd.
    let size = match choices.below(3) {
        0 => choices.below(400),
        1 => 400 + choices.below(2_000),
        _ => choices.below(3_600_000),
    } as i64;
    Fault::ClockOffset {
        target: target(choices, nodes),
        offset_ms: if choices.below(2) == 0 { size } else { -size },
    }
}

fn clock_drift(choices: &mut SplitMix64, nodes: u64) -> Fault {
    let size = (1 + choices.below(100_000)) as i64;
    Fault::ClockDrift {
        target: target(choices, nodes),
        ppm: if choices.below(2) == 0 { size } else { -size },
    }
}
