//! Node ids are never reused.
//!
//! A node that lost its log and votes again under its old id can undo what a quorum agreed on (Alagappan et al.,
//! *Protocol-Aware Recovery for Consensus-Based Storage*, FAST'18). So the cluster remembers, in replicated rows,
//! which ids have held a part of the log and which were removed. An empty node that is listed as a founder asks
//! the others before it takes part, and refuses to start if they remember it; a removed id is not added again.

use std::time::Duration;

use holdfast_machine::Expect;
use holdfast_storage::schema::member::{self as row, Member};
use holdfast_types::NodeId;
use holdfast_wire::internal::ReportRequest;
use holdfast_wire::status::{ErrorView, Reason};

use crate::core::Core;
use crate::driver::{self, Settled, propose, settled, unreadable};
use crate::failure::Failure;
use crate::start::StartError;

/// How long another founder may take to say whether it knows this node.
const ASK: Duration = Duration::from_millis(1_000);
/// How often a row is tried against a concurrent writer.
const ATTEMPTS: u32 = 3;

/// Whether a node id has held a part of the log or was removed, as far as this node has applied.
pub(crate) fn used(core: &Core, node: NodeId) -> bool {
    match row::read(&*core.group.view(), node) {
        Ok(found) => found.is_some_and(|found| found.value.joined || found.value.retired),
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
        Some(found) if found.value.retired => Err(Failure::new(
            Reason::MemberExists,
            format!("node {node} was a member and was removed; a node id is never reused: choose a new one"),
        )),
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

/// Asks the other founders whether they remember this node, which has no data. Silence is no objection: at the
/// very beginning nobody is there to ask.
pub(crate) async fn check_never_used(core: &Core) -> Result<(), StartError> {
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
        let reply = tokio::time::timeout(ASK, client.report(request)).await.ok()?;
        reply.ok().map(tonic::Response::into_inner)
    }));
    if asked
        .await
        .into_iter()
        .flatten()
        .any(|reply| reply.sender_id_used)
    {
        return Err(StartError::IdUsed { node: me });
    }
    Ok(())
}

/// Asks a node that shall become a member who it is. A machine of another cluster, another node at that address
/// or none at all would stay a learner that never catches up.
pub(crate) async fn introduced(core: &Core, node: NodeId, peer: &str) -> Result<(), Failure> {
    let request = ReportRequest {
        header: Some(core.peers.header(node)),
    };
    let mut client = core.peers.client(peer)?;
    let why = match tokio::time::timeout(ASK, client.report(request)).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(status)) => match ErrorView::of(&status).map(|view| view.reason).as_deref() {
            Some("WRONG_CLUSTER") => {
                return Err(Failure::new(
                    Reason::WrongCluster,
                    format!(
                        "the node at {peer} belongs to another cluster; check its cluster.id and the address"
                    ),
                ));
            }
            _ => status.message().to_owned(),
        },
        Err(_) => "it is silent".to_owned(),
    };
    Err(Failure::new(
        Reason::NodeNotServing,
        format!("node {node} does not answer at {peer}: {why}; start it first, with this cluster's id"),
    ))
}
