//! etcd: its configuration file.

use std::path::Path;

use super::store::{Store, loopback};

/// What every node has, from the repository.
const COMMON: &str = include_str!("../../../benches/peers/settings/etcd.yml");

/// The configuration of the node at this place.
pub(crate) fn configuration(place: usize, data: &Path) -> String {
    let url = |port: u16| format!("http://{}", loopback(port));
    let client = url(Store::Etcd.client_port(place));
    let peer = url(Store::Etcd.peer_port(place));
    let members: Vec<String> = Store::Etcd
        .places()
        .map(|place| format!("node{place}={}", url(Store::Etcd.peer_port(place))))
        .collect();
    format!(
        "{COMMON}\nname: node{place}\ndata-dir: {}\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\n\
         listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: {}\ninitial-cluster-state: new\n",
        data.display(),
        members.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_knows_itself_and_the_others() {
        let text = configuration(2, Path::new("/somewhere"));
        assert!(
            text.contains(
                "\nname: node2\ndata-dir: /somewhere\nlisten-client-urls: http://127.0.0.1:18202\n"
            )
        );
        assert!(text.contains(
            "initial-cluster: node1=http://127.0.0.1:18211,node2=http://127.0.0.1:18212,node3=http://127.0.0.1:18213\n"
        ));
        assert!(text.contains("\nelection-timeout: 1000\n"));
    }
}
