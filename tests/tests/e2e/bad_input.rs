//! Bad input and parts that fail, at the doors of the running programs: a clear word about what and where, the loop
//! goes on, and nothing is lost.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitStatus;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::PostParams;
use rustix::process::Signal;
use serde_json::{Value, json};
use smartscale_proto::v1::agent_client::AgentClient;
use smartscale_proto::v1::session_request::Report;
use smartscale_proto::v1::{Health, Hello, Machine, PodCounts, SessionRequest};
use smartscale_tests::rig::ec2::{Fault, When};
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::process::{Process, Program};
use smartscale_tests::rig::{programs, wait};
use smartscale_tests::site::{DEADLINE, Site, policy};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::papers::{HOUR, agent, authority, dial};

const ONE: &str = "[limits]\nmin_nodes = 1\n";

/// A workload whose pod needs a node of its own.
async fn workload(site: &Site, name: &str) {
    let big = pod(name).requests("1500m", "64Mi");
    site.create(&deployment(name, 1, big)).await.unwrap();
}

async fn logged(site: &Site, words: &[&str]) {
    wait::until_true(&format!("{words:?} in the log"), DEADLINE, || async {
        site.logged(0, words)
    })
    .await
    .unwrap();
}

async fn check_config(site: &Site) -> (ExitStatus, String) {
    let program = Program::new("check-config", programs::path("smartscale-coordinator").unwrap())
        .arg("check-config")
        .flag("config", site.stack.home.join("coordinator-a.toml"));
    let mut process = Process::spawn(program, site.stack.folder()).unwrap();
    let status = process.ended(DEADLINE).await.unwrap();
    (status, process.tail(5))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_with_its_minimum_above_its_maximum_is_refused_and_the_one_in_force_goes_on() {
    let mut site = Site::start("bad-policy", &policy(ONE)).await.unwrap();
    site.ready_nodes(1).await.unwrap();
    let file = "coordinator/policy.toml";

    let bad = policy("[limits]\nmin_nodes = 5\nmax_nodes = 2\n");
    site.stack.folder().write(file, bad).unwrap();
    let (status, said) = check_config(&site).await;
    assert_eq!(status.code(), Some(2), "{said}");
    for word in ["policy.toml", "limits.min_nodes", "max_nodes"] {
        assert!(said.contains(word), "{word} is missing in: {said}");
    }
    site.coordinator(0).unwrap().signal(Signal::HUP).unwrap();
    logged(&site, &["the last good one goes on", "limits.min_nodes"]).await;
    site.decisions(2).await.unwrap();
    let status = site.ask(&["status"]).await.unwrap();
    assert_eq!(
        (&status["min_nodes"], &status["leading"]),
        (&json!(1), &json!(true))
    );

    let good = policy("[limits]\nmin_nodes = 2\n");
    site.stack.folder().write(file, good).unwrap();
    assert!(check_config(&site).await.0.success());
    site.coordinator(0).unwrap().signal(Signal::HUP).unwrap();
    site.ready_nodes(2).await.unwrap();
}

/// Sends bytes as they are and expects no answer.
#[derive(Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        let rest = bytes::Buf::remaining(buffer);
        bytes::Buf::advance(buffer, rest);
        Ok(Some(()))
    }
}

/// The code with which a call ends whose message is `bytes`.
async fn send_raw(channel: Channel, path: &'static str, bytes: &[u8]) -> Code {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let messages = tokio_stream::iter([bytes.to_vec()]);
    let path = http::uri::PathAndQuery::from_static(path);
    let answer = grpc.streaming(tonic::Request::new(messages), path, Raw).await;
    let ended = match answer {
        Ok(answer) => {
            let mut answers = answer.into_inner();
            loop {
                match answers.message().await {
                    Ok(Some(())) => {}
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                }
            }
        }
        Err(status) => Err(status),
    };
    ended.map_or_else(|status| status.code(), |()| Code::Ok)
}

