//! A cluster without AWS: the packaged program adds and removes machines of a rack, whose agents enrol by the secret of
//! their launch; the state lies in SQLite. As in the quick start on any Linux machines.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::machines::{IdleMachines, Settings};
use smartscale_tests::rig::port::Reserved;
use smartscale_tests::rig::process::{Process, Program};
use smartscale_tests::rig::{Folder, Kubernetes, Supervisor, programs, wait};
use smartscale_tests::site::{DEADLINE, Desk, QUICK, node_of};

const FLEET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/fleet-command/fleet");

const POLICY: &str = r#"
[cluster]
id = "rack"
[limits]
min_nodes = 0
max_nodes = 5
[scale_up]
reading_interval = "1s"
[scale_down]
when = "fits"
sustained = "1s"
cooldown = "1s"
min_age = "1s"
[[pool]]
name = "workers"
instance_types = ["small"]
zones = ["rack-1"]
startup_taints = ["smartscale.io/unverified"]
[[instance_type]]
name = "small"
cpu = "2"
memory = "4Gi"
on_demand_price = 0.02
"#;

/// A K3s server, a rack of two machines, and a coordinator that keeps all of it by itself.
struct Rack {
    coordinator: Process,
    machines: IdleMachines,
    desk: Desk,
    _supervisor: Supervisor,
    _cluster: Kubernetes,
    _door: Reserved,
}

impl Rack {
    async fn start(name: &str) -> Self {
        let folder = Folder::new(name).unwrap();
        let cluster = Kubernetes::start(&folder).await.unwrap();
        let supervisor = Supervisor::start(cluster.authority()).await.unwrap();
        let settings = Settings::new(&supervisor.join_token()).unwrap();
        let machines = IdleMachines::start(&folder, &cluster.access(), &settings, 2)
            .await
            .unwrap();
        let reserved = Reserved::new().unwrap();
        let door = reserved.address().to_string();
        let home = folder.sub("coordinator").unwrap();
        let init = Program::new("init", programs::path("smartscale-coordinator").unwrap())
            .arg("init")
            .flag("folder", &home)
            .flag("cluster", "rack")
            .flag("listen", &door)
            .flag("advertise", &door);
        let mut init = Process::spawn(init, &folder).unwrap();
        assert!(init.ended(DEADLINE).await.unwrap().success(), "{}", init.tail(10));
        let said = std::fs::read_to_string(init.log()).unwrap();
        let fingerprint = said
            .lines()
            .find_map(|line| line.strip_prefix("CA fingerprint"))
            .unwrap()
            .trim();

        folder
            .write("secrets/k3s/join-token", &settings.join_token)
            .unwrap();
        let secrets = folder.write("secrets/k3s/master-ip", supervisor.url()).unwrap();
        let secrets = secrets.ancestors().nth(2).unwrap().display();
        let worker = format!(
            "coordinators = [\"{door}\"]\ntrust_domain = \"smartscale\"\ncluster = \"rack\"\n\
             ca_fingerprint = \"{fingerprint}\"\n[attestor]\nkind = \"token\"\n[secrets]\nfolder = \"{secrets}\"\n"
        );
        let worker = folder.write("worker.toml", worker).unwrap();
        let mut fleet = format!(
            "[fleet]\nstate = {}\nagent = {}\nreach = {} {{address}}\n",
            folder.path().join("fleet").display(),
            worker.display(),
            machines.reach(),
        );
        for (index, address) in machines.addresses().iter().enumerate() {
            let number = index + 1;
            fleet += &format!("[machine box{number}]\naddress = {address}\ntype = small\nzone = rack-1\n");
        }
        let fleet = folder.write("fleet.ini", fleet).unwrap();
        folder.write("coordinator/policy.toml", POLICY).unwrap();
        let kubeconfig = cluster.coordinator_kubeconfig().await.unwrap();
        let config = format!(
            "mode = \"act\"\npolicy = \"policy.toml\"\nperiod = \"1s\"\n\
             [serve]\nlisten = \"{door}\"\nadvertise = \"{door}\"\n[http]\nlisten = \"\"\n\
             [trust]\ndomain = \"smartscale\"\nca_certificate = \"ca.crt\"\nca_key = \"ca.key\"\n\
             [kubernetes]\nkubeconfig = \"{}\"\n\
             [fleet]\nkind = \"command\"\nperiod = \"1s\"\n\
             command = {{ program = [\"{FLEET}\", \"--config\", \"{}\"] }}\n{QUICK}",
            kubeconfig.display(),
            fleet.display(),
        );
        let config = folder.write("coordinator/coordinator.toml", config).unwrap();
        let coordinator = Program::new("coordinator", programs::path("smartscale-coordinator").unwrap())
            .flag("config", config)
            .env("SMARTSCALE_LOG", "info,smartscale_coordinator=debug");
        let desk = Desk {
            credentials: home.join("credentials.toml"),
            endpoint: door,
            cluster: cluster.client(),
            folder: folder.clone(),
        };
        let rack = Self {
            coordinator: Process::spawn(coordinator, &folder).unwrap(),
            machines,
            desk,
            _supervisor: supervisor,
            _cluster: cluster,
            _door: reserved,
        };
        rack.leads().await;
        rack
    }

