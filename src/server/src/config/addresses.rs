//! Limits for each client address.

use axum::http::HeaderName;
use ipnet::IpNet;

use super::{Error, Range, Settings};

/// Limits for each client address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressLimits {
    /// Connections open at once.
    pub connections_max: usize,
    /// Requests a second in the long run; 0: any number.
    pub requests_per_s: u32,
    /// Requests at once after a silence.
    pub requests_burst: u32,
    /// Addresses without these limits.
    pub exempt: Vec<IpNet>,
    /// Proxies, which may say who the client is.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they do.
    pub forwarded_header: ForwardedHeader,
}

/// In which header a proxy names the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl ForwardedHeader {
    pub(crate) fn name(self) -> HeaderName {
        HeaderName::from_static(match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        })
    }
}

impl std::str::FromStr for ForwardedHeader {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err("must be \"x-forwarded-for\" or \"forwarded\""),
        }
    }
}

pub(super) fn addresses(settings: &Settings) -> Result<AddressLimits, Error> {
    Ok(AddressLimits {
        connections_max: settings.integer("http.address_connections_max", Range(1, 1_000_000))?,
        requests_per_s: settings.integer("http.address_requests_per_s", Range(0, 1_000_000))?,
        requests_burst: settings.integer("http.address_requests_burst", Range(1, 1_000_000))?,
        exempt: networks(settings, "http.exempt_addresses")?,
        trusted_proxies: networks(settings, "http.trusted_proxies")?,
        forwarded_header: settings.parsed("http.forwarded_header")?,
    })
}

/// Networks, or addresses that stand for themselves.
fn networks(settings: &Settings, key: &'static str) -> Result<Vec<IpNet>, Error> {
    let texts: Vec<String> = settings.list(key)?;
    let network = |text: &String| {
        let address = || text.parse().ok().map(|address: std::net::IpAddr| IpNet::from(address));
        text.parse().ok().or_else(address).ok_or_else(|| {
            settings.error(key, format!("has {text:?}, which is no address and no network"))
        })
    };
    texts.iter().map(network).collect()
}