/// A session of `instance` that says what it is and then `reports`; the code with which it ends.
async fn session(channel: Channel, instance: &str, reports: Vec<Option<Report>>) -> Code {
    let hello = Report::Hello(Hello {
        machine: Some(Machine {
            instance_id: instance.to_owned(),
            ..Machine::default()
        }),
        ..Hello::default()
    });
    let messages: Vec<_> = std::iter::once(Some(hello))
        .chain(reports)
        .map(|report| SessionRequest { time: None, report })
        .collect();
    let mut answers = match AgentClient::new(channel)
        .session(tokio_stream::iter(messages))
        .await
    {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status.code(),
    };
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Code::Ok,
            Err(status) => return status.code(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_figures_and_malformed_messages_of_an_agent_end_nothing_but_its_own_session() {
    smartscale_proto::tls::install_provider();
    let site = Site::start("bad-agent", &policy(ONE)).await.unwrap();
    let nodes = site.ready_nodes(1).await.unwrap();
    let ours = authority(&site, "rig").await;
    // Somebody who took the real agent's key.
    let channel = || async {
        let credential = ours.client(agent(&nodes[0]), HOUR).unwrap().0;
        dial(&site, credential).await.unwrap()
    };

    let absurd = Health {
        cpu_percent: Some(f64::NAN),
        memory_percent: Some(-5.0),
        load1: Some(f64::INFINITY),
        memory_total_bytes: Some(u64::MAX),
        pods: Some(PodCounts {
            running: 1_000_000_000,
            ..PodCounts::default()
        }),
        ..Health::default()
    };
    let ended = session(channel().await, &nodes[0], vec![Some(Report::Health(absurd))]).await;
    assert_eq!(ended, Code::Ok);
    for (figure, value) in [
        ("cpu_percent", "NaN"),
        ("memory_percent", "-5"),
        ("load1", "inf"),
        ("memory_total_bytes", "18446744073709551615"),
        ("pods", "1000000000"),
    ] {
        logged(&site, &[&nodes[0], figure, value]).await;
    }

    let nothing = session(channel().await, &nodes[0], vec![None]).await;
    assert_eq!(nothing, Code::InvalidArgument);
    for path in [
        "/smartscale.v1.Agent/Session",
        "/smartscale.v1.Agent/Renew",
        "/smartscale.v1.Enrolment/Enrol",
    ] {
        let garbage = send_raw(channel().await, path, &[0xff; 64]).await;
        assert_eq!(garbage, Code::InvalidArgument, "{path}");
    }

    // The real agent is back in its place, and what it says counts.
    wait::until_true("the real agent", DEADLINE, || async {
        let answer = site.ask(&["nodes"]).await?;
        let all = answer["nodes"].as_array().cloned().unwrap_or_default();
        Ok(all
            .iter()
            .any(|node| node["name"] == nodes[0].as_str() && node["agent_connected"] == true))
    })
    .await
    .unwrap();
    workload(&site, "web").await;
    workload(&site, "more").await;
    site.running("web", 1).await.unwrap();
    site.running("more", 1).await.unwrap();
    assert_eq!(site.ready_nodes(2).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_labels_and_a_pod_that_no_machine_could_hold_leave_the_others_served() {
    let site = Site::start("bad-objects", &policy(ONE)).await.unwrap();
    let nodes: Api<Node> = site.nodes();
    let bare: Node =
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "bare"}}))
            .unwrap();
    nodes.create(&PostParams::default(), &bare).await.unwrap();
    // The most that a quantity of Kubernetes can say.
    let monster: Pod = pod("monster").requests("9223372036854775807", "8Ei").build();
    site.create(&monster).await.unwrap();
    workload(&site, "one").await;
    workload(&site, "two").await;

    site.running("one", 1).await.unwrap();
    site.running("two", 1).await.unwrap();
    // The pods run before the next decision says so.
    let status = wait::until("a decision that sees both nodes", DEADLINE, || async {
        let status = site.ask(&["status"]).await?;
        Ok((status["nodes_total"] == 2).then_some(status))
    })
    .await
    .unwrap();
    // What cannot be counted is named, and nobody launches for it.
    let warnings = status["warnings"].to_string();
    for words in ["default/monster", "requests.cpu", "too large"] {
        assert!(warnings.contains(words), "{words} is missing in {warnings}");
    }
    assert_eq!(site.launched().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_dies_is_named_with_its_error_and_the_loop_goes_on_when_it_is_back() {
    let mut site = Site::start("no-api-server", &policy(ONE)).await.unwrap();
    let nodes = site.ready_nodes(1).await.unwrap();

    site.stack.cluster.api_server().kill();
    wait::until_true("the status to say so", DEADLINE, || async {
        let status = site.ask(&["status"]).await?;
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        anyhow::ensure!(
            warnings
                .iter()
                .filter_map(Value::as_str)
                .any(|warning| warning.starts_with("kubernetes last answered") && warning.contains("onnect")),
            "{warnings:?}"
        );
        Ok(true)
    })
    .await
    .unwrap();
    site.decisions(3).await.unwrap();
    assert_eq!(site.ask(&["status"]).await.unwrap()["leading"], true);
    assert_eq!(site.instances().await.unwrap(), nodes);

    site.stack.cluster.api_server().start().unwrap();
    site.stack.cluster.serving().await.unwrap();
    workload(&site, "one").await;
    workload(&site, "two").await;
    site.running("one", 1).await.unwrap();
    site.running("two", 1).await.unwrap();
    assert_eq!(site.launched().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_hangs_in_mid_launch_ends_the_term_and_the_launch_goes_on_afterwards() {
    let mut site = Site::start("no-table", &policy(ONE)).await.unwrap();
    site.ready_nodes(1).await.unwrap();
    let late = Fault {
        action: "CreateFleet".into(),
        when: When::After,
        delay_ms: 3_000,
        times: Some(1),
        ..Fault::default()
    };
    site.stack.ec2.set_faults(&[late]).await.unwrap();
    workload(&site, "one").await;
    workload(&site, "two").await;
    site.operation("a launch in mid-request", |operation| {
        operation["phase"] == "requesting"
    })
    .await
    .unwrap();

    site.stack.dynamodb.process().pause().unwrap();
    logged(&site, &["no longer the leader"]).await;
    assert!(site.coordinator(0).unwrap().exited().unwrap().is_none());
    site.stack.dynamodb.process().resume().unwrap();

    site.running("one", 1).await.unwrap();
    site.running("two", 1).await.unwrap();
    let ready = site.ready_nodes(2).await.unwrap();
    let mut machines = site.instances().await.unwrap();
    machines.sort();
    assert_eq!(machines, ready);
    assert_eq!(site.launched().await.unwrap().len(), 2, "nothing twice");
}

/// A coordinator whose state store is SQLite in `disk`, a file system of its own that nobody else sees.
async fn site_on_a_small_disk(name: &str, disk: &str) -> Site {
    let mut site = Site::new(name, &policy(ONE)).await.unwrap();
    let disk = site.stack.folder().sub(disk).unwrap();
    let dynamodb = "kind = \"dynamodb\"\ntable = \"smartscale\"";
    let sqlite = format!(
        "kind = \"sqlite\"\npath = \"{}\"",
        disk.join("state.db").display()
    );
    site.configure(0, dynamodb, &sqlite).unwrap();

    // Root needs no user namespace, and everybody else may have one of his own.
    let namespaces: &[&str] = if rustix::process::geteuid().is_root() {
        &["--mount"]
    } else {
        &["--mount", "--map-root-user"]
    };
    let script = "mount -t tmpfs -o size=8m disk \"$0\" && exec \"$@\"";
    let mut wrapper: Vec<&std::ffi::OsStr> = namespaces.iter().map(std::ffi::OsStr::new).collect();
    wrapper.extend(["sh", "-c", script].map(std::ffi::OsStr::new));
    wrapper.push(disk.as_os_str());
    let program = site.coordinator_program(0).unwrap().through("unshare", &wrapper);
    site.run_coordinator(0, program).unwrap();
    site.leader().await.unwrap();
    site
}

/// Fills a disk to its last byte.
fn fill(file: &Path) {
    let mut filler = std::fs::File::create(file).unwrap();
    let error = loop {
        if let Err(error) = filler.write_all(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_below_the_store_ends_the_term_and_with_room_again_nothing_was_lost() {
    let mut site = site_on_a_small_disk("full-disk", "disk").await;
    site.ready_nodes(1).await.unwrap();
    let first = site
        .operation("the first launch's end", |operation| operation["phase"] == "done")
        .await
        .unwrap();
    let id = site.coordinator(0).unwrap().id().unwrap();
    let disk = site.stack.folder().sub("disk").unwrap();
    let filler = std::path::PathBuf::from(format!("/proc/{id}/root{}/filler", disk.display()));

    fill(&filler);
    logged(&site, &["state.db", "full"]).await;
    logged(&site, &["no longer the leader"]).await;
    workload(&site, "one").await;
    workload(&site, "two").await;
    wait::until_true("the status to say that nobody leads", DEADLINE, || async {
        let status = site.ask(&["status"]).await?;
        Ok(status["warnings"]
            .to_string()
            .contains("no coordinator holds the lease"))
    })
    .await
    .unwrap();
    assert_eq!(site.launched().await.unwrap().len(), 1);

    std::fs::remove_file(&filler).unwrap();
    site.running("one", 1).await.unwrap();
    site.running("two", 1).await.unwrap();
    let after = site.operations().await.unwrap();
    assert!(after.contains(&first), "{first:#} is missing in {after:#?}");
    assert_eq!(site.launched().await.unwrap().len(), 2);
}
