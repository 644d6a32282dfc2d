//! Every key of the configuration, with its default and what it means.

/// A key of the configuration.
pub struct Key {
    /// `section.name`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its default in TOML; none when the key must be set or is left out.
    pub default: Option<&'static str>,
    /// What it means.
    pub doc: &'static str,
}

/// What values a key takes. In the environment and in flags, text stands for itself and the other
/// kinds are written as in TOML.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A whole number.
    Integer,
    /// A string.
    Text,
    /// An array.
    List,
}

const fn integer(name: &'static str, default: Option<&'static str>, doc: &'static str) -> Key {
    Key { name, kind: Kind::Integer, default, doc }
}

const fn text(name: &'static str, default: Option<&'static str>, doc: &'static str) -> Key {
    Key { name, kind: Kind::Text, default, doc }
}

const fn list(name: &'static str, default: Option<&'static str>, doc: &'static str) -> Key {
    Key { name, kind: Kind::List, default, doc }
}

/// All keys, section by section.
pub const KEYS: &[Key] = &[
    integer(
        "node.id",
        None,
        "Number of this node, from 1. Never reused after the node's disk is lost.",
    ),
    text("node.data_dir", None, "Folder for log, state and identity. Created when missing."),
    text(
        "node.region",
        None,
        "Where this node stands, say a data centre. Replicas of a shard are put into different \
         regions, then into different zones, as far as there are any.",
    ),
    text("node.zone", None, "The part of its region in which this node stands."),
    text("listen.public", Some("\"127.0.0.1:8080\""), "Address that serves clients."),
    text("listen.peer", Some("\"127.0.0.1:7080\""), "Address that serves the other nodes."),
    text(
        "listen.admin",
        Some("\"127.0.0.1:9080\""),
        "Address that serves operators: health, metrics, cluster. Not for the public.",
    ),
    text(
        "advertise.public",
        None,
        "Address under which clients reach this node. The one in cluster.members, else \
         listen.public, when absent.",
    ),
    text(
        "advertise.peer",
        None,
        "Address under which the other nodes reach this node. The one in cluster.members, else \
         listen.peer, when absent.",
    ),
    text(
        "tls.certificate",
        None,
        "Certificate shown to clients, in PEM: the node's own first, then those that lead to an \
         authority. Clients are served over TLS when it is set; it must be for listen.public beyond \
         the loopback network. Files are read again when they change, and at SIGHUP.",
    ),
    text("tls.key", None, "Private key of tls.certificate, in PEM."),
    text("tls.admin_certificate", None, "The same for operators and listen.admin."),
    text("tls.admin_key", None, "Private key of tls.admin_certificate."),
    text(
        "tls.peer_certificate",
        None,
        "Certificate of this node among the nodes. It names node-<id>.<cluster.name>.oncekey as a \
         subject alternative name and may be used by clients and servers. Nodes prove themselves to \
         each other when it is set; it must be for listen.peer beyond the loopback network.",
    ),
    text("tls.peer_key", None, "Private key of tls.peer_certificate."),
    text(
        "tls.peer_ca",
        None,
        "Authorities that vouch for nodes, in PEM: whom they name a node is one. Several while one \
         takes the place of another.",
    ),
    text("tls.peer_crl", None, "What these authorities have revoked, in PEM."),
    integer(
        "tls.handshake_timeout_ms",
        Some("5000"),
        "Time for a client to get through the TLS handshake.",
    ),
    integer("tls.poll_ms", Some("10000"), "Time between two looks at the files of this section."),
    integer(
        "tls.expiry_warning_days",
        Some("14"),
        "Days before its end from which a certificate is complained about in the log, once a day.",
    ),
    text("cluster.name", Some("\"oncekey\""), "Name of the cluster; nodes of another are refused."),
    integer(
        "cluster.shards",
        Some("4"),
        "Number of shards, 1 to 256. Fixed when the cluster is formed. More are for nodes with many \
         cores or far from each other; each makes every pop a little dearer.",
    ),
    list(
        "cluster.members",
        None,
        "The nodes that form a new cluster, this one included: { id, peer, public } each. The same \
         on all of them. Without these and cluster.join the node waits for oncekey cluster init.",
    ),
    list(
        "cluster.join",
        None,
        "Peer addresses of running nodes, to ask to join their cluster instead of forming one.",
    ),
    integer(
        "cluster.replicas",
        None,
        "Nodes that hold each shard of a cluster formed of cluster.members, 1 to 9. All of them when \
         absent, and three as soon as there are as many.",
    ),
    text(
        "cluster.starts_from",
        Some("\"nothing\""),
        "What a new cluster is made from: nothing, or backup. With backup, the nodes serve clients \
         only once `oncekey restore` has filled the cluster.",
    ),
    text(
        "storage.engine",
        Some("\"fjall\""),
        "Engine that keeps the state: fjall or sled. sled loses acknowledged data when the power fails.",
    ),
    integer(
        "storage.cache_bytes",
        Some("268435456"),
        "Memory for records and blocks of the state that were read lately. Pops stay fast while the \
         accounts, devices and current keys of those who are fetched fit: about 2 kB for each device.",
    ),
    integer(
        "storage.wal_segment_bytes",
        Some("67108864"),
        "Size of one file of the write-ahead log.",
    ),
    integer("raft.ping_ms", Some("50"), "Time between two pings from each node to each other one."),
    integer(
        "raft.node_timeout_ms",
        Some("300"),
        "Silence after which a node is taken for lost and others lead its shards. At least four pings; longer than three round trips between nodes plus a sync.",
    ),
    integer(
        "raft.log_entries_max",
        Some("20000"),
        "Entries of a shard's log after which its state is made durable and the log cut.",
    ),
    integer(
        "policy.retry_window_ms",
        Some("600000"),
        "How long the answer to a fetch is kept for retries.",
    ),
    integer(
        "policy.per_caller_capacity",
        Some("6"),
        "Fetches of one user by one caller before one-time prekeys are withheld. 0: no limit.",
    ),
    integer(
        "policy.per_caller_refill_ms",
        Some("600000"),
        "Time after which the caller has one more.",
    ),
    integer(
        "policy.per_target_capacity",
        Some("200"),
        "Fetches of one user by all callers before one-time prekeys are withheld. 0: no limit.",
    ),
    integer(
        "policy.per_target_refill_ms",
        Some("30000"),
        "Time after which the user has one more.",
    ),
    integer(
        "policy.low_watermark",
        Some("20"),
        "Size of a pool at or below which its device is told to upload more.",
    ),
    integer(
        "policy.signed_prekey_due_ms",
        Some("604800000"),
        "Age at which a device is told that its signed prekey is due.",
    ),
    text(
        "auth.mode",
        Some("\"tokens\""),
        "Who may use the node: tokens, for users and operators with a token and devices that sign; or \
         open, for everyone on this machine.",
    ),
    text("auth.issuer", None, "Who issues the tokens: their claim iss. Must be set for tokens."),
    text("auth.audience", None, "Whom tokens are for: their claim aud. Must be set for tokens."),
    text(
        "auth.algorithm",
        Some("\"EdDSA\""),
        "The one algorithm that tokens are signed with: EdDSA (Ed25519) or ES256.",
    ),
    text(
        "auth.jwks_file",
        None,
        "File with the public keys of the issuer (RFC 7517), read anew when it changes. This or \
         auth.jwks_url must be set for tokens.",
    ),
    text("auth.jwks_url", None, "Address, https or http, of the public keys of the issuer."),
    text(
        "auth.jwks_ca",
        None,
        "Authorities, in PEM, one of which vouches for the server of auth.jwks_url; those of the \
         machine when absent. Read at the start.",
    ),
    integer(
        "auth.jwks_refresh_ms",
        Some("600000"),
        "How often auth.jwks_url is asked; also at once for a key that is not known, every ten \
         seconds at most.",
    ),
    integer(
        "auth.skew_ms",
        Some("30000"),
        "How far the clocks of issuers, devices and this node may be apart, in whole seconds.",
    ),
    text(
        "auth.operator_scope",
        Some("\"oncekey:operator\""),
        "The scope that makes a token an operator's.",
    ),
    list(
        "auth.authorities",
        None,
        "Names under which clients reach the service, host or host:port, one of which every signed \
         request must name. Any when absent.",
    ),
    integer("http.body_max_bytes", Some("65536"), "Largest body of a request, up to 65536."),
    integer(
        "http.header_timeout_ms",
        Some("15000"),
        "Time for the head of a request to arrive; also how long an idle connection is kept.",
    ),
    integer("http.body_timeout_ms", Some("10000"), "Time for the body of a request to arrive."),
    integer(
        "http.send_timeout_ms",
        Some("30000"),
        "Time for a client to take a reply that does not fit the buffers on the way.",
    ),
    integer(
        "http.fetch_timeout_ms",
        Some("2000"),
        "Time for a fetch to commit before it is answered from this node without one-time prekeys.",
    ),
    integer(
        "http.write_timeout_ms",
        Some("5000"),
        "Time for any other request to commit or be read.",
    ),
    integer(
        "http.concurrency_max",
        Some("1024"),
        "Requests served at once; more are told to come back.",
    ),
    integer("http.connections_max", Some("8192"), "Connections served at once; more wait."),
    integer(
        "http.events_max",
        Some("4096"),
        "Streams of events open at once, at most half of http.connections_max; devices without one \
         poll.",
    ),
    integer(
        "http.address_connections_max",
        Some("1024"),
        "Connections of one client address at once; more are closed.",
    ),
    integer(
        "http.address_requests_per_s",
        Some("200"),
        "Requests of one client address a second in the long run; more are told to come back. An \
         IPv6 address counts by its first 64 bits. 0: no limit.",
    ),
    integer(
        "http.address_requests_burst",
        Some("2000"),
        "Requests of one client address at once after it was silent.",
    ),
    list(
        "http.exempt_addresses",
        Some("[\"127.0.0.0/8\", \"::1/128\"]"),
        "Addresses and networks without these limits: this machine, servers that ask for many.",
    ),
    list(
        "http.trusted_proxies",
        Some("[]"),
        "Addresses and networks of proxies in front of this node. Only they may say, in \
         http.forwarded_header, which client a request is of.",
    ),
    text(
        "http.forwarded_header",
        Some("\"x-forwarded-for\""),
        "Header in which trusted proxies name the client: x-forwarded-for or forwarded. They must \
         add to it or replace it.",
    ),
    integer("http.drain_timeout_ms", Some("10000"), "Time for requests to finish at shutdown."),
    text(
        "log.filter",
        Some("\"info,openraft=off\""),
        "Which events are logged, in the syntax of tracing's EnvFilter. openraft calls an ordinary \
         stop an error; what matters of it, the node tells itself.",
    ),
    text("log.format", Some("\"text\""), "Form of the log: text or json."),
    text(
        "trace.endpoint",
        None,
        "URL of an OpenTelemetry collector that takes OTLP over HTTP, such as \
         http://127.0.0.1:4318. Nothing is traced when absent.",
    ),
    integer(
        "trace.sampled_per_million",
        Some("0"),
        "Requests of a million that are traced without asking for it. A request whose traceparent \
         header has the sampled flag is traced anyhow.",
    ),
    integer(
        "trace.per_second_max",
        Some("100"),
        "Requests traced in a second, however many ask for it.",
    ),
];

