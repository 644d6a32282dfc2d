//! `oncekey certs`: a private authority for a trial, and what it vouches for.
//!
//! Guarantees: no file is ever replaced; a key can be read by nobody but its owner; no certificate
//! outlives its authority. Leaves out: everything else that makes an authority; in production it is
//! somebody else's work, and what its certificates must have is in docs/tls.md.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueHint};
use oncekey_server::tls::node_name;
use oncekey_types::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use crate::output;

/// How far clocks may be apart.
const SKEW: Duration = Duration::hours(1);

/// Make a private authority and certificates, for a trial.
///
/// Nodes on several machines need certificates: one each to prove to the others which node it is,
/// and one, or one each, to show to clients. Every command writes a certificate and its key into
/// --dir, in PEM, and prints the lines for the configuration of the node. No file is ever replaced:
/// to renew a certificate, make it in another folder and move both files into place; a node takes
/// them up within seconds, without a restart.
///
/// Whoever has ca-key.pem can be any node. Keep it off the nodes: they need ca.pem, their own
/// certificate and their own key, and nothing else.
#[derive(Debug, Args)]
#[command(after_help = "\
A cluster of three nodes, `prod`, whose clients know it as api.example.org:

  oncekey certs ca
  for id in 1 2 3; do oncekey certs node --cluster prod --id $id; done
  oncekey certs server --name api.example.org --name 10.0.0.1 --name 10.0.0.2 --name 10.0.0.3

A new authority in the place of the old one, without a break (docs/tls.md):

  oncekey certs ca --dir new
  cat certs/ca.pem new/ca.pem > both.pem      # as tls.peer_ca on every node, then
  oncekey certs node --dir new --cluster prod --id 1      # for every node, then
  # new/ca.pem alone as tls.peer_ca on every node")]
pub(crate) struct Certs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ca(Ca),
    Node(Node),
    Server(Server),
}

/// Make an authority: ca.pem and ca-key.pem.
#[derive(Debug, Args)]
struct Ca {
    #[command(flatten)]
    place: Place,
    /// Days until it expires.
    #[arg(long, value_name = "N", default_value = "3650",
          value_parser = clap::value_parser!(u16).range(1..=36500))]
    days: u16,
}

/// Make the certificate of a node among the nodes: node-ID.pem and node-ID-key.pem.
#[derive(Debug, Args)]
struct Node {
    #[command(flatten)]
    place: Place,
    /// The node, as node.id has it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// The cluster, as cluster.name has it.
    #[arg(long, value_name = "NAME", default_value = "oncekey")]
    cluster: String,
    /// Days until it expires.
    #[arg(long, value_name = "N", default_value = "365",
          value_parser = clap::value_parser!(u16).range(1..=36500))]
    days: u16,
}

/// Make a certificate to show to clients: server.pem and server-key.pem.
#[derive(Debug, Args)]
struct Server {
    #[command(flatten)]
    place: Place,
    /// A host name or an address under which clients reach the node; may be given several times.
    #[arg(long = "name", value_name = "HOST", required = true)]
    names: Vec<String>,
    /// What to call the files instead of `server`.
    #[arg(long = "as", value_name = "FILE", default_value = "server", value_parser = file_name)]
    file: String,
    /// Days until it expires.
    #[arg(long, value_name = "N", default_value = "365",
          value_parser = clap::value_parser!(u16).range(1..=36500))]
    days: u16,
}

#[derive(Debug, Args)]
struct Place {
    /// The folder of the authority, where the files are written. Created when missing.
    #[arg(long, value_name = "DIR", default_value = "./certs", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
}

pub(crate) fn run(arguments: &Certs) -> Result<()> {
    match &arguments.command {
        Command::Ca(arguments) => ca(arguments),
        Command::Node(arguments) => node(arguments),
        Command::Server(arguments) => server(arguments),
    }
}

fn ca(arguments: &Ca) -> Result<()> {
    let mut params = params(&[], arguments.days)?;
    // Two authorities of one cluster should not be mistaken for each other.
    let name = format!("Oncekey authority {:016x}", rand::random::<u64>());
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let files = Files::new(&arguments.place.dir, "ca");
    files.write(&certificate.pem(), &key)?;
    output::line(format_args!(
        "An authority until {}, in {} and {}.\n\n\
         For the configuration of every node:\n\n  [tls]\n  peer_ca = {:?}",
        params.not_after.date(),
        files.certificate.display(),
        files.key.display(),
        files.certificate,
    ));
    Ok(())
}

