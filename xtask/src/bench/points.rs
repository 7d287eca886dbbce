//! The points at which stores are compared: which load, from how many clients, on which accounts.

use super::store::Store;

/// Accounts that are there in the comparison of small stores.
pub(crate) const FEW_ACCOUNTS: u64 = 20_000;

/// One load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) workload: &'static str,
    pub(crate) clients: u32,
    pub(crate) zipf: bool,
    /// Percent of the closed loop's rate at which an open loop runs afterwards.
    pub(crate) open_loops: &'static [u32],
}

const fn uniform(workload: &'static str, clients: u32) -> Point {
    Point {
        workload,
        clients,
        zipf: false,
        open_loops: &[],
    }
}

const fn zipf(workload: &'static str, clients: u32) -> Point {
    Point {
        zipf: true,
        ..uniform(workload, clients)
    }
}

const fn open(point: Point) -> Point {
    Point {
        open_loops: &[50, 70],
        ..point
    }
}

/// What `--quick` measures.
const QUICK: [Point; 6] = [
    uniform("get", 64),
    uniform("lookup", 64),
    uniform("update", 64),
    uniform("mix", 64),
    zipf("mix", 64),
    uniform("create", 64),
];

const FULL: [Point; 29] = [
    uniform("get", 1),
    uniform("get", 16),
    open(uniform("get", 64)),
    uniform("get", 256),
    zipf("get", 64),
    uniform("gathered-get", 64),
    uniform("gathered-get", 256),
    uniform("lookup", 1),
    uniform("lookup", 16),
    open(uniform("lookup", 64)),
    uniform("lookup", 256),
    zipf("lookup", 64),
    uniform("mix", 1),
    uniform("mix", 16),
    open(uniform("mix", 64)),
    uniform("mix", 256),
    zipf("mix", 64),
    uniform("update", 1),
    uniform("update", 16),
    open(uniform("update", 64)),
    uniform("update", 256),
    zipf("update", 64),
    uniform("login-storm", 64),
    uniform("create", 1),
    uniform("create", 16),
    open(uniform("create", 64)),
    uniform("create", 256),
    uniform("sign-up-storm", 64),
    uniform("import", 16),
];

/// With many accounts, before memory and disk are looked at: nothing that adds accounts.
pub(crate) const MANY_READS: [Point; 3] = [uniform("get", 64), zipf("get", 64), uniform("lookup", 64)];

/// And after.
pub(crate) const MANY_WRITES: [Point; 3] = [uniform("update", 64), uniform("mix", 64), uniform("create", 64)];

/// The points of one store.
pub(crate) fn points(store: Store, quick: bool) -> Vec<Point> {
    let all: &[Point] = if quick { &QUICK } else { &FULL };
    let of_this_store = |point: &&Point| match store {
        // It keeps nothing: a read's messages, and a write's.
        Store::Echo => ["get", "create"].contains(&point.workload) && !point.zipf,
        // Its client gathers nothing.
        Store::Etcd => point.workload != "gathered-get",
        Store::Holdfast | Store::PostgresBare | Store::PostgresEquivalent => true,
    };
    all.iter().filter(of_this_store).copied().collect()
}

impl Point {
    /// Whether it needs accounts that nobody has changed yet. A client knows versions from what it has read; one that
    /// has read nothing would update an account twice, the first time in vain.
    pub(crate) fn needs_fresh_accounts(&self) -> bool {
        self.workload == "update"
    }

    /// The load generator's options for it.
    pub(crate) fn options(&self) -> Vec<String> {
        let mut options = vec![
            "--workload".to_owned(),
            self.workload.to_owned(),
            "--clients".to_owned(),
            self.clients.to_string(),
        ];
        if self.zipf {
            options.extend(["--distribution".to_owned(), "zipf".to_owned()]);
        }
        options
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        let zipf = if self.zipf { ", Zipf" } else { "" };
        format!("{}, {} clients{zipf}", self.workload, self.clients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_is_a_part_of_the_whole() {
        for point in QUICK {
            let same = |other: &&Point| {
                (other.workload, other.clients, other.zipf) == (point.workload, point.clients, point.zipf)
            };
            assert!(FULL.iter().find(same).is_some(), "{point:?}");
            assert_eq!(point.clients, 64);
        }
    }

    #[test]
    fn stores_are_asked_for_what_they_have() {
        assert_eq!(points(Store::Holdfast, false).len(), FULL.len());
        assert!(
            points(Store::Etcd, false)
                .iter()
                .all(|point| point.workload != "gathered-get")
        );
        assert_eq!(points(Store::Echo, true).len(), 2);
    }
}
