//! What an agent remembers across its own death: a few small files, each replaced as a whole.
//!
//! [`DiskFolder`] writes them 0600 below the state folder (`/var/lib/smartscale`): to a temporary file, flushed,
//! renamed over the old one, the folder flushed. A reader sees the old text or the new one, never a part.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// A folder of small files that are replaced as a whole.
pub trait StateFolder: Send + Sync {
    /// The file's content; `None` if there is no such file.
    ///
    /// # Errors
    /// Whatever the system says, with the path in its text.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Replaces the file. When this returns, the content survives a loss of power.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()>;
    /// Removes the file; done if there is none.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A folder on the disk.
#[derive(Debug, Clone)]
pub struct DiskFolder(PathBuf);

impl DiskFolder {
    /// The folder at `path`; it is created (0700) with the first file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl StateFolder for DiskFolder {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.0.join(name);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path, &error)),
        }
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        create_folder(&self.0, 0o700)?;
        replace(&self.0.join(name), content, 0o600)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path, &error)),
            _ => Ok(()),
        }
    }
}

/// Creates the folder at `path` with those above it.
///
/// # Errors
/// Whatever the system says, with the path in its text.
pub fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|error| at(path, &error))
}

/// Replaces the file at `path` so that nobody ever sees a part of it.
///
/// # Errors
/// Whatever the system says, with the path in its text.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let write = || {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no path of a file"));
        };
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(".new");
        let temporary = folder.join(temporary);
        // A leftover of an earlier death may have another mode.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The JSON file `name`. One that cannot be read or understood is as good as none: it is logged, and the agent goes
/// on without, since a worker that does not start is worse than one that has forgotten.
pub fn read_json<T: DeserializeOwned>(folder: &dyn StateFolder, name: &str) -> Option<T> {
    let content = match folder.read(name) {
        Ok(content) => content?,
        Err(error) => {
            tracing::error!(file = name, %error, "the agent's state cannot be read");
            return None;
        }
    };
    match serde_json::from_slice(&content) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(file = name, %error, "the agent's state makes no sense and is passed over");
            None
        }
    }
}

/// Replaces the JSON file `name`.
///
/// # Errors
/// As [`StateFolder::write`].
pub fn write_json(folder: &dyn StateFolder, name: &str, value: &impl Serialize) -> io::Result<()> {
    let content = serde_json::to_vec(value).map_err(io::Error::other)?;
    folder.write(name, &content)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_private_and_replaced_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let folder = DiskFolder::new(root.path().join("deep/state"));
        assert_eq!(folder.read("a").unwrap(), None);
        folder.write("a", b"one").unwrap();
        folder.write("a", b"two").unwrap();
        assert_eq!(folder.read("a").unwrap().unwrap(), b"two");
        let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("deep/state"), mode("deep/state/a")), (0o700, 0o600));
        folder.remove("a").unwrap();
        folder.remove("a").unwrap();
        assert_eq!(fs::read_dir(root.path().join("deep/state")).unwrap().count(), 0);
    }

    #[test]
    fn a_leftover_of_a_death_in_mid_write_is_no_obstacle() {
        let root = tempfile::tempdir().unwrap();
        let folder = DiskFolder::new(root.path());
        fs::write(root.path().join(".a.new"), "half").unwrap();
        folder.write("a", b"whole").unwrap();
        assert_eq!(folder.read("a").unwrap().unwrap(), b"whole");
    }

    #[test]
    fn nonsense_on_the_disk_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("x.json"), "{").unwrap();
        assert_eq!(read_json::<u32>(&DiskFolder::new(root.path()), "x.json"), None);
    }
}
