//! What is released beside the programs: the packages and their units, the dashboard and the alerts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dashboard;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use smartscale_tests::rig::{Folder, programs};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .canonicalize()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Packages three small files under the programs' names into `out` below the folder.
fn release(folder: &Folder, out: &str) -> PathBuf {
    let programs = folder.sub("programs").unwrap();
    for name in ["smartscale-agent", "smartscale-coordinator", "smartscale"] {
        std::fs::write(programs.join(name), format!("#!/bin/sh\necho {name}\n")).unwrap();
    }
    let out = folder.sub(out).unwrap();
    let output = Command::new(packaging().join("release"))
        .arg(&out)
        .arg("--programs")
        .arg(&programs)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    out
}

#[test]
fn two_runs_give_the_same_bytes_and_the_checksums_tell() {
    let folder = Folder::new("release").unwrap();
    let (first, second) = (release(&folder, "first"), release(&folder, "second"));
    let sums = std::fs::read_to_string(first.join("SHA256SUMS")).unwrap();
    assert_eq!(sums, std::fs::read_to_string(second.join("SHA256SUMS")).unwrap());
    // Each of three as .deb and .rpm.
    assert_eq!(sums.lines().count(), 6, "{sums}");
    let check = Command::new("sha256sum")
        .args(["--check", "SHA256SUMS"])
        .current_dir(&second)
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", text(&check));
}

#[test]
fn the_packages_hold_programs_units_and_drop_ins_where_systemd_and_k3s_look() {
    let folder = Folder::new("contents").unwrap();
    let out = release(&folder, "out");
    let holds = |package: &str, paths: &[&str]| {
        let package = std::fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
            })
            .unwrap();
        let listed = Command::new("dpkg-deb")
            .arg("--contents")
            .arg(&package)
            .output()
            .unwrap();
        let listed = text(&listed);
        for path in paths {
            let found = listed.lines().find(|line| line.ends_with(&format!(" .{path}")));
            let line = found.unwrap_or_else(|| panic!("{path} is not in {}:\n{listed}", package.display()));
            assert!(line.contains("root/root"), "{line}");
            assert_eq!(
                line.starts_with("-rwxr-xr-x"),
                path.starts_with("/usr/bin/"),
                "{line}"
            );
        }
    };
    holds(
        "smartscale-agent",
        &[
            "/usr/bin/smartscale-agent",
            "/usr/lib/systemd/system/smartscale-agent.service",
            "/usr/lib/systemd/logind.conf.d/60-smartscale.conf",
            "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d/60-smartscale.conf",
        ],
    );
    holds(
        "smartscale-coordinator",
        &[
            "/usr/bin/smartscale-coordinator",
            "/usr/lib/systemd/system/smartscale-coordinator.service",
            "/usr/lib/sysusers.d/smartscale.conf",
            "/usr/share/smartscale/kubernetes/rbac.yaml",
        ],
    );
    holds("smartscale", &["/usr/bin/smartscale"]);
}

/// systemd's own judgement, from 0 (confined) to 10 (exposed): systemd-analyze(1), `security`.
#[test]
fn both_units_are_exposed_by_2_of_10_at_most() {
    for unit in [
        "worker/smartscale-agent.service",
        "server/smartscale-coordinator.service",
    ] {
        let judged = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
            .arg(packaging().join(unit))
            .output()
            .unwrap();
        assert!(judged.status.success(), "{}", text(&judged));
    }
}

/// An agent that starts and a coordinator that starts are the tests of the units; this is what they need to be run at all.
#[test]
fn the_units_name_programs_and_settings_that_systemd_knows() {
    let folder = Folder::new("verify").unwrap();
    let units = folder.sub("units").unwrap();
    for (unit, program) in [
        ("worker/smartscale-agent.service", "smartscale-agent"),
        ("server/smartscale-coordinator.service", "smartscale-coordinator"),
    ] {
        let unit = packaging().join(unit);
        let program = programs::path(program).unwrap();
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        let here = std::fs::read_to_string(&unit)
            .unwrap()
            .replace(&format!("/usr/bin/{name}"), &program.to_string_lossy());
        let copy = units.join(unit.file_name().unwrap());
        std::fs::write(&copy, here).unwrap();
        let verified = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&copy)
            .output()
            .unwrap();
        let said = text(&verified);
        let about_it = said
            .lines()
            .filter(|line| line.contains("smartscale") && !line.contains("k3s"))
            .collect::<Vec<_>>();
        assert!(about_it.is_empty(), "{about_it:?}");
    }
}
