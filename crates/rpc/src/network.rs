//! The network between the simulated machines: who is connected to whom, how long a message takes, and whether it
//! arrives at all. A simulation runs on one thread, and a thread has one network.
//!
//! It works like TCP: nothing is lost for good while both ends live, but what meets a cut link or a machine
//! without power waits and is sent again, ever more rarely.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use madsim::rand::Rng;
use madsim::task::NodeId as Place;
use tokio::sync::mpsc;

use crate::Code;
use crate::codegen::http::uri::PathAndQuery;
use crate::connection::{Connection, Kept};
use crate::pipe::Call;

/// A connection as its server gets it, with the calls that the client opens on it.
pub(crate) type Accepted = (Kept, mpsc::UnboundedReceiver<Call>);

/// Something that one machine says to another, in the moment it says it. Whether it arrives is another matter.
#[derive(Debug, Clone)]
pub struct Overheard {
    /// Who says it.
    pub from: Place,
    /// To whom.
    pub to: Place,
    /// The method that is called.
    pub path: PathAndQuery,
    /// What is said.
    pub said: Said,
}

/// What can be said in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// A request, or the beginning of a stream of them.
    Asks,
    /// One more request of a stream.
    AsksMore,
    /// An answer, or one of many.
    Answers,
    /// No, or no more.
    Refuses(Code),
}

/// Who hears all that is said.
type Listener = Box<dyn FnMut(Overheard)>;

/// What a link is like besides what all are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Poor {
    /// How much longer messages take.
    pub latency: Duration,
    /// The share of messages that are lost besides, and sent again later.
    pub loss: f64,
}

/// What every link is like while it is not cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Weather {
    /// Least latency of a message.
    pub latency_min: Duration,
    /// Greatest latency of a message.
    pub latency_max: Duration,
    /// The share of messages that are lost and sent again later.
    pub loss: f64,
    /// The share of attempts to connect through a cut link that meet silence; the others are refused.
    pub silent: f64,
    /// The share of single requests that arrive twice.
    pub duplicates: f64,
}

impl Default for Weather {
    fn default() -> Self {
        Weather {
            latency_min: Duration::from_millis(1),
            latency_max: Duration::from_millis(10),
            loss: 0.0,
            silent: 1.0,
            duplicates: 0.0,
        }
    }
}

/// Until a lost message is sent again the first time; then twice as long, and so on.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// The longest pause between two attempts to send.
const RETRANSMISSION_MAX: Duration = Duration::from_secs(2);
/// How much later than the first a request's twin arrives at most.
const TWIN: Duration = Duration::from_secs(3);
/// Where the services for clients are.
const PUBLIC: &str = "/holdfast.v1.";
/// What a message within one machine takes.
const LOOPBACK: Duration = Duration::from_micros(20);

#[derive(Default)]
struct Network {
    weather: Weather,
    places: BTreeMap<IpAddr, Place>,
    ports: BTreeMap<SocketAddr, mpsc::UnboundedSender<Accepted>>,
    /// Directed links that carry nothing.
    cut: BTreeSet<(Place, Place)>,
    /// Directed links that are worse than others.
    poor: BTreeMap<(Place, Place), Poor>,
    /// Machines without power.
    dark: BTreeSet<Place>,
    /// Machines whose processes are paused. Their kernels go on.
    frozen: BTreeSet<Place>,
    connections: Vec<Weak<Connection>>,
    messages: u64,
}

