//! Node ids are never reused.
//!
//! A node that lost its log and votes again under its old id can undo what a quorum agreed on (Alagappan et al.,
//! *Protocol-Aware Recovery for Consensus-Based Storage*, FAST'18). So the cluster remembers, in replicated rows,
//! which ids have held a part of the log and which were removed. An empty node that is listed as a founder asks
//! the others before it takes part, refuses to start if they remember it, and founds nothing before all of them have
//! said that they are empty, too; a removed id is not added again, and a removed node that comes back is told so and
//! stops.
//!
//! The same questions find out strangers. A node that has never joined stops when its founders turn out to belong
//! to another cluster; one that has joined refuses strangers and goes on, or one wrong address somewhere could
//! take a healthy cluster down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_consensus::Directory;
use holdfast_machine::Expect;
use holdfast_markers::reached;
use holdfast_storage::schema::member::{self as row, Member};
use holdfast_types::NodeId;
use holdfast_wire::internal::{ReportReply, ReportRequest};
use holdfast_wire::status::{ErrorView, Problem, Reason};
use tokio::time::Instant;

use crate::core::Core;
use crate::driver::{self, Settled, propose, settled, unreadable};
use crate::failure::Failure;
use crate::peers::{CLUSTER_ID, NODE_ID};
use crate::start::{self, StartError};

/// How long another founder may take to say whether it knows this node.
const ASK: Duration = Duration::from_millis(1_000);
/// How long a node that has not joined waits before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// How often a node that waits for the other founders says so.
const TELL_OF_WAITING: Duration = Duration::from_secs(10);
/// The fact that says whether who refuses a stranger has joined its own cluster.
const JOINED: &str = "joined";
/// How often a row is tried against a concurrent writer.
const ATTEMPTS: u32 = 3;

/// Whether a node id has held a part of the log or was removed, as far as this node has applied.
pub(crate) fn used(core: &Core, node: NodeId) -> bool {
    is_remembered(core, node, |member| member.joined || member.retired)
}

/// Whether a node id was removed, or is about to be, as far as this node has applied.
pub(crate) fn is_retired(core: &Core, node: NodeId) -> bool {
    is_remembered(core, node, |member| member.retired)
}

fn is_remembered(core: &Core, node: NodeId, so: fn(&Member) -> bool) -> bool {
    match row::read(&*core.group.view(), node) {
        Ok(found) => found.is_some_and(|found| so(&found.value)),
        Err(error) => {
            drop(unreadable(core, &error));
            false
        }
    }
}

