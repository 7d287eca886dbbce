//! Requests that change who belongs to the cluster.

use holdfast_types::{Actor, NodeId, Rejection};

use super::check::{Check, etag};
use crate::v1;

/// What all membership changes have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The membership that must be the current one; none: any.
    pub expected_membership_id: Option<String>,
    /// Only say what would be.
    pub validate_only: bool,
    /// On whose behalf and why.
    pub actor: Actor,
}

fn terms(
    check: &mut Check,
    expected_membership_id: String,
    validate_only: bool,
    context: Option<v1::RequestContext>,
) -> Terms {
    Terms {
        expected_membership_id: etag(expected_membership_id),
        validate_only,
        actor: check.actor(context),
    }
}

/// AddLearner: the node, where it can be reached, and on which terms.
pub fn add_learner(
    message: v1::AddLearnerRequest,
) -> Result<(NodeId, v1::MemberAddresses, Terms), Rejection> {
    let mut check = Check::new();
    let node = node_id(&mut check, "node_id", message.node_id);
    let addresses = addresses(&mut check, message.addresses);
    let terms = terms(
        &mut check,
        message.expected_membership_id,
        message.validate_only,
        message.context,
    );
    check.finish(
        node.zip(addresses)
            .map(|(node, addresses)| (node, addresses, terms)),
    )
}

/// PromoteMember: the learner and on which terms.
pub fn promote_member(message: v1::PromoteMemberRequest) -> Result<(NodeId, Terms), Rejection> {
    let mut check = Check::new();
    let node = node_id(&mut check, "node_id", message.node_id);
    let terms = terms(
        &mut check,
        message.expected_membership_id,
        message.validate_only,
        message.context,
    );
    check.finish(node.map(|node| (node, terms)))
}

/// RemoveMember: the member and on which terms.
pub fn remove_member(message: v1::RemoveMemberRequest) -> Result<(NodeId, Terms), Rejection> {
    let mut check = Check::new();
    let node = node_id(&mut check, "node_id", message.node_id);
    let terms = terms(
        &mut check,
        message.expected_membership_id,
        message.validate_only,
        message.context,
    );
    check.finish(node.map(|node| (node, terms)))
}

/// ReplaceMember.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplaceMember {
    /// Who goes.
    pub old: NodeId,
    /// Who comes.
    pub new: NodeId,
    /// Where the new one can be reached.
    pub addresses: v1::MemberAddresses,
    /// On which terms.
    pub terms: Terms,
}

/// Reads a ReplaceMember.
pub fn replace_member(message: v1::ReplaceMemberRequest) -> Result<ReplaceMember, Rejection> {
    let mut check = Check::new();
    let old = node_id(&mut check, "old_node_id", message.old_node_id);
    let new = node_id(&mut check, "new_node_id", message.new_node_id);
    if old.is_some() && old == new {
        check.wrong(
            "new_node_id",
            "must not be the old one: a node id is never reused",
        );
    }
    let addresses = addresses(&mut check, message.addresses);
    let terms = terms(
        &mut check,
        message.expected_membership_id,
        message.validate_only,
        message.context,
    );
    let replace = (|| {
        Some(ReplaceMember {
            old: old?,
            new: new?,
            addresses: addresses?,
            terms,
        })
    })();
    check.finish(replace)
}

/// TransferLeadership: the node that shall lead (none: any other), and on whose behalf.
pub fn transfer_leadership(
    message: v1::TransferLeadershipRequest,
) -> Result<(Option<NodeId>, Actor), Rejection> {
    let mut check = Check::new();
    let actor = check.actor(message.context);
    check.finish(Some(((message.node_id != 0).then_some(message.node_id), actor)))
}

/// Drain: whether to take it back, and on whose behalf.
pub fn drain(message: v1::DrainRequest) -> Result<(bool, Actor), Rejection> {
    let mut check = Check::new();
    let actor = check.actor(message.context);
    check.finish(Some((message.undo, actor)))
}

/// TriggerSnapshot: on whose behalf.
pub fn trigger_snapshot(message: v1::TriggerSnapshotRequest) -> Result<Actor, Rejection> {
    let mut check = Check::new();
    let actor = check.actor(message.context);
    check.finish(Some(actor))
}

fn node_id(check: &mut Check, field: &str, node: NodeId) -> Option<NodeId> {
    if node == 0 {
        check.wrong(field, "is required, from 1");
    }
    (node != 0).then_some(node)
}

fn addresses(check: &mut Check, addresses: Option<v1::MemberAddresses>) -> Option<v1::MemberAddresses> {
    let addresses = check.required("addresses", addresses)?;
    let all = [
        ("peer", &addresses.peer),
        ("client", &addresses.client),
        ("admin", &addresses.admin),
    ];
    for (name, address) in all {
        if !is_host_and_port(address) {
            check.wrong(format!("addresses.{name}"), "must have the form host:port");
        }
    }
    Some(addresses)
}

/// A host name or an address, IPv6 in brackets, and a port that is not 0.
fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let plain = |host: &str| {
        host.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_ok = match bracketed {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => (1..=255).contains(&host.len()) && plain(host),
    };
    host_ok && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["a:1", "10.0.0.1:7301", "[::1]:65535", "node-1.example.org:80"] {
            assert!(is_host_and_port(good), "{good}");
        }
        for bad in [
            "",
            ":1",
            "a",
            "a:0",
            "a:65536",
            "a b:1",
            "::1:80",
            "[x]:1",
            "http://a:1",
        ] {
            assert!(!is_host_and_port(bad), "{bad}");
        }
    }
}
