//! What all membership changes have in common: their options, and how the result is shown.

use clap::Args;
use holdfast_client::v1;
use serde_json::{Value, json};

use crate::args::{Global, Why};
use crate::exit::{Exit, Failure};
use crate::output;

/// Options of a membership change.
#[derive(Debug, Args)]
pub(super) struct Guarded {
    /// Check the change and show what would be, but change nothing.
    #[arg(long, help_heading = "Change")]
    pub(super) validate_only: bool,
    /// Only if this is the membership, as `cluster status` shows it.
    #[arg(long, value_name = "ID", default_value = "", help_heading = "Change")]
    pub(super) expected_membership_id: String,
    #[command(flatten)]
    pub(super) why: Why,
}

/// Where a new node can be reached.
#[derive(Debug, Args)]
pub(super) struct Addresses {
    /// Peer port of the new node, as the other nodes reach it.
    #[arg(long, value_name = "HOST:PORT")]
    peer: String,
    /// Client port of the new node, as clients reach it.
    #[arg(long, value_name = "HOST:PORT")]
    client: String,
    /// Admin port of the new node, as operators reach it.
    #[arg(long, value_name = "HOST:PORT")]
    admin: String,
}

impl Addresses {
    /// The message for it.
    pub(super) fn message(&self) -> Option<v1::MemberAddresses> {
        Some(v1::MemberAddresses {
            peer: self.peer.clone(),
            client: self.client.clone(),
            admin: self.admin.clone(),
        })
    }
}

/// Shows the membership after a change.
pub(super) fn show(
    global: &Global,
    membership: Option<v1::Membership>,
    validate_only: bool,
) -> Result<(), Failure> {
    let membership =
        membership.ok_or_else(|| Failure::new(Exit::Internal, "the answer holds no membership"))?;
    let mut document = document(&membership);
    document["validate_only"] = json!(validate_only);
    output::result(global.output, &document, || {
        let rows = membership.members.iter().map(row).collect();
        let table = output::table(&["NODE", "ROLE", "PEER", "CLIENT", "ADMIN"], rows);
        if validate_only {
            format!("{table}\nthis is what it would be; nothing was changed (--validate-only)")
        } else {
            format!("{table}\nmembership {}", membership.membership_id)
        }
    })
}

fn row(member: &v1::Member) -> Vec<String> {
    let addresses = member.addresses.clone().unwrap_or_default();
    vec![
        member.node_id.to_string(),
        role_name(member.role()).to_owned(),
        addresses.peer,
        addresses.client,
        addresses.admin,
    ]
}

/// The membership as JSON.
pub(super) fn document(membership: &v1::Membership) -> Value {
    let members: Vec<Value> = membership
        .members
        .iter()
        .map(|member| {
            json!({
                "node_id": member.node_id,
                "role": role_name(member.role()),
                "addresses": addresses(member.addresses.as_ref()),
            })
        })
        .collect();
    json!({ "membership_id": membership.membership_id, "members": members })
}

/// Addresses as JSON.
pub(super) fn addresses(addresses: Option<&v1::MemberAddresses>) -> Value {
    match addresses {
        Some(a) => json!({ "peer": a.peer, "client": a.client, "admin": a.admin }),
        None => Value::Null,
    }
}

fn role_name(role: v1::MemberRole) -> &'static str {
    role.as_str_name().trim_start_matches("MEMBER_ROLE_")
}
