//! PostgreSQL, twice: *bare*, the least that keeps accounts with two unique identifiers, and *equivalent*, what a team
//! needs for what one create of Holdfast does (`settings/schema_*.sql` say what that is and what is left out).
//!
//! Every operation is one prepared statement, one message there and one back. A create of the equivalent is five rows in
//! four tables, and still one statement: data-modifying common table expressions, which commit together without
//! `BEGIN` and `COMMIT`. Six statements in one pipeline do the same with more of the server's time (on two cores, with
//! pgbench: 7,000 transactions a second against 7,600, 190 us of processor each against 175).
//!
//! Clients take connections from a pool and have them to themselves for one statement, as with every PostgreSQL pool. A
//! backend waits for the standby within a commit, so writes need many. Reads wait for nobody, and the more backends are at
//! it, the more the processor switches between them, so fewer read at a time. Both numbers are in the results; the
//! defaults are the best of those tried on two cores.
//!
//! [`Session::gathered_get`] is for what tokio-postgres can do beyond that, and hardly any pool does: clients share a few
//! connections, on which reads that wait at the same moment travel together.
//!
//! Everything goes to the primary: its reads are the latest, as long as nobody else was promoted without its knowing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_bench::{Change, Class, Existing, Failure, Found, Record, Session, Store, Updated};
use tokio::sync::{AcquireError, OnceCell, Semaphore, SemaphorePermit};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls, Statement};
use uuid::Uuid;

use crate::Setup;

/// Which tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One table.
    Bare,
    /// Accounts, identifiers, requests and an outbox.
    Equivalent,
}

/// The statements of a layout. `$n` is given in the same order for both; the request id is always the last.
struct Sql {
    schema: &'static str,
    create: &'static str,
    update: &'static str,
    get: &'static str,
    lookup: &'static str,
    import: &'static str,
    /// [`Sql::import`], but what exists stays.
    import_absent: &'static str,
}

const BARE: Sql = Sql {
    schema: include_str!("../settings/schema_bare.sql"),
    create: "INSERT INTO accounts (id, email, username, payload) VALUES ($1, $2, $3, $4)",
    update: "UPDATE accounts SET payload = $3, version = version + 1 WHERE id = $1 AND version = $2",
    get: "SELECT id, version, payload FROM accounts WHERE id = $1",
    lookup: "SELECT id, version, payload FROM accounts WHERE email = $1",
    import: "INSERT INTO accounts (id, email, username, payload) \
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[])",
    import_absent: "INSERT INTO accounts (id, email, username, payload) \
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) ON CONFLICT DO NOTHING",
};

const EQUIVALENT: Sql = Sql {
    schema: include_str!("../settings/schema_equivalent.sql"),
    create: "WITH account AS (INSERT INTO accounts (id, payload) VALUES ($1, $4)), \
             names AS (INSERT INTO identifiers (kind, value, account_id) VALUES (1, $2, $1), (2, $3, $1)), \
             request AS (INSERT INTO requests (request_id, account_id, version) VALUES ($5, $1, 1)) \
             INSERT INTO outbox (account_id, version, kind) VALUES ($1, 1, 1)",
    update: "WITH account AS (UPDATE accounts SET payload = $3, version = version + 1, updated = now() \
             WHERE id = $1 AND version = $2 RETURNING version), \
             request AS (INSERT INTO requests (request_id, account_id, version) SELECT $4::uuid, $1::text, version FROM account) \
             INSERT INTO outbox (account_id, version, kind) SELECT $1::text, version, 2 FROM account",
    get: "SELECT id, version, payload FROM accounts WHERE id = $1",
    lookup: "SELECT a.id, a.version, a.payload FROM identifiers i JOIN accounts a ON a.id = i.account_id \
             WHERE i.kind = 1 AND i.value = $1",
    import: "WITH item AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::uuid[]) \
             AS item (id, email, username, payload, request_id)), \
             account AS (INSERT INTO accounts (id, payload) SELECT id, payload FROM item), \
             names AS (INSERT INTO identifiers (kind, value, account_id) \
             SELECT 1, email, id FROM item UNION ALL SELECT 2, username, id FROM item), \
             request AS (INSERT INTO requests (request_id, account_id, version) SELECT request_id, id, 1 FROM item) \
             INSERT INTO outbox (account_id, version, kind) SELECT id, 1, 1 FROM item",
    import_absent: "WITH item AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::uuid[]) \
             AS item (id, email, username, payload, request_id) \
             WHERE NOT EXISTS (SELECT FROM accounts a WHERE a.id = item.id)), \
             account AS (INSERT INTO accounts (id, payload) SELECT id, payload FROM item), \
             names AS (INSERT INTO identifiers (kind, value, account_id) \
             SELECT 1, email, id FROM item UNION ALL SELECT 2, username, id FROM item), \
             request AS (INSERT INTO requests (request_id, account_id, version) SELECT request_id, id, 1 FROM item) \
             INSERT INTO outbox (account_id, version, kind) SELECT id, 1, 1 FROM item",
};

