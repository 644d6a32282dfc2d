//! How commands for operators reach the admin listeners of nodes.
//!
//! Guarantees: a token goes to the URL that was given and is never printed. Leaves out: refusing to send
//! one over plain http, which is how a node on this machine is asked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use hyper::header::HeaderValue;
use oncekey_client::http::{Connector, Tls, Token};

use crate::secret::GivenToken;

/// Whom to trust, and what to show.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// Authorities that vouch for nodes over https, in PEM, instead of those that browsers trust.
    #[arg(long, global = true, value_name = "FILE", env = "ONCEKEY_CA",
          value_hint = ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// An operator's token, for nodes that want one. Other users of this machine may see it here;
    /// better set ONCEKEY_TOKEN, or name a file.
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "ONCEKEY_TOKEN",
        hide_env_values = true
    )]
    token: Option<GivenToken>,
    /// File with the token; goes before --token.
    #[arg(long, global = true, value_name = "FILE", env = "ONCEKEY_TOKEN_FILE",
          value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
}

impl Access {
    pub(crate) fn connector(&self) -> Result<Connector> {
        let Some(ca) = &self.ca else { return Ok(Connector::new()) };
        let pem = read(ca)?;
        let tls = Tls::from_pem(pem.as_bytes()).with_context(|| ca.display().to_string())?;
        Ok(Connector::with_tls(tls))
    }

    /// What the header `authorization` is to have.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>> {
        let token: Token = match (&self.token_file, &self.token) {
            (Some(file), _) => read(file)?.parse().with_context(|| file.display().to_string())?,
            (None, Some(given)) => given.token()?,
            (None, None) => return Ok(None),
        };
        Ok(Some(token.bearer()?))
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
