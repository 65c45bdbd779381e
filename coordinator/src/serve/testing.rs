//! A door for tests: the real server on loopback with a real store and authority, and callers with any certificate.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use smartscale_planner::{Plan, Policy, Snapshot, fixtures, model::NodeName};
use smartscale_proto::{
    audit::Entry,
    identity::{Identity, Party, Role},
    time::{Clock, SharedClock, SystemClock},
    tls::{
        Anchors, Credential, Rotating,
        client::{Dialer, Expected},
        keys::key_and_request,
    },
    v1::{
        self, OperationView, admin_client::AdminClient, agent_client::AgentClient,
        enrolment_client::EnrolmentClient,
    },
};
use tokio::{
    net::TcpListener,
    sync::{Notify, broadcast, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use super::{
    Parts, ServeError, Settings, admin, attest,
    authority::{Authority, Names},
    join_tokens::{JoinTokens, Joining, NotMinted},
    sessions::{SessionSettings, Sessions},
    view::Latest,
};
use crate::{
    act::{
        binding::{Binding, Verified},
        nodes::{Eviction, Nodes, NodesError, PodOnNode},
    },
    check::{Checks, Known},
    ids::{Epoch, InstanceId, OperationId},
    observe::notices::board::NoticeBoard,
    state::{
        Attributes, Condition, LeaseRow, SharedStore, StateStore as _, StoreError, Write,
        lease::Leadership,
        records::{NodeRecord, Record as _},
        sqlite::SqliteStore,
    },
    tell::{Happening, Tell},
};

/// A clock that is moved by hand.
pub(crate) struct Hand(watch::Sender<Duration>);

impl Default for Hand {
    fn default() -> Self {
        Self(watch::Sender::new(Duration::from_secs(1000)))
    }
}

impl Hand {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now += by);
    }
}

#[async_trait]
impl Clock for Hand {
    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        start + SignedDuration::try_from(self.elapsed()).unwrap()
    }

    fn elapsed(&self) -> Duration {
        *self.0.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let end = self.elapsed() + duration;
        let _ = self.0.subscribe().wait_for(|now| *now >= end).await;
    }
}

/// The machine's clock, but behind by so much.
pub(super) struct Behind(pub(super) Duration);

#[async_trait]
impl Clock for Behind {
    fn now(&self) -> Timestamp {
        Timestamp::now() - SignedDuration::try_from(self.0).unwrap()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration).await;
    }
}

/// Remembers what it was told and passes it on.
pub(super) struct Told(
    pub(super) Mutex<Vec<Happening>>,
    pub(super) broadcast::Sender<Arc<Happening>>,
);

impl Tell for Told {
    fn tell(&self, happening: Happening) {
        let _ = self.1.send(Arc::new(happening.clone()));
        self.0.lock().unwrap().push(happening);
    }
}

/// Takes every order and remembers it.
#[derive(Default)]
pub(super) struct Book(pub(super) Mutex<Vec<String>>);

#[async_trait]
impl admin::Orders for Book {
    async fn drain(&self, order: admin::DrainOrder) -> Result<OperationId, admin::OrderError> {
        self.0
            .lock()
            .unwrap()
            .push(format!("drain {} by {}", order.node, order.by));
        Ok("op-1".parse().unwrap())
    }

    async fn cancel_drain(&self, node: &NodeName, by: &str) -> Result<OperationId, admin::OrderError> {
        let mut book = self.0.lock().unwrap();
        book.push(format!("give the drain of {node} up by {by}"));
        Ok("op-1".parse().unwrap())
    }

    async fn recycle(&self, order: admin::RecycleOrder) -> Result<OperationId, admin::OrderError> {
        self.0
            .lock()
            .unwrap()
            .push(format!("recycle {} by {}", order.node, order.by));
        Err(admin::OrderError::Refused(
            "the cluster is at its maximum".to_owned(),
        ))
    }

    async fn operations(&self, _: usize, _: bool) -> Result<Vec<OperationView>, StoreError> {
        Ok(vec![operation()])
    }

