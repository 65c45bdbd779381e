//! A site at production's pace: a test's shortens every period.

use smartscale_tests::site::Site;

/// A site with a leading coordinator whose periods, leases and batches are the defaults.
pub(crate) async fn start(name: &str, policy: &str) -> anyhow::Result<Site> {
    let mut site = Site::new(name, policy).await?;
    let config = site.stack.coordinator_config(0).replace("period = \"1s\"\n", "");
    site.stack
        .folder()
        .write("coordinator/coordinator-a.toml", config)?;
    site.start_coordinator(0)?;
    site.leader().await?;
    Ok(site)
}
