//! The machine image of the workers and the disks that start from it. The image is made as an AMI is: the agent's package is
//! installed, and `packaging/worker/bake` does the rest. A disk adds what EC2 and cloud-init do, and what K3s unpacks.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::super::{cache, programs};

/// The target that a machine boots into: cloud-init's stand-in, and nothing of what the surrounding system would start.
const TARGET: &str = "\
[Unit]
Description=A worker of the rig
Requires=basic.target
After=basic.target
Wants=user-data.service smartscale-agent.service
AllowIsolate=yes
";

/// Carries out user-data once a disk, as cloud-init does: `#!` is a script.
const USER_DATA: &str = "\
[Unit]
Description=User-data, carried out as cloud-init would
ConditionPathExists=!/var/lib/cloud/instance/done
Before=smartscale-agent.service

[Service]
Type=oneshot
ExecStart=/usr/local/lib/rig/user-data
StandardOutput=append:/var/log/rig/user-data.log
StandardError=append:/var/log/rig/user-data.log
";

const USER_DATA_PROGRAM: &str = "\
#!/bin/sh
set -eu
imds=http://169.254.169.254/latest
token=$(curl --silent --fail --max-time 5 --retry 20 --retry-connrefused --retry-delay 1 --request PUT \\
    --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' $imds/api/token)
mkdir -p /var/lib/cloud/instance
curl --silent --fail --max-time 5 --header \"X-aws-ec2-metadata-token: $token\" $imds/user-data \\
    >/var/lib/cloud/instance/user-data.txt
chmod 0700 /var/lib/cloud/instance/user-data.txt
/var/lib/cloud/instance/user-data.txt
: >/var/lib/cloud/instance/done
";

/// Output into files: the journal is not started, and the test wants to read it.
const LOGGED: &str = "\
[Service]
StandardOutput=append:/var/log/rig/%N.log
StandardError=append:/var/log/rig/%N.log
Environment=SMARTSCALE_LOG=info,smartscale_agent=debug
";

/// Units of the surrounding system that a machine must not start: they would write what belongs to all (kernel
/// parameters, clock, modules), or take time.
const MASKED: [&str; 16] = [
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "kmod-static-nodes.service",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-binfmt.service",
    "systemd-journal-flush.service",
    "systemd-journald.service",
    "systemd-modules-load.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-udevd.service",
    "systemd-update-utmp.service",
];

/// The programs that K3s brings along.
const K3S_PROGRAMS: [&str; 8] = [
    "kubelet",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "bridge",
    "host-local",
    "loopback",
];

/// Where K3s keeps the programs that it brings along.
pub(super) const K3S_BIN: &str = "/var/lib/rancher/k3s/data/current/bin";
/// K3s takes the images in this folder in at its start.
pub(super) const K3S_IMAGES: &str = "/var/lib/rancher/k3s/agent/images";
/// The image of all containers.
pub const IMAGE: &str = "rig.invalid/work:1";

/// A machine image. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Image {
    path: PathBuf,
}

impl Image {
    /// The image with this agent, made if there is none yet of this very program.
    ///
    /// # Errors
    /// Something is not installed or not built, or the sandbox does not allow overlays.
    pub async fn bake(agent: &Path) -> anyhow::Result<Self> {
        let k3s = programs::path("k3s-stand-in")?;
        let beside = k3s.parent().context("a program without a folder")?;
        let path = beside.join("worker-image");
        let output = tokio::process::Command::new(cache::source("worker/image"))
            .args([&path, agent, &k3s, &cache::installed("images/work.tar")?])
            .output()
            .await
            .context("run tests/rig/worker/image")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("no machine image: {} {said}", output.status);
        }
        Ok(Self { path })
    }

    /// The package of the agent's next version.
    #[must_use]
    pub fn next_package(&self) -> PathBuf {
        self.path.join("next.deb")
    }
}