impl Layout {
    fn sql(self) -> &'static Sql {
        match self {
            Layout::Bare => &BARE,
            Layout::Equivalent => &EQUIVALENT,
        }
    }

    /// Whether writes carry the id of their request.
    fn remembers_requests(self) -> bool {
        self == Layout::Equivalent
    }

    fn name(self) -> &'static str {
        match self {
            Layout::Bare => "postgres-bare",
            Layout::Equivalent => "postgres-equivalent",
        }
    }
}

/// A primary with its standbys.
pub(crate) struct Postgres {
    setup: Setup,
    layout: Layout,
    pool: Arc<Pool>,
    /// By client, modulo their number.
    shared: Vec<OnceCell<Arc<Connection>>>,
}

/// Connections that one client at a time uses.
struct Pool {
    /// One for each connection there is.
    permits: Semaphore,
    /// One for each that may read at the same time.
    read_permits: Semaphore,
    idle: Mutex<Vec<Arc<Connection>>>,
    /// How many may still be opened.
    unopened: AtomicUsize,
}

/// A connection of one's own, for as long as this lives.
struct Borrowed<'a> {
    connection: Option<Arc<Connection>>,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
    read_permit: Option<SemaphorePermit<'a>>,
}

impl Pool {
    async fn borrow_to_read(&self) -> Result<Borrowed<'_>, Failure> {
        let read_permit = self.read_permits.acquire().await.map_err(closed)?;
        let mut borrowed = self.borrow().await?;
        borrowed.read_permit = Some(read_permit);
        Ok(borrowed)
    }

    async fn borrow(&self) -> Result<Borrowed<'_>, Failure> {
        let permit = self.permits.acquire().await.map_err(closed)?;
        Ok(Borrowed {
            // The last one used: the longer others are idle, the fewer there are to switch between.
            connection: self.lock().pop(),
            pool: self,
            _permit: permit,
            read_permit: None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed(why: AcquireError) -> Failure {
    Failure::new(Class::Other, why.to_string())
}

impl Borrowed<'_> {
    fn get(&self) -> Result<&Connection, Failure> {
        let none = || Failure::new(Class::Other, "more permits than connections");
        self.connection.as_deref().ok_or_else(none)
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.pool.lock().extend(self.connection.take());
        self.read_permit.take();
    }
}

/// One backend, and what is prepared in it.
struct Connection {
    client: Client,
    create: Statement,
    update: Statement,
    get: Statement,
    lookup: Statement,
    imports: OnceCell<(Statement, Statement)>,
}

impl Postgres {
    /// Prepares nothing yet: connections are opened with the sessions.
    pub(crate) fn new(setup: Setup, layout: Layout) -> Self {
        let connections = setup.connections.max(1);
        Postgres {
            pool: Arc::new(Pool {
                permits: Semaphore::new(0),
                read_permits: Semaphore::new(setup.readers.max(1)),
                idle: Mutex::new(Vec::new()),
                unopened: AtomicUsize::new(connections),
            }),
            shared: (0..setup.shared_connections.max(1))
                .map(|_| OnceCell::new())
                .collect(),
            setup,
            layout,
        }
    }

    /// Creates the tables, in an empty database.
    pub(crate) async fn create_tables(&self) -> Result<(), Failure> {
        let client = self.open().await?;
        client
            .batch_execute(self.layout.sql().schema)
            .await
            .map_err(|error| failure(&error))
    }

    async fn open(&self) -> Result<Client, Failure> {
        let (host, port) = self.setup.endpoints[0].rsplit_once(':').unwrap_or(("", "5432"));
        let options = format!("host={host} port={port} user=postgres dbname=postgres connect_timeout=5");
        let (client, connection) = tokio_postgres::connect(&options, NoTls)
            .await
            .map_err(|error| Failure::new(Class::Unavailable, describe(&error)))?;
        // Ends with the client, or with the error that the client's calls then report.
        tokio::spawn(connection);
        Ok(client)
    }

    async fn connection(&self) -> Result<Arc<Connection>, Failure> {
        let client = self.open().await?;
        let sql = self.layout.sql();
        let prepare = async {
            Ok::<_, Error>(Connection {
                create: client.prepare(sql.create).await?,
                update: client.prepare(sql.update).await?,
                get: client.prepare(sql.get).await?,
                lookup: client.prepare(sql.lookup).await?,
                imports: OnceCell::new(),
                client,
            })
        };
        Ok(Arc::new(prepare.await.map_err(|error| failure(&error))?))
    }
}

impl Store for Postgres {
    type Session = PostgresSession;

    fn name(&self) -> &str {
        self.layout.name()
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let mut settings = self.setup.describe();
        let number = |number: usize| number.to_string();
        settings.insert("readers".into(), number(self.setup.readers));
        settings.insert("shared_connections".into(), number(self.setup.shared_connections));
        settings
    }

    async fn session(&self, client: usize) -> Result<PostgresSession, Failure> {
        let take_one = |left: usize| left.checked_sub(1);
        let unopened = &self.pool.unopened;
        if unopened
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one)
            .is_ok()
        {
            let connection = self.connection().await?;
            self.pool.lock().push(connection);
            self.pool.permits.add_permits(1);
        }
        let shared = &self.shared[client % self.shared.len()];
        Ok(PostgresSession {
            layout: self.layout,
            pool: self.pool.clone(),
            shared: shared.get_or_try_init(|| self.connection()).await?.clone(),
        })
    }
}

