//! `oncekey health`: whether the node of a configuration is well, for those who keep it running.
//!
//! Guarantees: exit code 0 exactly when the node says so itself, within seconds; over TLS, a node that
//! shows the certificate in its own configuration. Leaves out: what is wrong with a node that does not
//! answer, which its log says.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use axum::http::Method;
use clap::{Args, ValueHint};
use oncekey_api::path;
use oncekey_client::http::{Connector, Tls};
use oncekey_cluster::http::Http;
use oncekey_server::{Config, Overrides, tls::CertificateFiles};

/// Below the patience of whoever asks.
const LIMIT: Duration = Duration::from_secs(2);

/// Ask the node of a configuration whether it can serve.
///
/// Reads the configuration as `oncekey serve` does and asks the node at listen.admin. Exits with 0
/// when every shard has a leader and is caught up; else the last line says what is amiss. For the
/// health check of a container.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  oncekey health --config /etc/oncekey/node.toml
  oncekey health --config /etc/oncekey/node.toml --live")]
pub(crate) struct Health {
    /// The configuration file of the node, in TOML.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Ask only whether the process answers.
    #[arg(long)]
    live: bool,
}

pub(crate) async fn run(arguments: &Health) -> Result<()> {
    let config = Config::load(arguments.config.as_deref(), &Overrides::default())?;
    let path = if arguments.live { path::LIVEZ } else { path::READYZ };
    let (scheme, connector) = match &config.tls.admin {
        None => ("http", Connector::new()),
        Some(CertificateFiles { certificate, .. }) => {
            let what = || certificate.display().to_string();
            let pem = std::fs::read(certificate).with_context(what)?;
            ("https", Connector::with_tls(Tls::pinned(&pem).with_context(what)?))
        }
    };
    let url = format!("{scheme}://{}{path}", config.admin);
    let reply = Http::with_limit(LIMIT).through(connector).bare(Method::GET, &url).await;
    reply.and_then(|reply| reply.expect_success()).context("the node is not well")
}
