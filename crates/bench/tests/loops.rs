//! The generator against stores of a few lines, whose faults are known exactly.

#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use holdfast_bench::{
    Change, Class, Existing, Failure, Found, Measurement, Options, Record, Session, Store, Updated, Workload,
    prepare, run,
};

/// How a store misbehaves.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    /// Nothing is answered in this time after the store's start.
    stall: Option<(Duration, Duration)>,
    /// Each call takes this long.
    slow: Duration,
    /// Reads answer with another account.
    mixes_up: bool,
    /// Reads answer with half an account.
    truncates: bool,
    /// A conflict does not say the current version.
    is_taciturn: bool,
}

/// Accounts in memory.
#[derive(Clone)]
struct Memory {
    faults: Faults,
    start: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    accounts: HashMap<String, Found>,
    owners: HashMap<String, String>,
}

impl Memory {
    fn new(faults: Faults) -> Self {
        Memory {
            faults,
            start: Instant::now(),
            state: Arc::default(),
        }
    }

    async fn pause(&self) {
        let now = self.start.elapsed();
        match self.faults.stall {
            Some((from, until)) if (from..until).contains(&now) => tokio::time::sleep(until - now).await,
            _ if self.faults.slow.is_zero() => tokio::task::yield_now().await,
            _ => tokio::time::sleep(self.faults.slow).await,
        }
    }

    fn answer(&self, id: Option<&String>) -> Option<Found> {
        let state = self.state.lock().unwrap();
        let mut found = state.accounts.get(id?)?.clone();
        if self.faults.mixes_up {
            found.id.push('x');
        }
        if self.faults.truncates {
            found.payload_bytes /= 2;
        }
        Some(found)
    }

    fn insert(&self, record: Record) -> Result<(), Failure> {
        let mut state = self.state.lock().unwrap();
        let names = [&record.email, &record.username];
        if state.accounts.contains_key(&record.id)
            || names.iter().any(|name| state.owners.contains_key(*name))
        {
            return Err(Failure::new(Class::Refused, "taken"));
        }
        for name in names {
            state.owners.insert(name.clone(), record.id.clone());
        }
        let found = Found {
            id: record.id.clone(),
            version: 1,
            payload_bytes: record.payload.len(),
        };
        state.accounts.insert(record.id, found);
        Ok(())
    }
}

impl Store for Memory {
    type Session = Memory;

    fn name(&self) -> &str {
        "memory"
    }

    fn settings(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    async fn session(&self, _client: usize) -> Result<Memory, Failure> {
        Ok(self.clone())
    }
}

impl Session for Memory {
    async fn create(&mut self, record: Record) -> Result<u64, Failure> {
        self.pause().await;
        self.insert(record).map(|()| 1)
    }

    async fn update(&mut self, change: Change<'_>) -> Result<Updated, Failure> {
        self.pause().await;
        let mut state = self.state.lock().unwrap();
        let account = state.accounts.get_mut(change.id).unwrap();
        if account.version != change.version {
            let current = (!self.faults.is_taciturn).then_some(account.version);
            return Ok(Updated::Conflict { current });
        }
        account.version += 1;
        account.payload_bytes = change.payload.len();
        Ok(Updated::To(account.version))
    }

    async fn get(&mut self, id: &str) -> Result<Option<Found>, Failure> {
        self.pause().await;
        Ok(self.answer(Some(&id.to_owned())))
    }

    async fn lookup(&mut self, email: &str) -> Result<Option<Found>, Failure> {
        self.pause().await;
        let owner = self.state.lock().unwrap().owners.get(email).cloned();
        Ok(self.answer(owner.as_ref()))
    }

    async fn import(&mut self, records: Vec<Record>, existing: Existing) -> Result<(), Failure> {
        self.pause().await;
        for record in records {
            match self.insert(record) {
                Err(_) if existing == Existing::Keep => {}
                result => result?,
            }
        }
        Ok(())
    }
}

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    options: Options,
}

