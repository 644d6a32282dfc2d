//! Who is believed, and what a change of the files changes.

mod authority;

use std::{fs, io, time::Duration};

use oncekey_raft::environment::{Guarded, Layered};
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use self::authority::{Authority, files};
use super::*;

/// What a node has of its files.
struct Node {
    dir: TempDir,
    certificates: Certificates,
}

impl Node {
    fn try_new(
        node: u64,
        make: impl FnOnce(&std::path::Path) -> PeerFiles,
    ) -> Result<Self, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        let peer = Some(make(dir.path()));
        let tls = Tls {
            public: None,
            admin: None,
            peer,
            handshake_timeout: Duration::from_secs(5),
            poll_interval: Duration::from_secs(10),
            expiry_warning: Duration::from_secs(1),
        };
        let certificates = Certificates::load(&tls, NodeId(node), "test")?;
        Ok(Self { dir, certificates })
    }

    fn new(node: u64, authority: &Authority) -> Self {
        Self::try_new(node, |dir| authority.node(dir, node, node)).unwrap()
    }

    fn look(&self) {
        self.certificates.all().iter().for_each(|credentials| credentials.look());
    }

    fn reloads(&self) -> (u64, u64) {
        self.certificates.all()[0].reloads()
    }
}

/// Has `one` dial `other` and say hello; returns whom each takes the other for.
async fn dial(one: &Node, other: &Node) -> (io::Result<NodeId>, io::Result<NodeId>) {
    let (here, there) = duplex(64 * 1024);
    let (dialling, accepting) =
        (one.certificates.guard().unwrap(), other.certificates.guard().unwrap());
    let dialling = async {
        let Guarded { mut stream, node } = dialling.dialled(Box::new(Layered(here))).await?;
        stream.write_u8(7).await?;
        stream.flush().await?;
        // A refusal of the other end arrives here.
        stream.read_u8().await?;
        Ok(node.unwrap())
    };
    let accepting = async {
        let Guarded { mut stream, node } = accepting.accepted(Box::new(Layered(there))).await?;
        stream.read_u8().await?;
        stream.write_u8(7).await?;
        stream.flush().await?;
        Ok(node.unwrap())
    };
    tokio::join!(dialling, accepting)
}

async fn agree(one: &Node, other: &Node) -> bool {
    matches!(dial(one, other).await, (Ok(_), Ok(_)))
}

fn refusal(made: Result<Node, LoadError>) -> String {
    made.err().expect("a certificate was taken that others would refuse").to_string()
}

#[tokio::test]
async fn nodes_prove_to_each_other_which_they_are() {
    let authority = Authority::new("one");
    let (first, second) = (Node::new(1, &authority), Node::new(2, &authority));
    let (of_first, of_second) = dial(&first, &second).await;
    assert_eq!((of_first.unwrap(), of_second.unwrap()), (NodeId(2), NodeId(1)));
}

#[tokio::test]
async fn a_node_of_another_authority_is_refused_at_either_end() {
    let (ours, theirs) = (Authority::new("same name"), Authority::new("same name"));
    let (node, stranger) = (Node::new(1, &ours), Node::new(2, &theirs));
    let (dialled, accepted) = dial(&node, &stranger).await;
    assert!(dialled.is_err() && accepted.is_err());
    let (dialled, accepted) = dial(&stranger, &node).await;
    assert!(dialled.is_err() && accepted.is_err());
}

#[tokio::test]
async fn whoever_has_no_certificate_is_refused() {
    let node = Node::new(1, &Authority::new("one"));
    let (mut here, there) = duplex(64 * 1024);
    here.write_all(b"a frame of somebody who never heard of TLS").await.unwrap();
    let guard = node.certificates.guard().unwrap();
    assert!(guard.accepted(Box::new(Layered(there))).await.is_err());
}