    async fn operation(&self, id: &OperationId) -> Result<Option<OperationView>, StoreError> {
        Ok((id.as_str() == "op-1").then(operation))
    }
}

fn operation() -> OperationView {
    OperationView {
        id: "op-1".to_owned(),
        kind: "remove".to_owned(),
        phase: "draining".to_owned(),
        nodes: vec!["node-a".to_owned()],
        reason: "it is empty".to_owned(),
        ..OperationView::default()
    }
}

#[async_trait]
impl Nodes for Book {
    async fn cordon(&self, node: &NodeName, _: Option<&OperationId>) -> Result<bool, NodesError> {
        self.0.lock().unwrap().push(format!("cordon {node}"));
        Ok(false)
    }

    async fn uncordon(&self, node: &NodeName, _: Option<&OperationId>) -> Result<(), NodesError> {
        self.0.lock().unwrap().push(format!("uncordon {node}"));
        Ok(())
    }

    async fn pods(&self, _: &NodeName) -> Result<Vec<PodOnNode>, NodesError> {
        Ok(vec![])
    }

    async fn evict(&self, _: &PodOnNode) -> Result<Eviction, NodesError> {
        Ok(Eviction::Gone)
    }

    async fn delete_pod(&self, _: &PodOnNode, _: u32) -> Result<(), NodesError> {
        Ok(())
    }

    async fn verify(&self, _: &NodeName, _: &Binding) -> Result<Verified, NodesError> {
        Ok(Verified::Lifted)
    }

    async fn leave_balancers(&self, _: &NodeName, _: &OperationId) -> Result<(), NodesError> {
        Ok(())
    }
    async fn rejoin_balancers(&self, _: &NodeName, _: &OperationId) -> Result<(), NodesError> {
        Ok(())
    }
    async fn attached(&self, _: &NodeName) -> Result<Vec<String>, NodesError> {
        Ok(Vec::new())
    }
    async fn out_of_service(&self, _: &NodeName) -> Result<(), NodesError> {
        Ok(())
    }
    async fn delete(&self, _: &NodeName) -> Result<(), NodesError> {
        Ok(())
    }
}

pub(super) const EPOCH: Epoch = Epoch(7);

/// Mints tokens that name their node, unless it fails.
#[derive(Default)]
pub(super) struct Mint(pub(super) AtomicBool);

#[async_trait]
impl JoinTokens for Mint {
    async fn mint(&self, node: &NodeName, _: Duration) -> Result<Zeroizing<String>, NotMinted> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(NotMinted("the API server is away".to_owned())),
            false => Ok(Zeroizing::new(format!("token of {node}"))),
        }
    }
}

pub(super) struct World {
    pub(super) address: String,
    pub(super) authority: Arc<Authority>,
    pub(super) store: SharedStore,
    pub(super) sessions: Arc<Sessions>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) latest: watch::Sender<Option<Arc<Latest>>>,
    pub(super) told: Arc<Told>,
    pub(super) book: Arc<Book>,
    pub(super) mint: Arc<Mint>,
    pub(super) shutdown: CancellationToken,
    pub(super) server: JoinHandle<Result<(), ServeError>>,
}

pub(super) fn names(cluster: &str) -> Names {
    Names {
        trust: "smartscale".parse().unwrap(),
        cluster: cluster.parse().unwrap(),
    }
}

pub(super) async fn store(clock: SharedClock) -> SharedStore {
    let store = SqliteStore::in_memory("demo".into(), clock).unwrap();
    let row = LeaseRow {
        holder: Some("a".parse().unwrap()),
        rvn: "r".to_owned(),
        epoch: EPOCH,
        lease: Duration::from_secs(15),
        expires_at: Timestamp::now(),
    };
    assert!(store.replace_lease(None, &row).await.unwrap());
    Arc::new(store)
}

