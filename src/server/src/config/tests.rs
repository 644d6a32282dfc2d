//! What is taken, what is refused and what an error says.

use super::*;

const FILE: &str = r#"
[node]
id = 2
data_dir = "/var/lib/oncekey"

[auth]
issuer = "https://accounts.example"
audience = "oncekey"
jwks_file = "/etc/oncekey/jwks.json"

[cluster]
members = [
    { id = 1, peer = "a:7080", public = "a:8080" },
    { id = 2, peer = "b:7080", public = "b:8080" },
    { id = 3, peer = "c:7080", public = "c:8080" },
]
"#;

fn load(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let flags = flags.iter().fold(Overrides::default(), |all, (key, value)| all.set(*key, *value));
    Config::from_sources(Some((Path::new("oncekey.toml"), file)), env, &flags)
        .map_err(|error| error.to_string())
}

#[test]
fn a_short_file_is_enough() {
    let config = load(FILE, &[], &[]).unwrap();
    assert_eq!(config.node.node, NodeId(2));
    assert_eq!(config.node.me, Member { peer: "b:7080".into(), public: "b:8080".into() });
    assert_eq!(config.node.members.len(), 3);
    assert_eq!(config.node.shards, limits::SHARDS_DEFAULT);
    assert_eq!(config.node.engine, EngineKind::Fjall);
    assert_eq!(config.http.body_max_bytes, limits::BODY_MAX_BYTES);
}

#[test]
fn the_limits_of_the_state_machine_are_its_own_defaults() {
    assert_eq!(load(FILE, &[], &[]).unwrap().node.policy, Policy::default());
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let file = format!("{FILE}\n[raft]\nping_ms = 30\nnode_timeout_ms = 400\n");
    let env = [("ONCEKEY_RAFT_PING_MS", "40"), ("ONCEKEY_RAFT_NODE_TIMEOUT_MS", "900")];
    let flags = [("raft.ping_ms", "70")];
    let timing = load(&file, &env, &flags).unwrap().node.timing;
    assert_eq!(timing, Timing { ping_ms: 70, node_timeout_ms: 900 });
}

