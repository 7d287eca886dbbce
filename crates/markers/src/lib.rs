//! Marks in production code that only the simulation sees. In every other build they are nothing.
//!
//! * [`reached!`] names a rare branch, so that a swarm of simulated runs can report the branches it never took.
//! * [`crash_point!`] names a moment at which the simulation may cut a node's power, for moments that chance
//!   rarely hits: between a write and its sync, in the middle of an install.
//! * [`planted!`] guards a bug. It is `false` unless a simulated build has the feature `planted` and chose that
//!   bug at run time; such a build shows that the simulation's judges would notice.
//!
//! A name is unique in the workspace and written like `log.written-not-synced`: room, then what happened.
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
