//! Waiting for a moment in the life of a cluster of Holdfast, so closely that how long it took can be measured: a member
//! has caught up, a cluster answers.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use holdfast_bench::Population;
use holdfast_client::{CallOptions, Client, v1};
use tonic::Code;

use crate::{TargetArgs, holdfast};

/// Pause between two looks.
const POLL: Duration = Duration::from_millis(10);
/// How long one call may take. A node that just starts may take a connection and answer late.
const CALL_LIMIT: Duration = Duration::from_millis(500);

/// Which member.
#[derive(Debug, Args)]
pub(crate) struct MemberArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Its id.
    #[arg(long)]
    node: u64,
    /// Its admin port.
    #[arg(long)]
    admin_of_node: String,
    /// What it is to be.
    #[arg(long, value_enum)]
    role: Role,
    /// How long to wait, seconds.
    #[arg(long, default_value_t = 60)]
    limit: u64,
}

/// What a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Voter,
    Learner,
}

/// What a cluster is to answer.
#[derive(Debug, Args)]
pub(crate) struct AnswersArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// What.
    #[arg(long, value_enum)]
    to: Question,
    /// How long to wait, seconds.
    #[arg(long, default_value_t = 60)]
    limit: u64,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Question {
    /// A linearizable read.
    Read,
    /// A create.
    Write,
}

/// Waits until a member has caught up: it serves, and has received and applied all that was committed at the look before.
pub(crate) async fn member(args: &MemberArgs) -> Result<(), String> {
    let client = holdfast::client(&args.target.setup(1))?;
    let mut committed = None;
    let mut looks = Looks::until(args.limit);
    loop {
        let node = shard_of(&client, &args.admin_of_node).await;
        let leader = leader(&client, &args.target.admin_endpoints).await;
        if let (Some(node), Some(leader), Some(committed)) = (&node, &leader, committed)
            && caught_up(args.node, args.role, node, leader, committed)
        {
            return Ok(());
        }
        committed = leader.map(|leader| leader.committed_index);
        looks.next("node did not catch up").await?;
    }
}

fn caught_up(id: u64, role: Role, node: &v1::ShardStatus, leader: &v1::ShardStatus, committed: u64) -> bool {
    let as_wanted = match node.role() {
        v1::ReplicaRole::Leader | v1::ReplicaRole::Follower => role == Role::Voter,
        v1::ReplicaRole::Learner => role == Role::Learner,
        v1::ReplicaRole::Candidate | v1::ReplicaRole::Unspecified => false,
    };
    let received = leader
        .progress
        .iter()
        .find(|progress| progress.node_id == id)
        .and_then(|progress| progress.matched_index);
    let has_all = leader.leader_node_id == id || received.is_some_and(|received| received >= committed);
    as_wanted && has_all && node.applied_index >= committed
}

/// What a node says about its shard, once it serves.
async fn shard_of(client: &Client, address: &str) -> Option<v1::ShardStatus> {
    let status = client.get_status_of(address, &options()).await.ok()?;
    let serves = status.node?.serving() == v1::ServingState::Serving;
    status.shards.into_iter().next().filter(|_| serves)
}

async fn leader(client: &Client, addresses: &[String]) -> Option<v1::ShardStatus> {
    for address in addresses {
        let shard = shard_of(client, address).await;
        if let Some(shard) = shard.filter(|shard| shard.role() == v1::ReplicaRole::Leader) {
            return Some(shard);
        }
    }
    None
}

/// Waits until the cluster answers this question.
pub(crate) async fn answers(args: &AnswersArgs) -> Result<(), String> {
    let client = holdfast::client(&args.target.setup(1))?;
    let population = Population {
        seed: u32::MAX,
        payload_bytes: 16,
    };
    let mut looks = Looks::until(args.limit);
    for number in 0.. {
        // Another account each time: what became of an attempt without an answer is not asked.
        let id = format!("{}-{}", population.id(number), std::process::id());
        let answered = match args.to {
            Question::Read => {
                let request = v1::GetAccountRequest {
                    name: format!("realms/default/accounts/{id}"),
                    consistency: None,
                };
                client.get_account(request, &options()).await.map(drop)
            }
            Question::Write => {
                let request = v1::CreateAccountRequest {
                    parent: "realms/default".to_owned(),
                    account_id: id,
                    account: Some(v1::Account::default()),
                    ..v1::CreateAccountRequest::default()
                };
                client.create_account(request, &options()).await.map(drop)
            }
        };
        match answered {
            Ok(()) => break,
            Err(error) if args.to == Question::Read && error.code == Code::NotFound => break,
            Err(error) => looks.next(&error.to_string()).await?,
        }
    }
    Ok(())
}

/// One attempt: whoever waits tries again by himself.
fn options() -> CallOptions {
    CallOptions {
        attempts_max: Some(1),
        ..CallOptions::deadline(CALL_LIMIT)
    }
}

/// Looks, until it takes too long.
struct Looks {
    end: Instant,
    limit: u64,
}

impl Looks {
    fn until(limit: u64) -> Self {
        Looks {
            end: Instant::now() + Duration::from_secs(limit),
            limit,
        }
    }

    async fn next(&mut self, why: &str) -> Result<(), String> {
        if Instant::now() >= self.end {
            return Err(format!("not within {} s: {why}", self.limit));
        }
        tokio::time::sleep(POLL).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_caught_up_when_it_has_and_serves_what_was_committed() {
        let shard = |role: v1::ReplicaRole, applied_index, matched: Option<u64>| v1::ShardStatus {
            role: role.into(),
            applied_index,
            leader_node_id: 1,
            progress: vec![v1::MemberProgress {
                node_id: 4,
                matched_index: matched,
                ..Default::default()
            }],
            ..Default::default()
        };
        let leader = |matched| shard(v1::ReplicaRole::Leader, 100, matched);
        let learner = |applied| shard(v1::ReplicaRole::Learner, applied, None);
        let judge = |role, node: &_, leader: &_| caught_up(4, role, node, leader, 90);
        assert!(judge(Role::Learner, &learner(90), &leader(Some(95))));
        assert!(!judge(Role::Learner, &learner(89), &leader(Some(95))));
        assert!(!judge(Role::Learner, &learner(90), &leader(Some(89))));
        assert!(!judge(Role::Learner, &learner(90), &leader(None)));
        assert!(!judge(Role::Voter, &learner(90), &leader(Some(95))));
        let follower = shard(v1::ReplicaRole::Follower, 90, None);
        assert!(judge(Role::Voter, &follower, &leader(Some(90))));
    }
}
