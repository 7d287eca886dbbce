//! Clients that give up early, for what happens around a failure.
//!
//! When a node dies, some requests sent through another one wait for an answer that nobody will give. How long is a
//! setting of the client, not a property of the store. With a short and equal limit for all, the time without a write is
//! the store's own.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use holdfast_bench::{Change, Class, Existing, Failure, Found, Record, Session, Store, Updated};

/// A store whose clients wait no longer than this for anything.
pub(crate) struct Impatient<S> {
    pub(crate) store: S,
    pub(crate) limit: Duration,
}

impl<S: Store> Store for Impatient<S> {
    type Session = ImpatientSession<S::Session>;

    fn name(&self) -> &str {
        self.store.name()
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let mut settings = self.store.settings();
        settings.insert("gives_up_after_ms".into(), self.limit.as_millis().to_string());
        settings
    }

    /// A store that has just had a failure may need a moment.
    async fn session(&self, client: usize) -> Result<Self::Session, Failure> {
        let limit = self.limit;
        let mut attempts_left = SESSION_ATTEMPTS;
        loop {
            attempts_left -= 1;
            match self.store.session(client).await {
                Ok(session) => return Ok(ImpatientSession { session, limit }),
                Err(why) if attempts_left == 0 => return Err(why),
                Err(_) => tokio::time::sleep(limit).await,
            }
        }
    }
}

/// How often a session is tried to be had.
const SESSION_ATTEMPTS: u32 = 20;

/// One client.
pub(crate) struct ImpatientSession<S> {
    session: S,
    limit: Duration,
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Failure>> + Send,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => {
            if result.is_err() {
                // A client that is refused at once does not ask again at once.
                tokio::time::sleep(PAUSE).await;
            }
            result
        }
        Err(_elapsed) => Err(Failure::new(
            Class::Unknown,
            format!("no answer within {} ms", limit.as_millis()),
        )),
    }
}

/// Short against what is measured, long against a refusal.
const PAUSE: Duration = Duration::from_millis(10);

impl<S: Session> Session for ImpatientSession<S> {
    async fn create(&mut self, record: Record) -> Result<u64, Failure> {
        within(self.limit, self.session.create(record)).await
    }

    async fn update(&mut self, change: Change<'_>) -> Result<Updated, Failure> {
        within(self.limit, self.session.update(change)).await
    }

    async fn get(&mut self, id: &str) -> Result<Option<Found>, Failure> {
        within(self.limit, self.session.get(id)).await
    }

    async fn lookup(&mut self, email: &str) -> Result<Option<Found>, Failure> {
        within(self.limit, self.session.lookup(email)).await
    }

    async fn import(&mut self, records: Vec<Record>, existing: Existing) -> Result<(), Failure> {
        within(self.limit, self.session.import(records, existing)).await
    }
}
