//! Free ports on loopback.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Result;

/// `N` different ports that are free now. Another program may take one before it is used; the rival
/// then does not start, and says so.
pub(crate) fn free<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() -> Result<()> {
        let [first, second] = free()?;
        assert_ne!(first, second);
        Ok(())
    }
}
