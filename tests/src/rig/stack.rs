//! Everything at once: what a coordinator on AWS has around it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::ec2::World;
use super::machines::{self, BootWatcher, Settings};
use super::ministack::Topic;
use super::{DynamoDb, Ec2, Folder, Kubernetes, Ministack, Prometheus, aws, port};

/// The role that the instances' profile gives them.
const ROLE: &str = "worker";
/// The one table of the state store.
const TABLE: &str = "smartscale";
/// The cluster's name and the trust domain.
const CLUSTER: &str = "rig";
const TRUST: &str = "smartscale";

/// All servers, a launch template, a topic, the secrets of the join, and machines that boot.
pub struct Stack {
    /// Ends first: machines before the servers that they talk to.
    pub machines: BootWatcher,
    /// The control plane.
    pub cluster: Kubernetes,
    /// The state store.
    pub dynamodb: DynamoDb,
    /// The cloud.
    pub ec2: Ec2,
    /// Subnets and launch template.
    pub world: World,
    /// Secrets, notifications, metrics.
    pub account: Ministack,
    /// Where notifications go.
    pub topic: Topic,
    /// Utilisation.
    pub prometheus: Prometheus,
    /// Where the coordinators will listen, two addresses that were free at the start.
    pub doors: [SocketAddr; 2],
    /// The coordinators' folder (`ca.crt` must come to lie there before an agent can enrol).
    pub home: PathBuf,
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
        let home = folder.sub("coordinator")?;
        let secrets = folder.sub("coordinator/secrets")?;
        let doors = [port::free()?, port::free()?];
        // On two cores the control plane alone is as fast as all at once.
        let cluster = Kubernetes::start(folder).await?;
        let kubeconfig = cluster.coordinator_kubeconfig().await?;
        let (dynamodb, ec2, account, prometheus) = tokio::try_join!(
            DynamoDb::start(folder),
            Ec2::start(folder),
            Ministack::start(folder),
            Prometheus::start(folder)
        )?;
        dynamodb.create_table(TABLE).await?;
        let join_token = machines::join_token();
        account.create_secret("k3s/join-token", &join_token).await?;
        account.create_secret("k3s/master-ip", &cluster.url()).await?;
        let policy = serde_json::json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Action": "secretsmanager:GetSecretValue",
            "Resource": format!("arn:aws:secretsmanager:{}:{}:secret:k3s/*", aws::REGION, aws::ACCOUNT),
        }]});
        account.create_instance_role(ROLE, &policy).await?;
        let topic = account.create_topic(TABLE).await?;
        let agent = format!(
            "coordinators = [\"{}\", \"{}\"]\ntrust_domain = \"{TRUST}\"\ncluster = \"{CLUSTER}\"\nca_file = \"{}\"\n",
            doors[0],
            doors[1],
            home.join("ca.crt").display()
        );
        let world = ec2.create_world("workers", ROLE, &agent).await?;
        let settings = Settings {
            role: Some(ROLE.to_owned()),
            secrets: Some(secrets),
            ..Settings::new(&join_token)?
        };
        let machines = BootWatcher::start(folder, cluster.access(), &ec2, &account, settings).await?;
        let folder = folder.clone();
        Ok(Self {
            machines,
            cluster,
            dynamodb,
            ec2,
            world,
            account,
            topic,
            prometheus,
            doors,
            home,
            kubeconfig,
            folder,
        })
    }

    /// The test's folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What `kubectl`, an AWS SDK and a coordinator need in their environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = aws::Key::root().environment();
        let more = [
            (
                "KUBECONFIG",
                self.cluster.admin_kubeconfig().display().to_string(),
            ),
            ("AWS_ENDPOINT_URL", self.account.url()),
            ("AWS_ENDPOINT_URL_EC2", self.ec2.url()),
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
            template = self.world.launch_template,
        );
        for (zone, subnet) in &self.world.subnets {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{zone} = \"{subnet}\"");
        }
        text
    }
}
