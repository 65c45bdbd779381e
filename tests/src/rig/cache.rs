//! Where `tests/rig/install` put the servers, and what to say when it has not run.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// The folder that `tests/rig/install` fills: `${SMARTSCALE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/smartscale}/rig`.
///
/// # Errors
/// None of the three variables is set.
pub fn folder() -> anyhow::Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = set("SMARTSCALE_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("smartscale")))
        .or_else(|| Some(set("HOME")?.join(".cache/smartscale")))
        .context("none of SMARTSCALE_CACHE, XDG_CACHE_HOME and HOME is set")?;
    Ok(cache.join("rig"))
}

/// An installed file or folder, by its path below [`folder`].
///
/// # Errors
/// It is not there: the message says how to get it.
pub fn installed(path: &str) -> anyhow::Result<PathBuf> {
    let path = folder()?.join(path);
    if !path.exists() {
        bail!(
            "{} is not installed: run `make tools` (or tests/rig/install) once",
            path.display()
        );
    }
    Ok(path)
}

/// A file of `tests/rig` in the clone, by its path below it.
#[must_use]
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rig").join(path)
}
