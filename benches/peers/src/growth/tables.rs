//! The tables.

use holdfast_bench::Measurement;

use super::{Growth, mean};
use crate::page::shown;
use crate::statistics::Spread;
use crate::table::{markdown, mib, millis, thousands};

/// The most accounts if nothing is said.
const ACCOUNTS_USUAL: u64 = 1_000_000;

impl Growth {
    /// One after the other, those of which something was measured.
    pub(super) fn tables(&self) -> String {
        let parts = [
            ("More clients", self.clients_table(), "growth-clients", "clients"),
            (
                "More accounts",
                self.accounts_table(),
                "growth-accounts",
                "accounts",
            ),
            ("One node at rest", self.rest_table(), "growth-nodes", "accounts"),
            (
                "A node that starts",
                self.node_start_table(),
                "growth-start",
                "accounts",
            ),
            ("A cluster that starts", self.cluster_start_table(), "", ""),
            ("Backup and restore", self.restore_table(), "", ""),
            ("A new node", self.new_node_table(), "growth-new-node", "new-node"),
        ];
        let mut text = String::new();
        for (title, table, plot, part) in parts {
            let Some(table) = table else { continue };
            text += &format!("## {title}\n\n{table}\n");
            if !plot.is_empty() {
                text += &shown(plot, &format!("growth --only {part}{}", self.size_option(part)));
                text.push('\n');
            }
        }
        text
    }

    /// What has to be said to get the same sizes again.
    fn size_option(&self, part: &str) -> String {
        let rests = self.rests.iter().map(|rest| rest.accounts);
        let most = rests
            .chain(self.new_nodes.iter().map(|(new, _)| new.accounts))
            .max();
        match most {
            Some(most) if part != "clients" && most != ACCOUNTS_USUAL => format!(" --accounts-max {most}"),
            _ => String::new(),
        }
    }

    fn clients_table(&self) -> Option<String> {
        let head = [
            "operation",
            "clients",
            "a second",
            "p50 ms",
            "p99 ms",
            "max ms",
            "worst second",
            "errors",
            "generator busy",
        ];
        let rows = self.clients.iter().map(|load| {
            let measured = &load.measurement;
            vec![
                measured.workload.name().to_owned(),
                thousands(measured.clients as f64),
                thousands(measured.throughput),
                millis(measured.all.p50_us as f64),
                millis(measured.all.p99_us as f64),
                millis(measured.all.max_us as f64),
                maybe(measured.worst_window),
                thousands(measured.errors as f64),
                busy(measured),
            ]
        });
        table(&head, rows)
    }

    fn accounts_table(&self) -> Option<String> {
        let head = [
            "operation",
            "accounts",
            "a second",
            "p50 ms",
            "p99 ms",
            "max ms",
            "worst second",
            "no write ms",
            "written",
            "errors",
        ];
        let rows = self.accounts.iter().map(|(accounts, load)| {
            let measured = &load.measurement;
            vec![
                measured.workload.name().to_owned(),
                thousands(*accounts as f64),
                thousands(measured.throughput),
                millis(measured.all.p50_us as f64),
                millis(measured.all.p99_us as f64),
                millis(measured.all.max_us as f64),
                maybe(measured.worst_window),
                maybe(measured.longest_without_write_ms),
                load.written_per_byte()
                    .map_or_else(|| "-".to_owned(), |written| format!("{written:.1}")),
                thousands(measured.errors as f64),
            ]
        });
        let rest = "\nNo write: the longest time without one, as when compaction stalls. Written: bytes that one node had written \
                    to its disk for each byte of payload.\n";
        Some(table(&head, rows)? + rest)
    }

    fn rest_table(&self) -> Option<String> {
        let head = [
            "accounts",
            "memory, MiB",
            "anonymous, MiB",
            "disk, MiB",
            "memory, bytes/account",
            "disk, bytes/account",
            "filled a second",
            "written",
        ];
        let rows = self.rests.iter().map(|rest| {
            let each = |bytes: f64| thousands(bytes / rest.accounts.max(1) as f64);
            let filled = self
                .fillings
                .iter()
                .find(|filled| filled.prepared.prepared == rest.accounts);
            let (memory, disk) = (
                mean(rest, |node| node.memory_bytes),
                mean(rest, |node| node.disk_bytes),
            );
            vec![
                thousands(rest.accounts as f64),
                mib(memory),
                mib(mean(rest, |node| node.anonymous_bytes)),
                mib(disk),
                each(memory),
                each(disk),
                filled.map_or_else(String::new, |filled| {
                    thousands(filled.prepared.prepared as f64 / filled.prepared.seconds)
                }),
                filled.map_or_else(String::new, |filled| format!("{:.1}", filled.written_per_byte())),
            ]
        });
        table(&head, rows)
    }

