//! Certificates of a cluster on this machine.
//!
//! Guarantees: they are made by the program that the nodes run, as an operator makes them; a folder
//! that has some keeps them. Leaves out: renewal, which is up to whoever wants to see it.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use oncekey_types::NodeId;
use toml::Value;

/// A folder with an authority and what it vouches for.
#[derive(Clone, Debug)]
pub struct Certs {
    program: PathBuf,
    dir: PathBuf,
    cluster: String,
}

impl Certs {
    /// The authority in `dir`, made by `program` when there is none, and a certificate for clients
    /// of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// When the program does not make them.
    pub fn make(program: &Path, dir: &Path, cluster: &str) -> Result<Self> {
        let certs =
            Self { program: program.to_owned(), dir: dir.to_owned(), cluster: cluster.to_owned() };
        if !certs.ca().exists() {
            certs.run(["ca"])?;
        }
        if !certs.file("server.pem").exists() {
            certs.run(["server", "--name", "127.0.0.1", "--name", "localhost"])?;
        }
        Ok(certs)
    }

    /// The same for another authority of the same cluster, in the folder `name` beside this one.
    ///
    /// # Errors
    ///
    /// As [`make`](Self::make).
    pub fn another(&self, name: &str) -> Result<Self> {
        Self::make(&self.program, &self.dir.with_file_name(name), &self.cluster)
    }

    /// The file of the authority.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// A file in the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes the certificate of `node`, unless there is one.
    ///
    /// # Errors
    ///
    /// When the program does not make it.
    pub fn node(&self, node: NodeId) -> Result<()> {
        if self.file(&format!("node-{node}.pem")).exists() {
            return Ok(());
        }
        self.run(["node", "--cluster", &self.cluster, "--id", &node.to_string()])
    }

    /// The section `tls` of the configuration of `node`, whose files are copied into `into` so that
    /// they can be replaced for this node alone.
    ///
    /// # Errors
    ///
    /// When the files cannot be copied.
    pub(crate) fn settings(&self, node: NodeId, into: &Path) -> Result<Vec<(String, Value)>> {
        self.node(node)?;
        fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
        let own = format!("node-{node}");
        [
            ("tls.certificate", "server.pem", "server.pem"),
            ("tls.key", "server-key.pem", "server-key.pem"),
            ("tls.peer_certificate", &format!("{own}.pem"), "node.pem"),
            ("tls.peer_key", &format!("{own}-key.pem"), "node-key.pem"),
            ("tls.peer_ca", "ca.pem", "ca.pem"),
        ]
        .into_iter()
        .map(|(key, from, to)| {
            let (from, to) = (self.file(from), into.join(to));
            if !to.exists() {
                fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
            }
            let to = to.to_str().context("the path of a certificate is not UTF-8")?;
            Ok((key.to_owned(), Value::from(to)))
        })
        .collect()
    }

    fn run<const N: usize>(&self, arguments: [&str; N]) -> Result<()> {
        let output = Command::new(&self.program)
            .arg("certs")
            .args(arguments)
            .args([OsStr::new("--dir"), self.dir.as_os_str()])
            .output()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        ensure!(
            output.status.success(),
            "oncekey certs {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}
