//! What a coordinator takes with many agents: the real program on SQLite beside a real API server, KWOK's nodes with ten pods on
//! each, a machine in EC2's stand-in and a launch record for each node. The agents' sessions are held by this process, over real
//! TLS, so that the coordinator's memory alone is measured.

use std::{
    net::TcpListener,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aws_sdk_ec2::types::{InstanceType, ResourceType, Tag, TagSpecification};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, api::PostParams};
use smartscale_coordinator::{
    aws::fleet::tag,
    serve::{
        authority::{Names, vault::NoVault},
        init,
    },
    state::{
        Condition, StateStore as _, Write,
        records::{NodeRecord, Record as _},
        sqlite::SqliteStore,
    },
};
use smartscale_planner::model::{Market, keys};
use smartscale_proto::time::SystemClock;
use smartscale_tests::rig::ec2::World;
use smartscale_tests::rig::kubernetes::{NodeBuilder, deployment, node, pod};
use smartscale_tests::rig::process::{Process, Program};
use smartscale_tests::rig::{Ec2, Folder, Kubernetes, Kwok, aws, programs, wait};
use smartscale_tests::site::policy;

use crate::{Row, process::Usage, sessions::Sessions};

/// For each thing that has to happen before.
const DEADLINE: Duration = Duration::from_secs(300);
const ZONE: &str = "us-east-1a";

pub(crate) async fn take(agents: u32, window: Duration) -> anyhow::Result<Vec<Row>> {
    let folder = Folder::new("figures-coordinator")?;
    let cluster = Kubernetes::start(&folder).await?;
    let (ec2, kwok) = tokio::try_join!(Ec2::start(&folder), Kwok::start(&folder, &cluster))?;
    let world = ec2.create_world("workers", "worker", "").await?;
    let machines = launch(&ec2, &world, agents).await?;
    kwok.create_nodes(machines.iter().map(|id| worker(id))).await?;
    let pods = 10 * i32::try_from(agents)?;
    run(&cluster, pods).await?;

    let home = folder.sub("coordinator")?;
    let names = || -> anyhow::Result<Names> {
        Ok(Names {
            trust: "smartscale".parse()?,
            cluster: "rig".parse()?,
        })
    };
    let door = free_door()?;
    let (person, unsealed) = ("bench".parse()?, (&NoVault as _, None));
    init::init(&home, names()?, vec![door.clone()], person, unsealed).await?;
    record(&home, &machines).await?;
    let limits = format!("[limits]\nmin_nodes = {agents}\nmax_nodes = {agents}\n");
    folder.write("coordinator/policy.toml", policy(&limits))?;
    let config = folder.write("coordinator/coordinator.toml", config(&door, &cluster, &world))?;
    let mut program =
        Program::new("coordinator", programs::path("smartscale-coordinator")?).flag("config", config);
    for (name, value) in aws::Key::root().environment() {
        program = program.env(&name, value);
    }
    let coordinator = Process::spawn(program.env("AWS_ENDPOINT_URL_EC2", ec2.url()), &folder)?;
    let id = coordinator.id().context("the coordinator does not run")?;

    let mut sessions = Sessions::begin(&home, names()?, &door, &machines).await?;
    sessions.welcomed(DEADLINE).await?;
    let (begun, before) = (Instant::now(), Usage::of(id)?);
    sessions.hold(window).await?;
    let (after, window) = (Usage::of(id)?, begun.elapsed());
    let how = format!(
        "the program on SQLite with {agents} sessions over TLS for {} s, each reporting every second; {agents} nodes, {pods} pods",
        window.as_secs()
    );
    Ok(vec![
        Row::new(
            format!("coordinator: resident memory, {agents} agents"),
            after.memory(),
            how,
        ),
        Row::new(
            format!("coordinator: CPU per hour, {agents} agents"),
            after.cpu_per_hour(&before, window),
            "utime + stime of these seconds, extrapolated",
        ),
    ])
}

