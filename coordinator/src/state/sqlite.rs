//! The embedded store: one SQLite file, shared by the coordinators of one machine.
//!
//! ```text
//!   lease       one row per cluster: holder, rvn, epoch, lease_ms, lock_expiry_ms
//!   attributes  the published attributes, one row each, JSON
//!   items       everything else: key, version, JSON body, expiry
//! ```
//!
//! Every write is one `BEGIN IMMEDIATE` transaction, so that two processes are in a row and the lease's epoch that
//! a commit checks is the one it commits under. Write-ahead log with `synchronous = FULL`: what was journaled
//! before a side effect is on the disk when the side effect happens. A full disk fails the transaction as a whole;
//! nothing is half-written and the next attempt may succeed. All calls leave the async runtime's threads.

use std::{
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, TransactionBehavior, params};
use serde_json::Value;
use smartscale_planner::model::ClusterId;
use smartscale_proto::time::SharedClock;

use super::{Attributes, Condition, Item, LeaseRow, StateStore, StoreError, Write, lock_attributes};
use crate::ids::Epoch;

/// How long a call waits for another process that is writing.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Expired items are deleted with every so many writes.
const WRITES_PER_PURGE: u32 = 256;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS lease (
    cluster TEXT NOT NULL PRIMARY KEY, holder TEXT, rvn TEXT NOT NULL, epoch INTEGER NOT NULL,
    lease_ms INTEGER NOT NULL, lock_expiry_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS attributes (
    cluster TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (cluster, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
    cluster TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL, expires_at_ms INTEGER,
    PRIMARY KEY (cluster, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_by_expiry ON items (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
";

/// A store in a file.
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Mutex<Writer>,
    cluster: ClusterId,
    clock: SharedClock,
    path: PathBuf,
}

struct Writer {
    connection: Connection,
    writes: u32,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

/// Why a transaction of ours ended without a commit: a refusal of ours, or SQLite's.
enum Failure {
    Refused(StoreError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl SqliteStore {
    /// Opens the store of `cluster` in the file `path`, which is created (mode 0600) if there is none. The clock
    /// tells which items have expired. Blocks for a moment; meant for a program's start.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] naming the file: it cannot be created, is no database, or is locked for longer
    /// than 5 s.
    pub fn open(path: &Path, cluster: ClusterId, clock: SharedClock) -> Result<Self, StoreError> {
        let fail =
            |what: &dyn std::fmt::Display| StoreError::Unavailable(format!("{}: {what}", path.display()));
        // SQLite would create the file with the umask's mode; its -wal and -shm take over the mode of the file.
        std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| fail(&error))?;
        let connection = Self::connect(path).map_err(|error| fail(&error))?;
        let connection = Mutex::new(Writer {
            connection,
            writes: 0,
        });
        Ok(Self {
            inner: Arc::new(Inner {
                connection,
                cluster,
                clock,
                path: path.to_owned(),
            }),
        })
    }

    /// A store that lives as long as its clones do, for tests and simulations.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no memory for it.
    pub fn in_memory(cluster: ClusterId, clock: SharedClock) -> Result<Self, StoreError> {
        let fail = |error: rusqlite::Error| StoreError::Unavailable(error.to_string());
        let connection = Connection::open_in_memory().map_err(fail)?;
        connection.execute_batch(SCHEMA).map_err(fail)?;
        let connection = Mutex::new(Writer {
            connection,
            writes: 0,
        });
        Ok(Self {
            inner: Arc::new(Inner {
                connection,
                cluster,
                clock,
                path: "memory".into(),
            }),
        })
    }

    fn connect(path: &Path) -> rusqlite::Result<Connection> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // Switching to the write-ahead log needs the file for itself: only the first process does it.
        let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        if mode != "wal" {
            let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        }
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(SCHEMA)?;
        transaction.commit()?;
        Ok(connection)
    }

    /// Bounds the file to its present size and `more` pages, as a full disk does.
    ///
    /// # Errors
    /// As any other call.
    #[doc(hidden)]
    pub async fn limit_pages(&self, more: Option<u32>) -> Result<(), StoreError> {
        self.run(move |writer, _| {
            let pages: u32 = writer
                .connection
                .query_row("PRAGMA page_count", [], |row| row.get(0))?;
            let limit = more.map_or(1_073_741_823, |more| pages + more);
            writer
                .connection
                .query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(()))?;
            Ok(())
        })
        .await
    }

    async fn run<T, F>(&self, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer, &Inner) -> Result<T, Failure> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let task = tokio::task::spawn_blocking(move || {
            let mut writer = inner.connection.lock().unwrap_or_else(PoisonError::into_inner);
            call(&mut writer, &inner).map_err(|failure| match failure {
                Failure::Refused(error) => error,
                Failure::Sqlite(error) => inner.unavailable(&error),
            })
        });
        match task.await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Unknown(format!("the call did not end: {error}"))),
        }
    }

    async fn write<T, F>(&self, call: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>, &Inner) -> Result<T, Failure> + Send + 'static,
    {
        self.run(move |writer, inner| {
            let transaction = writer
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            // A failed commit drops the transaction, which rolls it back: nothing was written.
            let value = call(&transaction, inner)?;
            transaction.commit()?;
            writer.writes += 1;
            if writer.writes.is_multiple_of(WRITES_PER_PURGE) {
                inner.purge(&writer.connection);
            }
            Ok(value)
        })
        .await
    }
}

impl Inner {
    fn now_ms(&self) -> i64 {
        self.clock.now().as_millisecond()
    }

    fn unavailable(&self, error: &rusqlite::Error) -> StoreError {
        let path = self.path.display();
        StoreError::Unavailable(match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => format!("{path}: the disk is full"),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                format!("{path}: another process has been writing for too long")
            }
            _ => format!("{path}: {error}"),
        })
    }

    fn purge(&self, connection: &Connection) {
        let sql = "DELETE FROM items WHERE expires_at_ms <= ?1";
        if let Err(error) = connection.execute(sql, [self.now_ms()]) {
            tracing::warn!(path = %self.path.display(), %error, "expired items were not deleted");
        }
    }

    fn apply(&self, transaction: &Transaction<'_>, write: &Write) -> Result<(), Failure> {
        let cluster = self.cluster.as_str();
        match write {
            Write::Delete { key } => {
                super::check_key(key)?;
                transaction
                    .prepare_cached("DELETE FROM items WHERE cluster = ?1 AND key = ?2")?
                    .execute([cluster, key])?;
            }
            Write::Put {
                key,
                body,
                expires_at,
                condition,
            } => {
                super::check_key(key)?;
                // What has expired is not there: a write meets the same item as a read does.
                transaction
                    .prepare_cached(
                        "DELETE FROM items WHERE cluster = ?1 AND key = ?2 AND expires_at_ms <= ?3",
                    )?
                    .execute(params![cluster, key, self.now_ms()])?;
                let version: Option<i64> = transaction
                    .prepare_cached("SELECT version FROM items WHERE cluster = ?1 AND key = ?2")?
                    .query_row([cluster, key], |row| row.get(0))
                    .optional()?;
                let holds = match condition {
                    Condition::Always => true,
                    Condition::Absent => version.is_none(),
                    Condition::Version(wanted) => version == Some(signed(*wanted)),
                };
                if !holds {
                    return Err(StoreError::Conflict(key.clone()).into());
                }
                transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO items (cluster, key, version, body, expires_at_ms)
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![
                        cluster,
                        key,
                        version.unwrap_or(0) + 1,
                        body.to_string(),
                        expires_at.map(Timestamp::as_millisecond),
                    ])?;
            }
        }
        Ok(())
    }

    fn lease(&self, connection: &Connection) -> Result<Option<LeaseRow>, Failure> {
        let row = connection
            .prepare_cached(
                "SELECT holder, rvn, epoch, lease_ms, lock_expiry_ms FROM lease WHERE cluster = ?1",
            )?
            .query_row([self.cluster.as_str()], |row| {
                Ok((
                    row.get::<_, Option<String>>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, i64>(2)?,
                    row.get::<_, i64>(3)?,
                    row.get::<_, i64>(4)?,
                ))
            })
            .optional()?;
        let Some((holder, rvn, epoch, lease_ms, expiry)) = row else {
            return Ok(None);
        };
        let corrupt = |reason: String| StoreError::Corrupt {
            key: super::STATE.to_owned(),
            reason,
        };
        Ok(Some(LeaseRow {
            holder: holder
                .map(|name| name.parse())
                .transpose()
                .map_err(|bad: crate::ids::BadId| corrupt(bad.to_string()))?,
            rvn,
            epoch: Epoch(unsigned(epoch)),
            lease: Duration::from_millis(unsigned(lease_ms)),
            expires_at: Timestamp::from_millisecond(expiry).map_err(|bad| corrupt(bad.to_string()))?,
        }))
    }
}

