//! The kernel: pressure stall information, which a node's health is told by, and control groups of version 2, without which the
//! kubelets of today do not start.

use std::{fs, path::Path};

use smartscale_proto::check::Finding;

const AREA: &str = "kernel";

/// Looks below `proc`.
pub(super) fn findings(proc: &Path) -> Vec<Finding> {
    vec![pressure(proc), groups(proc)]
}

fn pressure(proc: &Path) -> Finding {
    let path = proc.join("pressure/cpu");
    let tried = format!("read {}", path.display());
    // Where it is compiled in and switched off, the file is there and cannot be read (EOPNOTSUPP).
    match fs::read_to_string(&path) {
        Ok(text) if text.starts_with("some ") => Finding::passed(AREA, tried, "the kernel tells pressure"),
        Ok(text) => Finding::warning(AREA, tried, format!("it says `{}`", text.trim()), PRESSURE),
        Err(error) => Finding::warning(AREA, tried, error.to_string(), PRESSURE),
    }
}

const PRESSURE: &str = "boot with psi=1 (GRUB_CMDLINE_LINUX; AL2023 and Ubuntu have it compiled in): health is then told by pressure too";

fn groups(proc: &Path) -> Finding {
    let path = proc.join("mounts");
    let tried = format!("looked for /sys/fs/cgroup in {}", path.display());
    let mounts = match fs::read_to_string(&path) {
        Ok(mounts) => mounts,
        Err(error) => return Finding::failed(AREA, tried, error.to_string(), "look at health.proc"),
    };
    let mut kinds = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        let kind = words.next()?;
        (place == "/sys/fs/cgroup").then_some(kind)
    });
    // What was mounted there last is what is seen.
    match kinds.next_back() {
        Some("cgroup2") => Finding::passed(AREA, tried, "control groups are of version 2"),
        other => Finding::failed(
            AREA,
            tried,
            match other {
                Some(_) => "control groups are of version 1, with which kubelets from 1.35 on do not start",
                None => "no control groups",
            },
            "boot with systemd.unified_cgroup_hierarchy=1, or use an image whose systemd has it by default (AL2023, Ubuntu 22.04)",
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use smartscale_proto::check::Outcome;

    use super::*;

    fn outcomes(pressure: Option<&str>, mounts: &str) -> Vec<Outcome> {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir(proc.path().join("pressure")).unwrap();
        if let Some(pressure) = pressure {
            fs::write(proc.path().join("pressure/cpu"), pressure).unwrap();
        }
        fs::write(proc.path().join("mounts"), mounts).unwrap();
        let findings = findings(proc.path());
        findings.iter().map(|finding| finding.outcome).collect()
    }

    const SOME: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n";
    const NEW: &str = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";

    #[test]
    fn a_kernel_of_today_passes() {
        assert_eq!(outcomes(Some(SOME), NEW), [Outcome::Passed; 2]);
    }

    #[test]
    fn one_without_pressure_is_to_be_looked_at_and_one_with_old_control_groups_fails() {
        let old = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(outcomes(None, old), [Outcome::Warning, Outcome::Failed]);
        assert_eq!(outcomes(Some(""), ""), [Outcome::Warning, Outcome::Failed]);
    }
}
