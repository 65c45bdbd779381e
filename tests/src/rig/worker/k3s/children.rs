//! What `k3s-agent` runs below itself: containerd and the kubelet, with K3s' folders, sockets and settings.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::process::{Child, Command};

use super::super::super::wait;
use super::super::image::{IMAGE, K3S_BIN, K3S_IMAGES};
use super::agent::{DATA, Settings, put};

/// K3s' containerd.
const SOCKET: &str = "/run/k3s/containerd/containerd.sock";
/// How long a part may take to come up on a busy machine.
const START: Duration = Duration::from_secs(120);

/// Starts both, says that the unit is ready once the kubelet is healthy, and waits for the end of one of them.
pub(super) async fn run(settings: &Settings) -> anyhow::Result<()> {
    let mut containerd = containerd()?;
    take_images(&mut containerd).await?;
    let mut kubelet = kubelet(settings)?;
    let healthy = async {
        wait::until_true("the kubelet", START, || async {
            let answer = super::super::super::http::get("http://127.0.0.1:10248/healthz").await?;
            Ok(answer.status.is_success())
        })
        .await?;
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).context("tell systemd")?;
        std::future::pending::<anyhow::Result<()>>().await
    };
    tokio::select! {
        status = containerd.wait() => bail!("containerd ended: {}", status.context("wait for containerd")?),
        status = kubelet.wait() => bail!("the kubelet ended: {}", status.context("wait for the kubelet")?),
        failed = healthy => failed,
    }
}

/// A program of K3s' own, ended with this process, its output in a file.
fn program(name: &str, log: &str) -> anyhow::Result<Command> {
    let path = format!("/var/log/rig/{log}.log");
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("open {path}"))?;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(Path::new(K3S_BIN).join(name))
        .env("PATH", format!("{K3S_BIN}:/usr/sbin:/usr/bin:/sbin:/bin"))
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log)
        .kill_on_drop(true);
    Ok(command)
}

fn containerd() -> anyhow::Result<Child> {
    let networks = format!("{DATA}/etc/cni/net.d");
    // K3s' flannel gives each node a network of its own; here a pod is reached from its own machine alone.
    let network = json!({
        "cniVersion": "1.0.0",
        "name": "cbr0",
        "plugins": [{
            "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.42.0.0/24"}]],
                     "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    });
    put(
        Path::new(&format!("{networks}/10-flannel.conflist")),
        &format!("{network:#}\n"),
        0o644,
    )?;
    let plugin = "plugins.'io.containerd.cri.v1";
    // Without CAP_SYS_RESOURCE no process may be made less likely to be killed than it is.
    let config = format!(
        "version = 3\nroot = \"{DATA}/containerd\"\nstate = \"/run/k3s/containerd\"\noom_score = 0\n\
         [grpc]\naddress = \"{SOCKET}\"\n\
         [{plugin}.runtime']\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n\
         [{plugin}.runtime'.cni]\nbin_dirs = [\"{K3S_BIN}\"]\nconf_dir = \"{networks}\"\n\
         [{plugin}.runtime'.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [{plugin}.images']\nsnapshotter = \"overlayfs\"\n\
         [{plugin}.images'.pinned_images]\nsandbox = \"{IMAGE}\"\n"
    );
    let path = format!("{DATA}/etc/containerd/config.toml");
    put(Path::new(&path), &config, 0o600)?;
    std::fs::create_dir_all("/run/k3s/containerd").context("make containerd's run folder")?;
    program("containerd", "containerd")?
        .args(["--config", &path])
        .spawn()
        .context("start containerd")
}

/// Takes in the images that lie in K3s' folder, as K3s does at each start.
async fn take_images(containerd: &mut Child) -> anyhow::Result<()> {
    let images = || async {
        let listed = ctr(&["images", "list", "--quiet"]).await?;
        Ok(Some(listed))
    };
    let listed = tokio::select! {
        listed = wait::until("containerd", START, images) => listed?,
        status = containerd.wait() => bail!("containerd ended: {}", status.context("wait for containerd")?),
    };
    if listed.lines().any(|line| line == IMAGE) {
        return Ok(());
    }
    for entry in std::fs::read_dir(K3S_IMAGES).with_context(|| format!("list {K3S_IMAGES}"))? {
        let path = entry.context("list the images")?.path();
        ctr(&["images", "import", &path.display().to_string()]).await?;
    }
    Ok(())
}

async fn ctr(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(Path::new(K3S_BIN).join("ctr"))
        .args(["--address", SOCKET, "--namespace", "k8s.io"])
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .context("run ctr")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ctr {arguments:?}: {} {said}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn kubelet(settings: &Settings) -> anyhow::Result<Child> {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{DATA}/server-ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "evictionHard": {"imagefs.available": "5%", "nodefs.available": "5%"},
        "failSwapOn": false,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        // A burst of pods starts as fast as the machine can.
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 50,
        "kubeAPIBurst": 100,
        "serializeImagePulls": false,
        // The address' range serves one node; this many pods it runs.
        "maxPods": 110,
        "resolvConf": "/etc/resolv.conf",
    });
    let path = format!("{DATA}/etc/kubelet.conf.d/00-config.conf");
    put(Path::new(&path), &format!("{config:#}\n"), 0o600)?;
    let mut command = program("kubelet", "kubelet")?;
    command
        .args(["--config", &path])
        // As K3s does since 1.32: what packages put beside is taken over, in the files' order.
        .args(["--config-dir", &format!("{DATA}/etc/kubelet.conf.d")])
        .args(["--kubeconfig", &format!("{DATA}/kubelet.kubeconfig")])
        .args(["--hostname-override", &settings.node])
        .args(["--node-ip", &settings.address()?.to_string()])
        .args(["--node-labels", &settings.labels.join(",")])
        .args(["--cert-dir", &format!("{DATA}/pki")])
        .args(["--v", "2"]);
    if !settings.taints.is_empty() {
        command.args(["--register-with-taints", &settings.taints.join(",")]);
    }
    let provider = "provider-id=";
    if !settings
        .kubelet_args
        .iter()
        .any(|argument| argument.starts_with(provider))
    {
        command.arg(format!("--{provider}k3s://{}", settings.node));
    }
    for argument in &settings.kubelet_args {
        command.arg(format!("--{argument}"));
    }
    command.spawn().context("start the kubelet")
}
