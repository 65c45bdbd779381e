//! What K3s is told: a drop-in of its configuration and the file with its token; and what it says when it does not join.

#[cfg(feature = "https")]
pub mod cacerts;
pub mod dropin;
pub mod server;
pub mod words;

use std::{fs, io, path::PathBuf};

pub use dropin::DropIn;

use crate::{secrets::join::JoinToken, state};

/// K3s' files on this machine.
pub trait K3sFiles: Send + Sync {
    /// Writes the token where only root may read it and where it does not outlive the boot; says where.
    ///
    /// # Errors
    /// Whatever the system says, with the path in its text.
    fn write_token(&self, token: &JoinToken) -> io::Result<PathBuf>;
    /// Writes the drop-in; whether that changed anything.
    ///
    /// # Errors
    /// As [`write_token`](Self::write_token).
    fn write_drop_in(&self, drop_in: &DropIn) -> io::Result<bool>;
}

/// The files where K3s and systemd expect them.
#[derive(Debug, Clone)]
pub struct DiskFiles {
    /// A folder in memory: `/run/smartscale`.
    pub run_dir: PathBuf,
    /// K3s' folder of drop-ins: `/etc/rancher/k3s/config.yaml.d`.
    pub config_dir: PathBuf,
}

/// The token's file below the run folder.
const TOKEN: &str = "k3s-token";
/// The drop-in's file. K3s reads drop-ins in alphabetical order after `config.yaml`.
const DROP_IN: &str = "90-smartscale.yaml";

impl K3sFiles for DiskFiles {
    fn write_token(&self, token: &JoinToken) -> io::Result<PathBuf> {
        state::create_folder(&self.run_dir, 0o755)?;
        let path = self.run_dir.join(TOKEN);
        state::replace(&path, token.reveal().as_bytes(), 0o600)?;
        Ok(path)
    }

    fn write_drop_in(&self, drop_in: &DropIn) -> io::Result<bool> {
        state::create_folder(&self.config_dir, 0o755)?;
        let path = self.config_dir.join(DROP_IN);
        let text = drop_in.to_string();
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            return Ok(false);
        }
        state::replace(&path, text.as_bytes(), 0o600)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::secrets::Secret;

    #[test]
    fn the_token_is_readable_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let files = DiskFiles {
            run_dir: root.path().join("run"),
            config_dir: root.path().join("etc"),
        };
        let text = format!("K10{}::node:s3cr3t", "0f".repeat(32));
        let token = JoinToken::try_from(Secret::new(text.clone())).unwrap();
        let path = files.write_token(&token).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
