//! Everything at once: what a coordinator on AWS has around it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use super::ec2::World;
use super::kubernetes::Timings;
use super::machines::{self, BootWatcher, Settings};
use super::ministack::Topic;
use super::port::Reserved;
use super::worker::Workers;
use super::worker::road::{self, Road};
use super::{DynamoDb, Ec2, Folder, Kubernetes, Ministack, Prometheus, Sts, Supervisor, aws};

/// The role that the instances' profile gives them.
const ROLE: &str = "worker";
/// The one table of the state store.
pub const TABLE: &str = "smartscale";
/// The name of the account's first cluster.
const CLUSTER: &str = "rig";
/// The tag that bears the cluster's name.
pub const TAG: &str = "smartscale.io/cluster";
/// The trust domain.
const TRUST: &str = "smartscale";

/// What an instance that EC2 launches is in the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    /// The agent's process and a stand-in for the kubelet: [`BootWatcher`].
    StandIns,
    /// A worker machine: [`Workers`].
    Workers,
}

/// All servers, a launch template, a topic, the secrets of the join, and machines that boot.
pub struct Stack {
    /// Ends first: machines before the servers that they talk to. Watches nothing where there are worker machines.
    pub machines: BootWatcher,
    /// The worker machines, where instances are such.
    pub workers: Option<Workers>,
    /// The control plane.
    pub cluster: Kubernetes,
    /// What it says of itself to those who join.
    pub supervisor: Supervisor,
    /// The state store.
    pub dynamodb: Arc<DynamoDb>,
    /// The cloud.
    pub ec2: Arc<Ec2>,
    /// Subnets and launch template.
    pub world: World,
    /// Secrets, notifications, metrics.
    pub account: Arc<Ministack>,
    /// Whose signature a request bears.
    pub sts: Arc<Sts>,
    /// Where notifications go.
    pub topic: Topic,
    /// Utilisation.
    pub prometheus: Prometheus,
    /// Where the coordinators will listen.
    pub doors: [SocketAddr; 2],
    /// What keeps their ports for them.
    _kept: [Reserved; 2],
    /// The coordinators' folder (`ca.crt` must come to lie there before an agent can enrol).
    pub home: PathBuf,
    /// The cluster's name.
    pub id: String,
    /// The agents' configuration.
    agent: String,
    /// A session of the coordinators' role.
    key: aws::Key,
    /// The coordinators' way into the cluster.
    kubeconfig: PathBuf,
    folder: Folder,
}

impl Stack {
    /// Starts all of it, in parallel where it can.
    ///
    /// # Errors
    /// Something is not installed or not built, or does not come up.
    pub async fn start(folder: &Folder) -> anyhow::Result<Self> {
        Self::start_with(folder, Hardware::StandIns, &Timings::default()).await
    }

    /// Starts all of it with the given machines and timings of the control plane.
    ///
    /// # Errors
    /// As [`start`](Self::start); worker machines need root and a sandbox that allows namespaces.
    pub async fn start_with(folder: &Folder, hardware: Hardware, timings: &Timings) -> anyhow::Result<Self> {
        // On two cores the control plane alone is as fast as all at once.
        let cluster = Kubernetes::start_with(folder, timings).await?;
        let (dynamodb, ec2, account, prometheus) = tokio::try_join!(
            DynamoDb::start(folder),
            Ec2::start(folder),
            Ministack::start(folder),
            Prometheus::start(folder)
        )?;
        dynamodb.create_table(TABLE).await?;
        account.create_instance_role(ROLE, &aws::worker_policy()?).await?;
        let sts = Arc::new(Sts::start().await?);
        let account = (Arc::new(dynamodb), Arc::new(ec2), Arc::new(account), sts);
        Self::settle(folder, CLUSTER, account, (cluster, hardware), prometheus).await
    }