fn node(arguments: &Node) -> Result<()> {
    let name = node_name(NodeId(arguments.id), &arguments.cluster);
    let mut params = params(std::slice::from_ref(&name), arguments.days)?;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let files = Files::new(&arguments.place.dir, &format!("node-{}", arguments.id));
    let until = issue(&arguments.place.dir, params, &name, &files)?;
    output::line(format_args!(
        "{name} until {until}, in {} and {}.\n\n\
         For the configuration of node {} of {:?}:\n\n  \
         [tls]\n  peer_certificate = {:?}\n  peer_key = {:?}\n  peer_ca = {:?}",
        files.certificate.display(),
        files.key.display(),
        arguments.id,
        arguments.cluster,
        files.certificate,
        files.key,
        Files::new(&arguments.place.dir, "ca").certificate,
    ));
    Ok(())
}

fn server(arguments: &Server) -> Result<()> {
    let mut params = params(&arguments.names, arguments.days)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let files = Files::new(&arguments.place.dir, &arguments.file);
    let first = arguments.names.first().map_or("", String::as_str);
    let until = issue(&arguments.place.dir, params, first, &files)?;
    output::line(format_args!(
        "{} until {until}, in {} and {}.\n\n\
         For the configuration of the nodes:\n\n  \
         [tls]\n  certificate = {:?}\n  key = {:?}\n\n\
         Clients trust it by the authority: --ca {:?}",
        arguments.names.join(", "),
        files.certificate.display(),
        files.key.display(),
        files.certificate,
        files.key,
        Files::new(&arguments.place.dir, "ca").certificate,
    ));
    Ok(())
}

/// Has the authority in `dir` vouch for `params`; returns the last day on which it does.
fn issue(dir: &Path, mut params: CertificateParams, name: &str, files: &Files) -> Result<String> {
    let authority = Files::new(dir, "ca");
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| {
            format!("cannot read {}; `oncekey certs ca` makes an authority", path.display())
        })
    };
    let certificate = read(&authority.certificate)?;
    let key = KeyPair::from_pem(&read(&authority.key)?)
        .with_context(|| format!("{} has no key", authority.key.display()))?;
    let end = end_of(&certificate)
        .with_context(|| format!("{} has no certificate", authority.certificate.display()))?;
    ensure!(end > params.not_before, "the authority in {} has expired", dir.display());
    params.not_after = params.not_after.min(end);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name.push(DnType::CommonName, name);
    let issuer = Issuer::from_ca_cert_pem(&certificate, &key)?;
    let own = KeyPair::generate()?;
    let issued = params.signed_by(&own, &issuer)?;
    files.write(&issued.pem(), &own)?;
    Ok(params.not_after.date().to_string())
}

/// When the certificate in `text` expires.
fn end_of(text: &str) -> Result<OffsetDateTime> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes())?;
    Ok(pem.parse_x509()?.validity().not_after.to_datetime())
}

fn params(names: &[String], days: u16) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names)?;
    let now = OffsetDateTime::now_utc();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = now - SKEW;
    params.not_after = now + Duration::days(days.into());
    Ok(params)
}

/// Where a certificate and its key are.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(dir: &Path, name: &str) -> Self {
        Self {
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}-key.pem")),
        }
    }

    fn write(&self, certificate: &str, key: &KeyPair) -> Result<()> {
        if let Some(dir) = self.key.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.with_context(|| format!("cannot make {}", dir.display()))?;
        }
        for file in [&self.certificate, &self.key] {
            ensure!(!file.exists(), "{} exists; it is not replaced", file.display());
        }
        write(&self.key, 0o600, &key.serialize_pem())?;
        write(&self.certificate, 0o644, certificate)
    }
}

fn write(path: &Path, mode: u32, text: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

fn file_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || !text.bytes().all(plain) || text.starts_with('.') {
        return Err(format!("{text:?} is not letters, digits, '-', '_' and '.'"));
    }
    Ok(text.to_owned())
}
