//! Limits for each client address.
//!
//! Guarantees: no address has more connections open, or sends requests faster, than allowed; behind
//! a proxy that the configuration trusts, the address is the one that the proxy names, and nobody
//! else can name one. IPv6 addresses count by the network of 64 bits that a client commands. What is
//! remembered is bounded.
//!
//! Leaves out: who asks; whoever has many addresses, or shares one with many others, is known better
//! by a token.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use axum::http::HeaderMap;
use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use ipnet::IpNet;
use oncekey_types::limits;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::config::{AddressLimits, ForwardedHeader};

/// Where a connection comes from; an extension of every request that came over it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct From(pub(crate) SocketAddr);

/// A client as far as these limits tell clients apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Client(IpAddr);

impl Client {
    fn new(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into()
            }
        })
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Duration>>;

/// The connections and requests of every client address.
pub(crate) struct Addresses {
    limits: AddressLimits,
    connections: Mutex<BTreeMap<Client, usize>>,
    rates: Option<Rates>,
}

struct Rates {
    quota: Quota,
    clock: Ticks,
    buckets: Cache<Client, Arc<Bucket>>,
}

/// The address has sent too many requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooMany;

/// The place of an open connection, free again when dropped.
pub(crate) struct Place {
    addresses: Arc<Addresses>,
    client: Client,
}

impl Addresses {
    pub(crate) fn new(limits: AddressLimits) -> Self {
        let burst = NonZeroU32::new(limits.requests_burst).unwrap_or(NonZeroU32::MIN);
        let rates = NonZeroU32::new(limits.requests_per_s).map(|per_s| Rates {
            quota: Quota::per_second(per_s).allow_burst(burst),
            clock: Ticks(Instant::now()),
            buckets: Cache::new(limits::ADDRESSES_MAX),
        });
        Self { limits, connections: Mutex::default(), rates }
    }

    /// Takes on a connection; none when its address has as many as are allowed. Proxies may have
    /// any number.
    pub(crate) fn connect(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let client = Client::new(from);
        let free = self.is_exempt(from) || is_in(&self.limits.trusted_proxies, from);
        let mut connections = self.connections.lock();
        let open = connections.entry(client).or_default();
        if !free && *open >= self.limits.connections_max {
            return None;
        }
        *open += 1;
        Some(Place { addresses: Arc::clone(self), client })
    }

    /// Takes on a request that came over a connection `from` somewhere.
    pub(crate) fn request(&self, from: From, headers: &HeaderMap) -> Result<(), TooMany> {
        let Some(rates) = &self.rates else { return Ok(()) };
        let client = self.client(from.0.ip(), headers);
        if self.is_exempt(client) {
            return Ok(());
        }
        let bucket = rates.buckets.get_or_insert_with(&Client::new(client), || {
            let bucket = RateLimiter::direct_with_clock(rates.quota, rates.clock);
            Ok::<_, std::convert::Infallible>(Arc::new(bucket))
        });
        let Ok(bucket) = bucket;
        bucket.check().map_err(|_| TooMany)
    }

    /// The client's address: what trusted proxies say, from the last one to the first, up to the
    /// first address that is not a trusted proxy's.
    fn client(&self, from: IpAddr, headers: &HeaderMap) -> IpAddr {
        let proxies = &self.limits.trusted_proxies;
        let mut client = from.to_canonical();
        if !is_in(proxies, client) {
            return client;
        }
        for hop in hops(self.limits.forwarded_header, headers).into_iter().rev() {
            // What stands further to the front was not written by a proxy that says such things.
            let Some(hop) = hop else { break };
            client = hop.to_canonical();
            if !is_in(proxies, client) {
                break;
            }
        }
        client
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        is_in(&self.limits.exempt, address)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.addresses.connections.lock();
        if let Some(open) = connections.get_mut(&self.client) {
            *open -= 1;
            if *open == 0 {
                connections.remove(&self.client);
            }
        }
    }
}

fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// The addresses that a request passed, in the order of the header; none for what is no address.
fn hops(header: ForwardedHeader, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(header.name()).iter();
    // One by one: what a client has sent must not make what a proxy has added unreadable.
    let elements = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    elements
        .map(|element| std::str::from_utf8(element).unwrap_or_default())
        .map(|element| match header {
            ForwardedHeader::XForwardedFor => address(element),
            ForwardedHeader::Forwarded => element
                .split(';')
                .filter_map(|pair| pair.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
                .and_then(|(_, value)| address(value)),
        })
        .collect()
}

/// An address, perhaps in quotes, in brackets or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(with_port).or_else(in_brackets)
}

/// The forwarded headers, opened to the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use axum::http::HeaderValue;

    use super::*;

    /// Who is taken for the client when a proxy in 10.0.0.0/8 sends a request with these fields, in
    /// this order; none when they are no fields.
    #[must_use]
    pub fn client(header: ForwardedHeader, values: &[&[u8]]) -> Option<IpAddr> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header.name(), HeaderValue::from_bytes(value).ok()?);
        }
        let proxies = IpNet::new([10, 0, 0, 0].into(), 8).ok()?;
        let addresses = Addresses::new(AddressLimits {
            connections_max: 1,
            requests_per_s: 0,
            requests_burst: 1,
            exempt: Vec::new(),
            trusted_proxies: vec![proxies],
            forwarded_header: header,
        });
        Some(addresses.client([10, 0, 0, 1].into(), &headers))
    }
}