    /// Another cluster, with a control plane and machines of its own, in the same account and the same table.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn beside(&self, folder: &Folder, id: &str) -> anyhow::Result<Self> {
        let cluster = Kubernetes::start(folder).await?;
        let prometheus = Prometheus::start(folder).await?;
        let account = (
            Arc::clone(&self.dynamodb),
            Arc::clone(&self.ec2),
            Arc::clone(&self.account),
            Arc::clone(&self.sts),
        );
        Self::settle(folder, id, account, (cluster, Hardware::StandIns), prometheus).await
    }

    /// Makes what a cluster has of its own in an account.
    async fn settle(
        folder: &Folder,
        id: &str,
        (dynamodb, ec2, account, sts): (Arc<DynamoDb>, Arc<Ec2>, Arc<Ministack>, Arc<Sts>),
        (cluster, hardware): (Kubernetes, Hardware),
        prometheus: Prometheus,
    ) -> anyhow::Result<Self> {
        let home = folder.sub("coordinator")?;
        let secrets = folder.sub("coordinator/secrets")?;
        let kept = [Reserved::new()?, Reserved::new()?];
        let doors = kept.each_ref().map(Reserved::address);
        let kubeconfig = cluster.coordinator_kubeconfig().await?;
        let supervisor = Supervisor::start(cluster.authority()).await?;
        let road = match hardware {
            Hardware::StandIns => None,
            Hardware::Workers => Some(Road::build(folder, &cluster, &account, doors).await?),
        };
        let (join_token, server) = match &road {
            None => (supervisor.join_token(), supervisor.url()),
            Some(road) => (road.server.token().to_owned(), road.server.address()),
        };
        let (token_secret, server_secret) = (format!("k3s/{id}/join-token"), format!("k3s/{id}/master-ip"));
        account.create_secret(&token_secret, &join_token).await?;
        account.create_secret(&server_secret, &server).await?;
        let topic = account.create_topic(&format!("{TABLE}-{id}")).await?;
        let coordinator = format!("coordinator-{id}");
        account
            .create_instance_role(&coordinator, &aws::coordinator_policy(&topic.arn)?)
            .await?;
        let key = account.instance_key(&coordinator, "i-coordinator").await?;
        account.create_log_group(&log_group(id)).await?;
        let agent = match &road {
            None => agent_config(id, &doors, &home.join("ca.crt")),
            Some(road) => {
                let config = agent_config(id, &road.doors, Path::new("/etc/smartscale/ca.crt"));
                format!("{config}endpoint = \"http://{}\"\n", road.secrets)
            }
        };
        let world = ec2.create_world(&format!("workers-{id}"), ROLE, &agent).await?;
        let settings = Settings {
            role: Some(ROLE.to_owned()),
            secrets: Some(secrets),
            sts: Some(sts.keys().clone()),
            tag: Some((TAG.to_owned(), id.to_owned())),
            ..Settings::new(&join_token)?
        };
        let (machines, workers) = match road {
            None => {
                let watcher = BootWatcher::start(folder, cluster.access(), &ec2, &account, settings).await?;
                (watcher, None)
            }
            Some(road) => {
                let seen = machines::World::new(folder, cluster.access(), &ec2, &account, settings).await;
                let workers = Workers::start(folder, seen, road.network, road.server).await?;
                (BootWatcher::none(), Some(workers))
            }
        };
        Ok(Self {
            machines,
            workers,
            cluster,
            supervisor,
            dynamodb,
            ec2,
            world,
            account,
            sts,
            topic,
            prometheus,
            doors,
            _kept: kept,
            agent,
            key,
            home,
            id: id.to_owned(),
            kubeconfig,
            folder: folder.clone(),
        })
    }

    /// The test's folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Makes the launch template say what a worker machine needs to know, once the coordinators have a CA.
    ///
    /// # Errors
    /// There is no CA yet, or EC2 refused.
    pub async fn give_user_data(&self) -> anyhow::Result<()> {
        let path = self.home.join("ca.crt");
        let ca = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let text = road::user_data(&ca, &self.agent);
        self.ec2.set_user_data(&self.world, ROLE, &text).await
    }

    /// What `kubectl` and an AWS SDK need in a person's environment, who may do everything.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment_of(&aws::Key::root())
    }

    /// What a coordinator has in its environment: a session of a role that may do what `packaging/iam` allows.
    #[must_use]
    pub fn coordinator_environment(&self) -> Vec<(String, String)> {
        self.environment_of(&self.key)
    }

    fn environment_of(&self, key: &aws::Key) -> Vec<(String, String)> {
        let mut environment = key.environment();
        let more = [
            (
                "KUBECONFIG",
                self.cluster.admin_kubeconfig().display().to_string(),
            ),
            ("AWS_ENDPOINT_URL", self.account.url()),
            ("AWS_ENDPOINT_URL_STS", self.sts.url()),
            ("AWS_ENDPOINT_URL_EC2", self.ec2.url()),
            ("AWS_ENDPOINT_URL_PRICING", self.ec2.url()),
            ("AWS_ENDPOINT_URL_DYNAMODB", self.dynamodb.url()),
        ];
        environment.extend(more.map(|(name, value)| (name.to_owned(), value)));
        environment
    }

    /// The configuration of the first or second coordinator (`index` 0 or 1), for a file in [`Stack::home`]: all AWS
    /// parts, DynamoDB, Prometheus with exact gauges, `mode = "act"`, the policy in `policy.toml` beside it.
    #[must_use]
    pub fn coordinator_config(&self, index: usize) -> String {
        let names = ["coordinator-a", "coordinator-b"];
        let index = index.min(1);
        let (door, other) = (self.doors[index], self.doors[1 - index]);
        let mut text = format!(
            r#"name = "{name}"
mode = "act"
policy = "policy.toml"
period = "1s"

[serve]
listen = "{door}"
advertise = "{door}"
[serve.peers]
{peer} = "{other}"

[http]
listen = ""

[trust]
domain = "{TRUST}"
ca_certificate = "ca.crt"
ca_key = "ca.key"

[store]
kind = "dynamodb"
table = "{TABLE}"

[kubernetes]
kubeconfig = "{kubeconfig}"

[prometheus]
url = "{prometheus}"
period = "1s"
[prometheus.queries]
cpu = "100 * avg(smartscale_rig_cpu_ratio)"
memory = "100 * avg(smartscale_rig_memory_ratio)"
node_cpu = "100 * avg by (node) (smartscale_rig_cpu_ratio)"
node_memory = "100 * avg by (node) (smartscale_rig_memory_ratio)"
node_label = "node"

[aws]
region = "{region}"

[enrolment]
attestor = "token"
secret_dir = "{secrets}"

[notify]
sns_topic = "{topic}"

[cloudwatch]
enabled = true
period = "1s"
log_group = "{log_group}"

[fleet]
kind = "ec2"
period = "1s"
[fleet.pool.workers]
launch_template = "{template}"
version = "$Latest"
[fleet.pool.workers.subnets]
"#,
            name = names[index],
            peer = names[1 - index],
            kubeconfig = self.kubeconfig.display(),
            prometheus = self.prometheus.url(),
            region = aws::REGION,
            secrets = self.home.join("secrets").display(),
            topic = self.topic.arn,
            log_group = log_group(&self.id),
            template = self.world.launch_template,
        );
        for (zone, subnet) in &self.world.subnets {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{zone} = \"{subnet}\"");
        }
        text
    }
}

/// The log group of a cluster's decisions.
#[must_use]
pub fn log_group(cluster: &str) -> String {
    format!("/smartscale/{cluster}/decisions")
}

/// What an agent of the cluster is told; its last table is `secrets`.
fn agent_config(id: &str, doors: &[impl std::fmt::Display], ca_file: &Path) -> String {
    let doors: Vec<_> = doors.iter().map(|door| format!("\"{door}\"")).collect();
    format!(
        "coordinators = [{}]\ntrust_domain = \"{TRUST}\"\ncluster = \"{id}\"\nca_file = \"{}\"\n\
         [secrets]\njoin_token = \"k3s/{id}/join-token\"\nserver = \"k3s/{id}/master-ip\"\n",
        doors.join(", "),
        ca_file.display(),
    )
}
