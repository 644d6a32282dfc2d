//! Addresses of nodes.

use std::{fmt, str::FromStr};

use hyper::{
    Uri,
    http::uri::{Authority, PathAndQuery, Scheme},
};

/// Public address of a node: `host:port` or `http://host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint(Authority);

/// Why an address was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Not of the form `http://host:port`.
    #[error("an endpoint has the form host:port or http://host:port")]
    Form,
    /// A scheme other than `http`.
    #[error("the scheme of an endpoint is http")]
    Scheme,
}

impl Endpoint {
    /// The address of `path` at this node.
    pub(super) fn uri(&self, path: &str) -> Option<Uri> {
        let path = PathAndQuery::from_str(path).ok()?;
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.0.clone())
            .path_and_query(path)
            .build()
            .ok()
    }

    /// Whether this is the node at `address`, in the form in which nodes name each other.
    pub(super) fn is_at(&self, address: &str) -> bool {
        address.parse().is_ok_and(|other: Self| other == *self)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let uri: Uri = text.parse().map_err(|_| EndpointError::Form)?;
        let parts = uri.into_parts();
        match parts.scheme {
            None => {}
            Some(scheme) if scheme == Scheme::HTTP => {}
            Some(_) => return Err(EndpointError::Scheme),
        }
        if parts.path_and_query.is_some_and(|path| path != "/") {
            return Err(EndpointError::Form);
        }
        match parts.authority {
            Some(authority) if authority.port().is_some() && !authority.as_str().contains('@') => {
                Ok(Self(authority))
            }
            _ => Err(EndpointError::Form),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
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

    #[test]
    fn anything_but_a_host_and_a_port_is_refused() {
        for text in ["", "host", "http://host:1/path", "user@host:1", "a b:1", "/v1"] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError::Form), "{text}");
        }
        assert_eq!("https://host:1".parse::<Endpoint>(), Err(EndpointError::Scheme));
    }
}