/// tokio's clock, so that a simulation's and a test's time counts.
#[derive(Clone, Copy, Debug)]
struct Ticks(Instant);

impl Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn limits() -> AddressLimits {
        AddressLimits {
            connections_max: 2,
            requests_per_s: 1,
            requests_burst: 3,
            exempt: vec!["127.0.0.0/8".parse().unwrap()],
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            forwarded_header: ForwardedHeader::XForwardedFor,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn from(text: &str) -> From {
        From(SocketAddr::new(ip(text), 1))
    }

    fn headers(values: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn an_address_has_so_many_connections_and_no_more_until_one_ends() {
        let addresses = Arc::new(Addresses::new(limits()));
        let first = addresses.connect(ip("192.0.2.1")).unwrap();
        let second = addresses.connect(ip("::ffff:192.0.2.1")).unwrap();
        assert!(addresses.connect(ip("192.0.2.1")).is_none());
        assert!(addresses.connect(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(addresses.connect(ip("192.0.2.1")).is_some());
        drop(second);
        assert!(addresses.connections.lock().is_empty());
    }

    #[test]
    fn proxies_and_exempt_addresses_have_any_number_of_connections() {
        let addresses = Arc::new(Addresses::new(limits()));
        let open = |address| addresses.connect(ip(address)).unwrap();
        let _many: Vec<_> = (0..9).flat_map(|_| [open("10.1.2.3"), open("127.0.0.1")]).collect();
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_a_burst_and_then_its_rate() {
        let addresses = Addresses::new(limits());
        let none = HeaderMap::new();
        let ask = |address| addresses.request(from(address), &none);
        for _ in 0..3 {
            assert_eq!(ask("192.0.2.1"), Ok(()));
        }
        assert_eq!(ask("192.0.2.1"), Err(TooMany));
        assert_eq!(ask("192.0.2.2"), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ask("192.0.2.1"), Ok(()));
        assert_eq!(ask("192.0.2.1"), Err(TooMany));
        for _ in 0..99 {
            assert_eq!(ask("127.0.0.1"), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_is_one_client() {
        let addresses = Addresses::new(limits());
        let none = HeaderMap::new();
        for host in 1..4 {
            assert!(addresses.request(from(&format!("2001:db8::{host}")), &none).is_ok());
        }
        assert_eq!(addresses.request(from("2001:db8::ffff"), &none), Err(TooMany));
        assert!(addresses.request(from("2001:db8:0:1::1"), &none).is_ok());
    }

    #[test]
    fn only_a_trusted_proxy_may_say_who_the_client_is() {
        let addresses = Addresses::new(limits());
        let client = |address, header: &str| {
            addresses.client(ip(address), &headers(&[("x-forwarded-for", header)])).to_string()
        };
        assert_eq!(client("192.0.2.9", "198.51.100.7"), "192.0.2.9");
        assert_eq!(client("10.0.0.1", "198.51.100.7"), "198.51.100.7");
        assert_eq!(client("fd00::1", "198.51.100.7:4711"), "198.51.100.7");
        // The client wrote the first one itself.
        assert_eq!(client("10.0.0.1", "203.0.113.1, 198.51.100.7"), "198.51.100.7");
        assert_eq!(client("10.0.0.1", "198.51.100.7, 10.0.0.2"), "198.51.100.7");
        assert_eq!(client("10.0.0.1", "10.0.0.3, 10.0.0.2"), "10.0.0.3");
        assert_eq!(client("10.0.0.1", "203.0.113.1, unknown"), "10.0.0.1");
        assert_eq!(client("10.0.0.1", ""), "10.0.0.1");
        let both =
            headers(&[("forwarded", "for=203.0.113.1"), ("x-forwarded-for", "198.51.100.7")]);
        assert_eq!(addresses.client(ip("10.0.0.1"), &both), ip("198.51.100.7"));
    }

    #[test]
    fn what_a_client_sends_does_not_hide_what_the_proxy_adds() {
        let limits = limits();
        let addresses = Addresses::new(limits);
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(b"\xff, 203.0.113.9").unwrap();
        headers.append(HeaderName::from_static("x-forwarded-for"), value);
        assert_eq!(addresses.client(ip("10.0.0.1"), &headers), ip("203.0.113.9"));
    }

    #[test]
    fn the_standard_header_is_read_in_all_its_forms() {
        let mut limits = limits();
        limits.forwarded_header = ForwardedHeader::Forwarded;
        let addresses = Addresses::new(limits);
        for (value, client) in [
            ("for=198.51.100.7", "198.51.100.7"),
            ("for=203.0.113.1, For=198.51.100.7;proto=https", "198.51.100.7"),
            ("proto=http;for=\"198.51.100.7:4711\";by=10.0.0.1", "198.51.100.7"),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=\"[2001:db8::1]\"", "2001:db8::1"),
            ("for=_hidden", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ] {
            let found = addresses.client(ip("10.0.0.1"), &headers(&[("forwarded", value)]));
            assert_eq!(found, ip(client), "{value}");
        }
    }
}
