#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
//! Whole agents over real mutual TLS against a tiny coordinator.

mod checks;

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::Stream;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use smartscale_planner::{fixtures, model::Market};
use smartscale_proto::{
    identity::Identity,
    time::{SharedClock, SystemClock, to_wire},
    tls::{self, Anchors, Credential, Rotating, client::Dialer, keys, server},
    v1::{agent_server, enrolment_server, session_request::Report},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};

use crate::{
    Agent, Config, Parts,
    embedded::{
        Call, EmbeddedFiles, EmbeddedKubelet, EmbeddedMachine, EmbeddedNotices, EmbeddedSecrets,
        EmbeddedUnits, EmbeddedVitals, FixedToken, MemoryFolder,
    },
    enrol::Enroller,
    health::Reading,
    kubelet::OwnPod,
    machine::Machine,
    notices::{Notice, NoticeKind},
    secrets::offer::Offers,
};
use smartscale_proto::v1;

const SECRET: &str = "s3cr3t";
const LIMIT: Duration = Duration::from_secs(20);

/// The coordinator's certificate authority and what it says.
struct Coordinator {
    issuer: Issuer<'static, KeyPair>,
    ca: Vec<u8>,
    /// Enrolments to be refused as not yet recorded.
    not_yet: AtomicU32,
    /// Lifetime of certificates in seconds.
    life: i64,
    /// Keys that were signed, by their requests' subjects.
    signed: Mutex<Vec<Vec<u8>>>,
    /// Enrolments with a key that had been signed before.
    known: AtomicU32,
    /// No proof is wanted any more.
    takes_known: AtomicBool,
    enrolments: AtomicU32,
    renewals: AtomicU32,
    sessions: AtomicU32,
    /// Reports are acknowledged.
    acknowledges: bool,
    redirect: Mutex<Option<String>>,
    /// Given to those who enrol.
    join_token: String,
    reports: mpsc::UnboundedSender<Report>,
    orders: Mutex<Vec<mpsc::UnboundedSender<Result<v1::SessionResponse, Status>>>>,
}

type Commands = Pin<Box<dyn Stream<Item = Result<v1::SessionResponse, Status>> + Send>>;

fn command(command: v1::session_response::Command) -> v1::SessionResponse {
    v1::SessionResponse {
        command: Some(command),
    }
}

impl Coordinator {
    fn sign(&self, uri: &str, key: &impl rcgen::PublicKeyData) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.signed_by(key, &self.issuer).unwrap().der().to_vec()
    }

    fn certificate(&self, csr: &[u8]) -> v1::Certificate {
        let request = rcgen::CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        let leaf = self.sign("spiffe://smartscale/cluster/demo/agent/i-1", &request.public_key);
        let key = rcgen::PublicKeyData::der_bytes(&request.public_key).to_vec();
        self.signed.lock().unwrap().push(key);
        let not_after = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(self.life);
        v1::Certificate {
            chain_der: vec![leaf, self.ca.clone()],
            trust_anchors_der: vec![self.ca.clone()],
            not_after: Some(to_wire(not_after)),
        }
    }

    fn order(&self, order: v1::session_response::Command) {
        self.orders
            .lock()
            .unwrap()
            .last()
            .unwrap()
            .send(Ok(command(order)))
            .unwrap();
    }
}

#[derive(Clone)]
struct Service(Arc<Coordinator>);