pub(super) fn leading() -> Leadership {
    Leadership::Leader {
        epoch: EPOCH,
        until: Duration::MAX,
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::of(Arc::new(Authority::create(names("demo")).unwrap().0)).await
    }

    pub(super) async fn of(authority: Arc<Authority>) -> Self {
        let clock: SharedClock = Arc::new(SystemClock);
        Self::with(authority, Arc::new(attest::TokenAttestor::new(clock))).await
    }

    pub(super) async fn with(authority: Arc<Authority>, attestor: Arc<dyn attest::Attestor>) -> Self {
        smartscale_proto::tls::install_provider();
        let clock: SharedClock = Arc::new(SystemClock);
        let store = store(Arc::clone(&clock)).await;
        let told = Arc::new(Told(Mutex::default(), broadcast::channel(64).0));
        let sessions = Sessions::new(
            SessionSettings::default(),
            NoticeBoard::new(Arc::clone(&store), told.clone(), Arc::clone(&clock)),
            Arc::clone(&store),
            told.clone(),
            Arc::clone(&clock),
        );
        let (leadership, leadership_view) = watch::channel(leading());
        let (latest, latest_view) = watch::channel(None);
        let book = Arc::new(Book::default());
        let mint = Arc::new(Mint::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let mut settings = Settings::new("a".parse().unwrap(), address.clone());
        settings
            .peers
            .insert("b".parse().unwrap(), "127.0.0.1:2".to_owned());
        settings.shutdown = Duration::from_secs(5);
        let happenings = told.clone();
        let unreached = Known::failed("store", "read the lease", "no such table", "make it");
        let parts = Parts {
            settings,
            authority: Arc::clone(&authority),
            attestor,
            store: Arc::clone(&store),
            clock,
            tell: told.clone(),
            leadership: leadership_view,
            sessions: Arc::clone(&sessions),
            joining: Some(Joining {
                server: "https://10.0.0.10:6443".to_owned(),
                tokens: mint.clone(),
            }),
            checks: Checks::new(
                "a".parse().unwrap(),
                Arc::new(SystemClock),
                vec![Arc::new(unreached)],
            ),
            admin: admin::Parts {
                mode: "act".to_owned(),
                version: "0.0.0".to_owned(),
                latest: latest_view,
                orders: book.clone(),
                nodes: book.clone(),
                sources: Arc::new(|_| {
                    vec![admin::SourceView {
                        source: "prometheus".to_owned(),
                        age: None,
                        fresh: false,
                        error: Some("connection refused".to_owned()),
                    }]
                }),
                objects_json: Arc::new(|()| Ok("{\"kind\":\"List\"}".to_owned())),
                happenings: Arc::new(move |()| happenings.1.subscribe()),
                nudge: Arc::new(Notify::new()),
            },
        };
        let server = tokio::spawn(super::serve(parts, listener, shutdown.clone()));
        Self {
            address,
            authority,
            store,
            sessions,
            leadership,
            latest,
            told,
            book,
            mint,
            shutdown,
            server,
        }
    }

    /// A decision about two nodes of ours, one foreign and a pod that fits nowhere.
    pub(super) fn decide(&self) {
        let policy = fixtures::policy("");
        let snapshot = fixtures::snapshot(
            [
                fixtures::node("node-a")
                    .cpu("2")
                    .memory("4Gi")
                    .pool("workers")
                    .build(),
                fixtures::node("node-b")
                    .cpu("2")
                    .memory("4Gi")
                    .pool("workers")
                    .build(),
                fixtures::node("master")
                    .label("node-role.kubernetes.io/control-plane", "true")
                    .build(),
            ],
            [
                fixtures::pod("default/web-1")
                    .cpu("500m")
                    .memory("1Gi")
                    .on("node-a")
                    .bare()
                    .build(),
                fixtures::pod("default/big").cpu("64").memory("1Gi").build(),
            ],
        );
        self.decide_on(policy, snapshot, |_| {});
    }

    /// A decision about that, with whatever else is to be known of it.
    pub(super) fn decide_on(&self, policy: Policy, snapshot: Snapshot, more: impl FnOnce(&mut Latest)) {
        let at = fixtures::now();
        let plan: Plan = smartscale_planner::plan(&snapshot, &policy, at);
        let mut latest = Latest {
            at,
            snapshot: Arc::new(snapshot),
            plan: Arc::new(plan),
            policy: Arc::new(policy),
            policy_toml: "[cluster]".into(),
            decision: None,
            cost_change_per_hour: 0.0,
            warnings: vec![],
            of_templates: vec![],
            foreseen: None,
            steered: BTreeMap::new(),
        };
        more(&mut latest);
        self.latest.send_replace(Some(Arc::new(latest)));
    }

    /// A credential of this cluster's authority.
    pub(super) fn credential(&self, party: Party) -> Credential {
        self.authority.client(party, Duration::from_secs(3600)).unwrap().0
    }

    /// No certificate, but knowing whom to trust.
    pub(super) fn nobody(&self) -> Credential {
        Credential {
            chain: vec![],
            key: None,
            anchors: Anchors::Certificates(self.authority.anchors()),
        }
    }

    pub(super) async fn channel(&self, credential: Credential) -> Channel {
        self.try_channel(credential).await.unwrap()
    }

    /// A channel, or nothing where the server ends it before it is open.
    pub(super) async fn try_channel(&self, credential: Credential) -> Option<Channel> {
        let expected = Expected {
            trust: "smartscale".parse().unwrap(),
            cluster: "demo".parse().unwrap(),
        };
        Dialer::new(Rotating::new(credential), expected)
            .connect(&self.address)
            .await
            .ok()
    }

    pub(super) async fn people(&self, role: Role) -> AdminClient<Channel> {
        AdminClient::new(self.channel(self.credential(person(role))).await)
    }

    pub(super) async fn agent(&self, instance: &str) -> AgentClient<Channel> {
        let party = Party::Agent {
            instance: instance.parse().unwrap(),
        };
        AgentClient::new(self.channel(self.credential(party)).await)
    }

    pub(super) async fn enrolment(&self) -> EnrolmentClient<Channel> {
        EnrolmentClient::new(self.channel(self.nobody()).await)
    }

    pub(super) async fn put(&self, record: &NodeRecord) {
        let write = Write::Put {
            key: record.key(),
            body: record.body().unwrap(),
            expires_at: None,
            condition: Condition::Always,
        };
        self.store
            .commit(EPOCH, &[write], &Attributes::new())
            .await
            .unwrap();
    }

    /// A machine that enrolled.
    pub(super) async fn enrolled(&self, instance: &str) -> NodeRecord {
        let mut record = machine(instance);
        record.enrolled_key = Some("ab".repeat(32));
        self.put(&record).await;
        record
    }

    /// Waits for an audit record.
    pub(super) async fn audited(&self, call: &str, outcome: &str) -> Entry {
        let found = until(async || {
            let items = self.store.list(Entry::PREFIX, false, 1000).await.unwrap();
            let mut records = items.iter().map(|item| Entry::from_item(item).unwrap());
            records.find(|record| record.call.ends_with(call) && record.outcome == outcome)
        });
        found.await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Waits for a level.
pub(super) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "it did not come to pass within 20 s"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) fn person(role: Role) -> Party {
    Party::Admin {
        role,
        name: "jo".parse().unwrap(),
    }
}

pub(crate) fn machine(instance: &str) -> NodeRecord {
    NodeRecord {
        instance: instance.parse::<InstanceId>().unwrap(),
        pool: "workers".into(),
        instance_type: "t3.small".into(),
        zone: "us-east-1a".into(),
        market: smartscale_planner::model::Market::Spot,
        operation: "op-1".parse().unwrap(),
        launched_at: Timestamp::now(),
        secret_hash: None,
        secret_expires_at: None,
        enrolled_key: None,
        enrolled_at: None,
        ready_at: None,
        binding_secret: None,
        certified: None,
        revoked_at: None,
        boot: Vec::new(),
    }
}

/// A fresh key, and the request for it.
pub(super) fn key() -> (PrivateKeyDer<'static>, Vec<u8>) {
    key_and_request().unwrap()
}

pub(super) fn identity_in(certificate: &v1::Certificate) -> Identity {
    Identity::from_certificate(&CertificateDer::from(certificate.chain_der[0].clone())).unwrap()
}
