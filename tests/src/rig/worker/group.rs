//! A machine's control groups: what it may see of the kernel's accounting, and how its end is known.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// Where the hierarchies are.
const ROOT: &str = "/sys/fs/cgroup";
/// How long a killed machine may take to be gone.
const END: Duration = Duration::from_secs(20);

/// One group below each hierarchy (control groups v1, also beside v2 as `unified`).
#[derive(Debug)]
pub(super) struct Group {
    name: String,
    folders: Vec<PathBuf>,
}

impl Group {
    /// Makes it.
    ///
    /// # Errors
    /// There are no hierarchies of version 1, or they cannot be written.
    pub(super) fn new(name: &str) -> anyhow::Result<Self> {
        let name = format!("smartscale-{}-{name}", std::process::id());
        let hierarchies: Vec<_> = std::fs::read_dir(ROOT)
            .with_context(|| format!("list {ROOT}"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_dir() && path.join("cgroup.procs").exists() && !path.is_symlink())
            .collect();
        if !hierarchies.iter().any(|path| path.ends_with("memory")) {
            bail!(
                "a worker machine needs control groups of version 1 below {ROOT} (one folder a controller); there are: \
                 {hierarchies:?}"
            );
        }
        let mut group = Self {
            name,
            folders: Vec::new(),
        };
        for hierarchy in hierarchies {
            let folder = hierarchy.join(&group.name);
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("make {} (root is needed)", folder.display()))?;
            group.folders.push(folder.clone());
            // A group without CPUs takes no process, and a new one has none.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(all) = std::fs::read_to_string(hierarchy.join(file)) {
                    std::fs::write(folder.join(file), all).with_context(|| format!("set {file}"))?;
                }
            }
        }
        Ok(group)
    }

    /// Its name below each hierarchy.
    #[must_use]
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until no process is left in it and removes all groups below it.
    ///
    /// # Errors
    /// Some process does not end.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        let end = Instant::now() + END;
        for folder in &self.folders {
            let below =
                || -> std::io::Result<()> { groups_below(folder)?.iter().try_for_each(std::fs::remove_dir) };
            while let Err(error) = below() {
                if Instant::now() > end {
                    bail!("{} is not empty: {error}", folder.display());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let cleared = self.clear();
        let removed = self.folders.iter().try_for_each(std::fs::remove_dir);
        if let Err(error) = cleared.and(removed.map_err(anyhow::Error::new)) {
            eprintln!("rig: control group {}: {error:#}", self.name);
        }
    }
}

/// All groups below one, the innermost first.
fn groups_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(groups_below(&entry.path())?);
            found.push(entry.path());
        }
    }
    Ok(found)
}
