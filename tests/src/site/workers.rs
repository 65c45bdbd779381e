//! A site whose instances are worker machines.

use anyhow::Context as _;

use super::Site;
use crate::rig::kubernetes::Timings;
use crate::rig::worker::Held;
use crate::rig::{Folder, Hardware, Stack, Workers};

impl Site {
    /// A site with worker machines and the first coordinator running and leading, `timing` among its `[timing]`.
    ///
    /// # Errors
    /// As [`start`](Self::start), or the sandbox allows no such machines.
    pub async fn start_with_workers(
        name: &str,
        policy: &str,
        timings: &Timings,
        timing: &str,
    ) -> anyhow::Result<Self> {
        let folder = Folder::new(name)?;
        let stack = Stack::start_with(&folder, Hardware::Workers, timings).await?;
        let mut site = Self::of(stack, policy).await?;
        site.stack.give_user_data().await?;
        site.configure(0, "[timing]", &format!("[timing]\n{timing}"))?;
        site.start_coordinator(0)?;
        site.leader().await?;
        Ok(site)
    }

    /// The worker machines.
    ///
    /// # Errors
    /// The site has none.
    pub fn workers(&self) -> anyhow::Result<&Workers> {
        self.stack
            .workers
            .as_ref()
            .context("this site's machines are stand-ins")
    }

    /// One worker machine.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn worker(&self, id: &str) -> anyhow::Result<Held<'_>> {
        self.workers()?.get(id).await
    }
}