/// Refuses an id that was removed.
pub(crate) fn free(core: &Core, node: NodeId) -> Result<(), Failure> {
    let found = row::read(&*core.group.view(), node).map_err(|error| unreadable(core, &error))?;
    match found {
        Some(found) if found.value.retired => {
            reached!("roster.removed-id-refused");
            Err(Failure::new(
                Reason::MemberExists,
                format!(
                    "node {node} was a member and was removed; a node id is never reused: choose a new one"
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// Changes what is remembered of a node id. On the leader only.
pub(crate) async fn remember(core: &Core, node: NodeId, change: fn(&mut Member)) -> Result<(), Failure> {
    for _ in 0..ATTEMPTS {
        let term = driver::leading(core)?;
        let found = row::read(&*core.group.view(), node).map_err(|error| unreadable(core, &error))?;
        let (before, expect) = match found {
            Some(found) => (found.value, Expect::Stamp(found.stamp)),
            None => (Member::default(), Expect::Absent),
        };
        let mut after = before;
        change(&mut after);
        if after == before {
            return Ok(());
        }
        let proposal = propose(core, row::mutation(node, after, expect), term, ());
        if let Settled::Applied { .. } = settled(proposal.await)? {
            return Ok(());
        }
    }
    Err(Failure::new(
        Reason::Contention,
        "others keep changing what is remembered of this node",
    ))
}

/// Remembers every member that is known to hold a part of the log. A duty of the leader.
pub(crate) async fn keep(core: &Core) {
    for member in core.group.status().members {
        let holds = member.id == core.node_id() || member.matched.is_some();
        if holds
            && remember(core, member.id, |member| member.joined = true)
                .await
                .is_err()
        {
            return;
        }
    }
}

/// Whether this node has ever belonged to a cluster that works: its log has an entry of an elected leader. The
/// founding membership alone, which each founder writes for itself, says nothing yet.
pub(crate) fn joined(core: &Core) -> bool {
    core.group.status().last_log.is_some_and(|last| last.term > 0)
}

/// Which committed membership no longer has a node that was removed; empty if it was not.
///
/// An id is retired before its removal is proposed, so the row alone does not tell: the membership must be
/// without it, for good.
pub(crate) fn removed_by(core: &Core, node: NodeId) -> String {
    let retired = is_retired(core, node);
    let status = core.group.status();
    let member = status.members.iter().any(|member| member.id == node);
    if retired && status.membership_committed && !member {
        status.membership_id
    } else {
        String::new()
    }
}

/// Adds to the refusal of a stranger whether it comes from a cluster that works, which weighs more than what
/// another beginner says.
pub(crate) fn to_stranger(core: &Core, refusal: Failure) -> Failure {
    match refusal {
        Failure::Here(problem) => (*problem).fact(JOINED, joined(core)).into(),
        there => there,
    }
}

/// Stops this node if a peer says that it was removed. It would wait for a leader for ever.
pub(crate) fn heed(core: &Core, report: &ReportReply) {
    if !report.sender_removed_by.is_empty() {
        reached!("roster.told-that-removed");
        let error = StartError::Removed {
            node: core.node_id(),
            membership: report.sender_removed_by.clone(),
        };
        core.fatal.report(error.to_string());
    }
}

/// What another founder said to a node that has not joined.
enum Answer {
    /// It belongs to another cluster.
    Stranger {
        id: NodeId,
        peer: String,
        cluster: String,
        joined: bool,
    },
    /// It is of this cluster.
    Known(Box<ReportReply>),
}

/// Asks the other founders about this node. Those that are silent are left out.
async fn ask_founders(core: &Core) -> Vec<Answer> {
    let me = core.node_id();
    let others = core
        .config
        .cluster
        .initial_members
        .iter()
        .filter(|member| member.id != me);
    let asked = futures::future::join_all(others.map(|member| async move {
        let mut client = core.peers.client(&member.peer).ok()?;
        let request = ReportRequest {
            header: Some(core.peers.header(member.id)),
        };
        match tokio::time::timeout(ASK, client.report(request)).await.ok()? {
            Ok(reply) => Some(Answer::Known(Box::new(reply.into_inner()))),
            Err(status) => {
                let view = ErrorView::of(&status)?;
                if view.known_reason() != Reason::WrongCluster {
                    return None;
                }
                let fact = |key| view.metadata.get(key).cloned();
                Some(Answer::Stranger {
                    id: member.id,
                    peer: member.peer.clone(),
                    cluster: fact(CLUSTER_ID).unwrap_or_else(|| "another cluster".to_owned()),
                    joined: fact(JOINED).as_deref() == Some("true"),
                })
            }
        }
    }));
    asked.await.into_iter().flatten().collect()
}

/// Why this node, which has not joined, never will.
///
/// One stranger among the founders may be the one that is set up wrongly, while the others can still found the
/// cluster without it. So a stranger counts if it speaks for a cluster that works, or if no quorum is left.
fn hopeless(core: &Core, answers: &[Answer]) -> Option<StartError> {
    let founders = core.config.cluster.initial_members.len();
    let mut strangers = Vec::new();
    for answer in answers {
        match answer {
            Answer::Known(reply) if !reply.sender_removed_by.is_empty() => {
                return Some(StartError::Removed {
                    node: core.node_id(),
                    membership: reply.sender_removed_by.clone(),
                });
            }
            Answer::Known(_) => {}
            Answer::Stranger {
                id,
                peer,
                cluster,
                joined,
            } => strangers.push((id, peer, cluster, *joined)),
        }
    }
    let settled = strangers.iter().find(|(.., joined)| *joined);
    let no_quorum = founders - strangers.len() < founders / 2 + 1;
    let (id, peer, cluster, _) = settled.or(strangers.first().filter(|_| no_quorum))?;
    Some(StartError::OtherCluster {
        configured: core.config.cluster_id().to_string(),
        peer: format!("node {id} at {peer}"),
        found: (*cluster).clone(),
        data_dir: core.config.node.data_dir.display().to_string(),
    })
}

/// The founders as they answered in one round.
#[derive(PartialEq, Eq)]
struct Founders {
    /// Those, this node included, that have promised nothing to anybody yet, and their data directories.
    beginners: BTreeMap<NodeId, Directory>,
    /// Those that have not joined either, but have given a vote.
    voted: Vec<NodeId>,
}

/// Asks the other founders, for a node without data, whether it may write the founding membership, and which data
/// directories they have if it may: all of them must
/// have said that they have not joined a cluster either. A majority would not do: if the disks of two founders of
/// three were lost, one after the other, the two could found the cluster anew beside the one that has the data.
///
/// It asks twice: answers that come one after the other are no picture of a moment, but whoever is a beginner in the second
/// round was one during all of the first.
pub(crate) async fn may_found(core: &Core) -> Result<Option<BTreeMap<NodeId, Directory>>, StartError> {
    let first = founders(core).await?;
    if first.beginners.len() < core.config.cluster.initial_members.len() {
        return Ok(None);
    }
    let second = founders(core).await?;
    Ok((first == second).then_some(second.beginners))
}

async fn founders(core: &Core) -> Result<Founders, StartError> {
    let answers = ask_founders(core).await;
    if let Some(error) = hopeless(core, &answers) {
        return Err(error);
    }
    let mut found = Founders {
        beginners: BTreeMap::from([(core.node_id(), core.group.directory())]),
        voted: Vec::new(),
    };
    if core.group.voted_term() > 0 {
        found.voted.push(core.node_id());
    }
    for answer in &answers {
        if let Answer::Known(reply) = answer {
            if reply.sender_id_used {
                reached!("roster.wiped-node-refused");
                return Err(StartError::IdUsed { node: core.node_id() });
            }
            // For one that has voted somebody may be elected already, though no log shows it yet.
            if !reply.joined && reply.term > 0 {
                found.voted.push(reply.node_id);
            } else if !reply.joined
                && let Some(directory) = directory_in(reply)
            {
                found.beginners.insert(reply.node_id, directory);
            }
        }
    }
    Ok(found)
}

/// What a node that waits to found, or to be taken in, waits for.
async fn waits_for(core: &Core) -> String {
    let mut why = String::from(
        "this node has no data and waits: it founds the cluster once every node in cluster.initial_members has said that \
         it has none either, or a leader takes it in",
    );
    if let Ok(Founders { voted, .. }) = founders(core).await
        && !voted.is_empty()
    {
        reached!("roster.waits-for-who-voted");
        why += &format!(
            ". Nodes {voted:?} have voted in a founding that has not been completed: if the node that they voted for \
             lost its data directory, no founding will be; then stop all nodes, make sure that none has joined, delete \
             their data directories and start again"
        );
    }
    why
}

/// Goes on asking until this node has joined: it may found the cluster once all founders are there, and one that was
/// silent at the start may know why this node never will join. A node that has joined is not stopped by what any
/// stranger says.
pub(crate) async fn until_joined(core: Arc<Core>) {
    if core.config.cluster.initial_members.is_empty() {
        return;
    }
    let mut told_at = Instant::now();
    while !joined(&core) {
        tokio::time::sleep(ASK_AGAIN).await;
        let result = match has_data(&core) {
            false => start::found(&core).await,
            true => hopeless(&core, &ask_founders(&core).await).map_or(Ok(()), Err),
        };
        if let Err(error) = result
            && !joined(&core)
        {
            core.fatal.report(error.to_string());
            return;
        }
        if !has_data(&core) && told_at.elapsed() >= TELL_OF_WAITING {
            told_at = Instant::now();
            tracing::warn!("{}", waits_for(&core).await);
        }
    }
}

/// Whether this node has a part of a log, if only the founding membership.
pub(crate) fn has_data(core: &Core) -> bool {
    let status = core.group.status();
    status.last_log.is_some() || !status.members.is_empty()
}

fn directory_in(reply: &ReportReply) -> Option<Directory> {
    Directory::try_from(&reply.directory[..]).ok()
}

/// Asks a node that shall become a member who it is, and which data directory it has. A machine of another cluster, another node at that address
/// or none at all would stay a learner that never catches up.
pub(crate) async fn introduced(core: &Core, node: NodeId, peer: &str) -> Result<Directory, Failure> {
    let request = ReportRequest {
        header: Some(core.peers.header(node)),
    };
    let mut client = core.peers.client(peer)?;
    let silent = |why: &str| {
        Failure::new(
            Reason::NodeNotServing,
            format!("node {node} does not answer at {peer}: {why}; start it first, with this cluster's id"),
        )
    };
    let status = match tokio::time::timeout(ASK, client.report(request)).await {
        Ok(Ok(reply)) => {
            return directory_in(reply.get_ref()).ok_or_else(|| silent("its answer names no data directory"));
        }
        Ok(Err(status)) => status,
        Err(_) => return Err(silent("nothing was heard")),
    };
    let Some(view) = ErrorView::of(&status) else {
        return Err(silent(status.message()));
    };
    let ours = core.cluster_id();
    let other = |what: String| {
        Problem::new(
            Reason::OtherNodeAnswers,
            format!("{what}; check the address, and the node's configuration"),
        )
        .fact("expected_node_id", node)
        .fact("expected_cluster_id", ours)
    };
    if let Some(cluster) = view.metadata.get(CLUSTER_ID) {
        reached!("roster.new-member-of-another-cluster");
        let what = format!("a node of another cluster, {cluster}, answers at {peer}; this one is {ours}");
        return Err(other(what).fact("found_cluster_id", cluster).into());
    }
    if let Some(found) = view.metadata.get(NODE_ID) {
        reached!("roster.new-member-is-another-node");
        let what = format!("node {found} answers at {peer}, not node {node}");
        return Err(other(what).fact("found_node_id", found).into());
    }
    Err(silent(status.message()))
}
