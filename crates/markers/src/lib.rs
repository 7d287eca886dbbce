//! Marks in production code that only the simulation sees. In every other build they are nothing.
//!
//! * [`reached!`] names a rare branch, so that a swarm of simulated runs can report the branches it never took.
//! * [`crash_point!`] names a moment at which the simulation may cut a node's power, for moments that chance
//!   rarely hits: between a write and its sync, in the middle of an install.
//! * [`planted!`] guards a bug. It is `false` unless a simulated build has the feature `planted` and chose that
//!   bug at run time; such a build shows that the simulation's judges would notice.
//! * [`unlucky!`] offers a turn that is always allowed and hardly ever taken: whatever only makes things quicker or
//!   rarer can be left out there, so that the simulation sees the rest carry the weight. (FoundationDB's *buggify*.)
//!
//! A name is unique in the workspace and written like `log.written-not-synced`: room, then what happened. Only a
//! planted bug, which has a plain name, may need more than one place. `tests/names.rs` sees to it.
#![forbid(unsafe_code)]

#[cfg(all(feature = "planted", not(madsim)))]
compile_error!("bugs are planted in simulated builds only (RUSTFLAGS=\"--cfg madsim\")");

#[cfg(madsim)]
pub mod simulated;

/// Notes that this branch was taken.
#[macro_export]
macro_rules! reached {
    ($name:literal) => {
        $crate::reached($name)
    };
}

/// Offers the simulation to cut this node's power here. Await it: if the power is cut, it never returns.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        $crate::crash_point($name)
    };
}

/// Whether the bug of this name is planted in this run.
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        $crate::planted($name)
    };
}

/// Whether chance goes against this node here. Both answers must be right.
#[macro_export]
macro_rules! unlucky {
    ($name:literal) => {
        $crate::unlucky($name)
    };
}

/// See [`reached!`].
#[inline(always)]
pub fn reached(name: &'static str) {
    #[cfg(madsim)]
    simulated::count(name);
    #[cfg(not(madsim))]
    let _ = name;
}

/// See [`crash_point!`].
#[inline(always)]
pub async fn crash_point(name: &'static str) {
    #[cfg(madsim)]
    if simulated::ask(name) {
        std::future::pending::<()>().await;
    }
    #[cfg(not(madsim))]
    let _ = name;
}

/// See [`unlucky!`].
#[inline(always)]
pub fn unlucky(name: &'static str) -> bool {
    #[cfg(madsim)]
    return simulated::is_unlucky(name);
    #[cfg(not(madsim))]
    {
        let _ = name;
        false
    }
}

/// See [`planted!`].
#[inline(always)]
pub fn planted(name: &'static str) -> bool {
    #[cfg(all(madsim, feature = "planted"))]
    return simulated::is_planted(name);
    #[cfg(not(all(madsim, feature = "planted")))]
    {
        let _ = name;
        false
    }
}
