//! Groups of nodes in one process: elections, crashes, snapshots, membership.
#![cfg(not(madsim))]
#![allow(clippy::unwrap_used, reason = "helpers of tests panic, too")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use holdfast_consensus::{
    BarrierError, ConsensusConfig, FatalSink, Group, LogWriter, MemberRole, MembershipError, PeerAddresses,
    ProposeError, Role, StartError,
};
use holdfast_storage::engine::{Engine, Stall};
use holdfast_storage::faulty::FaultyDisk;
use holdfast_types::ClusterId;
use support::{CLUSTER, Cluster, Node, put, soon};
use tokio::time::Instant;
use uuid::Uuid;

fn defaults(_: &mut ConsensusConfig) {}

fn short_log(config: &mut ConsensusConfig) {
    config.log_entries_kept = 20;
    config.log_entries_kept_max = 40;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_crashes_of_a_follower_and_of_the_leader() {
    let mut cluster = Cluster::found(defaults).await;
    let (leader, term) = cluster.leader().await;
    let follower = leader % 3 + 1;

    // Many at once: they share syncs.
    let group = cluster.group(leader).clone();
    let many: Vec<_> = (0..200)
        .map(|n| {
            let group = group.clone();
            tokio::spawn(async move { group.propose(put(&format!("k{n}"), "v"), term, soon()).await })
        })
        .collect();
    for one in many {
        one.await.unwrap().unwrap();
    }
    assert_eq!(
        cluster.read(follower, "k199").await.as_deref(),
        Some("v"),
        "a follower reads what was acknowledged"
    );

    cluster.crash(follower).await;
    cluster.write("while", "away").await;
    cluster.start(follower).await;
    assert_eq!(cluster.read(follower, "while").await.as_deref(), Some("away"));

    // It comes back to serve reads also while there is no pause in the writes.
    let load: Vec<_> = (0..16)
        .map(|n| {
            let group = group.clone();
            tokio::spawn(async move {
                let until = Instant::now() + Duration::from_secs(60);
                while group
                    .propose(put(&format!("load{n}"), "v"), term, until)
                    .await
                    .is_ok()
                {}
            })
        })
        .collect();
    cluster.crash(follower).await;
    cluster.start(follower).await;
    assert_eq!(cluster.read(follower, "while").await.as_deref(), Some("away"));
    load.into_iter().for_each(|task| task.abort());

    cluster.crash(leader).await;
    cluster.write("after", "failover").await;
    cluster.start(leader).await;
    assert_eq!(cluster.read(leader, "after").await.as_deref(), Some("failover"));
    cluster.assert_equal().await;

    // Everything at once.
    for id in 1..=3 {
        cluster.crash(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    for id in 1..=3 {
        assert_eq!(cluster.read(id, "after").await.as_deref(), Some("failover"));
    }
    cluster.assert_equal().await;
    for node in cluster.nodes.values() {
        assert_eq!(node.fatal().reason(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_are_pinned_to_their_term() {
    let cluster = Cluster::found(defaults).await;
    let (leader, term) = cluster.leader().await;
    let stale = cluster
        .group(leader)
        .propose(put("k", "v"), term - 1, soon())
        .await;
    assert!(
        matches!(stale, Err(ProposeError::NotAppended { .. })),
        "{stale:?}"
    );
    let follower = leader % 3 + 1;
    let elsewhere = cluster.group(follower).propose(put("k", "v"), term, soon()).await;
    assert_eq!(elsewhere, Err(ProposeError::NotAppended { leader: Some(leader) }));
    assert_eq!(cluster.read(follower, "k").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_neither_reads_nor_writes() {
    let mut cluster = Cluster::found(defaults).await;
    let (leader, term) = cluster.leader().await;
    cluster.write("k", "v").await;
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.crash(id).await;
    }
    let deadline = Instant::now() + Duration::from_secs(3);
    let read = cluster.group(leader).read_barrier(deadline).await;
    assert!(
        matches!(read, Err(BarrierError::NoLeader { .. } | BarrierError::Timeout)),
        "{read:?}"
    );
    let write = cluster
        .group(leader)
        .propose(put("k", "w"), term, Instant::now() + Duration::from_secs(1))
        .await;
    assert!(write.is_err(), "{write:?}");
    assert!(cluster.group(leader).staleness().unwrap() > Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    let mut cluster = Cluster::found(short_log).await;
    for n in 0..100 {
        cluster.write(&format!("k{n}"), "v").await;
    }
    let (leader, _) = cluster.leader().await;
    let group = cluster.group(leader).clone();
    let before = group.status().membership_id;

    let node = Node::new(4);
    cluster.nodes.insert(4, node);
    cluster.start(4).await;
    let addresses = cluster.nodes[&4].introduced();
    let with_learner = group
        .add_learner(4, addresses.clone(), Some(before.clone()), soon())
        .await
        .unwrap();
    assert_ne!(before, with_learner);
    assert_eq!(
        group.add_learner(4, addresses, None, soon()).await,
        Ok(with_learner.clone()),
        "again is fine"
    );
    let stale = group.promote(4, Some(before.clone()), soon()).await;
    assert_eq!(
        stale,
        Err(MembershipError::Changed {
            expected: before,
            found: with_learner.clone()
        })
    );
    group.promote(4, Some(with_learner), soon()).await.unwrap();
    let status = group.status();
    let promoted = status.members.iter().find(|member| member.id == 4).unwrap();
    assert_eq!(promoted.role, MemberRole::Voter);
    assert_eq!(promoted.addresses.client, "client-4");
    assert!(!status.membership_changing());

    // The newcomer's vote counts: with one of the old ones gone for good, another may fail.
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    group.remove(follower, None, soon()).await.unwrap();
    cluster.crash(follower).await;
    cluster.nodes.remove(&follower);
    let other = (1..=3).find(|id| *id != leader && *id != follower).unwrap();
    cluster.crash(other).await;
    cluster.write("with", "four").await;
    assert_eq!(cluster.read(4, "with").await.as_deref(), Some("four"));

    // Only the leader changes the membership.
    let elsewhere = cluster.group(4).remove(other, None, soon()).await;
    assert_eq!(
        elsewhere,
        Err(MembershipError::NotLeader { leader: Some(leader) })
    );
    cluster.start(other).await;

    // The leader removes itself and the others carry on.
    group.remove(leader, None, soon()).await.unwrap();
    // It leads on for a moment, but changes nothing any more; openraft would end its own task over it.
    let late = group.remove(other, None, soon()).await;
    assert_eq!(late, Err(MembershipError::NotLeader { leader: None }));
    assert_eq!(group.status().fatal, None);
    cluster.crash(leader).await;
    cluster.nodes.remove(&leader);
    cluster.write("without", "it").await;
    assert_eq!(cluster.read(4, "without").await.as_deref(), Some("it"));
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_request_and_by_a_stuck_disk() {
    let cluster = Cluster::found(defaults).await;
    let (leader, _) = cluster.leader().await;
    let to = leader % 3 + 1;
    cluster.write("k", "v").await;
    assert_eq!(
        cluster
            .group(leader)
            .transfer_leadership(Some(to), &[], soon())
            .await,
        Ok(to)
    );
    let refused = cluster.group(leader).transfer_leadership(None, &[], soon()).await;
    assert_eq!(refused, Err(MembershipError::NotLeader { leader: Some(to) }));
    // The old one learns it from Raft a moment before its watchers do.
    let until = soon();
    while cluster.leader().await.0 != to {
        assert!(Instant::now() < until, "the old leader still says that it leads");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    cluster.nodes[&to]
        .disk
        .configure(|faults| faults.sync_stalled = true);
    let group = cluster.group(to).clone();
    let term = group.leadership().borrow().term;
    let hanging = tokio::spawn(async move { group.propose(put("k", "w"), term, soon()).await });
    let until = soon();
    // The node itself cannot even write down that another leads; ask the others.
    let successor = loop {
        let others = cluster.nodes.keys().copied().filter(|id| *id != to);
        if let Some(id) = others
            .into_iter()
            .find(|id| cluster.group(*id).leadership().borrow().ready)
        {
            break cluster.group(id).clone();
        }
        assert!(
            Instant::now() < until,
            "nobody took over from the leader with the stuck disk"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let term = successor.leadership().borrow().term;
    successor.propose(put("k2", "v"), term, soon()).await.unwrap();
    cluster.nodes[&to]
        .disk
        .configure(|faults| faults.sync_stalled = false);
    // Either it was committed by the others or it is not known; it is not refused.
    let result = hanging.await.unwrap();
    assert!(
        !matches!(result, Err(ProposeError::NotAppended { .. })),
        "{result:?}"
    );
    cluster.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_silences_the_node() {
    let cluster = Cluster::found(defaults).await;
    let (leader, term) = cluster.leader().await;
    cluster.nodes[&leader]
        .disk
        .configure(|faults| faults.fail_next_sync = true);
    // The others may still commit it; this node must not say that it is stored here.
    drop(
        cluster
            .group(leader)
            .propose(put("k", "v"), term, Instant::now() + Duration::from_secs(3))
            .await,
    );
    let reason = tokio::time::timeout(Duration::from_secs(10), cluster.nodes[&leader].fatal().wait())
        .await
        .unwrap();
    assert!(reason.contains("raft log"), "{reason}");
    let until = soon();
    while cluster.group(leader).status().role != Role::Stopped {
        assert!(Instant::now() < until, "raft still runs on a failed disk");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let others: Vec<_> = (1..=3).filter(|id| *id != leader).collect();
    let until = soon();
    while !others
        .iter()
        .any(|id| cluster.group(*id).leadership().borrow().ready)
    {
        assert!(Instant::now() < until, "nobody took over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_keeps_its_owner_and_strangers_are_refused() {
    let mut node = Node::new(1);
    node.start(defaults).await;
    let start = |cluster_id, node_id| {
        let engine: Arc<dyn Engine> = Arc::new(node.disk.open().unwrap());
        let fatal = FatalSink::new();
        let writer = LogWriter::start(engine.clone(), fatal.clone());
        Group::start(ConsensusConfig::new(cluster_id, node_id), engine, writer, fatal)
    };
    let error = start(ClusterId(Uuid::from_u128(7)), 1).await.unwrap_err();
    assert!(matches!(error, StartError::OtherCluster { .. }), "{error}");
    let error = start(CLUSTER, 2).await.unwrap_err();
    assert!(
        matches!(
            error,
            StartError::OtherNode {
                found: 1,
                configured: 2
            }
        ),
        "{error}"
    );

    // A node of another cluster at a member's address: nobody elects with it.
    let mut stranger = Node::new(2);
    stranger
        .start(|config| config.cluster_id = ClusterId(Uuid::from_u128(7)))
        .await;
    let mut node = Node::new(1);
    node.start(defaults).await;
    let members = [(1, node.addresses.clone()), (2, stranger.addresses.clone())].into();
    node.group().initialize(members).await.unwrap();
    let read = node
        .group()
        .read_barrier(Instant::now() + Duration::from_secs(3))
        .await;
    assert!(read.is_err(), "{read:?}");
}

/// It may be new, and it may have lost everything: whoever may speak to a new one has been told its directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_data_votes_for_nobody_who_does_not_know_its_directory() {
    let (mut one, mut two) = (Node::new(1), Node::new(2));
    one.start(defaults).await;
    two.start(defaults).await;
    let unknown = PeerAddresses {
        directory: None,
        ..two.addresses.clone()
    };
    let members = [(1, one.addresses.clone()), (2, unknown)].into();
    one.group().initialize(members).await.unwrap();
    let read = one
        .group()
        .read_barrier(Instant::now() + Duration::from_secs(3))
        .await;
    assert!(read.is_err(), "{read:?}");
    assert!(one.group().voted_term() > 0, "it stood for election");
    assert_eq!(two.group().voted_term(), 0);
    assert_eq!(two.group().status().last_log, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_is_refused_under_its_old_id() {
    let mut cluster = Cluster::found(defaults).await;
    let (leader, _) = cluster.leader().await;
    let follower = leader % 3 + 1;
    cluster.write("k", "v").await;
    // The leader has met it.
    assert_eq!(cluster.read(follower, "k").await.as_deref(), Some("v"));
    cluster.crash(follower).await;
    cluster.nodes.get_mut(&follower).unwrap().disk = FaultyDisk::new(99);
    cluster.start(follower).await;
    let fatal = cluster.nodes[&follower].fatal().clone();
    let reason = tokio::time::timeout(Duration::from_secs(20), fatal.wait())
        .await
        .unwrap();
    assert!(reason.contains("another data directory"), "{reason}");
    cluster.write("k2", "v").await;
    assert_eq!(cluster.group(leader).status().fatal, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_gives_no_vote_to_one_that_never_met_it() {
    let mut cluster = Cluster::found(defaults).await;
    let (leader, _) = cluster.leader().await;
    let (follower, third) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.write("k", "v").await;
    assert_eq!(cluster.read(third, "k").await.as_deref(), Some("v"));
    // Only the two that will be gone have this.
    cluster.crash(third).await;
    cluster.write("acknowledged", "v").await;
    cluster.crash(leader).await;
    cluster.crash(follower).await;
    cluster.nodes.get_mut(&follower).unwrap().disk = FaultyDisk::new(99);
    cluster.start(third).await;
    cluster.start(follower).await;

    let fatal = cluster.nodes[&follower].fatal().clone();
    let reason = tokio::time::timeout(Duration::from_secs(20), fatal.wait())
        .await
        .unwrap();
    assert!(reason.contains("another data directory"), "{reason}");
    cluster.start(leader).await;
    assert_eq!(cluster.read(third, "acknowledged").await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_removed_itself_changes_nothing_more() {
    let mut cluster = Cluster::found(defaults).await;
    let (leader, _) = cluster.leader().await;
    let other = leader % 3 + 1;
    let group = cluster.group(leader).clone();
    group.remove(leader, None, soon()).await.unwrap();
    let refused = group.remove(other, None, soon()).await;
    assert!(
        matches!(refused, Err(MembershipError::NotLeader { .. })),
        "{refused:?}"
    );
    cluster.crash(leader).await;
    cluster.leader().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_waits_when_its_node_is_stopped_is_told_so() {
    let mut cluster = Cluster::found(defaults).await;
    let (leader, _) = cluster.leader().await;
    let left = leader % 3 + 1;
    cluster.crash(leader).await;
    cluster.crash(left % 3 + 1).await;
    let group = cluster.group(left).clone();
    let reader = {
        let group = group.clone();
        // Longer than the test may take: nobody leads, so it waits.
        tokio::spawn(async move {
            group
                .read_barrier(Instant::now() + Duration::from_secs(600))
                .await
        })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!reader.is_finished(), "it waits for a leader");
    group.shutdown().await;
    let told = tokio::time::timeout(Duration::from_secs(60), reader)
        .await
        .unwrap();
    assert_eq!(told.unwrap().unwrap_err(), BarrierError::Stopped);
}

/// Puts a node's directory back to a copy taken now, after a few more writes.
async fn put_back(cluster: &mut Cluster, node: u64) {
    let copy = cluster.nodes[&node].copy().await;
    for n in 0..20 {
        cluster.write(&format!("after the copy {n}"), "v").await;
    }
    assert_eq!(
        cluster.read(node, "after the copy 19").await.as_deref(),
        Some("v"),
        "the node has them too"
    );
    cluster.crash(node).await;
    cluster.nodes.get_mut(&node).unwrap().disk = copy;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_put_back_from_an_older_copy_stops_its_node_and_nobody_else() {
    let mut cluster = Cluster::found(defaults).await;
    let (leader, term) = cluster.leader().await;
    let follower = leader % 3 + 1;
    put_back(&mut cluster, follower).await;
    cluster.start(follower).await;
    let fatal = cluster.nodes[&follower].fatal().clone();
    let reason = tokio::time::timeout(Duration::from_secs(20), fatal.wait())
        .await
        .unwrap();
    assert!(reason.contains("older copy"), "{reason}");
    cluster.write("later", "v").await;
    assert_eq!(cluster.group(leader).status().fatal, None);
    assert_eq!(cluster.leader().await, (leader, term), "the leader goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_put_back_from_an_older_copy_helps_nobody_to_win() {
    let mut cluster = Cluster::found(defaults).await;
    let (leader, _) = cluster.leader().await;
    let (follower, third) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    put_back(&mut cluster, follower).await;
    // The third hears from the leader who holds what, then only it and the one that forgot are left; it was
    // started again, so it has it from its disk.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let index = cluster.write("syncs", "the row too").await;
    cluster.group(third).wait_applied(index, soon()).await.unwrap();
    cluster.crash(leader).await;
    cluster.crash(third).await;
    cluster.start(third).await;
    cluster.start(follower).await;
    let fatal = cluster.nodes[&follower].fatal().clone();
    let reason = tokio::time::timeout(Duration::from_secs(20), fatal.wait())
        .await
        .unwrap();
    assert!(reason.contains("older copy"), "{reason}");
    assert!(!cluster.group(third).leadership().borrow().is_me);
    // Two that remember are enough.
    cluster.start(leader).await;
    assert_eq!(
        cluster.read(third, "after the copy 19").await.as_deref(),
        Some("v")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_engine_has_stopped_writes_hands_over() {
    let cluster = Cluster::found(defaults).await;
    let (leader, term) = cluster.leader().await;
    cluster.write("k", "v").await;
    let stall = |stall| {
        cluster.nodes[&leader]
            .disk
            .configure(|faults| faults.stall = stall)
    };
    stall(Stall::Stopped);
    let group = cluster.group(leader).clone();
    let held_up = tokio::spawn(async move { group.propose(put("k", "w"), term, soon()).await });
    let others: Vec<_> = (1..=3).filter(|id| *id != leader).collect();
    let until = soon();
    while !others
        .iter()
        .any(|id| cluster.group(*id).leadership().borrow().ready)
    {
        assert!(Instant::now() < until, "nobody took over");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(cluster.group(leader).status().sync_age_ms.is_some());
    stall(Stall::None);
    let result = held_up.await.unwrap();
    assert!(
        !matches!(result, Err(ProposeError::NotAppended { .. })),
        "{result:?}"
    );
    cluster.assert_equal().await;
}