    async fn leads(&self) {
        let leads = wait::until_true("the coordinator to lead", DEADLINE, || async {
            let status = self.desk.ask(&["status"]).await?;
            Ok(status["leading"] == true && status["last_decision_at"].is_string())
        });
        if let Err(error) = leads.await {
            panic!("{error:#}\n{}", self.coordinator.tail(20));
        }
    }

    /// The node that the workload came to run on.
    async fn runs(&self, name: &str) -> String {
        let pods = self.desk.running(name, 1).await.unwrap();
        node_of(&pods[0]).unwrap().to_owned()
    }

    /// Creates a workload that needs a node of its own.
    async fn wants(&self, name: &str) {
        let big = pod(name).requests("1500m", "64Mi");
        self.desk.create(&deployment(name, 1, big)).await.unwrap();
    }

    /// The lives of machines of which the program has a record, ended ones included.
    fn lives(&self) -> Vec<String> {
        let records: PathBuf = self.desk.folder.path().join("fleet/machines");
        let mut lives: Vec<String> = std::fs::read_dir(records)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
            .collect();
        lives.sort();
        lives
    }

    async fn is_idle(&self, address: Ipv4Addr) {
        wait::until_true("the machine to lie idle", DEADLINE, || async {
            Ok(self.machines.is_idle(address))
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_of_a_rack_come_for_pods_that_wait_and_lie_idle_again_without_them() {
    let rack = Rack::start("command-fleet").await;
    let box1 = rack.machines.addresses()[0];
    rack.wants("one").await;
    assert_eq!(rack.runs("one").await, "box1-1");
    assert_eq!(rack.desk.ready_nodes(1).await.unwrap(), ["box1-1"]);
    let first_identity = std::fs::read(identity(&rack, box1)).unwrap();

    delete(&rack, "one").await;
    rack.desk.ready_nodes(0).await.unwrap();
    rack.is_idle(box1).await;
    let secret = rack.machines.home(box1).join("etc/smartscale/enrolment-token");
    assert!(!secret.exists(), "the secret of its launch is gone");
    let removal = rack
        .desk
        .operation("the removal", |operation| {
            operation["kind"] == "remove" && operation["ended"] == true
        })
        .await;
    assert_eq!(removal.unwrap()["phase"], "done");

    // Its next life is another machine: another name, another key.
    rack.wants("two").await;
    assert_eq!(rack.runs("two").await, "box1-2");
    assert_ne!(std::fs::read(identity(&rack, box1)).unwrap(), first_identity);
    assert_eq!(rack.lives(), ["box1-1", "box1-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_killed_while_its_program_launches_finds_the_one_machine_that_was_launched() {
    let mut rack = Rack::start("command-fleet-killed").await;
    let box1 = rack.machines.addresses()[0];
    rack.machines.hold(box1).unwrap();
    rack.wants("one").await;
    wait::until_true("the program to reach for the machine", DEADLINE, || async {
        Ok(rack.machines.is_reached_for(box1))
    })
    .await
    .unwrap();
    // The program is a process of its own and goes on; nobody hears its answer.
    rack.coordinator.kill();
    rack.machines.release(box1).unwrap();
    rack.coordinator.start().unwrap();
    rack.leads().await;
    let node = rack.runs("one").await;
    assert_eq!(rack.desk.ready_nodes(1).await.unwrap(), [node]);
    assert_eq!(rack.lives(), ["box1-1"], "one machine, once");
    let launch = rack
        .desk
        .operation("the launch", |operation| {
            operation["kind"] == "launch" && operation["ended"] == true
        })
        .await
        .unwrap();
    assert_eq!(launch["phase"], "done", "{launch:#}");
    assert_eq!(rack.desk.operations().await.unwrap().len(), 1);
}

fn identity(rack: &Rack, address: Ipv4Addr) -> PathBuf {
    rack.machines
        .home(address)
        .join("var/lib/smartscale/enrolment.json")
}

async fn delete(rack: &Rack, name: &str) {
    use k8s_openapi::api::apps::v1::Deployment;
    let deployments = kube::Api::<Deployment>::default_namespaced(rack.desk.cluster.clone());
    deployments
        .delete(name, &kube::api::DeleteParams::default())
        .await
        .unwrap();
}
