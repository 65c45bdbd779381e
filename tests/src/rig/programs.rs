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