    fn node_start_table(&self) -> Option<String> {
        let rows = self.node_starts.iter().map(|start| {
            vec![
                start.end.name().to_owned(),
                thousands(start.accounts as f64),
                format!("{:.2}", start.seconds),
            ]
        });
        let rest = "\nUntil it serves and has received and applied what is committed, seconds.\n";
        Some(table(&["it ended by", "accounts", "back after s"], rows)? + rest)
    }

    fn cluster_start_table(&self) -> Option<String> {
        let head = [
            "they ended by",
            "accounts",
            "all down after s",
            "a read after s",
            "a write after s",
        ];
        let rows = self.cluster_starts.iter().map(|start| {
            vec![
                start.end.name().to_owned(),
                thousands(start.accounts as f64),
                format!("{:.2}", start.down_seconds),
                format!("{:.2}", start.read_seconds),
                format!("{:.2}", start.write_seconds),
            ]
        });
        table(&head, rows)
    }

    fn restore_table(&self) -> Option<String> {
        let head = [
            "accounts",
            "exported after s",
            "file, MiB",
            "imported after s",
            "imported a second",
        ];
        let rows = self.restores.iter().map(|restore| {
            vec![
                thousands(restore.accounts as f64),
                format!("{:.1}", restore.export_seconds),
                mib(restore.bytes as f64),
                format!("{:.1}", restore.import_seconds),
                thousands(restore.accounts as f64 / restore.import_seconds),
            ]
        });
        let rest = "\n`holdfast export` to a file, and `holdfast import` of it into an empty cluster.\n";
        Some(table(&head, rows)? + rest)
    }

    fn new_node_table(&self) -> Option<String> {
        let head = [
            "accounts",
            "caught up after s",
            "due /s",
            "of it done",
            "worst second",
            "p99 ms, median second",
            "p99 ms, worst second",
            "max ms",
            "errors",
        ];
        let rows = self.new_nodes.iter().map(|(new, measured)| {
            let windows = new.meanwhile(measured);
            let done: u64 = windows.iter().map(|window| window.done).sum();
            let due = new.due() * windows.len() as f64;
            let p99 = Spread::of(windows.iter().map(|window| window.p99_us as f64));
            vec![
                thousands(new.accounts as f64),
                format!("{:.1}", new.caught_up_at - new.started_at),
                thousands(new.due()),
                format!("{:.1} %", done as f64 * 100.0 / due.max(1.0)),
                maybe(windows.iter().map(|window| window.done).min()),
                p99.map_or_else(String::new, |p99| millis(p99.median)),
                p99.map_or_else(String::new, |p99| millis(p99.greatest)),
                millis(windows.iter().map(|window| window.slowest_us).max().unwrap_or(0) as f64),
                thousands(windows.iter().map(|window| window.errors).sum::<u64>() as f64),
            ]
        });
        let mut text = table(&head, rows)?;
        text += "\nClients: of the seconds from the start of its process until it has received and applied what is committed.\n";
        for (new, measured) in &self.new_nodes {
            if new.caught_up_at > measured.seconds {
                text += &format!(
                    "With {} accounts the load ended after {:.0} s, before it had caught up.\n",
                    thousands(new.accounts as f64),
                    measured.seconds
                );
            }
        }
        Some(text)
    }
}

/// How much of the time of its threads the generator needed: near all of it, the result is about the generator.
fn busy(measured: &Measurement) -> String {
    let whole = measured.seconds * measured.generator.threads as f64;
    format!("{:.0} %", measured.generator.cpu_seconds * 100.0 / whole)
}

fn maybe(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| thousands(value as f64))
}

/// None without rows.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Option<String> {
    let rows: Vec<Vec<String>> = rows.collect();
    (!rows.is_empty()).then(|| markdown(head, &rows))
}
