//! When a node merged its tables, from what RocksDB wrote down of it: `db/LOG`, a line of JSON behind a few words for each event.

use std::fs;
use std::path::Path;

use crate::Failure;

/// What is merged with less is no news: small families, and tables that are moved.
const INPUT_BYTES_MIN: f64 = 16e6;

/// All merging of a node within some time.
#[derive(Debug, PartialEq)]
pub(super) struct Merged {
    /// Seconds since 1970 at which the first began and the last ended.
    pub(super) from: f64,
    pub(super) to: f64,
    /// What went in.
    pub(super) input_bytes: f64,
}

/// What a node has merged since `after`, seconds since 1970. RocksDB writes its log out when it is closed, so the node must
/// have stopped.
pub(super) fn of_node(data: &Path, after: f64) -> Result<Option<Merged>, Failure> {
    let path = data.join("db/LOG");
    let log = fs::read_to_string(&path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
    Ok(merged(&log, after))
}

fn merged(log: &str, after: f64) -> Option<Merged> {
    let mut under_way: Vec<(f64, f64, f64)> = Vec::new();
    let mut all: Option<Merged> = None;
    for line in log.lines() {
        let Some((_, event)) = line.split_once("EVENT_LOG_v1") else {
            continue;
        };
        let (Some(job), Some(micros)) = (number(event, "job"), number(event, "time_micros")) else {
            continue;
        };
        let at = micros / 1e6;
        if event.contains(r#""event": "compaction_started""#) {
            let bytes = number(event, "input_data_size").unwrap_or_default();
            if at >= after && bytes >= INPUT_BYTES_MIN {
                under_way.push((job, at, bytes));
            }
        } else if event.contains(r#""event": "compaction_finished""#)
            && let Some(place) = under_way.iter().position(|(begun, _, _)| *begun == job)
        {
            let (_, from, bytes) = under_way.swap_remove(place);
            let before = all.unwrap_or(Merged {
                from,
                to: at,
                input_bytes: 0.0,
            });
            all = Some(Merged {
                from: before.from.min(from),
                to: before.to.max(at),
                input_bytes: before.input_bytes + bytes,
            });
        }
    }
    all
}

/// A number of an event.
fn number(event: &str, name: &str) -> Option<f64> {
    let (_, value) = event.split_once(&format!("\"{name}\": "))?;
    value.split([',', '}']).next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rocksdb_writes_down_is_understood() {
        let started = |micros: u64, job: u32, bytes: u64| {
            format!(
                r#"2026/12/01-01:30:25.316983 5417 EVENT_LOG_v1 {{"time_micros": {micros}, "job": {job}, "event": "compaction_started", "cf_name": "account", "compaction_reason": "LevelL0FilesNum", "files_L0": [8, 9], "score": 1, "input_data_size": {bytes}, "oldest_snapshot_seqno": -1}}"#
            )
        };
        let finished = |micros: u64, job: u32| {
            format!(
                r#"2026/12/01-01:30:25.318084 5417 (Original Log Time 2026/12/01-01:30:25.317987) EVENT_LOG_v1 {{"time_micros": {micros}, "job": {job}, "event": "compaction_finished", "compaction_time_micros": 455, "output_level": 6, "lsm_state": [1, 0]}}"#
            )
        };
        let log = [
            started(1_000_000, 1, 90_000_000),
            finished(2_000_000, 1),
            started(5_000_000, 2, 20_000_000),
            "2026/12/01-01:30:25.318 5417 [JOB 3] Generated table".to_owned(),
            started(5_500_000, 3, 30_000_000),
            started(5_600_000, 4, 1_000),
            finished(6_000_000, 2),
            finished(8_500_000, 4),
            finished(7_250_000, 3),
            started(9_000_000, 5, 80_000_000),
        ]
        .join("\n");
        let seen = Merged {
            from: 5.0,
            to: 7.25,
            input_bytes: 50e6,
        };
        assert_eq!(merged(&log, 4.0), Some(seen));
        assert_eq!(merged(&log, 8.0), None);
    }
}