#[tonic::async_trait]
impl enrolment_server::Enrolment for Service {
    async fn challenge(
        &self,
        _: Request<v1::ChallengeRequest>,
    ) -> Result<Response<v1::ChallengeResponse>, Status> {
        Ok(Response::new(v1::ChallengeResponse {
            challenge: vec![7; 32],
            expires_at: None,
        }))
    }

    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let request = request.into_inner();
        let waits = self
            .0
            .not_yet
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if waits.is_ok() {
            return Err(Status::failed_precondition("no launch of i-1 is recorded"));
        }
        assert_eq!(request.challenge, [7; 32]);
        match request.proof {
            Some(v1::enrol_request::Proof::Token(token)) if token.secret == SECRET => {}
            None if self.0.takes_known.load(Ordering::SeqCst) => {}
            other => return Err(Status::permission_denied(format!("{other:?}"))),
        }
        self.0.enrolments.fetch_add(1, Ordering::SeqCst);
        let csr = rcgen::CertificateSigningRequestParams::from_der(&request.csr_der.clone().into()).unwrap();
        let key = rcgen::PublicKeyData::der_bytes(&csr.public_key);
        if self.0.signed.lock().unwrap().iter().any(|known| known == key) {
            self.0.known.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Response::new(v1::EnrolResponse {
            certificate: Some(self.0.certificate(&request.csr_der)),
            node_name: "i-1".into(),
            pool: "general".into(),
            market: "spot".into(),
            join_token: self.0.join_token.clone(),
            join_server: "10.0.0.99".into(),
        }))
    }
}

#[tonic::async_trait]
impl agent_server::Agent for Service {
    type SessionStream = Commands;

