#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
//! The report of an agent in an embedded world.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use smartscale_planner::model::Market;
use smartscale_proto::{
    check::Outcome,
    time::{SharedClock, SystemClock},
    v1,
};
use tempfile::TempDir;

use super::*;
use crate::{
    Config,
    embedded::{
        EmbeddedFiles, EmbeddedKubelet, EmbeddedMachine, EmbeddedNotices, EmbeddedSecrets, EmbeddedUnits,
        EmbeddedVitals, FixedToken, MemoryFolder,
    },
    enrol::Enrolled,
    health::{Reading, Vitals},
    k3s::server::{JoinServer, Seen},
    machine::Machine,
    secrets::join::JoinToken,
    units::Units as _,
};

/// A K3s server whose clock is so far behind ours.
struct Behind(i64);

#[async_trait]
impl JoinServer for Behind {
    async fn look(&self, _: &str, _: &JoinToken) -> Result<Seen, Failure> {
        Ok(Seen {
            skew: Some(SignedDuration::from_secs(self.0)),
        })
    }
}

/// A machine with a kernel that tells below this folder.
struct Kernel(EmbeddedVitals, PathBuf);

#[async_trait]
impl Vitals for Kernel {
    async fn read(&self) -> Reading {
        self.0.read().await
    }

    async fn kubelet_healthy(&self) -> Option<bool> {
        self.0.kubelet_healthy().await
    }

    async fn runtime_healthy(&self) -> Option<bool> {
        self.0.runtime_healthy().await
    }

    fn proc(&self) -> Option<&Path> {
        Some(&self.1)
    }
}

/// Doors, of which those that are named are shut.
struct Shut(&'static [&'static str]);

#[async_trait]
impl Doors for Shut {
    async fn knock(&self, endpoint: &str) -> Result<(), String> {
        if self.0.contains(&endpoint) {
            return Err(format!("{endpoint} cannot be reached: connection refused"));
        }
        Ok(())
    }
}

struct World {
    parts: Parts,
    secrets: Arc<EmbeddedSecrets>,
    machine: Arc<EmbeddedMachine>,
    units: Arc<EmbeddedUnits>,
    proc: TempDir,
}

fn machine() -> Machine {
    Machine {
        id: "i-1".parse().unwrap(),
        instance_type: "t3.small".into(),
        zone: "us-east-1a".into(),
        market: Market::Spot,
        private_ip: "10.0.1.17".parse().unwrap(),
        provider_id: None,
    }
}

/// A machine that has joined, on which all is well.
async fn world() -> World {
    let proc = tempfile::tempdir().unwrap();
    fs::create_dir(proc.path().join("pressure")).unwrap();
    fs::write(proc.path().join("pressure/cpu"), "some avg10=0.00 total=1\n").unwrap();
    fs::write(
        proc.path().join("mounts"),
        "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
    )
    .unwrap();
    let text = format!(
        "coordinators = [\"10.0.0.10:7443\", \"10.0.0.11:7443\"]\ntrust_domain = \"smartscale\"\ncluster = \"demo\"\n\
         ca_fingerprint = \"{}\"\n",
        "0f".repeat(32)
    );
    let clock: SharedClock = Arc::new(SystemClock);
    let secrets = Arc::new(EmbeddedSecrets::default());
    secrets.set("k3s/join-token", &format!("K10{}::node:hidden", "0f".repeat(32)));
    secrets.set("k3s/master-ip", "10.0.0.10");
    let units = Arc::new(EmbeddedUnits::default());
    units.start("k3s-agent.service").await.unwrap();
    let machine = Arc::new(EmbeddedMachine::new(machine()));
    let parts = Parts {
        config: Config::parse(&text).unwrap(),
        boot_id: "boot-1".into(),
        folder: Arc::new(MemoryFolder::default()),
        machine: Arc::<EmbeddedMachine>::clone(&machine),
        notices: Arc::new(EmbeddedNotices::default()),
        secrets: Arc::<EmbeddedSecrets>::clone(&secrets),
        attestor: Arc::new(FixedToken::new("s3cr3t")),
        units: Arc::<EmbeddedUnits>::clone(&units),
        files: Arc::new(EmbeddedFiles::default()),
        kubelet: Arc::new(EmbeddedKubelet::new(Arc::clone(&clock))),
        vitals: Arc::new(Kernel(EmbeddedVitals::default(), proc.path().to_owned())),
        server: Arc::new(Behind(0)),
        shutdowns: Arc::new(crate::shutdown::NoShutdowns),
        clock,
    };
    let world = World {
        parts,
        secrets,
        machine,
        units,
        proc,
    };
    world.enrolled("i-1", 12);
    world
}

impl World {
    /// The machine `id` was enrolled so that its certificate ends in so many hours.
    fn enrolled(&self, id: &str, hours: i64) {
        let now = Timestamp::now();
        let enrolled = Enrolled {
            machine: Machine {
                id: id.parse().unwrap(),
                ..machine()
            },
            boot_id: "boot-1".into(),
            node: id.into(),
            pool: "workers".into(),
            market: "spot".into(),
            issued_at: now,
            not_after: now + SignedDuration::from_hours(hours),
        };
        let record = serde_json::json!({ "enrolled": enrolled, "key": "", "chain": "", "anchors": "" });
        let text = record.to_string();
        self.parts
            .folder
            .write("enrolment.json", text.as_bytes())
            .unwrap();
    }

