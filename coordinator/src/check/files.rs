//! Files: those with secrets, which only their owner may read, and folders that the coordinator writes into.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

use async_trait::async_trait;
use smartscale_proto::check::Finding;

use super::Check;

/// What the coordinator wants with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A file with a secret: it reads it.
    Secret,
    /// A folder: it makes and deletes files in it.
    Folder,
}

/// A path that the configuration names.
pub struct FileCheck {
    /// The key of the configuration.
    pub key: &'static str,
    /// The path.
    pub path: PathBuf,
    /// What for.
    pub wanted: Wanted,
}

const AREA: &str = "files";

#[async_trait]
impl Check for FileCheck {
    fn area(&self) -> &'static str {
        AREA
    }

    async fn run(&self) -> Vec<Finding> {
        let path = self.path.display();
        vec![match self.wanted {
            Wanted::Secret => self.secret(format!("read {path} ({})", self.key)),
            Wanted::Folder => self.folder(format!(
                "looked whether {path} can be written into ({})",
                self.key
            )),
        }]
    }
}

impl FileCheck {
    fn secret(&self, tried: String) -> Finding {
        let read = std::fs::read(&self.path)
            .and_then(|text| Ok((text, std::fs::metadata(&self.path)?.permissions().mode())));
        match read {
            Err(error) => {
                let remedy = "put it there, readable by the coordinator alone (0600)";
                Finding::failed(AREA, tried, error.to_string(), remedy)
            }
            Ok((text, _)) if text.trim_ascii().is_empty() => {
                Finding::failed(AREA, tried, "it is empty", "put the secret into it")
            }
            Ok((_, mode)) if mode & 0o077 != 0 => Finding::warning(
                AREA,
                tried,
                format!("others may use it (mode {:04o})", mode & 0o7777),
                format!("chmod 0600 {}", self.path.display()),
            ),
            Ok(_) => Finding::passed(AREA, tried, "it is there, for its owner alone"),
        }
    }

    fn folder(&self, tried: String) -> Finding {
        use rustix::fs::{Access, access};
        // A folder that is not there yet is made by systemd (RuntimeDirectory) or by the coordinator, in one that is.
        let there = self.path.ancestors().find(|path| path.is_dir());
        let Some(there) = there else {
            return Finding::failed(AREA, tried, "there is no such folder", "make it");
        };
        match access(there, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) if there == self.path => Finding::passed(AREA, tried, "it can"),
            Ok(()) => Finding::passed(AREA, tried, format!("it can be made in {}", there.display())),
            Err(error) => Finding::failed(
                AREA,
                tried,
                format!("{}: {error}", there.display()),
                "let the coordinator's user write there (the unit's RuntimeDirectory and StateDirectory)",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use std::fs::Permissions;

    use smartscale_proto::check::Outcome;

    use super::{
        super::testing::{outcomes, says_what_to_do},
        *,
    };

    async fn run(path: PathBuf, wanted: Wanted) -> Outcome {
        let check = FileCheck {
            key: "prometheus.bearer_token_file",
            path,
            wanted,
        };
        let findings = check.run().await;
        says_what_to_do(&findings);
        outcomes(&findings)[0]
    }

    #[tokio::test]
    async fn a_secret_is_there_not_empty_and_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert_eq!(run(path.clone(), Wanted::Secret).await, Outcome::Failed);
        std::fs::write(&path, " \n").unwrap();
        assert_eq!(run(path.clone(), Wanted::Secret).await, Outcome::Failed);
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(run(path.clone(), Wanted::Secret).await, Outcome::Warning);
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(run(path, Wanted::Secret).await, Outcome::Passed);
    }

    #[tokio::test]
    async fn a_folder_can_be_written_into_or_be_made() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            run(folder.path().to_owned(), Wanted::Folder).await,
            Outcome::Passed
        );
        let below = folder.path().join("smartscale/secrets");
        assert_eq!(run(below, Wanted::Folder).await, Outcome::Passed);
        // Nobody writes there, not even root.
        assert_eq!(
            run("/proc/self/secrets".into(), Wanted::Folder).await,
            Outcome::Failed
        );
    }
}