/// One client.
pub(crate) struct PostgresSession {
    layout: Layout,
    pool: Arc<Pool>,
    shared: Arc<Connection>,
}

impl Connection {
    async fn find(&self, statement: &Statement, key: &str) -> Result<Option<Found>, Failure> {
        let row = self.client.query_opt(statement, &[&key]).await;
        let Some(row) = row.map_err(|error| failure(&error))? else {
            return Ok(None);
        };
        let payload: &[u8] = row.get(2);
        Ok(Some(Found {
            id: row.get(0),
            version: row.get::<_, i64>(1).unsigned_abs(),
            payload_bytes: payload.len(),
        }))
    }
}

impl Session for PostgresSession {
    async fn create(&mut self, record: Record) -> Result<u64, Failure> {
        let borrowed = self.pool.borrow().await?;
        let connection = borrowed.get()?;
        let client = &connection.client;
        let Record {
            id,
            email,
            username,
            payload,
            ..
        } = record;
        let made = if self.layout.remembers_requests() {
            let request = Uuid::now_v7();
            client
                .execute(&connection.create, &[&id, &email, &username, &payload, &request])
                .await
        } else {
            client
                .execute(&connection.create, &[&id, &email, &username, &payload])
                .await
        };
        made.map_err(|error| failure(&error))?;
        Ok(1)
    }

    async fn update(&mut self, change: Change<'_>) -> Result<Updated, Failure> {
        let borrowed = self.pool.borrow().await?;
        let connection = borrowed.get()?;
        let client = &connection.client;
        let Change { id, version, payload } = change;
        let expected = i64::try_from(version).unwrap_or(i64::MAX);
        let made = if self.layout.remembers_requests() {
            let request = Uuid::now_v7();
            client
                .execute(&connection.update, &[&id, &expected, &payload, &request])
                .await
        } else {
            client
                .execute(&connection.update, &[&id, &expected, &payload])
                .await
        };
        match made.map_err(|error| failure(&error))? {
            0 => Ok(Updated::Conflict { current: None }),
            _ => Ok(Updated::To(version + 1)),
        }
    }

    async fn get(&mut self, id: &str) -> Result<Option<Found>, Failure> {
        let borrowed = self.pool.borrow_to_read().await?;
        let connection = borrowed.get()?;
        connection.find(&connection.get, id).await
    }

    async fn lookup(&mut self, email: &str) -> Result<Option<Found>, Failure> {
        let borrowed = self.pool.borrow_to_read().await?;
        let connection = borrowed.get()?;
        connection.find(&connection.lookup, email).await
    }

    async fn gathered_get(&mut self, id: &str) -> Result<Option<Found>, Failure> {
        self.shared.find(&self.shared.get, id).await
    }

    async fn import(&mut self, records: Vec<Record>, existing: Existing) -> Result<(), Failure> {
        let borrowed = self.pool.borrow().await?;
        let connection = borrowed.get()?;
        let client = &connection.client;
        let sql = self.layout.sql();
        let prepare = || async {
            Ok((
                client.prepare(sql.import).await?,
                client.prepare(sql.import_absent).await?,
            ))
        };
        let prepared = connection.imports.get_or_try_init(prepare).await;
        let (all, absent) = prepared.map_err(|error: Error| failure(&error))?;
        let statement = match existing {
            Existing::Refuse => all,
            Existing::Keep => absent,
        };
        let mut ids = Vec::new();
        let mut emails = Vec::new();
        let mut usernames = Vec::new();
        let mut payloads = Vec::new();
        let mut requests = Vec::new();
        for record in records {
            ids.push(record.id);
            emails.push(record.email);
            usernames.push(record.username);
            payloads.push(record.payload);
            requests.push(Uuid::now_v7());
        }
        let made = if self.layout.remembers_requests() {
            client
                .execute(statement, &[&ids, &emails, &usernames, &payloads, &requests])
                .await
        } else {
            client
                .execute(statement, &[&ids, &emails, &usernames, &payloads])
                .await
        };
        made.map_err(|error| failure(&error))?;
        Ok(())
    }
}

fn failure(error: &Error) -> Failure {
    let class = match error.code() {
        Some(code) if *code == SqlState::UNIQUE_VIOLATION => Class::Refused,
        // 53: insufficient resources. 57P: being stopped, not serving yet.
        Some(code) if code.code().starts_with("53") => Class::Overloaded,
        Some(code) if code.code().starts_with("57P") => Class::Unknown,
        Some(_) => Class::Other,
        // It came from no server: the connection is gone.
        None => Class::Unknown,
    };
    Failure::new(class, describe(error))
}

/// The error and what caused it; its own text is no more than "db error".
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