    async fn session(
        &self,
        request: Request<tonic::Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Commands>, Status> {
        let connection = request
            .extensions()
            .get::<TlsConnectInfo<TcpConnectInfo>>()
            .unwrap();
        let certificates = connection
            .peer_certs()
            .ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let peer = Identity::from_certificate(&certificates[0]);
        assert_eq!(
            peer.unwrap().to_string(),
            "spiffe://smartscale/cluster/demo/agent/i-1"
        );
        self.0.sessions.fetch_add(1, Ordering::SeqCst);
        let (sender, receiver) = mpsc::unbounded_channel();
        let first = match &*self.0.redirect.lock().unwrap() {
            Some(endpoint) => v1::session_response::Command::Redirect(v1::Redirect {
                endpoints: vec![endpoint.clone()],
            }),
            None => v1::session_response::Command::Welcome(v1::Welcome {
                changing_interval: Some(millis(100)),
                quiet_interval: Some(millis(200)),
                endpoints: vec![],
                drain_policy: Some(v1::DrainPolicy {
                    timeout: Some(millis(77_000)),
                    ..Default::default()
                }),
                time: Some(to_wire(jiff::Timestamp::now())),
                ..Default::default()
            }),
        };
        sender.send(Ok(command(first))).unwrap();
        self.0.orders.lock().unwrap().push(sender.clone());
        let coordinator = Arc::clone(&self.0);
        let mut stream = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(request)) = stream.next().await {
                let report = request.report.unwrap();
                let id = match &report {
                    Report::Drain(drain) => Some(drain.operation_id.clone()),
                    Report::Notice(notice) => Some(notice.id.clone()),
                    Report::Result(result) => Some(result.operation_id.clone()),
                    Report::Boot(boot) => Some(boot.step().as_str_name().to_owned()),
                    Report::Hello(_) | Report::Health(_) | Report::Check(_) => None,
                };
                let _ = coordinator.reports.send(report);
                if let Some(id) = id.filter(|_| coordinator.acknowledges) {
                    let acknowledgement = v1::Acknowledgement { id };
                    let _ = sender.send(Ok(command(v1::session_response::Command::Acknowledgement(
                        acknowledgement,
                    ))));
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        self.0.renewals.fetch_add(1, Ordering::SeqCst);
        let certificate = Some(self.0.certificate(&request.into_inner().csr_der));
        Ok(Response::new(v1::RenewResponse { certificate }))
    }
}

fn millis(millis: u64) -> prost_types::Duration {
    smartscale_proto::time::duration_to_wire(Duration::from_millis(millis))
}

struct Rig {
    coordinator: Arc<Coordinator>,
    reports: mpsc::UnboundedReceiver<Report>,
    address: String,
}

/// A coordinator on a free port.
async fn coordinator(change: impl FnOnce(&mut Coordinator)) -> Rig {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = params.self_signed(&key).unwrap().der().to_vec();
    let (sender, reports) = mpsc::unbounded_channel();
    let mut coordinator = Coordinator {
        issuer: Issuer::new(params, key),
        ca,
        not_yet: AtomicU32::new(0),
        life: 3600,
        signed: Mutex::default(),
        known: AtomicU32::new(0),
        takes_known: AtomicBool::new(false),
        enrolments: AtomicU32::new(0),
        renewals: AtomicU32::new(0),
        sessions: AtomicU32::new(0),
        acknowledges: true,
        redirect: Mutex::default(),
        join_token: String::new(),
        reports: sender,
        orders: Mutex::default(),
    };
    change(&mut coordinator);
    let coordinator = Arc::new(coordinator);
    let address = serve(&coordinator).await;
    Rig {
        coordinator,
        reports,
        address,
    }
}

async fn serve(coordinator: &Arc<Coordinator>) -> String {
    let key = KeyPair::generate().unwrap();
    let leaf = coordinator.sign("spiffe://smartscale/cluster/demo/coordinator", &key);
    let key = keys::key_from_pem(key.serialize_pem().as_bytes()).unwrap();
    let credential = Credential {
        chain: vec![leaf.into(), coordinator.ca.clone().into()],
        key: Some(key),
        anchors: Anchors::Certificates(vec![coordinator.ca.clone().into()]),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = server::incoming(listener, Rotating::new(credential), |_| {}).unwrap();
    let service = Service(Arc::clone(coordinator));
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(enrolment_server::EnrolmentServer::new(service.clone()))
            .add_service(agent_server::AgentServer::new(service))
            .serve_with_incoming(incoming),
    );
    address
}

struct Machinery {
    parts: Parts,
    kubelet: Arc<EmbeddedKubelet>,
    units: Arc<EmbeddedUnits>,
    files: Arc<EmbeddedFiles>,
    notices: Arc<EmbeddedNotices>,
    vitals: Arc<EmbeddedVitals>,
    secrets: Arc<EmbeddedSecrets>,
}

fn machinery(address: &str, ca: &[u8]) -> Machinery {
    let print: String = keys::fingerprint(ca)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let config = Config::parse(&format!(
        "coordinators = [\"{address}\"]\ntrust_domain = \"smartscale\"\ncluster = \"demo\"\nca_fingerprint = \"{print}\"\n\
         [notices]\ninterval = \"200ms\"\n[health]\nchanging_interval = \"200ms\"\n"
    ))
    .unwrap();
    let clock: SharedClock = Arc::new(SystemClock);
    let kubelet = Arc::new(EmbeddedKubelet::new(Arc::clone(&clock)));
    let (units, files, notices, vitals, secrets) = <(
        Arc<EmbeddedUnits>,
        Arc<EmbeddedFiles>,
        Arc<EmbeddedNotices>,
        Arc<EmbeddedVitals>,
        Arc<EmbeddedSecrets>,
    )>::default();
    secrets.set("k3s/join-token", &format!("K10{}::node:join", "0f".repeat(32)));
    secrets.set("k3s/master-ip", "10.0.0.10");
    let machine = Machine {
        id: "i-1".parse().unwrap(),
        instance_type: "t3.small".into(),
        zone: "us-east-1a".into(),
        market: Market::Spot,
        private_ip: "10.0.1.17".parse().unwrap(),
        provider_id: Some("aws:///us-east-1a/i-1".into()),
    };
    let parts = Parts {
        config,
        clock,
        boot_id: "boot-1".into(),
        folder: Arc::new(MemoryFolder::default()),
        machine: Arc::new(EmbeddedMachine::new(machine)),
        notices: Arc::<EmbeddedNotices>::clone(&notices),
        secrets: Arc::<EmbeddedSecrets>::clone(&secrets),
        attestor: Arc::new(FixedToken::new(SECRET)),
        units: Arc::<EmbeddedUnits>::clone(&units),
        files: Arc::<EmbeddedFiles>::clone(&files),
        kubelet: Arc::<EmbeddedKubelet>::clone(&kubelet),
        vitals: Arc::<EmbeddedVitals>::clone(&vitals),
        server: Arc::new(crate::k3s::server::Believed),
        shutdowns: Arc::new(crate::shutdown::NoShutdowns),
    };
    Machinery {
        parts,
        kubelet,
        units,
        files,
        notices,
        vitals,
        secrets,
    }
}

impl Machinery {
    /// Runs an agent; dropping the answer kills it.
    fn start(&self) -> Running {
        tls::install_provider();
        let agent = Agent::new(self.parts.clone());
        Running(tokio::spawn(async move {
            agent.run(CancellationToken::new()).await.unwrap();
        }))
    }

    fn pod(&self, key: &str) {
        let mut pod = fixtures::pod(key).on("i-1").owned_by("ReplicaSet", "web").build();
        pod.uid = key.into();
        let grace = Duration::from_secs(5);
        self.kubelet
            .add(OwnPod { pod, grace }, Some(Duration::from_millis(50)));
    }
}

struct Running(tokio::task::JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Rig {
    /// The next report that `pick` takes.
    async fn report<T>(&mut self, mut pick: impl FnMut(Report) -> Option<T>) -> T {
        let picked = async {
            loop {
                if let Some(picked) = pick(self.reports.recv().await.unwrap()) {
                    return picked;
                }
            }
        };
        tokio::time::timeout(LIMIT, picked)
            .await
            .expect("no such report came")
    }

    async fn drained(&mut self, operation: &str) -> v1::DrainReport {
        self.report(|report| match report {
            Report::Drain(drain)
                if drain.operation_id == operation && drain.phase() == v1::DrainPhase::Drained =>
            {
                Some(drain)
            }
            _ => None,
        })
        .await
    }

    async fn boot(&mut self, step: v1::BootStep, outcome: v1::Outcome) -> v1::BootReport {
        self.report(|report| match report {
            Report::Boot(boot) if boot.step() == step && boot.outcome() == outcome => Some(boot),
            _ => None,
        })
        .await
    }
}

#[tokio::test]
async fn a_machine_enrols_joins_reports_and_does_not_enrol_again_after_a_restart() {
    let mut rig = coordinator(|coordinator| coordinator.not_yet = AtomicU32::new(1)).await;
    let machinery = machinery(&rig.address, &rig.coordinator.ca);
    let agent = machinery.start();
    let hello = rig.report(|report| match report {
        Report::Hello(hello) => Some(hello),
        _ => None,
    });
    let hello = hello.await;
    assert_eq!(hello.machine.unwrap().instance_id, "i-1");
    assert_eq!(hello.boot_id, "boot-1");
    rig.boot(v1::BootStep::Ready, v1::Outcome::Done).await;
    assert!(machinery.units.runs("k3s-agent.service"));
    let drop_in = machinery.files.drop_in().unwrap();
    assert_eq!(drop_in.server, "https://10.0.0.10:6443");
    assert!(drop_in.labels.contains(&"smartscale.io/pool=general".to_owned()));
    drop(agent);
    let _agent = machinery.start();
    rig.report(|report| matches!(report, Report::Hello(_)).then_some(()))
        .await;
    assert_eq!(rig.coordinator.enrolments.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_standby_that_is_down_does_not_hide_why_the_leader_refuses() {
    let rig = coordinator(|coordinator| coordinator.not_yet = AtomicU32::new(1)).await;
    let parts = machinery(&rig.address, &rig.coordinator.ca).parts;
    let anchors = parts.config.anchors.clone();
    let nobody = Credential {
        chain: Vec::new(),
        key: None,
        anchors: anchors.clone(),
    };
    let enroller = Enroller {
        dialer: Dialer::new(Rotating::new(nobody), parts.config.expected.clone()),
        attestor: parts.attestor,
        folder: parts.folder,
        clock: parts.clock,
        configured: anchors,
        endpoints: vec![rig.address.clone(), "127.0.0.1:1".to_owned()],
        boot_id: parts.boot_id,
        offers: Offers::default(),
    };
    let machine = parts.machine.identity().await.unwrap();
    let failure = enroller.enrol(&machine).await.err().unwrap();
    assert!(
        failure.to_string().contains("has not recorded this launch yet"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_missing_secret_is_told_while_it_is_missing() {
    let mut rig = coordinator(|_| {}).await;
    let machinery = machinery(&rig.address, &rig.coordinator.ca);
    machinery.secrets.set("k3s/join-token", "K10nothing::server:x");
    let _agent = machinery.start();
    let report = rig.boot(v1::BootStep::Secrets, v1::Outcome::Retrying).await;
    assert!(report.error.contains("k3s/join-token"), "{}", report.error);
    machinery
        .secrets
        .set("k3s/join-token", &format!("K10{}::node:join", "0f".repeat(32)));
    let done = rig.boot(v1::BootStep::Secrets, v1::Outcome::Done).await;
    assert!(done.attempts >= 2);
}

#[tokio::test]
async fn a_machine_that_does_not_know_itself_yet_keeps_asking_and_tells_how_often() {
    let mut rig = coordinator(|_| {}).await;
    let mut machinery = machinery(&rig.address, &rig.coordinator.ca);
    let known = machinery.parts.machine.identity().await.unwrap();
    let machine = Arc::new(EmbeddedMachine::default());
    machinery.parts.machine = Arc::<EmbeddedMachine>::clone(&machine);
    let _agent = machinery.start();
    tokio::time::sleep(Duration::from_millis(50)).await;
    machine.set(Some(known));
    let done = rig.boot(v1::BootStep::Identity, v1::Outcome::Done).await;
    assert!(done.attempts >= 2, "{}", done.attempts);
}

#[tokio::test]
async fn what_cannot_be_true_never_leaves() {
    let mut rig = coordinator(|_| {}).await;
    let machinery = machinery(&rig.address, &rig.coordinator.ca);
    machinery.vitals.set(Reading {
        cpu_percent: Some(f64::NAN),
        memory_percent: Some(40.0),
        ..Reading::default()
    });
    let _agent = machinery.start();
    let health = |report| match report {
        Report::Health(health) if health.memory_percent == Some(40.0) => Some(health),
        _ => None,
    };
    assert_eq!(rig.report(health).await.cpu_percent, None);
}

#[tokio::test]
async fn a_drain_is_obeyed_and_the_kubelet_is_stopped_for_good() {
    let mut rig = coordinator(|_| {}).await;
    let machinery = machinery(&rig.address, &rig.coordinator.ca);
    machinery.pod("default/a");
    let agent = machinery.start();
    rig.boot(v1::BootStep::Ready, v1::Outcome::Done).await;
    rig.coordinator
        .order(v1::session_response::Command::Drain(v1::DrainCommand {
            operation_id: "op-1".into(),
            timeout: Some(millis(60_000)),
            on_timeout: v1::OnTimeout::Abort.into(),
            reason: "test".into(),
            ..Default::default()
        }));
    let report = rig.drained("op-1").await;
    assert_eq!(report.pods.len(), 1);
    assert_eq!(report.pods[0].state(), v1::PodState::Gone);
    let stop = v1::StopKubeletCommand {
        operation_id: "op-1".into(),
    };
    rig.coordinator
        .order(v1::session_response::Command::StopKubelet(stop));
    let result = |report| match report {
        Report::Result(result) => Some(result),
        _ => None,
    };
    let result = rig.report(result).await;
    assert_eq!(
        (result.command.as_str(), result.outcome()),
        ("stop_kubelet", v1::Outcome::Done)
    );
    assert!(!machinery.units.runs("k3s-agent.service"));
    drop(agent);
    let _agent = machinery.start();
    let report = rig.boot(v1::BootStep::Kubelet, v1::Outcome::Retrying).await;
    assert!(report.error.contains("op-1"), "{}", report.error);
    assert!(!machinery.units.runs("k3s-agent.service"));
}

#[tokio::test]
async fn an_interruption_is_drained_without_a_coordinator_and_told_when_it_is_back() {
    let mut rig = coordinator(|_| {}).await;
    // Nobody listens where the agent looks.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut machinery = machinery(&nowhere, &rig.coordinator.ca);
    machinery.pod("default/a");
    machinery.notices.announce(Notice {
        kind: NoticeKind::SpotInterruption,
        id: "spot-1".into(),
        at: Some(jiff::Timestamp::now() + jiff::SignedDuration::from_secs(120)),
        detail: "terminate".into(),
    });
    let agent = machinery.start();
    let gone = async {
        while !machinery.kubelet.present().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone)
        .await
        .expect("the pod is still there");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(agent);
    assert!(machinery.kubelet.calls().contains(&Call::Cordon));
    machinery.parts.config.coordinators = vec![rig.address.clone()];
    let _agent = machinery.start();
    let mut seen = (false, false);
    rig.report(|report| {
        match report {
            Report::Notice(notice) => seen.0 |= notice.id == "spot-1",
            Report::Drain(drain) => {
                seen.1 |= drain.operation_id == "notice/spot-1" && drain.phase() == v1::DrainPhase::Drained;
            }
            _ => {}
        }
        (seen == (true, true)).then_some(())
    })
    .await;
    let evictions = machinery
        .kubelet
        .calls()
        .iter()
        .filter(|call| matches!(call, Call::Evict(..)))
        .count();
    assert_eq!(evictions, 1);
}

#[tokio::test]
async fn a_machine_that_ec2_terminates_stops_its_kubelet_by_itself_once_it_is_empty() {
    let rig = coordinator(|_| {}).await;
    let machinery = machinery(&rig.address, &rig.coordinator.ca);
    machinery.pod("default/a");
    let agent = machinery.start();
    let ready = async {
        while !machinery.units.runs("k3s-agent.service") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, ready)
        .await
        .expect("K3s does not run");
    machinery.notices.announce(Notice {
        kind: NoticeKind::SpotInterruption,
        id: "spot-terminate-1".into(),
        at: Some(jiff::Timestamp::now() + jiff::SignedDuration::from_secs(120)),
        detail: "terminate".into(),
    });
    let stopped = async {
        while machinery.units.runs("k3s-agent.service") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, stopped)
        .await
        .expect("the kubelet still runs");
    assert!(
        machinery.kubelet.present().is_empty(),
        "it was stopped before the node was empty"
    );
    drop(agent);
    // It does not come back with the agent either.
    let _agent = machinery.start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!machinery.units.runs("k3s-agent.service"));
}

#[tokio::test]
async fn a_machine_without_any_secret_joins_with_what_the_coordinator_gives() {
    let token = format!("K10{}::abcdef.0123456789abcdef", "0f".repeat(32));
    let mut rig = coordinator(|coordinator| coordinator.join_token = token).await;
    let mut machinery = machinery(&rig.address, &rig.coordinator.ca);
    machinery.parts.secrets = Arc::new(EmbeddedSecrets::default());
    machinery.parts.config.secrets.from_coordinator = true;
    let _agent = machinery.start();
    rig.boot(v1::BootStep::Ready, v1::Outcome::Done).await;
    assert_eq!(
        machinery.files.drop_in().unwrap().server,
        "https://10.0.0.99:6443"
    );
}

#[tokio::test]
async fn the_coordinators_terms_of_a_drain_are_on_disk_for_the_time_without_it() {
    let mut rig = coordinator(|_| {}).await;
    let machinery = machinery(&rig.address, &rig.coordinator.ca);
    let _agent = machinery.start();
    rig.boot(v1::BootStep::Ready, v1::Outcome::Done).await;
    let terms = crate::drain::terms::kept(&*machinery.parts.folder, machinery.parts.config.drain.terms);
    assert_eq!(terms.timeout, Duration::from_secs(77));
}

#[tokio::test]
async fn a_failure_is_told_once_with_its_remedy_however_often_it_is_met() {
    let mut rig = coordinator(|_| {}).await;
    let machinery = machinery(&rig.address, &rig.coordinator.ca);
    machinery.secrets.set("k3s/join-token", "K10nothing::server:x");
    let _agent = machinery.start();
    let report = rig.boot(v1::BootStep::Secrets, v1::Outcome::Retrying).await;
    assert_eq!(report.failure(), v1::JoinFailure::SecretUnusable);
    assert!(report.remedy.contains("server/agent-token"), "{}", report.remedy);
    // The next word about this step is its end.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    machinery
        .secrets
        .set("k3s/join-token", &format!("K10{}::node:join", "0f".repeat(32)));
    let next = rig.report(|report| match report {
        Report::Boot(boot) if boot.step() == v1::BootStep::Secrets => Some(boot),
        _ => None,
    });
    let next = next.await;
    assert_eq!(next.outcome(), v1::Outcome::Done);
    assert!(next.attempts >= 3, "{}", next.attempts);
}

#[tokio::test]
async fn a_redirect_is_followed_to_the_leader() {
    let mut leader = coordinator(|_| {}).await;
    let follower = serve(&leader.coordinator).await;
    *leader.coordinator.redirect.lock().unwrap() = Some(leader.address.clone());
    let machinery = machinery(&follower, &leader.coordinator.ca);
    let _agent = machinery.start();
    leader
        .report(|report| matches!(report, Report::Hello(_)).then_some(()))
        .await;
    *leader.coordinator.redirect.lock().unwrap() = None;
    leader
        .report(|report| matches!(report, Report::Health(_)).then_some(()))
        .await;
    assert!(leader.coordinator.sessions.load(Ordering::SeqCst) >= 2);
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_of_its_life_without_dropping_the_stream() {
    let mut rig = coordinator(|coordinator| coordinator.life = 2).await;
    let machinery = machinery(&rig.address, &rig.coordinator.ca);
    let _agent = machinery.start();
    rig.boot(v1::BootStep::Ready, v1::Outcome::Done).await;
    let renewed = async {
        while rig.coordinator.renewals.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, renewed)
        .await
        .expect("no renewal came");
    assert_eq!(rig.coordinator.sessions.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_certificate_that_is_old_when_it_comes_is_not_renewed_without_pause() {
    let mut rig = coordinator(|coordinator| coordinator.life = -60).await;
    let machinery = machinery(&rig.address, &rig.coordinator.ca);
    let agent = machinery.start();
    rig.boot(v1::BootStep::Ready, v1::Outcome::Done).await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert!(rig.coordinator.renewals.load(Ordering::SeqCst) <= 4);
    // It is not used after a restart either.
    drop(agent);
    let _agent = machinery.start();
    rig.boot(v1::BootStep::Enrolment, v1::Outcome::Done).await;
    assert!(rig.coordinator.enrolments.load(Ordering::SeqCst) >= 2);
}

#[tokio::test]
async fn a_machine_whose_certificate_has_ended_comes_back_with_its_own_key_and_needs_no_other_proof() {
    let mut rig = coordinator(|coordinator| coordinator.life = -60).await;
    let mut machinery = machinery(&rig.address, &rig.coordinator.ca);
    let agent = machinery.start();
    rig.boot(v1::BootStep::Enrolment, v1::Outcome::Done).await;
    drop(agent);
    let first = rig.coordinator.enrolments.load(Ordering::SeqCst);
    // The secret of its launch is gone.
    machinery.parts.attestor = Arc::new(crate::enrol::TokenFile("/nonexistent".into()));
    rig.coordinator.takes_known.store(true, Ordering::SeqCst);
    let _agent = machinery.start();
    rig.boot(v1::BootStep::Enrolment, v1::Outcome::Done).await;
    assert!(rig.coordinator.enrolments.load(Ordering::SeqCst) > first);
    assert!(rig.coordinator.known.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn a_certificate_is_renewed_when_the_coordinator_asks_for_it_without_dropping_the_stream() {
    let mut rig = coordinator(|_| {}).await;
    let machinery = machinery(&rig.address, &rig.coordinator.ca);
    let _agent = machinery.start();
    rig.boot(v1::BootStep::Ready, v1::Outcome::Done).await;
    assert_eq!(rig.coordinator.renewals.load(Ordering::SeqCst), 0);
    for asked in 1..=2 {
        let within = Some(millis(10));
        rig.coordinator
            .order(v1::session_response::Command::Renew(v1::RenewCommand { within }));
        let renewed = async {
            while rig.coordinator.renewals.load(Ordering::SeqCst) < asked {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, renewed)
            .await
            .expect("no renewal came");
    }
    assert_eq!(rig.coordinator.sessions.load(Ordering::SeqCst), 1);
    let mut keys = rig.coordinator.signed.lock().unwrap().clone();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 3, "each time a fresh key");
}
