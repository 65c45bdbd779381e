//! The workspace's own programs, as `cargo build --workspace --all-targets` leaves them beside the tests.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

/// The path of a program such as `smartscale-agent`: in the profile's folder that this test program was built into.
///
/// # Errors
/// It has not been built.
pub fn path(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("find this program")?;
    // A test lies in deps/, a program beside that folder.
    let found = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    let Some(found) = found else {
        bail!("{name} has not been built: run `cargo build --workspace --all-targets` (or `make programs`)");
    };
    Ok(found)
}

/// The agent that runs on the rig's machines: the one beside this program, or another build of it that the variable
/// `SMARTSCALE_AGENT` names.
///
/// # Errors
/// It has not been built.
pub fn agent() -> anyhow::Result<PathBuf> {
    match std::env::var_os("SMARTSCALE_AGENT").filter(|path| !path.is_empty()) {
        Some(given) => std::path::absolute(&given)
            .ok()
            .filter(|path| path.is_file())
            .with_context(|| format!("SMARTSCALE_AGENT: {} is not there", given.display())),
        None => path("smartscale-agent"),
    }
}