/// A machine's disk: what survives that it is switched off.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// A fresh disk from the image, below `path`. `memory` is the MiB that the instance type has.
    ///
    /// # Errors
    /// Something is not installed or not built, or cannot be written.
    pub fn new(path: PathBuf, id: &str, image: &Image, memory: i64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path.join("work")).with_context(|| format!("make {}", path.display()))?;
        // Copied: the kernel takes no layer that lies in the one below it.
        for part in ["upper", "data"] {
            copy(&image.path.join(part), &path.join(part))?;
        }
        let disk = Self { path };
        disk.write("etc/hostname", &format!("{id}\n"), 0o644)?;
        disk.write(
            "etc/machine-id",
            &format!("{:032x}\n", rand::random::<u128>()),
            0o444,
        )?;
        // Nobody answers names here, which must be known at once and not after seconds.
        disk.write("etc/resolv.conf", "nameserver 127.0.0.1\n", 0o644)?;
        disk.systemd()?;
        disk.k3s(memory)?;
        Ok(disk)
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of the machine (`etc/…`) is, seen from outside.
    #[must_use]
    pub fn file(&self, path: &str) -> PathBuf {
        let data = ["var/lib/rancher", "var/lib/kubelet"];
        let part = if data.iter().any(|data| path.starts_with(data)) {
            "data"
        } else {
            "upper"
        };
        self.path.join(part).join(path)
    }

    /// Writes a file of the machine.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &str, text: &str, mode: u32) -> anyhow::Result<()> {
        let file = self.file(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        std::fs::write(&file, text)
            .and_then(|()| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)))
            .with_context(|| format!("write {}", file.display()))
    }

    fn systemd(&self) -> anyhow::Result<()> {
        let unit = |name: &str| format!("etc/systemd/system/{name}");
        self.write(&unit("rig.target"), TARGET, 0o644)?;
        self.write(&unit("user-data.service"), USER_DATA, 0o644)?;
        self.write("usr/local/lib/rig/user-data", USER_DATA_PROGRAM, 0o755)?;
        for service in ["smartscale-agent", "k3s-agent", "smartscale-coordinator"] {
            self.write(&unit(&format!("{service}.service.d/rig.conf")), LOGGED, 0o644)?;
        }
        std::fs::create_dir_all(self.file("var/log/rig")).context("make the logs' folder")?;
        let link = |name: &str, target: &str| {
            let link = self.file(&unit(name));
            std::os::unix::fs::symlink(target, &link).with_context(|| format!("link {}", link.display()))
        };
        link("default.target", "rig.target")?;
        MASKED.iter().try_for_each(|name| link(name, "/dev/null"))
    }

    fn k3s(&self, memory: i64) -> anyhow::Result<()> {
        let link = |target: PathBuf, path: &str| -> anyhow::Result<()> {
            let link = self.file(path.trim_start_matches('/'));
            if let Some(parent) = link.parent() {
                std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            }
            std::os::unix::fs::symlink(target, &link).with_context(|| format!("link {}", link.display()))
        };
        for name in K3S_PROGRAMS {
            link(
                cache::installed(&format!("bin/{name}"))?,
                &format!("{K3S_BIN}/{name}"),
            )?;
        }
        // The kernel says how much memory the test's machine has: what the type lacks is the system's.
        let ours = total_memory()?.saturating_sub(memory * 925 / 1000);
        let config = format!("kubelet-arg:\n  - \"system-reserved=memory={ours}Mi\"\n");
        self.write("etc/rancher/k3s/config.yaml", &config, 0o600)
    }
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = std::process::Command::new("cp")
        .arg("--archive")
        .args([from, to])
        .status()
        .with_context(|| format!("copy {}", from.display()))?;
    anyhow::ensure!(status.success(), "copy {}: {status}", from.display());
    Ok(())
}

/// MiB of memory that this machine has.
fn total_memory() -> anyhow::Result<i64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<i64>().ok());
    Ok(kilobytes.context("/proc/meminfo has no MemTotal")? / 1024)
}
