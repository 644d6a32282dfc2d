//! What may be listened on.
//!
//! Guarantees: whatever other machines can reach is protected: a listener on an address that is not
//! of the loopback network has TLS, for other nodes with certificates at both ends, and whoever asks
//! there has a token or signs. An error names the keys to set.

use std::net::SocketAddr;

use super::{Auth, Error, Settings, Tls};

/// What a listener takes to be safe.
struct Rule {
    listener: &'static str,
    protected: bool,
    advice: &'static str,
}

/// Refuses a listener that others can reach and nothing protects.
pub(super) fn check(
    settings: &Settings,
    public: SocketAddr,
    admin: SocketAddr,
    peer: SocketAddr,
    tls: &Tls,
    auth: &Auth,
) -> Result<(), Error> {
    let is_reachable = |address: SocketAddr| !address.ip().to_canonical().is_loopback();
    if *auth == Auth::Open {
        for (listener, address) in [("listen.public", public), ("listen.admin", admin)] {
            if is_reachable(address) {
                let reason = format!(
                    "is open, which is for this machine alone, and {listener} is {address}: set \
                     auth.issuer, auth.audience and auth.jwks_file or auth.jwks_url"
                );
                return Err(settings.error("auth.mode", reason));
            }
        }
    }
    let rules = [
        (
            public,
            Rule {
                listener: "listen.public",
                protected: tls.public.is_some(),
                advice: "clients need TLS there: set tls.certificate and tls.key",
            },
        ),
        (
            admin,
            Rule {
                listener: "listen.admin",
                protected: tls.admin.is_some(),
                advice: "operators need TLS there: set tls.admin_certificate and tls.admin_key",
            },
        ),
        (
            peer,
            Rule {
                listener: "listen.peer",
                protected: tls.peer.is_some(),
                advice: "nodes prove themselves to each other there: set tls.peer_certificate, \
                         tls.peer_key and tls.peer_ca",
            },
        ),
    ];
    for (address, rule) in rules {
        if is_reachable(address) && !rule.protected {
            let advice = rule.advice;
            let reason = format!(
                "is {address}, which other machines can reach, and {advice}; `oncekey certs` makes \
                 certificates for a trial"
            );
            return Err(settings.error(rule.listener, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Overrides};

    fn load(more: &[(&str, &str)]) -> Result<Config, String> {
        let common = [
            ("node.id", "1"),
            ("node.data_dir", "x"),
            ("auth.issuer", "https://accounts.example"),
            ("auth.audience", "oncekey"),
            ("auth.jwks_file", "jwks.json"),
            (
                "cluster.members",
                r#"[{ id = 1, peer = "a.example:7080", public = "a.example:8080" }]"#,
            ),
        ];
        let flags = common.iter().chain(more);
        let flags = flags.fold(Overrides::default(), |all, (key, value)| all.set(*key, *value));
        Config::from_sources(None, [], &flags).map_err(|error| error.to_string())
    }

    #[test]
    fn every_listener_beyond_loopback_needs_its_certificate() {
        for (listener, address, keys) in [
            ("listen.public", "0.0.0.0:8080", "tls.certificate and tls.key"),
            ("listen.public", "[::]:8080", "tls.certificate and tls.key"),
            ("listen.admin", "10.0.0.1:9080", "tls.admin_certificate and tls.admin_key"),
            ("listen.peer", "10.0.0.1:7080", "tls.peer_certificate, tls.peer_key and tls.peer_ca"),
        ] {
            let error = load(&[(listener, address)]).unwrap_err();
            assert!(error.starts_with(&format!("{listener} is {address}, ")), "{error}");
            assert!(error.contains(keys), "{error}");
        }
        for address in ["127.0.0.1:8080", "127.8.8.8:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"]
        {
            load(&[("listen.public", address)]).unwrap();
        }
    }

    #[test]
    fn with_certificates_all_listeners_may_be_reached() {
        let config = load(&[
            ("listen.public", "0.0.0.0:8080"),
            ("listen.admin", "0.0.0.0:9080"),
            ("listen.peer", "0.0.0.0:7080"),
            ("tls.certificate", "a.pem"),
            ("tls.key", "a-key.pem"),
            ("tls.admin_certificate", "a.pem"),
            ("tls.admin_key", "a-key.pem"),
            ("tls.peer_certificate", "n.pem"),
            ("tls.peer_key", "n-key.pem"),
            ("tls.peer_ca", "ca.pem"),
        ]);
        assert!(config.is_ok(), "{config:?}");
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        for (given, missing) in [
            ("tls.certificate", "tls.key"),
            ("tls.key", "tls.certificate"),
            ("tls.admin_key", "tls.admin_certificate"),
            ("tls.peer_certificate", "tls.peer_key"),
            ("tls.peer_ca", "tls.peer_certificate"),
            ("tls.peer_crl", "tls.peer_certificate"),
        ] {
            let error = load(&[(given, "x.pem")]).unwrap_err();
            assert_eq!(error, format!("{given} is set without {missing} (flag)"));
        }
    }

    #[test]
    fn a_cluster_whose_name_cannot_stand_in_a_certificate_is_told_so() {
        let error = load(&[
            ("cluster.name", "a..b"),
            ("tls.peer_certificate", "n.pem"),
            ("tls.peer_key", "n-key.pem"),
            ("tls.peer_ca", "ca.pem"),
        ]);
        let error = error.unwrap_err();
        assert!(error.starts_with("cluster.name cannot be part of a DNS name"), "{error}");
    }
}