/// What `bench ARGS` does.
async fn bench(store: &Memory, args: &str) -> Result<Measurement, Failure> {
    let words = std::iter::once("bench").chain(args.split_whitespace());
    let options = Command::try_parse_from(words).unwrap().options;
    if let Some(accounts) = options.prepare {
        let prepared = prepare(store, &options, accounts, |_| {}).await?;
        assert_eq!(prepared.prepared, accounts);
    }
    run(store, &options.plan().unwrap(), |_| {}).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_workload_runs_without_an_error_against_a_good_store() {
    for workload in Workload::value_variants() {
        let store = Memory::new(Faults::default());
        let name = workload.name();
        for load in ["", " --rate 500"] {
            let args = format!(
                "--workload {name} --prepare 200 --clients 4 --warm-up 0 --seconds 0.2 --record-bytes 100 --batch 7{load}"
            );
            let seen = bench(&store, &args).await.unwrap();
            assert_eq!(seen.errors, 0, "{args}: {:?}", seen.errors_by_class);
            assert!(seen.throughput > 0.0 && seen.all.count > 0, "{args}: {seen:?}");
            assert!(seen.generator.cpu_seconds > 0.0005, "{args}: {seen:?}");
            assert_eq!(seen.generator.late.is_some(), !load.is_empty(), "{args}");
            let parts: Vec<&str> = seen.operations.keys().map(String::as_str).collect();
            let expected: &[&str] = match workload {
                Workload::Create => &["create"],
                Workload::Update => &["update"],
                Workload::Get => &["get"],
                Workload::Lookup => &["lookup"],
                Workload::Mix => &["get", "update"],
                Workload::SignUpStorm => &["create", "get", "lookup_absent", "sign_up"],
                Workload::LoginStorm => &["lookup", "update"],
                Workload::Import => &["import_batch"],
                Workload::GatheredGet => &["gathered_get"],
            };
            assert_eq!(parts, expected, "{args}");

            // Programs read what was written, and people see what counts.
            let json = serde_json::to_string(&seen).unwrap();
            let read: Measurement = serde_json::from_str(&json).unwrap();
            assert_eq!(
                (read.all.count, read.all.p999_us, &read.workload),
                (seen.all.count, seen.all.p999_us, workload)
            );
            assert_eq!(read.windows, seen.windows);
            assert!(
                seen.table().contains("p99.9") && seen.table().contains(name),
                "{}",
                seen.table()
            );
        }
    }
}

/// Half a second in which nothing is answered, a third of the run.
const STALL: Faults = Faults {
    stall: Some((Duration::from_millis(500), Duration::from_millis(1_000))),
    slow: Duration::from_millis(1),
    mixes_up: false,
    truncates: false,
    is_taciturn: false,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_loop_shows_a_stall_that_a_closed_one_hides() {
    let args = "--workload get --prepare 1 --batch 1 --clients 4 --warm-up 0 --seconds 1.5";
    let closed = bench(&Memory::new(STALL), args).await.unwrap();
    assert!(closed.all.max_us >= 300_000, "it is there: {closed:?}");
    assert!(
        closed.all.p99_us < 100_000,
        "four of thousands of operations saw it: {closed:?}"
    );

    let open = bench(&Memory::new(STALL), &format!("{args} --rate 400"))
        .await
        .unwrap();
    assert!(
        open.all.p99_us >= 300_000,
        "a third of all fell into it: {open:?}"
    );
    assert!(open.all.max_us >= open.all.p99_us);
    for seen in [closed, open] {
        let silence = seen.longest_without_read_ms.unwrap();
        assert!((300..1_000).contains(&silence), "{seen:?}");
        assert_eq!(seen.longest_without_write_ms, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_due_and_never_begun_counts() {
    let faults = Faults {
        slow: Duration::from_millis(20),
        ..Faults::default()
    };
    let args = "--workload get --prepare 1 --batch 1 --clients 1 --warm-up 0 --seconds 1 --rate 1000";
    let seen = bench(&Memory::new(faults), args).await.unwrap();
    assert!(
        seen.never_begun > 800,
        "at most 50 of 1,000 could begin: {seen:?}"
    );
    assert_eq!(seen.all.count, 1_000, "begun or not, all were due");
    assert!(seen.all.p50_us > 200_000, "{seen:?}");
    assert!(seen.throughput <= 50.0, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_of_one_account_conflict_and_none_is_lost() {
    for is_taciturn in [false, true] {
        let faults = Faults {
            is_taciturn,
            ..Faults::default()
        };
        let store = Memory::new(faults);
        let args = "--workload update --prepare 1 --clients 8 --warm-up 0 --seconds 0.2";
        let seen = bench(&store, args).await.unwrap();
        assert!(seen.conflicts > 0, "{seen:?}");
        let made = seen.all.count - seen.errors;
        let versions: Vec<u64> = store
            .state
            .lock()
            .unwrap()
            .accounts
            .values()
            .map(|one| one.version)
            .collect();
        assert_eq!(versions, [1 + made]);
        assert!(
            seen.errors_by_class
                .keys()
                .all(|class| *class == Class::Contended),
            "{seen:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_answers_are_errors() {
    let quick = "--workload get --accounts 10 --clients 2 --warm-up 0 --seconds 0.1";
    let empty = bench(&Memory::new(Faults::default()), quick).await.unwrap_err();
    assert_eq!(empty.class, Class::Missing);
    assert!(empty.message.contains("--prepare 10"), "{empty}");

    // Filled while it was well.
    for faults in [
        Faults {
            mixes_up: true,
            ..Faults::default()
        },
        Faults {
            truncates: true,
            ..Faults::default()
        },
    ] {
        let mut store = Memory::new(Faults::default());
        bench(&store, &format!("{quick} --prepare 10")).await.unwrap();
        store.faults = faults;
        assert_eq!(bench(&store, quick).await.unwrap_err().class, Class::WrongAnswer);
        let seen = bench(&store, &quick.replace("get", "sign-up-storm"))
            .await
            .unwrap();
        assert_eq!(seen.throughput, 0.0, "{seen:?}");
        assert_eq!(seen.errors_by_class[&Class::WrongAnswer].count, seen.errors);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_created_twice_are_refused_and_counted() {
    let store = Memory::new(Faults {
        slow: Duration::from_millis(2),
        ..Faults::default()
    });
    for (first_new, workload) in [(0, "create"), (1_000_000, "import")] {
        let args = format!(
            "--workload {workload} --clients 2 --warm-up 0 --seconds 0.1 --batch 2 --first-new {first_new}"
        );
        let first = bench(&store, &args).await.unwrap();
        assert_eq!(first.errors, 0, "{first:?}");
        let second = bench(&store, &args).await.unwrap();
        assert!(second.errors_by_class[&Class::Refused].count > 0, "{second:?}");
        assert!(second.table().contains("taken"), "{}", second.table());
    }
}
