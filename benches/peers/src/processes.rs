//! What the processes of a node have used, as the kernel counts it.
//!
//! A node is a process and all its descendants: PostgreSQL starts one for each connection. What a descendant used before
//! it ended was added to its parent's account when the parent took note of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The kernel's unit of processor time in `/proc/PID/stat`: USER_HZ, 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a node has used since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Used {
    /// Processor time, seconds.
    pub(crate) cpu_seconds: f64,
    /// Bytes that it had written to a disk, once they get there.
    pub(crate) written_bytes: u64,
}

/// What a node occupies at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Occupied {
    /// Memory, bytes: what several processes share counts once. Mapped files count, as far as they are in memory.
    pub(crate) memory_bytes: u64,
    /// Of these, what belongs to no file.
    pub(crate) anonymous_bytes: u64,
    /// Its data directory, bytes allocated on the disk.
    pub(crate) disk_bytes: u64,
}

impl Used {
    /// What all these nodes have used.
    pub(crate) fn by(roots: &[u32]) -> io::Result<Used> {
        let mut used = Used::default();
        for pid in families(roots)? {
            // A process that has just ended is in its parent's account from now on.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
                continue;
            };
            used.cpu_seconds += cpu_seconds(&stat).ok_or_else(|| unreadable(pid, "stat"))?;
            let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
            used.written_bytes += value_of(&io, "write_bytes:").unwrap_or(0);
        }
        Ok(used)
    }

    /// What was used from then to now.
    pub(crate) fn since(self, then: Used) -> Used {
        Used {
            // A descendant that ended between two readings may be missing from one.
            cpu_seconds: (self.cpu_seconds - then.cpu_seconds).max(0.0),
            written_bytes: self.written_bytes.saturating_sub(then.written_bytes),
        }
    }
}

impl Occupied {
    /// By one node.
    pub(crate) fn by(root: u32, directory: &Path) -> io::Result<Occupied> {
        let mut occupied = Occupied {
            disk_bytes: allocated(directory)?,
            ..Occupied::default()
        };
        for pid in families(&[root])? {
            let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
                continue;
            };
            occupied.memory_bytes += 1024 * value_of(&rollup, "Pss:").unwrap_or(0);
            occupied.anonymous_bytes += 1024 * value_of(&rollup, "Pss_Anon:").unwrap_or(0);
        }
        Ok(occupied)
    }
}

/// These processes and all their descendants.
fn families(roots: &[u32]) -> io::Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|stat| parent(&stat))
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = roots.to_vec();
    let mut next = 0;
    while let Some(pid) = family.get(next) {
        family.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(family)
}

/// The fields after the command's name, which is in parentheses and may hold anything: state, parent and so on.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
}

fn parent(stat: &str) -> Option<u32> {
    fields(stat).nth(1)?.parse().ok()
}

/// User and system time, its own and that of the descendants that have ended.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let times: Vec<u64> = fields(stat)
        .skip(11)
        .take(4)
        .map_while(|field| field.parse().ok())
        .collect();
    (times.len() == 4).then(|| times.iter().sum::<u64>() as f64 / TICKS_PER_SECOND)
}

/// The number behind a name in the first column.
fn value_of(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

fn allocated(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        // Stores delete files while we look.
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(why) => return Err(why),
    };
    let mut bytes = meta.blocks() * 512;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            bytes += allocated(&entry?.path())?;
        }
    }
    Ok(bytes)
}

fn unreadable(pid: u32, what: &str) -> io::Error {
    io::Error::other(format!("/proc/{pid}/{what} is not as expected"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_is_no_trap() {
        let stat = "42 (a ) (b) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 25 75 20 0 3 0 9999 1 2";
        assert_eq!(parent(stat), Some(7));
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("42 (x) S 7"), None);
    }

    #[test]
    fn numbers_are_found_by_name() {
        let text = "Rss:                 900 kB\nPss:                 512 kB\nPss_Anon:            100 kB\n";
        assert_eq!(value_of(text, "Pss:"), Some(512));
        assert_eq!(value_of(text, "Pss_Anon:"), Some(100));
        assert_eq!(value_of(text, "Swap:"), None);
    }

    #[test]
    fn a_family_has_its_children_and_used_something() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let family = families(&[std::process::id()]).unwrap();
        assert!(family.contains(&child.id()), "{family:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!families(&[std::process::id()]).unwrap().contains(&child.id()));
        let occupied = Occupied::by(std::process::id(), Path::new("src")).unwrap();
        assert!(occupied.disk_bytes >= 4096, "{occupied:?}");
    }
}
