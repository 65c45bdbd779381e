//! A wall clock that is wrong: a program is started with a small library before the C library, which puts its
//! `CLOCK_REALTIME` off and no other clock (`tests/rig/clock/skew.c`). The program itself knows nothing of it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::process::Program;
use super::{Folder, cache};

/// The program with its wall clock off by `seconds` (negative: behind).
///
/// # Errors
/// The C compiler, which the build of this workspace needs as well, does not make the library.
pub fn skewed(program: Program, folder: &Folder, seconds: i64) -> anyhow::Result<Program> {
    let library = library(folder)?;
    Ok(program
        .env("LD_PRELOAD", library)
        .env("SMARTSCALE_RIG_SKEW", seconds.to_string()))
}

fn library(folder: &Folder) -> anyhow::Result<PathBuf> {
    let library = folder.path().join("skew.so");
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(cache::source("clock/skew.c"))
        .output()
        .context("run cc")?;
    ensure!(
        output.status.success(),
        "cc: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(library)
}
