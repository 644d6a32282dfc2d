//! Ports on the loopback interface.
//!
//! Guarantees: a port stays this process's to give away for as long as its [`Port`] lives, also
//! while the node that uses it is down. The socket behind a reservation is bound with
//! `SO_REUSEADDR` and never listens: on Linux a node may then bind and listen on the same address,
//! while the kernel gives the port to nobody who asks for just any port.
//!
//! Leaves out: systems other than Linux. There the socket is closed at once, and another program
//! can take the port before the node does; the node then says so and ends.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

use anyhow::{Context, Result};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};

/// A reserved port of 127.0.0.1.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _hold: Option<OwnedFd>,
}

impl Port {
    /// Any free port.
    ///
    /// # Errors
    ///
    /// When the system has none left.
    pub fn any() -> Result<Self> {
        Self::reserve(0).context("no free port on 127.0.0.1")
    }

    /// This very port.
    ///
    /// # Errors
    ///
    /// When somebody listens on it.
    pub fn exactly(port: u16) -> Result<Self> {
        Self::reserve(port).with_context(|| format!("port {port} of 127.0.0.1 is in use"))
    }

    /// The address to listen on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn reserve(port: u16) -> Result<Self> {
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let address = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok(Self { address, _hold: cfg!(target_os = "linux").then_some(socket) })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::TcpListener};

    use super::*;

    #[test]
    fn a_reserved_port_can_be_listened_on_again_and_again() {
        let port = Port::any().unwrap();
        for _ in 0..3 {
            drop(TcpListener::bind(port.address()).unwrap());
        }
    }

    #[test]
    fn reservations_are_distinct() {
        let ports: Vec<_> = (0..100).map(|_| Port::any().unwrap()).collect();
        let distinct: BTreeSet<_> = ports.iter().map(Port::address).collect();
        assert_eq!(distinct.len(), ports.len());
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let error = Port::exactly(listener.local_addr().unwrap().port()).unwrap_err();
        assert!(error.to_string().contains("is in use"), "{error}");
    }
}