#[test]
fn a_list_comes_from_the_environment_too() {
    let env = [("ONCEKEY_CLUSTER_JOIN", r#"["a:7080", "b:7080"]"#)];
    let file = "[node]\nid = 4\ndata_dir = \"/tmp/x\"\n[auth]\nmode = \"open\"";
    let config = load(file, &env, &[]).unwrap();
    assert_eq!(config.node.join, ["a:7080", "b:7080"]);
    assert_eq!(config.node.me.public, "127.0.0.1:8080");
}

#[test]
fn variables_of_others_are_left_alone() {
    let env =
        [("ONCEKEY_SERVICE_HOST", "10.0.0.1"), ("ONCEKEY_PORT", "tcp://10.0.0.1:80"), ("X", "")];
    assert!(load(FILE, &env, &[]).is_ok());
}

#[test]
fn every_error_names_its_key_and_where_it_came_from() {
    let in_file = |text: &str| load(&format!("{FILE}{text}"), &[], &[]);
    let in_env = |name, value| load(FILE, &[(name, value)], &[]);
    let in_flag = |key, value| load(FILE, &[], &[(key, value)]);
    for (got, want) in [
        (in_file("[http]\nbody = 1"), "http.body is not a key of the configuration (oncekey.toml)"),
        (in_file("[htp]\nx = 1"), "htp.x is not a key of the configuration (oncekey.toml)"),
        (load("id = 1", &[], &[]), "id is not a key of the configuration (oncekey.toml)"),
        (load("", &[], &[]), "node.id is not set"),
        (
            in_env("ONCEKEY_HTTP_BODY", "1"),
            "http.body is not a key of the configuration (environment variable ONCEKEY_HTTP_BODY)",
        ),
        (in_flag("node.name", "x"), "node.name is not a key of the configuration (flag)"),
        (in_flag("node.id", "0"), "node.id is 0, allowed are 1 to 9223372036854775807 (flag)"),
        (in_flag("node.id", "-1"), "node.id is -1, allowed are 1 to 9223372036854775807 (flag)"),
        (in_flag("node.id", "one"), "node.id \"one\" is not a value of TOML (flag)"),
        (in_flag("node.id", "\"1\""), "node.id must be a whole number (flag)"),
        (in_flag("node.id", "9"), "cluster.members lacks this node, 9 (oncekey.toml)"),
        (in_flag("cluster.shards", "0"), "cluster.shards is 0, allowed are 1 to 256 (flag)"),
        (in_flag("cluster.shards", "257"), "cluster.shards is 257, allowed are 1 to 256 (flag)"),
        (
            in_flag("cluster.join", "[\"a:7080\"]"),
            "cluster.join and cluster.members exclude each other (flag)",
        ),
        (
            in_flag("listen.public", "localhost"),
            "listen.public invalid socket address syntax (flag)",
        ),
        (in_flag("listen.public", "127.0.0.1:0"), "listen.public has port 0 (flag)"),
        (
            in_flag("advertise.peer", "z:1"),
            "advertise.peer differs from b:7080 in cluster.members (flag)",
        ),
        (
            in_flag("storage.engine", "rocks"),
            "storage.engine is \"rocks\", known are \"fjall\" and \"sled\" (flag)",
        ),
        (
            in_flag("raft.ping_ms", "100"),
            "raft.node_timeout_ms must be at least four times raft.ping_ms, 100 (default)",
        ),
        (in_flag("log.format", "xml"), "log.format must be \"text\" or \"json\" (flag)"),
        (
            in_flag("cluster.name", "a b"),
            "cluster.name must be 1 to 64 letters, digits, '-', '_' or '.' (flag)",
        ),
        (in_flag("auth.mode", "closed"), "auth.mode must be \"tokens\" or \"open\" (flag)"),
        (
            in_flag("auth.algorithm", "HS256"),
            "auth.algorithm must be \"EdDSA\" or \"ES256\" (flag)",
        ),
        (
            in_flag("auth.jwks_url", "https://accounts.example/keys"),
            "auth.jwks_url and auth.jwks_file exclude each other (flag)",
        ),
        (
            in_flag("auth.jwks_ca", "ca.pem"),
            "auth.jwks_ca is for an auth.jwks_url with https:// (flag)",
        ),
        (
            in_flag("auth.skew_ms", "120001"),
            "auth.skew_ms is 120001, allowed are 0 to 120000 (flag)",
        ),
        (
            in_flag("http.body_max_bytes", "65537"),
            "http.body_max_bytes is 65537, allowed are 1024 to 65536 (flag)",
        ),
    ] {
        assert_eq!(got.expect_err(want), want);
    }
}

#[test]
fn members_are_complete_and_distinct() {
    let members = |list: &str| load(FILE, &[], &[("cluster.members", list)]).unwrap_err();
    let one = r#"{ id = 2, peer = "b:7080", public = "b:8080" }"#;
    assert!(members(&format!("[{one}, {one}]")).contains("has node 2 twice"));
    assert!(members(r#"[{ id = 2, peer = "b:7080" }]"#).contains("missing field `public`"));
    assert!(members(r#"[{ id = 2, peer = "b", public = "b:1" }]"#).contains("not host:port"));
    let extra = r#"[{ id = 2, peer = "b:1", public = "b:2", zone = 1 }]"#;
    assert!(members(extra).contains("unknown field `zone`"));
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    let error = load("[node]\nid = = 1", &[], &[]).unwrap_err();
    assert!(error.starts_with("oncekey.toml is not TOML"), "{error}");
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn variables_of_services_and_of_the_program_are_no_keys_and_those_of_a_section_are() {
    for foreign in [
        "ONCEKEY_SERVICE_HOST",
        "ONCEKEY_PORT",
        "ONCEKEY_HTTP_SERVICE_HOST",
        "ONCEKEY_HTTP_SERVICE_PORT_WEB",
        "ONCEKEY_HTTP_PORT",
        "ONCEKEY_CLUSTER_PORT_8080_TCP_ADDR",
        "ONCEKEY_TOKEN",
        "ONCEKEY_TOKEN_FILE",
        "ONCEKEY_CA",
        "ONCEKEY_ADMIN",
        "ONCEKEY_HOME",
        "ONCEKEY_ENDPOINTS",
        "ONCEKEY_PASSPHRASE",
        "ONCEKEY_PASSPHRASE_FILE",
        "ONCEKEY_BIN",
    ] {
        load(FILE, &[(foreign, "debug")], &[]).unwrap_or_else(|error| panic!("{error}"));
    }
    for key in KEYS {
        let name = key.name.replacen('.', "_", 1).to_ascii_uppercase();
        assert!(!super::settings::is_of_a_service(&name), "{name}");
    }
    // A word too few, or a slip: no default is taken for what was meant.
    for (variable, key) in [("ONCEKEY_LOG", "log"), ("ONCEKEY_LOG_LEVEL", "log.level")] {
        let error = load(FILE, &[(variable, "debug")], &[]).unwrap_err();
        let told =
            format!("{key} is not a key of the configuration (environment variable {variable})");
        assert_eq!(error, told);
    }
}

#[test]
fn a_wildcard_address_needs_another_to_advertise() {
    let file = "[node]\nid = 4\ndata_dir = \"x\"\n[cluster]\njoin = [\"a:7080\"]";
    let error = load(file, &[], &[("listen.peer", "0.0.0.0:7080")]).unwrap_err();
    assert_eq!(error, "advertise.peer is not set");
}

#[test]
fn nothing_is_open_unless_it_says_so_and_stays_on_this_machine() {
    let bare = FILE.replace("issuer", "# ").replace("audience", "# ").replace("jwks_file", "# ");
    let error = load(&bare, &[], &[]).unwrap_err();
    assert!(error.starts_with("nothing says who may use this node: set auth.issuer,"), "{error}");
    let half = FILE.replace("audience", "# ");
    assert_eq!(load(&half, &[], &[]).unwrap_err(), "auth.audience is not set");
    let keyless = FILE.replace("jwks_file", "# ");
    assert_eq!(load(&keyless, &[], &[]).unwrap_err(), "auth.jwks_file is not set");
    let ftp = load(&keyless, &[], &[("auth.jwks_url", "ftp://x/y")]).unwrap_err();
    assert_eq!(ftp, "auth.jwks_url must begin with https:// or http:// (flag)");

    let open = ("auth.mode", "open");
    assert_eq!(load(&bare, &[], &[open]).unwrap().auth, Auth::Open);
    let tls = ["tls.certificate", "tls.key", "tls.admin_certificate", "tls.admin_key"];
    let tls = tls.map(|key| (key, "x.pem"));
    for key in ["listen.public", "listen.admin"] {
        let beyond = [&tls[..], &[(key, "0.0.0.0:8080")]].concat();
        assert!(load(FILE, &[], &beyond).is_ok(), "with tokens");
        let loaded = load(&bare, &[], &[&beyond[..], &[open]].concat());
        assert!(loaded.is_err(), "{key}: {loaded:?}");
    }
}

#[test]
fn the_example_with_all_its_defaults_is_a_configuration() {
    let mut file = example();
    for key in KEYS {
        let (_, name) = key.name.split_once('.').unwrap();
        if let Some(default) = key.default {
            let line = format!("{name} = {default}\n");
            assert!(file.contains(&format!("\n# {line}")), "{line}");
            file = file.replace(&format!("\n# {line}"), &format!("\n{line}"));
        }
    }
    let env = [
        ("ONCEKEY_NODE_ID", "1"),
        ("ONCEKEY_NODE_DATA_DIR", "x"),
        ("ONCEKEY_AUTH_ISSUER", "https://accounts.example"),
        ("ONCEKEY_AUTH_AUDIENCE", "oncekey"),
        ("ONCEKEY_AUTH_JWKS_FILE", "jwks.json"),
    ];
    let with_defaults = load(&file, &env, &[]).unwrap();
    let without = load("", &env, &[]).unwrap();
    assert_eq!(format!("{with_defaults:?}"), format!("{without:?}"));
}

#[test]
fn the_configurations_in_deploy_are_taken() {
    let kubernetes = include_str!("../../../../deploy/kubernetes/node.toml");
    let compose = include_str!("../../../../deploy/compose/node.toml");
    // As in statefulset.yaml and compose.yaml.
    let env = [
        ("ONCEKEY_NODE_ID", "2"),
        ("ONCEKEY_NODE_DATA_DIR", "/var/lib/oncekey"),
        ("ONCEKEY_TLS_PEER_CERTIFICATE", "/etc/oncekey/peers/node-2.pem"),
        ("ONCEKEY_TLS_PEER_KEY", "/etc/oncekey/peers/node-2-key.pem"),
    ];
    for file in [kubernetes, compose] {
        let config = load(file, &env, &[]).unwrap();
        assert_eq!((config.node.node, config.node.members.len()), (NodeId(2), 3));
    }
}
