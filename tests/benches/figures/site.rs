//! A site at production's pace: a test's shortens every period.

use smartscale_tests::site::Site;

/// A site with a leading coordinator whose periods, leases and batches are the defaults; the second one, which is not
/// started, has them as well.
pub(crate) async fn start(name: &str, policy: &str) -> anyhow::Result<Site> {
    let mut site = Site::new(name, policy).await?;
    for (index, file) in ["coordinator-a.toml", "coordinator-b.toml"].iter().enumerate() {
        let config = site
            .stack
            .coordinator_config(index)
            .replace("period = \"1s\"\n", "");
        site.stack
            .folder()
            .write(&format!("coordinator/{file}"), config)?;
    }
    site.start_coordinator(0)?;
    site.leader().await?;
    Ok(site)
}