    /// Outcomes by area, of the lines that are not as they should be.
    async fn wrong(&self, doors: Shut) -> BTreeMap<String, Vec<Outcome>> {
        let report = report_by(&self.parts, &doors).await;
        let mut wrong = BTreeMap::<String, Vec<Outcome>>::new();
        for finding in report.findings {
            assert!(
                !finding.found.contains("hidden"),
                "a secret is shown: {finding:?}"
            );
            let is_bad = matches!(finding.outcome, Outcome::Failed | Outcome::Warning);
            assert_eq!(!finding.remedy.is_empty(), is_bad, "{finding:?}");
            if finding.outcome != Outcome::Passed {
                wrong.entry(finding.area).or_default().push(finding.outcome);
            }
        }
        wrong
    }
}

fn only(area: &str, outcomes: &[Outcome]) -> BTreeMap<String, Vec<Outcome>> {
    BTreeMap::from([(area.to_owned(), outcomes.to_vec())])
}

use Outcome::{Failed, Skipped, Warning};

#[tokio::test]
async fn a_machine_on_which_all_is_well_passes() {
    let world = world().await;
    let report = report_by(&world.parts, &Shut(&[])).await;
    assert_eq!(report.program, "agent i-1");
    assert_eq!(world.wrong(Shut(&[])).await, BTreeMap::new());
    assert!(!report.has_failed());
}

#[tokio::test]
async fn what_is_wrong_is_told_at_its_line_alone() {
    let world = world().await;
    let one = world.wrong(Shut(&["10.0.0.11:7443"])).await;
    assert_eq!(one, only("coordinator", &[Warning]), "another serves");
    let both = world.wrong(Shut(&["10.0.0.10:7443", "10.0.0.11:7443"])).await;
    assert_eq!(both, only("coordinator", &[Failed, Failed]));

    fs::remove_file(world.proc.path().join("pressure/cpu")).unwrap();
    assert_eq!(world.wrong(Shut(&[])).await, only("kernel", &[Warning]));
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_fails_and_what_needs_it_is_left_out() {
    let world = world().await;
    world.secrets.set("k3s/join-token", "hidden");
    let mut expected = only("secrets", &[Failed]);
    expected.insert("k3s".to_owned(), vec![Skipped]);
    assert_eq!(world.wrong(Shut(&[])).await, expected);
}

#[tokio::test]
async fn a_clock_that_is_off_is_told_by_how_much_it_hurts() {
    for (behind, outcome) in [(6, Warning), (-299, Warning), (300, Failed), (-3600, Failed)] {
        let mut world = world().await;
        world.parts.server = Arc::new(Behind(behind));
        assert_eq!(
            world.wrong(Shut(&[])).await,
            only("clock", &[outcome]),
            "{behind}"
        );
    }
}

#[tokio::test]
async fn a_certificate_that_has_ended_and_one_of_another_machine_are_told() {
    let world = world().await;
    world.enrolled("i-1", -1);
    assert_eq!(world.wrong(Shut(&[])).await, only("certificate", &[Failed]));
    world.enrolled("i-2", 12);
    assert_eq!(world.wrong(Shut(&[])).await, only("certificate", &[Warning]));
}

#[tokio::test]
async fn before_the_join_what_comes_after_is_left_out() {
    let world = world().await;
    world.parts.folder.remove("enrolment.json").unwrap();
    world.units.stop("k3s-agent.service").await.unwrap();
    let mut expected = only("certificate", &[Skipped]);
    expected.insert("node".to_owned(), vec![Skipped]);
    assert_eq!(world.wrong(Shut(&[])).await, expected);

    world.machine.set(None);
    expected.insert("machine".to_owned(), vec![Failed]);
    expected.insert("secrets".to_owned(), vec![Skipped]);
    assert_eq!(world.wrong(Shut(&[])).await, expected);
}

/// A K3s server that never answers.
struct Silent;

#[async_trait]
impl JoinServer for Silent {
    async fn look(&self, _: &str, _: &JoinToken) -> Result<Seen, Failure> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_does_not_end_is_answered_and_the_next_one_is_carried_out() {
    let mut world = world().await;
    world.parts.config.coordinators.clear();
    world.parts.server = Arc::new(Silent);
    let answers = tokio::sync::watch::Sender::new(None::<v1::CheckAnswer>);
    let (checker, checking) = asked::checking(world.parts.clone(), answers.clone());
    let running = tokio::spawn(checking.run());
    for id in ["c-1", "c-2"] {
        checker.check(v1::CheckCommand { id: id.to_owned() });
        let mut seen = answers.subscribe();
        let answer = seen
            .wait_for(|answer| answer.as_ref().is_some_and(|answer| answer.id == id))
            .await
            .unwrap()
            .clone();
        let report = Report::from(answer.unwrap().report.unwrap());
        assert_eq!(report.findings.len(), 1);
        assert_eq!(report.findings[0].found, "it was not over after 45 s");
    }
    drop(checker);
    running.await.unwrap();
}
