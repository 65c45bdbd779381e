//! Free ports. A port is found by binding port 0 and letting go of it, so another program may take it before the
//! server does: whoever starts a server tries again with another one ([`super::process::start`]). Where the address has to
//! be known before, and must stay over a server's death, it is [`Reserved`].

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context as _;
use tokio::net::TcpSocket;

/// A loopback address that is kept for one server: nobody is given its port by chance, and whoever binds it by name (with
/// `SO_REUSEADDR`, as servers do) can.
///
/// A socket that is bound and does not listen has the port: for others that bind port 0, and for connections that go out, it
/// is taken (socket(7), `SO_REUSEADDR`).
#[derive(Debug)]
pub struct Reserved {
    address: SocketAddr,
    _keeper: TcpSocket,
}

impl Reserved {
    /// A new one.
    ///
    /// # Errors
    /// The machine has no port left.
    pub fn new() -> anyhow::Result<Self> {
        let keeper = TcpSocket::new_v4().context("make a socket")?;
        keeper.set_reuseaddr(true).context("share a port")?;
        keeper
            .bind((Ipv4Addr::LOCALHOST, 0).into())
            .context("find a free port")?;
        Ok(Self {
            address: keeper.local_addr().context("read the free port")?,
            _keeper: keeper,
        })
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A loopback address whose port was free a moment ago.
///
/// # Errors
/// The machine has none left.
pub fn free() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    listener.local_addr().context("read the free port")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test]
    async fn a_reserved_port_is_nobody_elses_and_its_server_may_come_twice() {
        let kept: Vec<_> = (0..200).map(|_| Reserved::new().unwrap()).collect();
        let addresses: BTreeSet<_> = kept.iter().map(Reserved::address).collect();
        assert_eq!(addresses.len(), kept.len());
        for _ in 0..2_000 {
            assert!(!addresses.contains(&free().unwrap()));
        }
        let address = kept[0].address();
        drop(TcpListener::bind(address).unwrap());
        let listener = TcpListener::bind(address).unwrap();
        assert!(TcpListener::bind(address).is_err());
        drop(listener);
    }
}
