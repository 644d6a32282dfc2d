//! Who may do what.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use axum::http::{Uri, uri::Scheme};

use super::{
    DAY_MS, Error,
    settings::{Range, Settings},
};

/// Who may do what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Auth {
    /// Everyone may do everything; for this machine alone.
    Open,
    /// Users and operators have tokens, devices sign.
    Tokens(Box<Tokens>),
}

/// Which tokens and signatures are taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tokens {
    /// The claim `iss`.
    pub issuer: String,
    /// What the claim `aud` is or has among others.
    pub audience: String,
    /// The one algorithm of tokens.
    pub algorithm: Algorithm,
    /// Where the keys lie.
    pub keys: KeySource,
    /// How often the keys are asked for when they lie under a URL.
    pub refresh: Duration,
    /// How far clocks may be apart.
    pub skew: Duration,
    /// The scope of operators.
    pub operator_scope: String,
    /// The names under which clients reach the service, as `host` or `host:port`; any when empty.
    pub authorities: Vec<String>,
}

/// Where the keys lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// On a server.
    Url {
        /// Their address.
        url: Uri,
        /// The file of the authorities that vouch for the server; the machine's when absent.
        authorities: Option<PathBuf>,
    },
}

/// An algorithm of tokens (RFC 7518, RFC 8037).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA over P-256 with SHA-256.
    Es256,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        })
    }
}

impl FromStr for Algorithm {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "EdDSA" => Ok(Self::EdDsa),
            "ES256" => Ok(Self::Es256),
            _ => Err("must be \"EdDSA\" or \"ES256\""),
        }
    }
}

pub(super) fn auth(settings: &Settings) -> Result<Auth, Error> {
    match settings.parsed::<String>("auth.mode")?.as_str() {
        "tokens" => Ok(Auth::Tokens(Box::new(tokens(settings)?))),
        "open" => Ok(Auth::Open),
        _ => Err(settings.error("auth.mode", "must be \"tokens\" or \"open\"")),
    }
}

fn tokens(settings: &Settings) -> Result<Tokens, Error> {
    let issuer: Option<String> = settings.optional("auth.issuer")?;
    let audience: Option<String> = settings.optional("auth.audience")?;
    let file: Option<PathBuf> = settings.optional("auth.jwks_file")?;
    let url: Option<Uri> = settings.optional("auth.jwks_url")?;
    if issuer.is_none() && audience.is_none() && file.is_none() && url.is_none() {
        return Err(Error::NoAuth);
    }
    let authorities: Option<PathBuf> = settings.optional("auth.jwks_ca")?;
    let is_https = url.as_ref().is_some_and(|url| url.scheme() == Some(&Scheme::HTTPS));
    if authorities.is_some() && !is_https {
        return Err(settings.error("auth.jwks_ca", "is for an auth.jwks_url with https://"));
    }
    let keys = match (file, url) {
        (Some(file), None) => KeySource::File(file),
        (None, Some(url)) => KeySource::Url { url: web(settings, url)?, authorities },
        (None, None) => return Err(Error::Missing { key: "auth.jwks_file" }),
        (Some(_), Some(_)) => {
            return Err(settings.error("auth.jwks_url", "and auth.jwks_file exclude each other"));
        }
    };
    let ms = |key, range| Ok(Duration::from_millis(settings.integer(key, range)?));
    Ok(Tokens {
        issuer: issuer.ok_or(Error::Missing { key: "auth.issuer" })?,
        audience: audience.ok_or(Error::Missing { key: "auth.audience" })?,
        algorithm: settings.parsed("auth.algorithm")?,
        keys,
        refresh: ms("auth.jwks_refresh_ms", Range(10_000, DAY_MS))?,
        skew: ms("auth.skew_ms", Range(0, 120_000))?,
        operator_scope: settings.parsed("auth.operator_scope")?,
        authorities: settings.list("auth.authorities")?,
    })
}

fn web(settings: &Settings, url: Uri) -> Result<Uri, Error> {
    match (url.scheme_str(), url.authority()) {
        (Some("https" | "http"), Some(_)) => Ok(url),
        _ => Err(settings.error("auth.jwks_url", "must begin with https:// or http://")),
    }
}
