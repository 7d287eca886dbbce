//! Latches: who may evaluate against which keys right now.
//!
//! They make guard failures rare and are never needed for being right: a guard that fails sends the request
//! back to evaluation. So they live in memory, on the leader only, and are simply gone after a crash.
//!
//! Each key has a queue, first come first served. A request takes all its keys in ascending order, so two
//! requests never wait for each other. A holder lets go when its proposal was applied or its term is over;
//! never because its caller went away, since the proposal may still be under way then.
//!
//! A key is known by its hash. Two that have the same one wait for each other, which hurts nobody.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_markers::reached;
use tokio::sync::oneshot;

/// The latches of one node.
#[derive(Debug)]
pub(crate) struct Latches {
    queues: Arc<Queues>,
}

/// A key's hash.
type Hashed = u64;

/// A key with an entry is held; the entry lists who waits for it.
#[derive(Debug)]
struct Queues(Mutex<HashMap<Hashed, VecDeque<oneshot::Sender<Held>>>>);

/// One held key. Dropping it passes it to the next in the queue, also when it was passed to someone who
/// stopped waiting in the meantime.
#[derive(Debug)]
struct Held {
    queues: Arc<Queues>,
    key: Hashed,
}

/// All keys of one request, held until dropped.
#[derive(Debug)]
pub(crate) struct LatchGuard {
    _held: Vec<Held>,
}

impl Latches {
    pub(crate) fn new() -> Self {
        Latches {
            queues: Arc::new(Queues(Mutex::default())),
        }
    }

    /// Waits for all the keys. Dropping the future gives up its places in the queues.
    pub(crate) async fn acquire(&self, keys: impl IntoIterator<Item = impl Hash>) -> LatchGuard {
        let mut keys: Vec<Hashed> = keys.into_iter().map(hashed).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut held = Vec::with_capacity(keys.len());
        for key in keys {
            let waiting = {
                let mut queues = self.queues.lock();
                match queues.get_mut(&key) {
                    Some(queue) => {
                        reached!("latch.waited");
                        let (sender, receiver) = oneshot::channel();
                        queue.push_back(sender);
                        Some(receiver)
                    }
                    None => {
                        queues.insert(key, VecDeque::new());
                        None
                    }
                }
            };
            held.push(match waiting {
                None => Held {
                    queues: self.queues.clone(),
                    key,
                },
                Some(receiver) => receiver
                    .await
                    .expect("a queue's entry goes only when nobody waits, so each sender is used"),
            });
        }
        LatchGuard { _held: held }
    }

    /// How many keys are held.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.queues.lock().len()
    }
}

/// The same for the same key in every process and run.
fn hashed(key: impl Hash) -> Hashed {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Queues {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Hashed, VecDeque<oneshot::Sender<Held>>>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let next = {
            let mut queues = self.queues.lock();
            // Skip those who gave up; otherwise each would be woken only to pass the key on.
            let next = queues.get_mut(&self.key).and_then(|queue| {
                while queue.front().is_some_and(oneshot::Sender::is_closed) {
                    queue.pop_front();
                }
                queue.pop_front()
            });
            if next.is_none() {
                queues.remove(&self.key);
            }
            next
        };
        if let Some(next) = next {
            // One who gave up just now drops it again, outside of the lock.
            drop(next.send(Held {
                queues: self.queues.clone(),
                key: self.key,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn one_holder_at_a_time_in_order_of_arrival() {
        let latches = Arc::new(Latches::new());
        let first = latches.acquire(["a", "b"]).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for name in 0..4 {
            let (latches, order) = (latches.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let _guard = latches.acquire(["b"]).await;
                order.lock().unwrap().push(name);
            }));
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(order.lock().unwrap().is_empty());
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3]);
        assert_eq!(latches.held(), 0);
    }

    #[tokio::test]
    async fn whoever_gives_up_does_not_block_those_behind() {
        let latches = Latches::new();
        let first = latches.acquire([1]).await;
        let mut gone = Box::pin(latches.acquire([1]));
        assert!(gone.as_mut().now_or_never().is_none());
        let mut last = Box::pin(latches.acquire([1]));
        assert!(last.as_mut().now_or_never().is_none());
        // Given up after the key was already on its way.
        drop(first);
        drop(gone);
        timeout(Duration::from_secs(1), last).await.unwrap();
        assert_eq!(latches.held(), 0);
    }

    #[tokio::test]
    async fn overlapping_sets_never_wait_for_each_other() {
        let latches = Arc::new(Latches::new());
        let tasks: Vec<_> = (0..64_u32)
            .map(|n| {
                let latches = latches.clone();
                tokio::spawn(async move {
                    for round in 0..20 {
                        let keys = [(n + round) % 5, (n * 7 + round) % 5, (n * 3) % 5];
                        let _guard = latches.acquire(keys).await;
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
        }
        assert_eq!(latches.held(), 0);
    }
}
