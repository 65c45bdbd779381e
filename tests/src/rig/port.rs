//! Free ports. A port is found by binding port 0 and letting go of it, so another program may take it before the
//! server does: whoever starts a server tries again with another one ([`super::process::start`]).

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context as _;

/// A loopback address whose port was free a moment ago.
///
/// # Errors
/// The machine has none left.
pub fn free() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    listener.local_addr().context("read the free port")
}