/// Machines with the tags of ours.
async fn launch(ec2: &Ec2, world: &World, count: u32) -> anyhow::Result<Vec<String>> {
    let tagged = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let tags = TagSpecification::builder()
        .resource_type(ResourceType::Instance)
        .tags(tagged(tag::CLUSTER, "rig"))
        .tags(tagged(tag::POOL, "workers"))
        .tags(tagged(tag::OPERATION, "op-before"));
    let subnet = world
        .subnets
        .iter()
        .find(|(zone, _)| zone == ZONE)
        .context("no subnet")?;
    let count = i32::try_from(count)?;
    let launched = ec2
        .client()
        .await
        .run_instances()
        .image_id(&world.image)
        .instance_type(InstanceType::T3Small)
        .subnet_id(&subnet.1)
        .min_count(count)
        .max_count(count)
        .tag_specifications(tags.build())
        .send()
        .await
        .context("launch machines")?;
    let ids = launched
        .instances()
        .iter()
        .filter_map(|instance| instance.instance_id());
    Ok(ids.map(str::to_owned).collect())
}

fn worker(id: &str) -> NodeBuilder {
    node(id)
        .allocatable("2", "1850Mi")
        .provider_id(&format!("aws:///{ZONE}/{id}"))
        .label(keys::POOL, "workers")
        .label(keys::MARKET, "on-demand")
        .label(keys::INSTANCE_TYPE, "t3.small")
        .label(keys::ZONE, ZONE)
        .label(keys::REGION, aws::REGION)
}

/// Lets so many pods run.
async fn run(cluster: &Kubernetes, pods: i32) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::default_namespaced(cluster.client());
    let web = deployment("web", pods, pod("web").requests("50m", "64Mi"));
    api.create(&PostParams::default(), &web)
        .await
        .context("create the pods")?;
    wait::until_true("the pods to run", DEADLINE, || async {
        let status = api.get("web").await?.status.unwrap_or_default();
        let ready = status.ready_replicas.unwrap_or_default();
        anyhow::ensure!(ready == pods, "{ready} of {pods} run");
        Ok(true)
    })
    .await
}

/// Writes the launch records of machines that have enrolled, as the coordinator that launched them would have.
async fn record(home: &Path, machines: &[String]) -> anyhow::Result<()> {
    let store = SqliteStore::open(&home.join("state.db"), "rig".into(), Arc::new(SystemClock))?;
    let now = Timestamp::now();
    for machine in machines {
        let record = NodeRecord {
            instance: machine.parse()?,
            pool: "workers".into(),
            instance_type: "t3.small".into(),
            zone: ZONE.into(),
            market: Market::OnDemand,
            operation: "op-before".parse()?,
            launched_at: now,
            secret_hash: None,
            secret_expires_at: None,
            enrolled_key: Some("00".repeat(32)),
            enrolled_at: Some(now),
            ready_at: Some(now),
            binding_secret: None,
            certified: None,
            revoked_at: None,
            boot: Vec::new(),
        };
        let write = Write::Put {
            key: record.key(),
            body: record.body()?,
            expires_at: None,
            condition: Condition::Absent,
        };
        store.append(&write).await?;
    }
    Ok(())
}

fn config(door: &str, cluster: &Kubernetes, world: &World) -> String {
    let subnets: String = world
        .subnets
        .iter()
        .map(|(zone, subnet)| format!("{zone} = \"{subnet}\"\n"))
        .collect();
    format!(
        r#"name = "coordinator-a"
mode = "act"
policy = "policy.toml"

[serve]
listen = "{door}"
advertise = "{door}"
[http]
listen = ""
[trust]
domain = "smartscale"
ca_certificate = "ca.crt"
ca_key = "ca.key"
[store]
kind = "sqlite"
path = "state.db"
[kubernetes]
kubeconfig = "{kubeconfig}"
[aws]
region = "{region}"
[enrolment]
secret_dir = "secrets"
[fleet.pool.workers]
launch_template = "{template}"
[fleet.pool.workers.subnets]
{subnets}"#,
        kubeconfig = cluster.admin_kubeconfig().display(),
        region = aws::REGION,
        template = world.launch_template,
    )
}

/// An address on loopback that was free a moment ago.
fn free_door() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?.to_string())
}
