//! A copy of the embedded store, taken while coordinators use it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};

use super::sqlite::BUSY_TIMEOUT;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store cannot be read.
    #[error("{}: {error}", path.display())]
    Store {
        /// Its file.
        path: PathBuf,
        /// What SQLite says.
        error: rusqlite::Error,
    },
    /// The copy's file is there already, or cannot be written.
    #[error("{}: {error}", path.display())]
    Copy {
        /// Its file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The copy is not sound; it is deleted.
    #[error("the copy is not sound: {0}")]
    Unsound(String),
}

/// Copies the store in `store` to the file `to`, which must not be there: mode 0600, as it was at one moment between two
/// transactions, compacted (`VACUUM INTO`, <https://sqlite.org/lang_vacuum.html#vacuuminto>), looked through and on the
/// disk. Whoever writes to the store meanwhile is not kept waiting. Blocks.
///
/// # Errors
/// See [`BackupError`]; then there is no file `to` but one that was there before.
pub fn copy(store: &Path, to: &Path) -> Result<(), BackupError> {
    let of_store = |error| BackupError::Store {
        path: store.to_owned(),
        error,
    };
    let of_copy = |error| BackupError::Copy {
        path: to.to_owned(),
        error,
    };
    // One that is not there is not made.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(store, flags).map_err(of_store)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(of_store)?;
    let name = to.to_str().ok_or_else(|| {
        of_copy(io::Error::new(
            io::ErrorKind::InvalidInput,
            "its name is not UTF-8",
        ))
    })?;
    // SQLite takes an empty file, and would make one with the umask's mode.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(of_copy)?;
    let copied = connection
        .execute("VACUUM INTO ?1", [name])
        .map_err(of_store)
        .and_then(|_| look_through(to))
        .and_then(|()| keep(&file, to).map_err(of_copy));
    if copied.is_err() {
        // The error to tell is the first one.
        let _ = fs::remove_file(to);
    }
    copied
}

fn look_through(copy: &Path) -> Result<(), BackupError> {
    let verdict = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|copy| copy.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)));
    match verdict {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(BackupError::Unsound(verdict)),
        Err(error) => Err(BackupError::Unsound(error.to_string())),
    }
}

fn keep(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

    use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

    use serde_json::json;
    use smartscale_proto::time::SystemClock;

    use super::*;
    use crate::{
        ids::Epoch,
        state::{
            Attributes, Condition, Item, StateStore as _, Write, conformance::lease, sqlite::SqliteStore,
        },
    };

    fn open(path: &Path) -> SqliteStore {
        SqliteStore::open(path, "demo".into(), Arc::new(SystemClock)).unwrap()
    }

    fn put(key: &str, number: u64) -> Write {
        Write::Put {
            key: key.to_owned(),
            body: json!({ "number": number }),
            expires_at: None,
            condition: Condition::Always,
        }
    }

    #[tokio::test]
    async fn a_copy_is_the_store_between_two_transactions_however_busy_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let store = open(&path);
        let row = lease(Some("a"), "rvn", 1);
        assert!(store.replace_lease(None, &row).await.unwrap());
        let write = async |store: &SqliteStore, number| {
            let both = [put("op#a", number), put("op#b", number)];
            store
                .commit(Epoch(1), &both, &Attributes::default())
                .await
                .unwrap();
        };
        write(&store, 0).await;
        let writer = tokio::spawn(async move {
            for number in 1.. {
                write(&store, number).await;
            }
        });
        let mut seen = Vec::new();
        for number in 0..5 {
            let to = folder.path().join(format!("copy-{number}.db"));
            let (from, target) = (path.clone(), to.clone());
            let copied = tokio::task::spawn_blocking(move || copy(&from, &target));
            copied.await.unwrap().unwrap();
            assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
            let copy = open(&to);
            let number = |item: Option<Item>| item.unwrap().body["number"].as_u64().unwrap();
            let a = number(copy.get("op#a").await.unwrap());
            let b = number(copy.get("op#b").await.unwrap());
            assert_eq!(a, b);
            seen.push(a);
        }
        assert!(!writer.is_finished(), "it wrote all the time");
        writer.abort();
        assert!(seen.is_sorted() && seen.first() < seen.last(), "{seen:?}");
    }

    #[test]
    fn nothing_is_overwritten_and_no_store_is_made_of_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, to) = (folder.path().join("state.db"), folder.path().join("copy.db"));
        let missing = copy(&path, &to).unwrap_err();
        assert!(missing.to_string().contains("state.db"), "{missing}");
        assert!(!path.exists() && !to.exists());

        drop(open(&path));
        fs::write(&to, "mine").unwrap();
        let there = copy(&path, &to).unwrap_err();
        assert!(there.to_string().contains("copy.db: File exists"), "{there}");
        assert_eq!(fs::read_to_string(&to).unwrap(), "mine");

        fs::write(&path, "no database at all, but long enough to be looked at").unwrap();
        let other = folder.path().join("other.db");
        let broken = copy(&path, &other).unwrap_err();
        assert!(broken.to_string().contains("not a database"), "{broken}");
        assert!(!other.exists());
    }
}
