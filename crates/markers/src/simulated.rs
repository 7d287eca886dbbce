//! The simulation's side of the marks. One process runs one seed, so the state is the process's.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Decides whether the node that passes a crash point loses its power there. It has cut the power when it
/// returns `true`.
pub type CrashHook = Box<dyn FnMut(&'static str) -> bool + Send>;

/// Decides whether the unlikely turn of this name is taken now.
pub type LuckHook = Box<dyn FnMut(&'static str) -> bool + Send>;

static REACHED: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());
static CRASH_HOOK: Mutex<Option<CrashHook>> = Mutex::new(None);
static LUCK_HOOK: Mutex<Option<LuckHook>> = Mutex::new(None);
#[cfg(feature = "planted")]
static PLANTED: Mutex<Option<String>> = Mutex::new(None);

/// Who decides at crash points from now on.
pub fn set_crash_hook(hook: CrashHook) {
    *lock(&CRASH_HOOK) = Some(hook);
}

/// Who decides about unlikely turns from now on. Before that none is taken.
pub fn set_luck_hook(hook: LuckHook) {
    *lock(&LUCK_HOOK) = Some(hook);
}

/// How often each branch and each crash point was passed, and each unlikely turn taken, so far.
pub fn counts() -> BTreeMap<&'static str, u64> {
    lock(&REACHED).clone()
}

/// Plants a bug in this process, until it ends.
#[cfg(feature = "planted")]
pub fn plant(name: &str) {
    *lock(&PLANTED) = Some(name.to_owned());
}

#[cfg(feature = "planted")]
pub(crate) fn is_planted(name: &str) -> bool {
    lock(&PLANTED).as_deref() == Some(name)
}

pub(crate) fn count(name: &'static str) {
    *lock(&REACHED).entry(name).or_default() += 1;
}

pub(crate) fn ask(name: &'static str) -> bool {
    count(name);
    // Taken out while it runs: what it does may pass another crash point.
    let Some(mut hook) = lock(&CRASH_HOOK).take() else {
        return false;
    };
    let cut = hook(name);
    lock(&CRASH_HOOK).get_or_insert(hook);
    cut
}

pub(crate) fn is_unlucky(name: &'static str) -> bool {
    let unlucky = lock(&LUCK_HOOK).as_mut().is_some_and(|hook| hook(name));
    if unlucky {
        count(name);
    }
    unlucky
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
