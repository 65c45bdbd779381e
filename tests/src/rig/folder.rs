//! One folder a test: data, keys and logs of its servers. It goes with a test that passes and stays with one that
//! fails, so that the logs can be read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

/// Set to anything, it keeps every folder.
const KEEP: &str = "SMARTSCALE_RIG_KEEP";

/// A test's folder. Cheap to clone; the last clone removes it, unless the thread is panicking (the test failed), it
/// was told to [`keep`](Folder::keep) it, or `SMARTSCALE_RIG_KEEP` is set.
#[derive(Debug, Clone)]
pub struct Folder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    keep: std::sync::atomic::AtomicBool,
}

impl Folder {
    /// A fresh folder below the temporary folder, named after `test` (letters, digits, `-` and `_` are kept).
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(test: &str) -> anyhow::Result<Self> {
        let name: String = test
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '_' {
                    c
                } else {
                    '-'
                }
            })
            .take(60)
            .collect();
        let path = tempfile::Builder::new()
            .prefix(&format!("smartscale-{name}-"))
            .tempdir()
            .context("make the test's folder")?
            .keep();
        let keep = std::env::var_os(KEEP).is_some().into();
        Ok(Self(Arc::new(Inner { path, keep })))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A folder below it, made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn sub(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.path.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file below it (folders are made) and says where it is. Readable by its owner alone: keys are among them.
    /// Who reads it meanwhile has the whole of what was or of what is: tests of a shared cluster write the same
    /// kubeconfig at once.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        use std::io::Write as _;
        let path = self.0.path.join(name);
        let parent = path.parent().unwrap_or(&self.0.path);
        std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        let written = tempfile::NamedTempFile::new_in(parent).and_then(|mut part| {
            part.write_all(content.as_ref())?;
            Ok(part.persist(&path)?)
        });
        written.with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Keeps it whatever happens.
    pub fn keep(&self) {
        self.0.keep.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if std::thread::panicking() || *self.keep.get_mut() {
            eprintln!("rig: logs and data are kept in {}", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("rig: could not remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

    use std::io::Read as _;

    use super::Folder;

    #[test]
    fn who_reads_a_file_while_it_is_written_again_has_the_whole_of_what_it_was() {
        let folder = Folder::new("written-again").unwrap();
        let path = folder
            .write("kubernetes/admin.kubeconfig", "what it was")
            .unwrap();
        let mut reader = std::fs::File::open(&path).unwrap();
        folder.write("kubernetes/admin.kubeconfig", "what it is").unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "what it was");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "what it is");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
