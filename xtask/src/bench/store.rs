//! The stores of the comparison: names, and where their nodes listen.
//!
//! Ports of their own, apart from those of `cargo xtask up` and of an installed PostgreSQL.

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Holdfast,
    Etcd,
    PostgresBare,
    PostgresEquivalent,
    Echo,
}

impl Store {
    /// In the order in which a round visits them.
    pub(crate) const ALL: [Store; 5] = [
        Store::Holdfast,
        Store::Etcd,
        Store::PostgresBare,
        Store::PostgresEquivalent,
        Store::Echo,
    ];

    /// Its name, on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Store::Holdfast => "holdfast",
            Store::Etcd => "etcd",
            Store::PostgresBare => "postgres-bare",
            Store::PostgresEquivalent => "postgres-equivalent",
            Store::Echo => "echo",
        }
    }

    /// Whether it is PostgreSQL.
    pub(crate) fn is_postgres(self) -> bool {
        matches!(self, Store::PostgresBare | Store::PostgresEquivalent)
    }

    /// How many nodes it has.
    pub(crate) fn nodes(self) -> usize {
        match self {
            Store::Echo => 1,
            _ => 3,
        }
    }

    fn base(self) -> u16 {
        match self {
            Store::Holdfast => 18_100,
            Store::Etcd => 18_200,
            Store::PostgresBare | Store::PostgresEquivalent => 18_300,
            Store::Echo => 18_400,
        }
    }

    /// Where clients reach the node at this place, from 1.
    pub(crate) fn client_port(self, place: usize) -> u16 {
        self.base() + place as u16
    }

    /// Where the other nodes reach it.
    pub(crate) fn peer_port(self, place: usize) -> u16 {
        self.base() + 10 + place as u16
    }

    /// Where operators reach it, if that is another port.
    pub(crate) fn admin_port(self, place: usize) -> u16 {
        self.base() + 20 + place as u16
    }

    /// Where its metrics are.
    pub(crate) fn metrics_port(self, place: usize) -> u16 {
        self.base() + 30 + place as u16
    }

    /// The places of its nodes.
    pub(crate) fn places(self) -> std::ops::RangeInclusive<usize> {
        1..=self.nodes()
    }
}

/// `127.0.0.1:port`.
pub(crate) fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
