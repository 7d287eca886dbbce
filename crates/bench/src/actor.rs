//! One client at work: draws what to do and to whom, does it through its session, and judges the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::plan::Plan;
use crate::tally::Tally;
use crate::target::{Change, Class, Existing, Failure, Found, Session, Updated};
use crate::workload::{FIRST_VERSION, Keys, Operation};

/// How often an update is made again that found another version. All clients may want the one most popular account, and
/// each success of one is a conflict for all others; so many times in a row is no longer bad luck.
const UPDATE_ATTEMPTS_MAX: u32 = 10_000;

/// What all clients of a run share.
pub(crate) struct World {
    pub(crate) plan: Plan,
    keys: Keys,
    versions: Versions,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let known = if plan.workload.needs_accounts() {
            plan.accounts
        } else {
            0
        };
        World {
            keys: Keys::new(plan.distribution, plan.accounts),
            versions: Versions::new(known as usize),
            plan,
        }
    }
}

/// The newest version of each account that any client of this process has seen, as an application knows them from its
/// last read. One not seen yet is taken to be as it was created; where that is wrong, the store says so.
struct Versions(Vec<AtomicU64>);

impl Versions {
    fn new(accounts: usize) -> Self {
        Versions((0..accounts).map(|_| AtomicU64::new(FIRST_VERSION)).collect())
    }

    fn get(&self, number: u64) -> u64 {
        self.0[number as usize].load(Ordering::Relaxed)
    }

    fn saw(&self, number: u64, version: u64) {
        self.0[number as usize].fetch_max(version, Ordering::Relaxed);
    }
}

/// One client.
pub(crate) struct Actor<S> {
    session: S,
    world: Arc<World>,
    random: StdRng,
    client: u64,
    created: u64,
}

impl<S: Session> Actor<S> {
    pub(crate) fn new(session: S, world: Arc<World>, client: usize) -> Self {
        let client = client as u64;
        // Another run of the same seed asks for accounts in another order, or it would find each cached.
        let random = StdRng::seed_from_u64(world.plan.first_new ^ (client << 48));
        Actor {
            session,
            world,
            random,
            client,
            created: 0,
        }
    }

    /// Draws what comes next.
    pub(crate) fn next(&mut self) -> Operation {
        self.world.plan.workload.next(&mut self.random)
    }

    /// Does it, and says how many units of work it was. `tally` gets the parts, where there are any.
    pub(crate) async fn perform(&mut self, operation: Operation, tally: &mut Tally) -> Result<u64, Failure> {
        match operation {
            Operation::Create => self.create().await.map(|_| 1),
            Operation::Update => self.update(&mut tally.conflicts).await.map(|()| 1),
            Operation::Get => self.get(false).await.map(|()| 1),
            Operation::GatheredGet => self.get(true).await.map(|()| 1),
            Operation::Lookup => self.lookup().await.map(|()| 1),
            Operation::LookupAbsent => {
                let number = self.new_number();
                self.lookup_absent(number).await.map(|()| 1)
            }
            Operation::SignUp => self.sign_up(tally).await.map(|()| 1),
            Operation::Import => self.import().await,
        }
    }

    async fn create(&mut self) -> Result<u64, Failure> {
        let number = self.new_number();
        let record = self.world.plan.population.record(number);
        self.session.create(record).await?;
        Ok(number)
    }

    async fn update(&mut self, conflicts: &mut u64) -> Result<(), Failure> {
        let world = self.world.clone();
        let number = world.keys.next(&mut self.random);
        let population = world.plan.population;
        let id = population.id(number);
        let payload = population.payload(number, self.random.random());
        for _ in 0..UPDATE_ATTEMPTS_MAX {
            let change = Change {
                id: &id,
                version: world.versions.get(number),
                payload: payload.clone(),
            };
            let current = match self.session.update(change).await? {
                Updated::To(version) => {
                    world.versions.saw(number, version);
                    return Ok(());
                }
                Updated::Conflict { current } => current,
            };
            *conflicts += 1;
            let current = match current {
                Some(current) => current,
                None => self.session.get(&id).await?.ok_or_else(|| missing(&id))?.version,
            };
            world.versions.saw(number, current);
        }
        Err(Failure::new(
            Class::Contended,
            format!("{id} had another version {UPDATE_ATTEMPTS_MAX} times in a row"),
        ))
    }

    async fn get(&mut self, gathered: bool) -> Result<(), Failure> {
        let number = self.world.keys.next(&mut self.random);
        let id = self.world.plan.population.id(number);
        let found = if gathered {
            self.session.gathered_get(&id).await?
        } else {
            self.session.get(&id).await?
        };
        let version = judge(found, &id, self.world.plan.population.payload_bytes)?;
        self.world.versions.saw(number, version);
        Ok(())
    }

    async fn lookup(&mut self) -> Result<(), Failure> {
        let population = self.world.plan.population;
        let number = self.world.keys.next(&mut self.random);
        let found = self.session.lookup(&population.email(number)).await?;
        let version = judge(found, &population.id(number), population.payload_bytes)?;
        self.world.versions.saw(number, version);
        Ok(())
    }

    async fn lookup_absent(&mut self, number: u64) -> Result<(), Failure> {
        let email = self.world.plan.population.email(number);
        match self.session.lookup(&email).await? {
            None => Ok(()),
            Some(found) => Err(Failure::new(
                Class::WrongAnswer,
                format!("{email}, which nobody has, was found at {}", found.id),
            )),
        }
    }

    async fn sign_up(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        let population = self.world.plan.population;
        let number = self.new_number();
        let begun = Instant::now();
        self.lookup_absent(number).await?;
        let asked = Instant::now();
        tally.part(Operation::LookupAbsent, begun, asked);
        self.session.create(population.record(number)).await?;
        let created = Instant::now();
        tally.part(Operation::Create, asked, created);
        let id = population.id(number);
        let found = self.session.get(&id).await?;
        tally.part(Operation::Get, created, Instant::now());
        judge(found, &id, population.payload_bytes).map(|_| ())
    }

    async fn import(&mut self) -> Result<u64, Failure> {
        let plan = &self.world.plan;
        let batch = plan.batch as u64;
        let first = plan.first_new + (self.client + self.created * plan.clients as u64) * batch;
        self.created += 1;
        let records = (first..first + batch)
            .map(|number| plan.population.record(number))
            .collect();
        self.session.import(records, Existing::Refuse).await?;
        Ok(batch)
    }

    /// A number that no other client uses, without asking anyone.
    fn new_number(&mut self) -> u64 {
        let plan = &self.world.plan;
        let number = plan.first_new + self.client + self.created * plan.clients as u64;
        self.created += 1;
        number
    }
}

/// Whether it is the account asked for, whole. Returns its version.
pub(crate) fn judge(found: Option<Found>, id: &str, payload_bytes: usize) -> Result<u64, Failure> {
    let found = found.ok_or_else(|| missing(id))?;
    if found.id != id {
        let what = format!("{} was answered for {id}", found.id);
        return Err(Failure::new(Class::WrongAnswer, what));
    }
    if found.payload_bytes != payload_bytes {
        let what = format!("{id} has {} bytes, not {payload_bytes}", found.payload_bytes);
        return Err(Failure::new(Class::WrongAnswer, what));
    }
    Ok(found.version)
}

fn missing(id: &str) -> Failure {
    Failure::new(Class::Missing, format!("{id} is not there"))
}
