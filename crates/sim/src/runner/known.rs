//! What dependencies do wrong and we cannot mend here. A run that ends so is counted by itself, shown in every
//! summary, and is neither passed nor failed. An entry goes when the dependency is mended.

/// A fault of a dependency.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Its name in summaries.
    pub name: &'static str,
    /// What the process says when it meets it.
    pub says: &'static str,
    /// What is known about it.
    pub story: &'static str,
}

/// All of them.
pub const KNOWN: &[Known] = &[Known {
    name: "openraft: membership change while standing for election",
    says: "openraft-0.10.0-alpha.37/src/engine/handler/replication_handler/mod.rs:102",
    story: "Seed 27949262184495 at commit 196b71d: a change of members reaches a node that openraft still holds for a \
            leader while its own state says candidate. `leader_append_entries` appends all the same (its source has \
            a note that it should refuse), and a debug assertion ends Raft's task. In a build with debug assertions \
            the node stops with a message and can be started again; what a release build does then is not proven.",
}];

/// The known fault that these last words tell of.
pub fn recognise(words: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| words.contains(known.says))
}
