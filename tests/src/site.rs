//! A site: the rig's servers with SmartScale's own programs as processes, set up as a person would.
//!
//! ```text
//!  smartscale (a process for each question) ──mTLS──▶ coordinator-a ┐
//!                                                     coordinator-b ┼──▶ Stack: Kubernetes, EC2, DynamoDB, …
//!                                                     agents        ┘
//! ```

mod books;
mod desk;
mod ends;
mod workers;

pub use desk::Desk;
pub use ends::{End, Ends};

use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Pod;

use crate::rig::process::{Process, Program};
use crate::rig::stack::TAG;
use crate::rig::{Folder, Stack, programs, wait};

/// The longest that a test waits for one thing to happen on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// A lease of the coordinators.
pub const LEASE: Duration = Duration::from_secs(4);

/// Names of the two coordinators.
const NAMES: [&str; 2] = ["coordinator-a", "coordinator-b"];

/// Leases and deadlines short enough for a test, in proportion to those of production.
pub const QUICK: &str = r#"
[lease]
length = "4s"
renewal = "1s"
margin = "1s"

[timing]
agent_silent = "6s"
batch_idle = "200ms"
batch_most = "2s"
"#;

/// A policy with quick rules for pool `workers`: `limits`, `scale_up`, `scale_down` and `drain` are given as TOML
/// tables, which replace none of the required ones.
#[must_use]
pub fn policy(tables: &str) -> String {
    format!(
        r#"
[cluster]
id = "rig"
{tables}
[[pool]]
name = "workers"
instance_types = ["t3.small"]
zones = ["us-east-1a", "us-east-1b"]
startup_taints = ["smartscale.io/unverified"]
"#
    )
}

/// The servers, and the programs that run among them.
pub struct Site {
    coordinators: [Option<Process>; 2],
    /// The servers.
    pub stack: Stack,
    desk: Desk,
}

/// Whoever asks a site asks at its desk.
impl Deref for Site {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        &self.desk
    }
}

impl Site {
    /// Starts the servers and makes what `smartscale-coordinator init` makes; no coordinator runs yet.
    ///
    /// # Errors
    /// A server does not come up, or `init` fails.
    pub async fn new(name: &str, policy: &str) -> anyhow::Result<Self> {
        let folder = Folder::new(name)?;
        Self::of(Stack::start(&folder).await?, policy).await
    }

    async fn of(stack: Stack, policy: &str) -> anyhow::Result<Self> {
        let folder = stack.folder();
        let door = stack.doors[0].to_string();
        let init = Program::new("init", programs::path("smartscale-coordinator")?)
            .arg("init")
            .flag("folder", &stack.home)
            .flag("cluster", &stack.id)
            .flag("listen", &door)
            .flag("advertise", &door);
        let mut init = Process::spawn(init, folder)?;
        let status = init.ended(DEADLINE).await?;
        if !status.success() {
            bail!("init: {status}\n{}", init.tail(10));
        }
        folder.write("coordinator/policy.toml", policy)?;
        for (index, name) in NAMES.iter().enumerate() {
            let config = stack.coordinator_config(index) + QUICK;
            folder.write(&format!("coordinator/{name}.toml"), config)?;
        }
        let desk = Desk {
            credentials: stack.home.join("credentials.toml"),
            endpoint: stack.doors.map(|door| door.to_string()).join(","),
            cluster: stack.cluster.client(),
            folder: stack.folder().clone(),
        };
        Ok(Self {
            coordinators: [None, None],
            stack,
            desk,
        })
    }

