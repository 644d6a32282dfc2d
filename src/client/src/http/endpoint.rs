//! Addresses of nodes.

use std::{fmt, str::FromStr};

use hyper::{
    Uri,
    http::uri::{Authority, PathAndQuery, Scheme},
};

/// Public address of a node: `https://host:port`, or `http://host:port` and the same without a
/// scheme.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    is_https: bool,
    authority: Authority,
}

/// Why an address was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Not of the form `https://host:port`.
    #[error("an endpoint has the form https://host:port, http://host:port or host:port")]
    Form,
    /// A scheme other than `http` and `https`.
    #[error("the scheme of an endpoint is http or https")]
    Scheme,
    /// `https`, without the cargo feature `tls`.
    #[error("https needs the feature tls of this library")]
    WithoutTls,
}

impl Endpoint {
    /// The address of `path` at this node.
    pub(super) fn uri(&self, path: &str) -> Option<Uri> {
        let path = PathAndQuery::from_str(path).ok()?;
        Uri::builder()
            .scheme(if self.is_https { Scheme::HTTPS } else { Scheme::HTTP })
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .ok()
    }

    /// Host and port.
    pub(super) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// Whether this is the node at `address`, in the form in which nodes name each other, with or
    /// without a scheme.
    pub(super) fn is_at(&self, address: &str) -> bool {
        address.parse().is_ok_and(|other: Self| other.authority == self.authority)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let uri: Uri = text.parse().map_err(|_| EndpointError::Form)?;
        let parts = uri.into_parts();
        let is_https = match parts.scheme {
            None => false,
            Some(scheme) if scheme == Scheme::HTTP => false,
            Some(scheme) if scheme == Scheme::HTTPS => true,
            Some(_) => return Err(EndpointError::Scheme),
        };
        if is_https && cfg!(not(feature = "tls")) {
            return Err(EndpointError::WithoutTls);
        }
        if parts.path_and_query.is_some_and(|path| path != "/") {
            return Err(EndpointError::Form);
        }
        match parts.authority {
            Some(authority) if authority.port().is_some() && !authority.as_str().contains('@') => {
                Ok(Self { is_https, authority })
            }
            _ => Err(EndpointError::Form),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https://" } else { "" };
        write!(f, "{scheme}{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_name_its_scheme() {
        let plain: Endpoint = "127.0.0.1:8080".parse().unwrap();
        assert_eq!("http://127.0.0.1:8080".parse(), Ok(plain.clone()));
        assert_eq!("http://127.0.0.1:8080/".parse(), Ok(plain.clone()));
        assert_eq!(plain.uri("/v1/users/bob").unwrap(), "http://127.0.0.1:8080/v1/users/bob");
    }

    #[cfg(feature = "tls")]
    #[test]
    fn https_is_another_endpoint_of_the_same_node() {
        let secure: Endpoint = "https://node.example:8443".parse().unwrap();
        assert_eq!(secure.to_string(), "https://node.example:8443");
        assert_eq!(secure.uri("/v1").unwrap(), "https://node.example:8443/v1");
        assert_ne!("node.example:8443".parse(), Ok(secure.clone()));
        assert!(secure.is_at("node.example:8443") && secure.is_at("https://node.example:8443"));
        assert!(!secure.is_at("node.example:8080"));
    }

    #[test]
    fn anything_but_a_host_and_a_port_is_refused() {
        for text in ["", "host", "http://host:1/path", "user@host:1", "a b:1", "/v1"] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError::Form), "{text}");
        }
        assert_eq!("ftp://host:1".parse::<Endpoint>(), Err(EndpointError::Scheme));
    }
}