#[test]
fn a_certificate_that_other_nodes_would_refuse_is_refused_at_once() {
    let authority = Authority::new("one");
    let issued =
        |names: &[&str]| refusal(Node::try_new(1, |dir| authority.issue(dir, names, |_| {})));
    let own = node_name(NodeId(1), "test");
    let other = node_name(NodeId(2), "test");
    assert!(issued(&[&other]).ends_with("is that of node 2, this is node 1"));
    assert!(issued(&[&own, &other]).ends_with("names more than one node"));
    for names in [&["*.test.oncekey"][..], &["node-1.prod.oncekey"], &["127.0.0.1"], &[]] {
        assert!(issued(names).ends_with("names no node of the cluster \"test\""), "{names:?}");
    }
    let usage = refusal(Node::try_new(1, |dir| {
        authority.issue(dir, &[&own], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }));
    assert!(usage.contains("would be refused by the other nodes"), "{usage}");
    let foreign = refusal(Node::try_new(1, |dir| {
        let files = authority.node(dir, 1, 1);
        fs::write(&files.authorities, Authority::new("another").pem).unwrap();
        files
    }));
    assert!(foreign.contains("would be refused by the other nodes"), "{foreign}");
}

#[test]
fn a_certificate_may_have_further_names() {
    let names = ["a.example", &node_name(NodeId(1), "test"), "10.0.0.1"];
    Node::try_new(1, |dir| Authority::new("one").issue(dir, &names, |_| {})).unwrap();
}

#[test]
fn an_error_names_the_file_and_shows_nothing_of_a_key() {
    let authority = Authority::new("one");
    let broken = |file: fn(&PeerFiles) -> &PathBuf, text: &str| {
        refusal(Node::try_new(1, |dir| {
            let files = authority.node(dir, 1, 1);
            fs::write(file(&files), text).unwrap();
            files
        }))
    };
    let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0!\n-----END PRIVATE KEY-----\n";
    let error = broken(|files| &files.own.key, key);
    assert!(error.contains("node-key.pem has no private key in PEM"), "{error}");
    assert!(!error.contains("c2Vj"), "{error}");
    let error = broken(|files| &files.own.certificate, "");
    assert!(error.contains("node.pem has no certificate in PEM"), "{error}");
    let error = broken(|files| &files.authorities, "x");
    assert!(error.contains("ca.pem has no certificate in PEM"), "{error}");
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let error = broken(|files| &files.own.key, &other);
    assert!(error.contains("cannot be used together"), "{error}");
    let error = refusal(Node::try_new(1, files));
    assert!(error.starts_with("cannot read "), "{error}");
}

#[tokio::test]
async fn an_authority_is_replaced_without_a_moment_in_which_nodes_refuse_each_other() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let nodes = [Node::new(1, &old), Node::new(2, &old)];
    let [first, second] = &nodes;
    let both = format!("{}{}", old.pem, new.pem);
    for step in [&both, &both, &new.pem].iter().zip(1..) {
        for (node, id) in nodes.iter().zip(1..) {
            let (authorities, number) = step;
            if number == 2 {
                new.node(node.dir.path(), id, 10 + id);
            }
            fs::write(files(node.dir.path()).authorities, authorities).unwrap();
            node.look();
            assert!(agree(first, second).await && agree(second, first).await);
        }
    }
    assert_eq!(first.reloads(), (3, 0));
    let late = Node::new(3, &old);
    assert!(!agree(&late, first).await, "the old authority is still trusted");
}

#[tokio::test]
async fn a_broken_file_leaves_the_old_certificate_in_use() {
    let authority = Authority::new("one");
    let (first, second) = (Node::new(1, &authority), Node::new(2, &authority));
    let certificate = files(first.dir.path()).own.certificate;
    let sound = fs::read(&certificate).unwrap();
    fs::write(&certificate, "half of a").unwrap();
    first.look();
    first.look();
    assert_eq!(first.reloads(), (0, 1), "a failure is told once");
    assert!(agree(&first, &second).await);
    fs::write(&certificate, sound).unwrap();
    first.look();
    assert_eq!(first.reloads(), (0, 1), "nothing has changed");
    let before = first.certificates.all()[0].expires();
    authority.issue(first.dir.path(), &[&node_name(NodeId(1), "test")], |params| {
        params.not_after = date_time_ymd(2100, 1, 1);
    });
    first.look();
    assert_eq!(first.reloads(), (1, 1));
    assert!(first.certificates.all()[0].expires() < before);
    assert!(agree(&first, &second).await);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_from_then_on() {
    let authority = Authority::new("one");
    let thief = Node::new(3, &authority);
    let node = Node::try_new(1, |dir| {
        let files = authority.node(dir, 1, 1);
        let list = dir.join("crl.pem");
        fs::write(&list, authority.revoke(99)).unwrap();
        PeerFiles { revoked: Some(list), ..files }
    });
    let node = node.unwrap();
    assert!(agree(&thief, &node).await && agree(&node, &thief).await);
    fs::write(node.dir.path().join("crl.pem"), authority.revoke(3)).unwrap();
    node.look();
    assert!(!agree(&thief, &node).await);
    assert!(!agree(&node, &thief).await);
}

#[tokio::test]
async fn an_expired_certificate_starts_but_is_refused_by_others() {
    let authority = Authority::new("one");
    let node = Node::new(1, &authority);
    let late = Node::try_new(2, |dir| {
        authority.issue(dir, &[&node_name(NodeId(2), "test")], |params| {
            params.not_after = date_time_ymd(2020, 1, 1);
        })
    });
    let late = late.unwrap();
    assert!(!agree(&node, &late).await);
    assert!(!agree(&late, &node).await);
    // Its operator gives it another; nothing is restarted.
    authority.node(late.dir.path(), 2, 22);
    late.look();
    assert!(agree(&node, &late).await && agree(&late, &node).await);
}
