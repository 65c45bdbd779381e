//! A site: the rig's servers with SmartScale's own programs as processes, set up as a person would.
//!
//! ```text
//!  smartscale (a process for each question) ──mTLS──▶ coordinator-a ┐
//!                                                     coordinator-b ┼──▶ Stack: Kubernetes, EC2, DynamoDB, …
//!                                                     agents        ┘
//! ```

mod books;
mod ends;
mod workers;

pub use ends::{End, Ends};

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::Value;

use crate::rig::process::{Process, Program};
use crate::rig::stack::TAG;
use crate::rig::{Folder, Stack, is_ready, programs, wait};

/// The longest that a test waits for one thing to happen on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// A lease of the coordinators.
pub const LEASE: Duration = Duration::from_secs(4);

/// Names of the two coordinators.
const NAMES: [&str; 2] = ["coordinator-a", "coordinator-b"];

/// Leases and deadlines short enough for a test, in proportion to those of production.
const QUICK: &str = r#"
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
    credentials: PathBuf,
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
        let credentials = stack.home.join("credentials.toml");
        Ok(Self {
            coordinators: [None, None],
            stack,
            credentials,
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
        for (name, value) in self.stack.environment() {
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

    /// Asks with the `smartscale` program, as the first admin, and gives its JSON answer.
    ///
    /// # Errors
    /// It ended with another code than 0; the message has what it said.
    pub async fn ask(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.say(arguments, &["-o", "json"]).await?;
        serde_json::from_str(&text).with_context(|| format!("read the answer of {arguments:?}: {text}"))
    }

    /// Gives an order with the `smartscale` program whose answer is a sentence.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn order(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.say(arguments, &[]).await
    }

    async fn say(&self, arguments: &[&str], more: &[&str]) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(programs::path("smartscale")?)
            .args(arguments)
            .args(more)
            .envs(self.of_a_person())
            .kill_on_drop(true)
            .output()
            .await
            .context("run smartscale")?;
        if !output.status.success() {
            bail!(
                "smartscale {arguments:?}: {} {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn of_a_person(&self) -> [(&'static str, OsString); 2] {
        let doors = self.stack.doors.map(|door| door.to_string()).join(",");
        [
            (
                "SMARTSCALE_CREDENTIALS",
                self.credentials.clone().into_os_string(),
            ),
            ("SMARTSCALE_ENDPOINT", doors.into()),
        ]
    }

    /// `smartscale watch`, as the first admin; what it says is in its log.
    ///
    /// # Errors
    /// It is not built, or cannot be started.
    pub fn watch(&self) -> anyhow::Result<Process> {
        let mut program = Program::new("watch", programs::path("smartscale")?).arg("watch");
        for (name, value) in self.of_a_person() {
            program = program.env(name, value);
        }
        Process::spawn(program, self.stack.folder())
    }

    /// The operations, newest first, as `smartscale operations` gives them.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn operations(&self) -> anyhow::Result<Vec<Value>> {
        let answer = self.ask(&["operations", "--limit", "1000"]).await?;
        Ok(answer["operations"].as_array().cloned().unwrap_or_default())
    }

    /// Waits for an operation that meets `wanted`, and gives it.
    ///
    /// # Errors
    /// None does within [`DEADLINE`]; the message has those that there are.
    pub async fn operation(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let found = wait::until(what, DEADLINE, || async {
            let operations = self.operations().await?;
            Ok(operations.into_iter().find(&wanted))
        });
        match found.await {
            Ok(found) => Ok(found),
            Err(error) => bail!("{error:#}; operations: {:#?}", self.operations().await),
        }
    }

    /// Waits for `count` decisions from now on, so that whatever would be decided has been.
    ///
    /// # Errors
    /// They are not taken in time.
    pub async fn decisions(&self, count: usize) -> anyhow::Result<()> {
        let time = async || anyhow::Ok(self.ask(&["status"]).await?["last_decision_at"].to_string());
        for _ in 0..count {
            let before = time().await?;
            wait::until_true("a further decision", DEADLINE, || async {
                Ok(time().await? != before)
            })
            .await?;
        }
        Ok(())
    }

    /// Nodes of the Kubernetes API.
    #[must_use]
    pub fn nodes(&self) -> Api<Node> {
        Api::all(self.stack.cluster.client())
    }

    /// Pods of namespace `default`.
    #[must_use]
    pub fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.stack.cluster.client())
    }

    /// Creates an object in namespace `default`.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn create<K>(&self, object: &K) -> anyhow::Result<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::default_namespaced(self.stack.cluster.client());
        api.create(&PostParams::default(), object)
            .await
            .context("create an object")
    }

    /// Waits for exactly so many Ready nodes without a startup taint, and gives their names.
    ///
    /// # Errors
    /// There are others after [`DEADLINE`].
    pub async fn ready_nodes(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let nodes = self.nodes();
        let what = format!("{count} Ready nodes");
        let ready = wait::until(&what, DEADLINE, || async {
            let all = nodes.list(&ListParams::default()).await?;
            let ready: Vec<String> = all
                .items
                .iter()
                .filter(|node| is_ready(node) && !is_unverified(node))
                .filter_map(|node| node.metadata.name.clone())
                .collect();
            if ready.len() == count && all.items.len() == count {
                return Ok(Some(ready));
            }
            bail!(
                "{} of {} nodes are Ready: {ready:?}",
                ready.len(),
                all.items.len()
            )
        });
        match ready.await {
            Ok(ready) => Ok(ready),
            Err(error) => bail!("{error:#}; status: {:#?}", self.ask(&["status"]).await),
        }
    }

    /// Waits until exactly `count` pods labelled `app=NAME` run, none of them terminating, and gives them.
    ///
    /// # Errors
    /// There are others after [`DEADLINE`].
    pub async fn running(&self, app: &str, count: usize) -> anyhow::Result<Vec<Pod>> {
        let pods = self.pods();
        let labelled = ListParams::default().labels(&format!("app={app}"));
        let what = format!("{count} running pods of {app}");
        wait::until(&what, DEADLINE, || async {
            let all = pods.list(&labelled).await?.items;
            let running = all
                .iter()
                .filter(|pod| phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none())
                .count();
            if running == count && all.len() == count {
                return Ok(Some(all));
            }
            bail!("{running} of {} run", all.len())
        })
        .await
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

fn is_unverified(node: &Node) -> bool {
    node.spec
        .as_ref()
        .and_then(|spec| spec.taints.as_ref())
        .is_some_and(|taints| taints.iter().any(|taint| taint.key == "smartscale.io/unverified"))
}
