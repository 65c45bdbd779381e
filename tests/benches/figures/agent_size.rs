//! How much of a worker's disk the agent takes.

use anyhow::Context as _;
use smartscale_tests::rig::programs;

use crate::{Row, process::megabytes};

pub(crate) fn take() -> anyhow::Result<Vec<Row>> {
    let path = programs::agent()?;
    let size = std::fs::metadata(&path)
        .with_context(|| path.display().to_string())?
        .len();
    let value = format!("{} ({size} bytes)", megabytes(size));
    // `target/PROFILE/smartscale-agent`.
    let profile = path
        .parent()
        .and_then(|folder| folder.file_name())
        .unwrap_or_default();
    let how = format!("the file, of profile `{}`", profile.display());
    Ok(vec![Row::new("agent: binary", value, how)])
}