    /// A site of another cluster in the same account and the same table; no coordinator runs yet.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub async fn beside(&self, name: &str, cluster: &str, policy: &str) -> anyhow::Result<Self> {
        let folder = Folder::new(name)?;
        let stack = self.stack.beside(&folder, cluster).await?;
        Self::of(stack, policy).await
    }

    /// [`new`](Self::new) with the first coordinator running and leading.
    ///
    /// # Errors
    /// As [`new`](Self::new), or the coordinator does not come to lead.
    pub async fn start(name: &str, policy: &str) -> anyhow::Result<Self> {
        let mut site = Self::new(name, policy).await?;
        site.start_coordinator(0)?;
        site.leader().await?;
        Ok(site)
    }

    /// Changes a coordinator's configuration before its start.
    ///
    /// # Errors
    /// The configuration does not have `from`, or cannot be written.
    pub fn configure(&self, index: usize, from: &str, to: &str) -> anyhow::Result<()> {
        let path = self.stack.home.join(format!("{}.toml", NAMES[index]));
        let text = std::fs::read_to_string(&path).context("read the configuration")?;
        if !text.contains(from) {
            bail!("{} does not have {from:?}", path.display());
        }
        std::fs::write(&path, text.replace(from, to)).context("write the configuration")
    }

    /// Starts a coordinator (0 or 1), for the first time or again.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn start_coordinator(&mut self, index: usize) -> anyhow::Result<()> {
        if let Some(process) = &mut self.coordinators[index] {
            return process.start();
        }
        let program = self.coordinator_program(index)?;
        self.run_coordinator(index, program)
    }

    /// What [`start_coordinator`](Self::start_coordinator) runs.
    ///
    /// # Errors
    /// The program is not built.
    pub fn coordinator_program(&self, index: usize) -> anyhow::Result<Program> {
        let name = NAMES[index];
        let mut program = Program::new(name, programs::path("smartscale-coordinator")?)
            .flag("config", self.stack.home.join(format!("{name}.toml")))
            .env("SMARTSCALE_LOG", "info,smartscale_coordinator=debug");
        for (name, value) in self.stack.coordinator_environment() {
            program = program.env(&name, value);
        }
        Ok(program)
    }

    /// Starts a coordinator for the first time, as `program`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run_coordinator(&mut self, index: usize, program: Program) -> anyhow::Result<()> {
        self.coordinators[index] = Some(Process::spawn(program, self.stack.folder())?);
        Ok(())
    }

    /// A coordinator's process.
    ///
    /// # Errors
    /// It was never started.
    pub fn coordinator(&mut self, index: usize) -> anyhow::Result<&mut Process> {
        self.coordinators[index]
            .as_mut()
            .with_context(|| format!("{} was never started", NAMES[index]))
    }

    /// Kills the leader (`SIGKILL`), waits until the other coordinator leads, and gives its index. How long that takes is a
    /// figure (`make bench`) and for the simulation to judge: here other tests share the processors.
    ///
    /// # Errors
    /// The other does not lead within [`DEADLINE`].
    pub async fn fail_over(&mut self, leader: usize) -> anyhow::Result<usize> {
        let other = 1 - leader;
        self.coordinator(leader)?.kill();
        wait::until_true("the standby to take over", DEADLINE, || async {
            let status = self.ask(&["status"]).await?;
            Ok(status["leading"] == true && status["coordinator"] == NAMES[other])
        })
        .await?;
        Ok(other)
    }

    /// Waits until a coordinator leads, and gives its index.
    ///
    /// # Errors
    /// None leads in time, or one has ended.
    pub async fn leader(&mut self) -> anyhow::Result<usize> {
        for process in self.coordinators.iter_mut().flatten() {
            // One that a test killed has no process any more.
            if let Some(status) = process.exited()? {
                bail!("{} ended: {status}\n{}", process.name(), process.tail(20));
            }
        }
        let leading = wait::until("a leader", DEADLINE, || async {
            let status = self.ask(&["status"]).await?;
            // Orders are taken from the first decision on.
            let leading = status["leading"] == true && status["last_decision_at"].is_string();
            Ok(leading.then(|| status["leader"].as_str().unwrap_or_default().to_owned()))
        })
        .await;
        let leader = match leading {
            Ok(leader) => leader,
            Err(error) => {
                let logs: Vec<_> = self
                    .coordinators
                    .iter()
                    .flatten()
                    .map(|process| process.tail(20))
                    .collect();
                bail!("{error:#}\n{}", logs.join("\n"));
            }
        };
        NAMES
            .iter()
            .position(|name| *name == leader)
            .with_context(|| format!("an unknown leader: {leader}"))
    }

    /// Instances of EC2 with this cluster's tag that are not terminated or being terminated, by id.
    ///
    /// # Errors
    /// EC2 does not answer.
    pub async fn instances(&self) -> anyhow::Result<Vec<String>> {
        use aws_sdk_ec2::types::{Filter, InstanceStateName, Reservation};
        let ours = Filter::builder()
            .name(format!("tag:{TAG}"))
            .values(&self.stack.id)
            .build();
        let ec2 = self.stack.ec2.client().await;
        let described = ec2.describe_instances().filters(ours).send().await?;
        Ok(described
            .reservations()
            .iter()
            .flat_map(Reservation::instances)
            .filter(|instance| {
                let state = instance.state().and_then(|state| state.name());
                matches!(
                    state,
                    Some(InstanceStateName::Pending | InstanceStateName::Running)
                )
            })
            .filter_map(|instance| instance.instance_id().map(str::to_owned))
            .collect())
    }

    /// Calls of `CreateFleet` that launched something, each token once.
    ///
    /// # Errors
    /// The wrapper does not answer.
    pub async fn launched(&self) -> anyhow::Result<Vec<String>> {
        let calls = self.stack.ec2.calls().await?;
        let mut ids: Vec<String> = calls
            .into_iter()
            .filter(|call| call.action == "CreateFleet")
            .flat_map(|call| call.instances)
            .collect();
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// Whether a line of a coordinator's log has all of `words`.
    ///
    /// # Errors
    /// That coordinator was never started.
    pub fn logged(&self, index: usize, words: &[&str]) -> anyhow::Result<bool> {
        let process = self.coordinators[index].as_ref().context("never started")?;
        let text = std::fs::read_to_string(process.log()).context("read the log")?;
        Ok(text
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word))))
    }
}

/// The phase of a pod's status.
#[must_use]
pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// The node that a pod is bound to.
#[must_use]
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}