/// Longest line of an explanation in the example.
const LINE_CHARS: usize = 100;

/// A configuration file with every key, explained and commented out. `deploy/node.toml` is it.
#[must_use]
pub fn example() -> String {
    let mut out = String::from(
        "# Every key of an Oncekey node. Commented keys show their defaults. A variable of the\n\
         # environment goes before a line here: ONCEKEY_NODE_ID before id in [node].\n",
    );
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if of != section {
            section = of;
            out.push_str(&format!("\n[{section}]\n"));
        }
        explain(key.doc, &mut out);
        out.push_str(&match key.default {
            Some(default) => format!("# {name} = {default}\n"),
            None => format!("# {name} =\n"),
        });
    }
    out
}

/// Appends `doc` as comments, broken between words.
fn explain(doc: &str, out: &mut String) {
    let mut line = String::from("#");
    for word in doc.split(' ') {
        if line.len() + 1 + word.len() > LINE_CHARS {
            out.push_str(&line);
            out.push('\n');
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_key_stands_once_and_sections_stand_together() {
        let names: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(names.len(), KEYS.len());
        let mut sections: Vec<_> =
            KEYS.iter().map(|key| key.name.split_once('.').unwrap().0).collect();
        sections.dedup();
        let unique: BTreeSet<_> = sections.iter().collect();
        assert_eq!(unique.len(), sections.len(), "{sections:?}");
    }

    #[test]
    fn the_example_is_toml_and_shows_every_key() {
        let example = example();
        toml::from_str::<toml::Table>(&example).unwrap();
        for key in KEYS {
            let name = key.name.split_once('.').unwrap().1;
            assert!(example.contains(&format!("# {name} =")), "{name}");
        }
    }

    #[test]
    fn the_file_in_deploy_is_the_example() {
        let file = include_str!("../../../../deploy/node.toml");
        assert!(file == example(), "write it anew: oncekey config > deploy/node.toml");
    }
}
