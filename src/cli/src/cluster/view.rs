//! A cluster as text.

use oncekey_api::cluster::{Cluster, MemberState, MemberStatus, Placement};
use oncekey_types::NodeId;

use crate::table::Table;

/// Members and shards, each a table.
pub(super) fn table(cluster: &Cluster) -> String {
    if cluster.members.is_empty() {
        return format!(
            "node {} belongs to no cluster yet: form one with `oncekey cluster init`, or set \
             cluster.join and let it in with `oncekey cluster join`",
            cluster.node
        );
    }
    format!("{}\n\n{}", members(cluster), shards(cluster))
}

fn members(cluster: &Cluster) -> Table {
    let head = ["node", "state", "seen", "leads", "holds", "place", "version", "peers", "clients"];
    let mut table = Table::new(&head);
    for member in &cluster.members {
        let holds = |placed: &&Placement| placed.replicas.contains(&member.id);
        let leads = |placed: &&Placement| placed.leader == Some(member.id);
        let this = if member.id == cluster.node { "*" } else { "" };
        table.row([
            format!("{}{this}", member.id),
            state(member.state).to_owned(),
            if member.alive { "alive" } else { "lost" }.to_owned(),
            cluster.placement.iter().filter(leads).count().to_string(),
            cluster.placement.iter().filter(holds).count().to_string(),
            place(member),
            member.version.clone().unwrap_or_else(|| "-".to_owned()),
            member.peer.clone(),
            member.public.clone(),
        ]);
    }
    table
}

fn shards(cluster: &Cluster) -> Table {
    let mut table = Table::new(&["shard", "leader", "replicas", "moving to"]);
    for placed in &cluster.placement {
        let leader = placed.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        let target = placed.target.as_deref().map(nodes).unwrap_or_default();
        table.row([placed.shard.to_string(), leader, nodes(&placed.replicas), target]);
    }
    table
}

/// One line for each shard that moves.
pub(super) fn moves(cluster: &Cluster) -> Vec<String> {
    let line = |placed: &Placement| {
        let target = placed.target.as_deref()?;
        let (from, to) = (nodes(&placed.replicas), nodes(target));
        Some(format!("shard {}: {from} -> {to}", placed.shard))
    };
    cluster.placement.iter().filter_map(line).collect()
}

/// Why nothing moves, when a node that is to take a shard is lost.
pub(super) fn blocked(cluster: &Cluster) -> Option<String> {
    let lost =
        |node: &NodeId| cluster.members.iter().any(|member| member.id == *node && !member.alive);
    cluster.placement.iter().find_map(|placed| {
        let node = placed.target.iter().flatten().find(|node| lost(node))?;
        Some(format!("shard {} waits for node {node}, which is lost", placed.shard))
    })
}

fn state(state: MemberState) -> &'static str {
    match state {
        MemberState::Joining => "joining",
        MemberState::Active => "active",
        MemberState::Draining => "draining",
    }
}

fn place(member: &MemberStatus) -> String {
    match (member.region.as_str(), member.zone.as_str()) {
        ("", "") => "-".to_owned(),
        ("", zone) => zone.to_owned(),
        (region, "") => region.to_owned(),
        (region, zone) => format!("{region}/{zone}"),
    }
}

fn nodes(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use oncekey_types::ShardId;

    use super::*;

    fn cluster() -> Cluster {
        let member = |id, state, alive| MemberStatus {
            id: NodeId(id),
            peer: format!("10.0.0.{id}:7080"),
            public: format!("10.0.0.{id}:8080"),
            state,
            region: "eu".to_owned(),
            zone: String::new(),
            version: Some("0.1.0".to_owned()),
            alive,
        };
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        Cluster {
            name: "test".to_owned(),
            node: NodeId(1),
            members: vec![
                member(1, MemberState::Active, true),
                member(2, MemberState::Draining, true),
                member(3, MemberState::Active, false),
            ],
            shards: Vec::new(),
            placement: vec![
                Placement {
                    shard: ShardId(0),
                    leader: Some(NodeId(1)),
                    replicas: ids(&[1, 2]),
                    target: Some(ids(&[1, 3])),
                },
                Placement { shard: ShardId(1), leader: None, replicas: ids(&[1]), target: None },
            ],
            nodes: Vec::new(),
        }
    }

    #[test]
    fn a_table_shows_who_holds_what_and_what_moves() {
        let want = "\
node     state   seen  leads  holds  place  version          peers        clients
1*      active  alive      1      2     eu    0.1.0  10.0.0.1:7080  10.0.0.1:8080
2     draining  alive      0      1     eu    0.1.0  10.0.0.2:7080  10.0.0.2:8080
3       active   lost      0      0     eu    0.1.0  10.0.0.3:7080  10.0.0.3:8080

shard  leader  replicas  moving to
0           1       1 2        1 3
1        none         1";
        assert_eq!(table(&cluster()), want);
        assert_eq!(moves(&cluster()), ["shard 0: 1 2 -> 1 3"]);
        let why = blocked(&cluster());
        assert_eq!(why.as_deref(), Some("shard 0 waits for node 3, which is lost"));
    }

    #[test]
    fn a_fresh_node_says_what_to_do() {
        let fresh = Cluster { members: Vec::new(), placement: Vec::new(), ..cluster() };
        assert!(table(&fresh).contains("oncekey cluster init"));
    }
}