thread_local! {
    static NETWORK: RefCell<Network> = RefCell::new(Network::default());
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

fn with<T>(act: impl FnOnce(&mut Network) -> T) -> T {
    NETWORK.with_borrow_mut(act)
}

/// Changes what all links are like.
pub fn change_weather(change: impl FnOnce(&mut Weather)) {
    with(|network| change(&mut network.weather));
}

/// Messages from one machine to another do not arrive any more.
pub fn cut(from: Place, to: Place) {
    with(|network| network.cut.insert((from, to)));
}

/// They do again.
pub fn mend(from: Place, to: Place) {
    with(|network| network.cut.remove(&(from, to)));
}

/// From now on messages from one machine to another have a harder way than others; `None`: no longer.
pub fn worsen(from: Place, to: Place, how: Option<Poor>) {
    with(|network| match how {
        Some(how) => network.poor.insert((from, to), how),
        None => network.poor.remove(&(from, to)),
    });
}

/// From now on somebody hears all that is said. Whoever listens must not speak.
pub fn overhear(listener: impl FnMut(Overheard) + 'static) {
    LISTENER.set(Some(Box::new(listener)));
}

/// Somebody says something.
pub(crate) fn say(from: Place, to: Place, path: &PathAndQuery, said: Said) {
    LISTENER.with_borrow_mut(|listener| {
        if let Some(listener) = listener {
            listener(Overheard {
                from,
                to,
                path: path.clone(),
                said,
            });
        }
    });
}

/// The machine falls silent in this instant. What it had sent into a cut link is lost.
pub fn power_off(place: Place) {
    let connections = with(|network| {
        network.dark.insert(place);
        network.connections_of(place)
    });
    for connection in connections {
        connection.sever();
    }
}

/// The machine answers again, to begin with that it knows of no connection.
pub fn power_on(place: Place) {
    with(|network| network.dark.remove(&place));
}

/// The processes of the machine do nothing any more, though its kernel goes on.
pub fn freeze(place: Place) {
    with(|network| network.frozen.insert(place));
}

/// They go on.
pub fn thaw(place: Place) {
    with(|network| network.frozen.remove(&place));
}

/// Breaks all connections of a machine, for both their ends.
pub fn reset(place: Place) {
    let connections = with(|network| network.connections_of(place));
    for connection in connections {
        connection.reset();
    }
}

/// How many messages were sent so far.
pub fn messages() -> u64 {
    with(|network| network.messages)
}

impl Network {
    fn open(&self, from: Place, to: Place) -> bool {
        !self.cut.contains(&(from, to)) && !self.dark.contains(&from) && !self.dark.contains(&to)
    }

    /// What a message takes that is sent now; `None` if it does not get through.
    fn passage(&mut self, from: Place, to: Place) -> Option<Duration> {
        if !self.open(from, to) {
            return None;
        }
        self.messages += 1;
        if from == to {
            return Some(LOOPBACK);
        }
        let mut random = madsim::rand::thread_rng();
        let mut takes = random.gen_range(self.weather.latency_min..=self.weather.latency_max);
        let mut loss = self.weather.loss;
        if let Some(poor) = self.poor.get(&(from, to)) {
            takes += poor.latency;
            loss += poor.loss;
        }
        let mut again = RETRANSMISSION;
        while random.gen_bool(loss.clamp(0.0, 0.9)) {
            takes += again;
            again = (again * 2).min(RETRANSMISSION_MAX);
        }
        Some(takes)
    }

    fn connections_of(&mut self, place: Place) -> Vec<Arc<Connection>> {
        self.connections
            .retain(|connection| connection.strong_count() > 0);
        let all = self.connections.iter().filter_map(Weak::upgrade);
        all.filter(|connection| connection.touches(place)).collect()
    }
}

/// What a message takes that is sent now; `None` if it does not get through.
pub(crate) fn passage(from: Place, to: Place) -> Option<Duration> {
    with(|network| network.passage(from, to))
}

/// Waits until a message has got through, however often it has to be sent.
pub(crate) async fn travel(from: Place, to: Place) {
    let mut again = RETRANSMISSION;
    loop {
        if let Some(takes) = passage(from, to) {
            tokio::time::sleep(takes).await;
            return;
        }
        tokio::time::sleep(again).await;
        again = (again * 2).min(RETRANSMISSION_MAX);
    }
}

/// Whether a ping from one end would be answered by the process at the other.
pub(crate) fn answers(from: Place, to: Place) -> bool {
    with(|network| network.open(from, to) && network.open(to, from) && !network.frozen.contains(&to))
}

/// Whether an attempt to connect from here to there, which does not get through, is refused at once.
pub(crate) fn refuses(from: Place, to: Place) -> bool {
    let (open, silent) = with(|network| (network.open(from, to), network.weather.silent));
    !open && !madsim::rand::thread_rng().gen_bool(silent.clamp(0.0, 1.0))
}

/// How much later a single request arrives once more, if it does. Only those of clients do: a client may repeat
/// any request, while nobody repeats what nodes say to each other, and connections do not double anything.
pub(crate) fn twin(path: &PathAndQuery) -> Option<Duration> {
    if !path.path().starts_with(PUBLIC) {
        return None;
    }
    let share = with(|network| network.weather.duplicates).clamp(0.0, 1.0);
    let mut random = madsim::rand::thread_rng();
    (share > 0.0 && random.gen_bool(share)).then(|| random.gen_range(Duration::ZERO..TWIN))
}

/// The machine with this address.
pub(crate) fn place_of(address: IpAddr) -> Option<Place> {
    with(|network| network.places.get(&address).copied())
}

/// Opens a port on this machine; whoever had it before has it no more.
pub(crate) fn listen(address: SocketAddr, here: Place) -> mpsc::UnboundedReceiver<Accepted> {
    let (accept, accepted) = mpsc::unbounded_channel();
    with(|network| {
        network.places.insert(address.ip(), here);
        network.ports.insert(address, accept);
    });
    accepted
}

/// Hands a connection to whoever listens on the port; `false` if nobody does.
pub(crate) fn accept(address: SocketAddr, kept: Kept, calls: mpsc::UnboundedReceiver<Call>) -> bool {
    let connection = Arc::downgrade(kept.connection());
    with(|network| {
        let Some(port) = network.ports.get(&address) else {
            return false;
        };
        if port.send((kept, calls)).is_err() {
            return false;
        }
        network
            .connections
            .retain(|connection| connection.strong_count() > 0);
        network.connections.push(connection);
        true
    })
}
