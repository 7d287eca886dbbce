//! Holdfast: its configuration file.

use std::path::Path;

use super::store::{Store, loopback};

/// What every node has, from the repository.
const COMMON: &str = include_str!("../../../benches/peers/settings/holdfast.toml");

/// The configuration of the node at this place.
pub(crate) fn configuration(place: usize, data: &Path) -> String {
    let store = Store::Holdfast;
    let members: Vec<String> = store
        .places()
        .map(|place| {
            format!(
                "  {{ id = {place}, peer = \"{}\", client = \"{}\", admin = \"{}\" }},\n",
                loopback(store.peer_port(place)),
                loopback(store.client_port(place)),
                loopback(store.admin_port(place))
            )
        })
        .collect();
    let founders = format!("initial_members = [\n{}]\n", members.concat());
    with_founders(place, data, &founders)
}

/// The configuration of a node that is added later: it founds nothing.
pub(crate) fn newcomer(place: usize, data: &Path) -> String {
    with_founders(place, data, "")
}

fn with_founders(place: usize, data: &Path, founders: &str) -> String {
    let store = Store::Holdfast;
    format!(
        "{COMMON}\n[node]\nid = {place}\ndata_dir = \"{}\"\n\n[cluster]\nid = \"3c0b8a38-2f6e-4c0a-9d44-1d5f5f0c7b11\"\n\
         {founders}\n[listen]\nclient = \"{}\"\nadmin = \"{}\"\npeer = \"{}\"\nmetrics = \"{}\"\n",
        data.display(),
        loopback(store.client_port(place)),
        loopback(store.admin_port(place)),
        loopback(store.peer_port(place)),
        loopback(store.metrics_port(place)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_knows_itself_and_the_others() {
        let text = configuration(3, Path::new("/somewhere"));
        assert!(text.contains("[node]\nid = 3\ndata_dir = \"/somewhere\"\n"));
        assert!(text.contains(
            "  { id = 1, peer = \"127.0.0.1:18111\", client = \"127.0.0.1:18101\", admin = \"127.0.0.1:18121\" },\n"
        ));
        assert!(text.contains("[listen]\nclient = \"127.0.0.1:18103\"\n"));
    }

    #[test]
    fn a_newcomer_founds_nothing() {
        let text = newcomer(4, Path::new("/somewhere"));
        assert!(!text.contains("initial_members"), "{text}");
        assert!(
            text.contains("\n[listen]\nclient = \"127.0.0.1:18104\"\n"),
            "{text}"
        );
    }
}
