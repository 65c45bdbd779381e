//! K3s on a worker machine of the rig: `k3s agent`. See `rig::worker::k3s`.

use anyhow::bail;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("agent") => smartscale_tests::rig::worker::k3s::agent::run().await,
        other => bail!("the rig's stand-in for K3s is an agent alone (`k3s agent`), not {other:?}"),
    }
}
