//! The bugs that can be planted (`cargo xtask sim --planted`), to see whether the judges notice.

/// A bug behind `holdfast_markers::planted!`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planted {
    /// Its name in the sources.
    pub name: &'static str,
    /// What the code does wrong.
    pub what: &'static str,
    /// The judges that should notice.
    pub caught_by: &'static str,
    /// What must happen in a run for it to show.
    pub needs: &'static str,
    /// Within how many seeds the swarm must notice.
    pub within: u64,
}

/// All of them.
pub const PLANTED: &[Planted] = &[];
