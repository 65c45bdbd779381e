//! The machine's services: systemd, through its `systemctl` program.
//!
//! The program and not D-Bus, because it is on every machine that has systemd, needs no library, and a stand-in for it
//! is a script.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use async_trait::async_trait;
use smartscale_proto::time::{SharedClock, within};
use tokio::process::Command;

use crate::error::Failure;

/// Time for one call. Stopping a unit may take its `TimeoutStopSec` (90 s by default).
const CALL_TIME: Duration = Duration::from_secs(120);

/// Lines of a journal that are read, and bytes of them.
const WORDS: (&str, usize) = ("40", 16 * 1024);

/// Starts, stops and asks services.
#[async_trait]
pub trait Units: Send + Sync {
    /// Starts `unit`; done if it runs.
    ///
    /// # Errors
    /// [`Failure`] with what systemd says.
    async fn start(&self, unit: &str) -> Result<(), Failure>;
    /// Stops `unit` and waits for its end; done if it does not run.
    ///
    /// # Errors
    /// [`Failure`] with what systemd says.
    async fn stop(&self, unit: &str) -> Result<(), Failure>;
    /// `ActiveState` of `unit` as systemd names it: active, activating, deactivating, failed, inactive, reloading.
    ///
    /// # Errors
    /// [`Failure`] with what systemd says.
    async fn active_state(&self, unit: &str) -> Result<String, Failure>;
    /// The last lines that `unit` wrote, the newest last; empty where nobody keeps them.
    async fn last_words(&self, _unit: &str) -> String {
        String::new()
    }
}

/// systemd through its program.
pub struct Systemctl {
    program: PathBuf,
    journal: PathBuf,
    clock: SharedClock,
}

impl Systemctl {
    /// Calls `program`, and `journal` for what a unit wrote (paths, or names to be found in `PATH`).
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, journal: impl Into<PathBuf>, clock: SharedClock) -> Self {
        Self {
            program: program.into(),
            journal: journal.into(),
            clock,
        }
    }

    async fn call(&self, program: &Path, arguments: &[&str]) -> Result<String, Failure> {
        let said = |what: &str| format!("{} {}: {what}", program.display(), arguments.join(" "));
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = within(&*self.clock, CALL_TIME, output)
            .await
            .ok_or_else(|| Failure::because(said("took too long")))?
            .map_err(|error| Failure::because(said(&error.to_string())))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let text = text.trim().lines().next().unwrap_or_default();
        Err(Failure::because(said(&format!("{} {text}", output.status))))
    }
}

#[async_trait]
impl Units for Systemctl {
    async fn start(&self, unit: &str) -> Result<(), Failure> {
        // The job is queued alone: K3s reports itself started only once it has joined, and the agent does not want to
        // wait for that here.
        self.call(&self.program, &["--no-block", "start", unit])
            .await
            .map(drop)
    }

    async fn stop(&self, unit: &str) -> Result<(), Failure> {
        self.call(&self.program, &["stop", unit]).await.map(drop)
    }

    async fn active_state(&self, unit: &str) -> Result<String, Failure> {
        let state = self
            .call(
                &self.program,
                &["show", "--property=ActiveState", "--value", unit],
            )
            .await?;
        match state.as_str() {
            "active" | "activating" | "deactivating" | "failed" | "inactive" | "reloading"
            | "maintenance" | "refreshing" => Ok(state),
            other => {
                let other: String = other.chars().take(40).collect();
                Err(Failure::because(format!(
                    "systemd says `{other}` for the state of {unit}"
                )))
            }
        }
    }

    async fn last_words(&self, unit: &str) -> String {
        let arguments = [
            "--unit",
            unit,
            "--boot",
            "--lines",
            WORDS.0,
            "--output",
            "cat",
            "--no-pager",
        ];
        match self.call(&self.journal, &arguments).await {
            Ok(text) => text.chars().take(WORDS.1).collect(),
            Err(error) => {
                tracing::debug!(%error, "the unit's journal cannot be read");
                String::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

    use smartscale_proto::time::SystemClock;

    use super::*;

    fn systemctl(folder: &tempfile::TempDir, script: &str) -> Systemctl {
        let path = folder.path().join("systemctl");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Systemctl::new(path.clone(), path, Arc::new(SystemClock))
    }

    #[tokio::test]
    async fn the_program_is_called_and_its_state_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let units = systemctl(
            &folder,
            &format!("echo \"$@\" >> {}; echo activating", log.display()),
        );
        units.start("k3s-agent.service").await.unwrap();
        units.stop("k3s-agent.service").await.unwrap();
        assert_eq!(
            units.active_state("k3s-agent.service").await.unwrap(),
            "activating"
        );
        assert_eq!(
            std::fs::read_to_string(log).unwrap(),
            "--no-block start k3s-agent.service\nstop k3s-agent.service\n\
             show --property=ActiveState --value k3s-agent.service\n"
        );
    }

    #[tokio::test]
    async fn the_last_words_of_a_unit_are_its_journals() {
        let folder = tempfile::tempdir().unwrap();
        let units = systemctl(
            &folder,
            "test \"$2\" = k3s-agent.service && echo 'not authorized'",
        );
        assert_eq!(units.last_words("k3s-agent.service").await, "not authorized");
        assert_eq!(units.last_words("other.service").await, "");
    }

    #[tokio::test]
    async fn what_systemd_complains_of_is_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let units = systemctl(&folder, "echo 'Unit k3s-agent.service not found.' >&2; exit 5");
        let text = units.start("k3s-agent.service").await.unwrap_err().to_string();
        assert!(text.contains("Unit k3s-agent.service not found."), "{text}");
        assert!(units.active_state("k3s-agent.service").await.is_err());
    }
}
