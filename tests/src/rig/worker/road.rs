//! What leads from a worker machine to the rig's servers, and what its user-data says of that.

use std::net::{SocketAddr, SocketAddrV4};

use anyhow::Context as _;

use super::super::{Folder, Kubernetes, Ministack};
use super::k3s;
use super::network::Network;

/// The switch with everything that a machine calls, and K3s' server.
pub(in crate::rig) struct Road {
    pub(in crate::rig) network: Network,
    pub(in crate::rig) server: k3s::Server,
    /// Where machines find the coordinators.
    pub(in crate::rig) doors: [SocketAddrV4; 2],
    /// Where they find Secrets Manager.
    pub(in crate::rig) secrets: SocketAddrV4,
}

impl Road {
    pub(in crate::rig) async fn build(
        folder: &Folder,
        cluster: &Kubernetes,
        account: &Ministack,
        [first, second]: [SocketAddr; 2],
    ) -> anyhow::Result<Self> {
        let mut network = Network::new(folder).await.context(
            "worker machines need network namespaces: run the tests as root, in a sandbox with CAP_SYS_ADMIN and CAP_NET_ADMIN",
        )?;
        let api_server = network.reach(socket(&cluster.url())?)?;
        let secrets = network.reach(socket(&account.url())?)?;
        let doors = [network.reach(first)?, network.reach(second)?];
        let server = k3s::Server::start(&network, cluster, api_server)?;
        Ok(Self {
            network,
            server,
            doors,
            secrets,
        })
    }
}

fn socket(url: &str) -> anyhow::Result<SocketAddr> {
    let (_, address) = url.split_once("://").context("a URL without scheme")?;
    address.parse().with_context(|| format!("{url} has no address"))
}

/// The script that a launch template gives to its instances: the whole of what makes a bare machine a worker.
pub(in crate::rig) fn user_data(ca: &str, config: &str) -> String {
    format!(
        "#!/bin/sh\nset -eu\numask 077\nmkdir -p /etc/smartscale\n\
         cat >/etc/smartscale/ca.crt <<'END'\n{ca}\nEND\n\
         cat >/etc/smartscale/agent.toml <<'END'\n{config}\nEND\n"
    )
}