/// SQLite's integers are signed; ours begin at 0 and grow by one.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// An item as it lies in its row: key, version, body, expiry.
type RawItem = (String, i64, String, Option<i64>);

fn raw_item(row: &rusqlite::Row<'_>) -> rusqlite::Result<RawItem> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn item((key, version, body, expires_at): RawItem) -> Result<Item, StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt {
        key: key.clone(),
        reason,
    };
    Ok(Item {
        body: serde_json::from_str(&body).map_err(|error| corrupt(error.to_string()))?,
        expires_at: expires_at
            .map(Timestamp::from_millisecond)
            .transpose()
            .map_err(|error| corrupt(error.to_string()))?,
        version: unsigned(version),
        key,
    })
}

#[async_trait]
impl StateStore for SqliteStore {
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        self.run(|writer, inner| inner.lease(&writer.connection)).await
    }

    async fn replace_lease(&self, expected: Option<&str>, next: &LeaseRow) -> Result<bool, StoreError> {
        let (expected, next) = (expected.map(str::to_owned), next.clone());
        self.write(move |transaction, inner| {
            let found = inner.lease(transaction)?;
            if found.map(|row| row.rvn) != expected {
                return Ok(false);
            }
            transaction.execute(
                "INSERT OR REPLACE INTO lease (cluster, holder, rvn, epoch, lease_ms, lock_expiry_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    inner.cluster.as_str(),
                    next.holder.as_ref().map(crate::ids::CoordinatorName::as_str),
                    next.rvn,
                    signed(next.epoch.0),
                    i64::try_from(next.lease.as_millis()).unwrap_or(i64::MAX),
                    next.expires_at.as_millisecond(),
                ],
            )?;
            Ok(true)
        })
        .await
    }

    async fn commit(
        &self,
        epoch: Epoch,
        writes: &[Write],
        attributes: &Attributes,
    ) -> Result<(), StoreError> {
        super::check_commit(writes, attributes)?;
        let (writes, attributes) = (writes.to_vec(), attributes.clone());
        self.write(move |transaction, inner| {
            if inner.lease(transaction)?.map(|row| row.epoch) != Some(epoch) {
                return Err(StoreError::Fenced.into());
            }
            for write in &writes {
                inner.apply(transaction, write)?;
            }
            let cluster = inner.cluster.as_str();
            for (name, value) in attributes.iter().filter(|(name, _)| *name != super::CLUSTER) {
                if value.is_null() {
                    transaction
                        .prepare_cached("DELETE FROM attributes WHERE cluster = ?1 AND name = ?2")?
                        .execute([cluster, name])?;
                } else {
                    transaction
                        .prepare_cached(
                            "INSERT OR REPLACE INTO attributes (cluster, name, value) VALUES (?1, ?2, ?3)",
                        )?
                        .execute([cluster, name, &value.to_string()])?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn append(&self, write: &Write) -> Result<(), StoreError> {
        let write = write.clone();
        self.write(move |transaction, inner| inner.apply(transaction, &write))
            .await
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StoreError> {
        let key = key.to_owned();
        self.run(move |writer, inner| {
            let row = writer
                .connection
                .prepare_cached(
                    "SELECT key, version, body, expires_at_ms FROM items WHERE cluster = ?1 AND key = ?2
                     AND (expires_at_ms IS NULL OR expires_at_ms > ?3)",
                )?
                .query_row(params![inner.cluster.as_str(), key, inner.now_ms()], raw_item)
                .optional()?;
            Ok(row.map(item).transpose()?)
        })
        .await
    }

    async fn list(&self, prefix: &str, newest_first: bool, limit: usize) -> Result<Vec<Item>, StoreError> {
        let prefix = prefix.to_owned();
        self.run(move |writer, inner| {
            let order = if newest_first { "DESC" } else { "ASC" };
            // Keys compare by their bytes; no key of ours has a character above the last one of Unicode.
            let sql = format!(
                "SELECT key, version, body, expires_at_ms FROM items WHERE cluster = ?1 AND key >= ?2 AND key < ?3
                 AND (expires_at_ms IS NULL OR expires_at_ms > ?4) ORDER BY key {order} LIMIT ?5"
            );
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let end = format!("{prefix}\u{10FFFF}");
            let mut statement = writer.connection.prepare_cached(&sql)?;
            let rows = statement.query_map(
                params![inner.cluster.as_str(), prefix, end, inner.now_ms(), limit],
                raw_item,
            )?;
            let mut items = Vec::new();
            for row in rows {
                items.push(item(row?)?);
            }
            Ok(items)
        })
        .await
    }

    async fn attributes(&self) -> Result<Attributes, StoreError> {
        self.run(|writer, inner| {
            let cluster = inner.cluster.as_str();
            let lease = inner.lease(&writer.connection)?;
            let mut attributes = lease
                .map(|row| lock_attributes(&inner.cluster, &row))
                .unwrap_or_default();
            let mut statement = writer
                .connection
                .prepare_cached("SELECT name, value FROM attributes WHERE cluster = ?1")?;
            let rows = statement.query_map([cluster], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })?;
            for row in rows {
                let (name, value) = row?;
                let value: Value = serde_json::from_str(&value).map_err(|error| StoreError::Corrupt {
                    key: format!("{}.{name}", super::STATE),
                    reason: error.to_string(),
                })?;
                attributes.insert(name, value);
            }
            Ok(attributes)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;
    use smartscale_proto::time::SystemClock;

    use super::*;
    use crate::state::conformance::{self, Factory};

    struct Files(tempfile::TempDir);

    #[async_trait]
    impl Factory for Files {
        async fn open(&self, cluster: &str, clock: SharedClock) -> crate::state::SharedStore {
            Arc::new(SqliteStore::open(&self.0.path().join("state.db"), cluster.into(), clock).unwrap())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_embedded_store_conforms() {
        conformance::all(&Files(tempfile::tempdir().unwrap())).await;
    }

    #[tokio::test]
    async fn the_files_are_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            SqliteStore::open(&folder.path().join("state.db"), "a".into(), Arc::new(SystemClock)).unwrap();
        store
            .append(&conformance::put("sample#1", json!(1)))
            .await
            .unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(
                entry.metadata().unwrap().permissions().mode() & 0o777,
                0o600,
                "{entry:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_full_disk_loses_nothing_and_ends_with_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let store = SqliteStore::open(&path, "a".into(), Arc::new(SystemClock)).unwrap();
        store
            .append(&conformance::put("sample#1", json!("kept")))
            .await
            .unwrap();
        store.limit_pages(Some(1)).await.unwrap();
        let large = conformance::put("sample#2", json!("x".repeat(100_000)));
        let error = store.append(&large).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Unavailable(why) if why.contains("state.db") && why.contains("full")),
            "{error}"
        );
        assert_eq!(store.list("sample#", false, 10).await.unwrap().len(), 1);
        store.limit_pages(None).await.unwrap();
        store.append(&large).await.unwrap();
        assert_eq!(store.list("sample#", false, 10).await.unwrap().len(), 2);
    }

    #[test]
    fn a_path_that_cannot_be_is_named() {
        let error = SqliteStore::open(
            Path::new("/nonexistent/state.db"),
            "a".into(),
            Arc::new(SystemClock),
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("/nonexistent/state.db"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        std::fs::write(&path, "x".repeat(5_000)).unwrap();
        let error = SqliteStore::open(&path, "a".into(), Arc::new(SystemClock))
            .unwrap_err()
            .to_string();
        assert!(error.contains("state.db"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap().len(), 5_000);
    }
}
