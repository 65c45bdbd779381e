//! The coordinator's package on a machine with systemd: its unit starts it as a user of its own, confined, and it comes and goes
//! as systemd wants.

use std::path::{Path, PathBuf};
use std::process::Command;

use smartscale_tests::rig::worker::Worker;
use smartscale_tests::rig::{Folder, programs, wait};
use smartscale_tests::site::DEADLINE;

use crate::{STEADY, site};

/// Nothing listens there: what the coordinator cannot reach, it waits for.
const KUBECONFIG: &str = r#"
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
users: [{name: none, user: {token: none}}]
current-context: none
"#;

fn package(folder: &Folder) -> PathBuf {
    let (built, out) = (folder.sub("built").unwrap(), folder.sub("packages").unwrap());
    let program = built.join("smartscale-coordinator");
    std::fs::copy(programs::path("smartscale-coordinator").unwrap(), &program).unwrap();
    // Debug information is most of a debug build.
    let stripped = Command::new("strip").arg("--strip-debug").arg(&program).status();
    assert!(stripped.unwrap().success());
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/release"))
        .arg(&out)
        .arg("--programs")
        .arg(&built)
        .envs([("ONLY", "server"), ("FORMATS", "deb"), ("SOURCE_DATE_EPOCH", "0")])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .unwrap()
}

async fn state(machine: &Worker, property: &str) -> String {
    let show = [
        "systemctl",
        "show",
        "--value",
        "--property",
        property,
        "smartscale-coordinator",
    ];
    machine.ask(&show).await.unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinators_package_makes_a_user_and_its_unit_runs_reloads_and_ends() {
    let (site, nodes) = site("coordinator-unit", 1, "", STEADY).await;
    let machine = site.worker(&nodes[0]).await.unwrap();
    machine.install(&package(site.stack.folder())).await.unwrap();
    // Nobody's worker is a coordinator too. Its agent has read the file whose name `init` wants.
    machine.ask(&["rm", "/etc/smartscale/ca.crt"]).await.unwrap();
    let as_its_user = ["runuser", "--user", "smartscale", "--"];
    let init = "smartscale-coordinator init --cluster other --advertise 127.0.0.1:7443".split(' ');
    let words: Vec<_> = as_its_user.into_iter().chain(init).collect();
    machine.ask(&words).await.unwrap();
    let configure = format!(
        "cat >/etc/smartscale/kubeconfig <<'END'\n{KUBECONFIG}\nEND\n\
         sed -i 's|^# kubeconfig = .*|kubeconfig = \"kubeconfig\"|' /etc/smartscale/coordinator.toml"
    );
    machine.ask(&["sh", "-c", &configure]).await.unwrap();
    machine
        .ask(&["systemctl", "enable", "--now", "smartscale-coordinator"])
        .await
        .unwrap();
    assert_eq!(state(&machine, "ActiveState").await, "active");
    let healthy = ["curl", "--silent", "--fail", "http://127.0.0.1:9810/healthz"];
    machine.ask(&healthy).await.unwrap();
    let process = state(&machine, "MainPID").await;
    let user = ["stat", "--format=%U", &format!("/proc/{process}")];
    assert_eq!(machine.ask(&user).await.unwrap().trim(), "smartscale");
    let owner = ["stat", "--format=%U %a", "/var/lib/smartscale/state.db"];
    assert_eq!(machine.ask(&owner).await.unwrap().trim(), "smartscale 600");

    // A policy with a mistake is refused and the process stays; it is the unit's ExecReload that asks.
    machine
        .ask(&["sh", "-c", "echo nonsense >>/etc/smartscale/policy.toml"])
        .await
        .unwrap();
    machine
        .ask(&["systemctl", "reload", "smartscale-coordinator"])
        .await
        .unwrap();
    wait::until_true("the refusal", DEADLINE, || async {
        let log = machine
            .ask(&["cat", "/var/log/rig/smartscale-coordinator.log"])
            .await?;
        Ok(log.contains("the policy of /etc/smartscale/policy.toml is refused"))
    })
    .await
    .unwrap();
    assert_eq!(state(&machine, "MainPID").await, process);

    machine
        .ask(&["systemctl", "stop", "smartscale-coordinator"])
        .await
        .unwrap();
    assert_eq!(state(&machine, "Result").await, "success");
    let removed = machine
        .run(&["dpkg", "--remove", "smartscale-coordinator"])
        .await
        .unwrap();
    assert!(
        removed.status.success(),
        "{}",
        String::from_utf8_lossy(&removed.stderr)
    );
    // What it knew stays.
    machine
        .ask(&["test", "-s", "/var/lib/smartscale/state.db"])
        .await
        .unwrap();
}
