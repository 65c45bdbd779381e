#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{fs, path::Path, sync::Arc};

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use smartscale_proto::time::SystemClock;
use tempfile::TempDir;

use super::*;
use crate::act::fleet::{InstanceState, RefusalCause};

const SECRET: &str = "Zm9yLXRlc3RzLW9ubHktYW5kLW5vdGhpbmctZWxzZQ";

/// A fleet whose program is a shell's script, which finds its folder in `$HOME_OF_TEST` and its verb in `$1`.
fn fleet(folder: &TempDir, script: &str) -> CommandFleet {
    of(settings(folder, script))
}

fn settings(folder: &TempDir, script: &str) -> Settings {
    let path = folder.path().join("script");
    fs::write(&path, script).unwrap();
    Settings {
        program: "/bin/sh".into(),
        arguments: vec![path.display().to_string()],
        environment: BTreeMap::from([("HOME_OF_TEST".to_owned(), folder.path().display().to_string())]),
        timeout: Duration::from_secs(30),
    }
}

fn of(settings: Settings) -> CommandFleet {
    CommandFleet::new(settings, "k3s".to_owned(), Arc::new(SystemClock))
}

/// A fleet whose program prints this and ends well.
fn saying(folder: &TempDir, text: &str) -> CommandFleet {
    fs::write(folder.path().join("text"), text).unwrap();
    fleet(folder, "exec cat \"$HOME_OF_TEST/text\"")
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn request(count: u32) -> LaunchRequest {
    LaunchRequest {
        operation: "op-1".parse().unwrap(),
        attempt: 2,
        pool: "workers".into(),
        zone: "rack-1".into(),
        market: Market::OnDemand,
        instance_types: vec!["small".into(), "large".into()],
        count,
        enrolment_secret: Some(SECRET.to_owned()),
    }
}

fn machine(id: &str) -> Value {
    json!({
        "id": id, "cluster": "k3s", "pool": "workers", "operation": "op-1", "type": "small", "zone": "rack-1",
        "market": "on-demand", "state": "running", "launched_at": "2026-01-02T03:04:05Z",
    })
}

fn with(id: &str, key: &str, value: impl Into<Value>) -> Value {
    let mut machine = machine(id);
    machine[key] = value.into();
    machine
}

#[track_caller]
fn is_unknown<T: std::fmt::Debug>(outcome: Result<T, FleetError>, says: &str) {
    match outcome {
        Err(FleetError::Unknown(words)) => {
            assert!(words.contains(says), "{words} lacks {says}");
            assert!(!words.contains(SECRET), "{words}");
        }
        other => panic!("{other:?} where {says} was expected"),
    }
}

#[tokio::test]
async fn the_program_is_told_everything_on_standard_input_and_the_secret_nowhere_else() {
    let folder = folder();
    let script = r#"
        cat >"$HOME_OF_TEST/$1.json"
        cat /proc/$$/environ >"$HOME_OF_TEST/environ"
        cat /proc/$$/cmdline >"$HOME_OF_TEST/cmdline"
        pwd >"$HOME_OF_TEST/pwd"
        echo '{"machines": [], "refused": [{"cause": "other"}]}'
        if [ "$1" = list ]; then exit 3; fi"#;
    let fleet = fleet(&folder, script);
    let seen = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    fleet.launch(&request(2)).await.unwrap();
    let question: Value = serde_json::from_str(&seen("launch.json")).unwrap();
    let launch = json!({
        "protocol": 1, "verb": "launch", "cluster": "k3s", "token": "op-1-2", "operation": "op-1", "pool": "workers",
        "zone": "rack-1", "market": "on-demand", "types": ["small", "large"], "count": 2, "secret": SECRET,
    });
    assert_eq!(question, launch);
    let mut environment: Vec<String> = seen("environ")
        .split_terminator('\0')
        .map(str::to_owned)
        .collect();
    environment.sort();
    let home = format!("HOME_OF_TEST={}", folder.path().display());
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(environment, [&home, "LANG=C.UTF-8", path]);
    assert!(!seen("cmdline").contains(SECRET) && seen("cmdline").ends_with("launch\0"));
    assert_eq!(seen("pwd"), "/\n");

    fleet.terminate(&["w-1".parse().unwrap()]).await.unwrap();
    let question: Value = serde_json::from_str(&seen("terminate.json")).unwrap();
    let terminate = json!({"protocol": 1, "verb": "terminate", "cluster": "k3s", "ids": ["w-1"]});
    assert_eq!(question, terminate);

    is_unknown(fleet.list().await, "exit status: 3");
    let question: Value = serde_json::from_str(&seen("list.json")).unwrap();
    assert_eq!(question, json!({"protocol": 1, "verb": "list", "cluster": "k3s"}));
}

#[tokio::test]
async fn machines_are_found_by_their_operation_and_those_of_other_clusters_are_nobodys() {
    let folder = folder();
    let machines = [
        machine("w-1"),
        with("w-2", "operation", "op-2"),
        with("w-1", "cluster", "other"),
        with("w-3", "state", "terminated"),
        with("w-4", "launched_at", "2999-01-01T00:00:00Z"),
    ];
    let fleet = saying(&folder, &json!({ "machines": machines }).to_string());
    let ids = |instances: Vec<Instance>| -> Vec<String> {
        instances.iter().map(|instance| instance.id.to_string()).collect()
    };
    let all = fleet.list().await.unwrap();
    assert_eq!(all[0].launched_at, "2026-01-02T03:04:05Z".parse().unwrap());
    assert!(
        all[3].launched_at <= Timestamp::now(),
        "no machine is of tomorrow"
    );
    assert_eq!(ids(all), ["w-1", "w-2", "w-3", "w-4"]);
    let found = fleet.find(&"op-2".parse().unwrap()).await.unwrap();
    assert_eq!(ids(found), ["w-2"]);
    let ended = fleet.look(&"w-3".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(ended.state, InstanceState::Terminated);
    assert_eq!(fleet.look(&"w-9".parse().unwrap()).await, Ok(None));
}

#[tokio::test]
async fn a_launch_brings_machines_and_refusals_each_with_its_cause() {
    let folder = folder();
    let refused = [
        json!({"type": "large", "cause": "capacity", "message": format!("no host\nhas {SECRET}")}),
        json!({"cause": "quota"}),
        json!({"cause": "throttled"}),
        json!({"cause": "configuration"}),
    ];
    let answer = json!({"machines": [machine("w-1")], "refused": refused});
    let launched = saying(&folder, &answer.to_string())
        .launch(&request(2))
        .await
        .unwrap();
    assert_eq!(launched.instances.len(), 1);
    assert_eq!(launched.refused[0].instance_type, Some("large".into()));
    assert_eq!(launched.refused[0].message, "no host has [secret]");
    let causes: Vec<RefusalCause> = launched.refused.iter().map(|one| one.cause).collect();
    assert_eq!(
        causes,
        [
            RefusalCause::Capacity,
            RefusalCause::Quota,
            RefusalCause::Throttled,
            RefusalCause::Configuration
        ]
    );
}

#[tokio::test]
async fn no_answer_is_half_believed_and_what_happened_is_then_unknown() {
    let folder = folder();
    let launched = |machines: &[Value]| json!({ "machines": machines }).to_string();
    for (text, says) in [
        (String::new(), "EOF"),
        ("{".to_owned(), "EOF"),
        ("[]".to_owned(), "neither"),
        ("{}".to_owned(), "neither"),
        (r#"{"machine": []}"#.to_owned(), "machine"),
        (format!("{} x", launched(&[machine("w-1")])), "trailing"),
        (
            launched(&[machine("w-1"), machine("w-2"), machine("w-3")]),
            "3 machines where 2",
        ),
        (launched(&[machine("w-1"), machine("w-1")]), "twice"),
        (launched(&[with("w-1", "cluster", "other")]), "other"),
        (launched(&[with("w-1", "operation", "op-2")]), "another operation"),
        (launched(&[with("w-1", "pool", "web")]), "another operation"),
        (launched(&[with("w-1", "type", "huge")]), "another operation"),
        (launched(&[with("w-1", "zone", "rack-2")]), "another operation"),
        (launched(&[with("w-1", "market", "spot")]), "another operation"),
        (launched(&[with("w-1", "market", "leased")]), "machines[0].market"),
        (launched(&[with("w-1", "state", SECRET)]), "machines[0].state"),
        (launched(&[with("w-1", "zone", "rack 1")]), "zone"),
        (launched(&[machine("W-1")]), "names the node"),
        (launched(&[machine("-w")]), "names the node"),
        (launched(&[machine("../w")]), "names the node"),
        (launched(&[machine(&"w".repeat(64))]), "names the node"),
        (
            r#"{"refused": [{"type": "huge", "cause": "capacity"}]}"#.to_owned(),
            "huge",
        ),
        (r#"{"refused": [{"cause": "sorry"}]}"#.to_owned(), "sorry"),
    ] {
        is_unknown(saying(&folder, &text).launch(&request(2)).await, says);
    }
    for (text, says) in [
        ("{}".to_owned(), "machines"),
        (
            launched(&[machine("w-1"), with("w-2", "state", "unsure")]),
            "machines[1].state",
        ),
        (launched(&[machine("w-1"), machine("w-1")]), "twice"),
    ] {
        is_unknown(saying(&folder, &text).list().await, says);
    }
}

#[tokio::test]
async fn a_program_that_fails_in_any_way_ends_the_call_and_says_how() {
    let folder = folder();
    let good = format!("echo '{}'", json!({ "machines": [] }));
    for (script, says) in [
        (format!("{good}; exit 7"), "exit status: 7"),
        (format!("{good}; kill -9 $$"), "signal: 9"),
        ("exec yes".to_owned(), "answered more than"),
        (
            // In a session of its own by then, where no signal to the program's group reaches it.
            format!(
                "{good}; setsid sh -c 'echo $$ >\"$HOME_OF_TEST/pid\"; exec sleep 600' & \
                 while [ ! -s \"$HOME_OF_TEST/pid\" ]; do sleep 0.1; done"
            ),
            "holds its standard output open",
        ),
    ] {
        is_unknown(fleet(&folder, &script).list().await, says);
    }
    let left: i32 = fs::read_to_string(folder.path().join("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(left).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let of_program = |name: &str| Settings {
        program: folder.path().join(name),
        ..settings(&folder, "")
    };
    is_unknown(of(of_program("missing")).list().await, "No such file");
    let not_executable = of_program("script");
    is_unknown(of(not_executable).list().await, "ermission denied");
}

#[tokio::test]
async fn a_program_that_leaves_others_behind_in_its_group_answers_and_they_end() {
    let folder = folder();
    let script = r#"sleep 600 & echo $! >"$HOME_OF_TEST/pid"; echo '{"machines": []}'"#;
    assert_eq!(fleet(&folder, script).list().await, Ok(Vec::new()));
    ends(&folder.path().join("pid")).await;
}

#[tokio::test]
async fn a_program_that_does_not_end_is_killed_with_all_that_it_started() {
    let folder = folder();
    let script =
        r#"sleep 600 & echo $! >"$HOME_OF_TEST/part"; mv "$HOME_OF_TEST/part" "$HOME_OF_TEST/pid"; wait"#;
    let hasty = Settings {
        timeout: Duration::from_secs(2),
        ..settings(&folder, script)
    };
    is_unknown(of(hasty).list().await, "did not end within 2 s");
    ends(&folder.path().join("pid")).await;

    // Whoever asked is gone: a coordinator that shuts down.
    fs::remove_file(folder.path().join("pid")).unwrap();
    let fleet = fleet(&folder, script);
    let pid = folder.path().join("pid");
    let there = async {
        while !pid.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        outcome = fleet.list() => panic!("{outcome:?}"),
        () = there => {}
    }
    ends(&pid).await;
}

/// Waits until the process whose number stands in a file is no more, or is only waited for.
async fn ends(pid: &Path) {
    let number = fs::read_to_string(pid).unwrap();
    let stat = format!("/proc/{}/stat", number.trim());
    let ended = async {
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended)
        .await
        .unwrap();
}

#[tokio::test]
async fn one_change_is_asked_for_at_a_time() {
    let folder = folder();
    let script = r#"
        if mkdir "$HOME_OF_TEST/busy"; then sleep 0.1; rmdir "$HOME_OF_TEST/busy"; else exit 1; fi
        echo '{"refused": [{"cause": "capacity"}]}'"#;
    let fleet = fleet(&folder, script);
    let (first, ids) = (request(1), ["w-1".parse().unwrap()]);
    let (a, b, c) = tokio::join!(fleet.launch(&first), fleet.launch(&first), fleet.terminate(&ids));
    assert!(a.is_ok() && b.is_ok() && c.is_ok(), "{a:?} {b:?} {c:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is not exactly what was asked for is refused as a whole, and what is comes out as it went in.
    #[test]
    fn a_launch_is_believed_if_every_machine_of_it_is_as_asked_for(
        ids in proptest::collection::vec("[a-c-][a-c0-9.]{0,2}", 1..4),
        changed in proptest::option::of((0..4_usize, proptest::sample::select(vec!["cluster", "pool", "operation", "type", "zone"]))),
        count in 1..4_u32,
    ) {
        let mut machines: Vec<Value> = ids.iter().map(|id| machine(id)).collect();
        let mut sound = machines.len() <= count as usize;
        if let Some((index, key)) = changed && let Some(one) = machines.get_mut(index) {
            one[key] = "different".into();
            sound = false;
        }
        let mut unique = ids.clone();
        unique.sort();
        unique.dedup();
        sound &= unique.len() == ids.len();
        sound &= ids.iter().all(|id| {
            id.split('.').all(|part| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-'))
        });
        let text = json!({ "machines": machines }).to_string();
        let launched = answer::launched(text.as_bytes(), &request(count), "k3s", Timestamp::now());
        prop_assert_eq!(launched.is_ok(), sound, "{:?}", launched);
        if let Ok(launched) = launched {
            let names: Vec<&str> = launched.instances.iter().map(|one| one.id.as_str()).collect();
            prop_assert_eq!(names, ids);
        }
    }
}

mod example;

mod fuzz {
    use smartscale_fuzz::{Target, fuzz};

    use super::*;

    #[test]
    fn answers_of_the_fleets_program() {
        let list = json!({ "machines": [machine("w-1"), with("w-2", "state", "stopped")] }).to_string();
        let launch = json!({
            "machines": [machine("w-1")], "refused": [{"type": "large", "cause": "capacity", "message": "full"}],
        });
        let launch = launch.to_string();
        let target = Target {
            name: "coordinator/command",
            seeds: &[list.as_bytes(), launch.as_bytes()],
            words: &[
                "machines", "refused", "cause", "k3s", "op-1", "w-1", "small", "null", "\"", "[", "{", "-",
            ],
            kept: None,
        };
        fuzz(target, |input| {
            let now = Timestamp::UNIX_EPOCH;
            let listed = match answer::listed(input, "k3s", now) {
                Ok(instances) => {
                    let mut ids: Vec<_> = instances.iter().map(|one| one.id.clone()).collect();
                    ids.sort();
                    ids.dedup();
                    assert_eq!(ids.len(), instances.len());
                    format!("{}", instances.len())
                }
                Err(wrong) => wrong.to_string().chars().take(30).collect(),
            };
            let launched = match answer::launched(input, &request(1), "k3s", now) {
                Ok(launched) => {
                    assert!(launched.instances.len() <= 1);
                    format!("{} {}", launched.instances.len(), launched.refused.len())
                }
                Err(wrong) => wrong.to_string().chars().take(30).collect(),
            };
            format!("{listed} {launched}")
        });
    }
}
