//! `packaging/fleet-command/fleet`, as a user would run it: its machines are folders, its SSH is a shell.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const FLEET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/fleet-command/fleet");

/// Two machines of different types in one zone, and the program that has them.
struct Rack {
    folder: TempDir,
}

impl Rack {
    fn new() -> Self {
        let folder = folder();
        let root = folder.path().display();
        let systemctl = folder.path().join("bin/systemctl");
        fs::create_dir(folder.path().join("bin")).unwrap();
        // A machine whose folder has a file `down` answers nobody.
        let script =
            format!("#!/bin/sh\necho \"${{DESTDIR##*/}} $*\" >>'{root}/calls'\n[ ! -e \"$DESTDIR/down\" ]\n");
        fs::write(&systemctl, script).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("worker.toml"), "cluster = \"k3s\"\n").unwrap();
        let reach = format!("env 'DESTDIR={root}/{{address}}' 'PATH={root}/bin:/usr/bin:/bin'");
        let machine = |name: &str, instance_type: &str| {
            format!("[machine {name}]\naddress = {name}.lan\ntype = {instance_type}\nzone = rack-1\n")
        };
        let config = format!(
            "[fleet]\nstate = {root}/state\nagent = {root}/worker.toml\nreach = {reach}\n{}{}",
            machine("box1", "small"),
            machine("box2", "large")
        );
        fs::write(folder.path().join("fleet.ini"), config).unwrap();
        Self { folder }
    }

    fn fleet(&self) -> CommandFleet {
        of(Settings {
            program: FLEET.into(),
            arguments: vec![
                "--config".to_owned(),
                self.folder.path().join("fleet.ini").display().to_string(),
            ],
            environment: BTreeMap::new(),
            timeout: Duration::from_secs(60),
        })
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

fn launch(attempt: u32, secret: &str) -> LaunchRequest {
    LaunchRequest {
        attempt,
        enrolment_secret: Some(secret.to_owned()),
        ..request(1)
    }
}

fn ids(launched: &Launched) -> Vec<&str> {
    launched
        .instances
        .iter()
        .map(|instance| instance.id.as_str())
        .collect()
}

#[tokio::test]
async fn the_same_launch_again_is_the_same_machine_with_the_newer_secret() {
    let rack = Rack::new();
    let fleet = rack.fleet();
    let first = fleet.launch(&launch(1, "first")).await.unwrap();
    assert_eq!(ids(&first), ["box1-1"]);
    let again = fleet.launch(&launch(1, "second")).await.unwrap();
    assert_eq!(again.instances, first.instances);
    assert_eq!(rack.file("box1.lan/etc/smartscale/enrolment-token"), "second\n");
    let agent = rack.file("box1.lan/etc/smartscale/agent.toml");
    assert!(
        agent.contains("cluster = \"k3s\"") && agent.contains("id = \"box1-1\""),
        "{agent}"
    );
    assert_eq!(
        fleet.find(&"op-1".parse().unwrap()).await.unwrap(),
        first.instances
    );
    let kept = fs::read_dir(rack.folder.path().join("state/machines")).unwrap();
    for record in kept {
        let record = fs::read_to_string(record.unwrap().path()).unwrap();
        assert!(
            !record.contains("first") && !record.contains("second"),
            "{record}"
        );
    }
}

/// Killed with the call that is under way, as it would be with its coordinator: whoever leads next asks the same again.
#[tokio::test]
async fn a_program_that_is_killed_in_mid_launch_goes_on_with_the_same_machine() {
    let rack = Rack::new();
    let hangs = rack.folder.path().join("bin/systemctl");
    let works = fs::read_to_string(&hangs).unwrap();
    let started = rack.folder.path().join("started");
    fs::write(
        &hangs,
        format!("#!/bin/sh\n: >'{}'\nexec sleep 600\n", started.display()),
    )
    .unwrap();
    let fleet = rack.fleet();
    let is_started = async {
        while !started.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let first = launch(1, "first");
    tokio::select! {
        outcome = fleet.launch(&first) => panic!("{outcome:?}"),
        () = is_started => {}
    }
    fs::write(&hangs, works).unwrap();
    // It is there, and found by its operation, though nobody was told of it.
    let found = rack.fleet().find(&"op-1".parse().unwrap()).await.unwrap();
    assert_eq!((found.len(), found[0].state), (1, InstanceState::Pending));
    let again = rack.fleet().launch(&launch(1, "second")).await.unwrap();
    assert_eq!(ids(&again), ["box1-1"]);
    assert_eq!(fleet.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_machine_that_was_ended_is_idle_again_and_has_another_name_in_its_next_life() {
    let rack = Rack::new();
    let fleet = rack.fleet();
    fleet.launch(&launch(1, "first")).await.unwrap();
    let other = fleet.launch(&launch(2, "second")).await.unwrap();
    assert_eq!(ids(&other), ["box2-1"]);
    let full = fleet.launch(&launch(3, "third")).await.unwrap();
    assert_eq!(
        (full.instances.len(), full.refused[0].cause),
        (0, RefusalCause::Capacity)
    );

    let id = "box1-1".parse().unwrap();
    fleet.terminate(&[id, "nobody".parse().unwrap()]).await.unwrap();
    let ended = fleet.look(&"box1-1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(ended.state, InstanceState::Terminated);
    assert!(
        rack.file("calls").contains("box1.lan stop k3s-agent"),
        "{}",
        rack.file("calls")
    );
    assert_eq!(rack.file("box1.lan/etc/smartscale/enrolment-token"), "");
    let next = fleet.launch(&launch(4, "fourth")).await.unwrap();
    assert_eq!(ids(&next), ["box1-2"]);
}

#[tokio::test]
async fn a_machine_that_does_not_answer_is_passed_over_and_said() {
    let rack = Rack::new();
    fs::create_dir(rack.folder.path().join("box1.lan")).unwrap();
    fs::write(rack.folder.path().join("box1.lan/down"), "").unwrap();
    let fleet = rack.fleet();
    let launched = fleet.launch(&launch(1, "first")).await.unwrap();
    assert_eq!(ids(&launched), ["box2-1"]);
    assert_eq!(launched.refused[0].instance_type, Some("small".into()));
    assert!(launched.refused[0].message.contains("box1"), "{launched:?}");
    let failed = fleet.terminate(&["box1-1".parse().unwrap()]).await;
    is_unknown(failed, "exit status: 1");
}
