//! The program against a real door: two coordinators over mutual TLS, one of them the leader.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

mod checks;
mod cost;
mod recorded;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Output},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use smartscale_coordinator::{
    act::{
        binding::{Binding, Verified},
        nodes::{Eviction, Nodes, NodesError, PodOnNode},
    },
    check::{Check, Checks, Known},
    ids::{Epoch, OperationId},
    observe::notices::board::NoticeBoard,
    serve::{
        self,
        admin::{self, DrainOrder, OrderError, Orders, RecycleOrder},
        attest::TokenAttestor,
        authority::{Authority, Names},
        init::person_credentials,
        sessions::{SessionSettings, Sessions},
        view::Latest,
    },
    state::{
        Condition, LeaseRow, SharedStore, StateStore as _, StoreError, Write, lease::Leadership,
        sqlite::SqliteStore,
    },
    tell::{Happening, Tell},
};
use smartscale_planner::{fixtures, model::NodeName};
use smartscale_proto::{
    identity::Role,
    time::{SharedClock, SystemClock},
    v1::OperationView,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, broadcast, watch},
};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Book(Mutex<Vec<String>>);

#[async_trait]
impl Orders for Book {
    async fn drain(&self, order: DrainOrder) -> Result<OperationId, OrderError> {
        self.0.lock().unwrap().push(format!(
            "drain {} within {:?} by {}",
            order.node, order.timeout, order.by
        ));
        Ok("op-1".parse().unwrap())
    }

    async fn cancel_drain(&self, node: &NodeName, by: &str) -> Result<OperationId, OrderError> {
        self.0
            .lock()
            .unwrap()
            .push(format!("give the drain of {node} up by {by}"));
        Ok("op-1".parse().unwrap())
    }

    async fn recycle(&self, _: RecycleOrder) -> Result<OperationId, OrderError> {
        Err(OrderError::Refused("the cluster is at its maximum".to_owned()))
    }

    async fn operations(&self, _: usize, _: bool) -> Result<Vec<OperationView>, StoreError> {
        Ok(vec![])
    }

    async fn operation(&self, _: &OperationId) -> Result<Option<OperationView>, StoreError> {
        Ok(None)
    }
}

#[async_trait]
impl Nodes for Book {
    async fn cordon(&self, node: &NodeName, _: Option<&OperationId>) -> Result<bool, NodesError> {
        self.0.lock().unwrap().push(format!("cordon {node}"));
        Ok(false)
    }

    async fn uncordon(&self, _: &NodeName, _: Option<&OperationId>) -> Result<(), NodesError> {
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

struct Silence;

impl Tell for Silence {
    fn tell(&self, _: Happening) {}
}

struct Cluster {
    folder: tempfile::TempDir,
    authority: Arc<Authority>,
    book: Arc<Book>,
    store: SharedStore,
    follower: String,
    leader: String,
    shutdown: CancellationToken,
}

impl Cluster {
    async fn new() -> Self {
        smartscale_proto::tls::install_provider();
        let names = Names {
            trust: "smartscale".parse().unwrap(),
            cluster: "demo".parse().unwrap(),
        };
        let authority = Arc::new(Authority::create(names).unwrap().0);
        let clock: SharedClock = Arc::new(SystemClock);
        let store = SqliteStore::in_memory("demo".into(), Arc::clone(&clock)).unwrap();
        let row = LeaseRow {
            holder: Some("b".parse().unwrap()),
            rvn: "r".to_owned(),
            epoch: Epoch(3),
            lease: Duration::from_secs(15),
            expires_at: Timestamp::now(),
        };
        store.replace_lease(None, &row).await.unwrap();
        let store: SharedStore = Arc::new(store);
        let mut cluster = Self {
            store: Arc::clone(&store),
            folder: tempfile::tempdir().unwrap(),
            authority,
            book: Arc::default(),
            follower: String::new(),
            leader: String::new(),
            shutdown: CancellationToken::new(),
        };
        let leading = Leadership::Leader {
            epoch: Epoch(3),
            until: Duration::MAX,
        };
        cluster.leader = cluster.serve("b", leading, &store, &clock, None).await;
        let following = Leadership::Follower {
            leader: Some("b".parse().unwrap()),
        };
        let leader = cluster.leader.clone();
        cluster.follower = cluster.serve("a", following, &store, &clock, Some(leader)).await;
        cluster
    }

    async fn serve(
        &self,
        name: &str,
        leadership: Leadership,
        store: &SharedStore,
        clock: &SharedClock,
        peer: Option<String>,
    ) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut settings = serve::Settings::new(name.parse().unwrap(), address.clone());
        settings.peers.extend(peer.map(|at| ("b".parse().unwrap(), at)));
        let policy = fixtures::policy("");
        let snapshot = fixtures::snapshot(
            [fixtures::node("node-a").build()],
            [fixtures::pod("default/big").cpu("64").build()],
        );
        let at = fixtures::now();
        let latest = Latest {
            at,
            plan: Arc::new(smartscale_planner::plan(&snapshot, &policy, at)),
            snapshot: Arc::new(snapshot),
            policy: Arc::new(policy),
            policy_toml: "".into(),
            decision: None,
            cost_change_per_hour: 0.0,
            of_templates: Vec::new(),
            foreseen: None,
            steered: BTreeMap::new(),
            warnings: vec![],
        };
        // Nothing is wrong with the one that leads; the other has no table.
        let checks: Vec<Arc<dyn Check>> = match name {
            "b" => vec![Arc::new(Known::skipped("sns", "publish", "people would be told"))],
            _ => vec![Arc::new(Known::failed(
                "store",
                "read the lease",
                "no such table",
                "make it",
            ))],
        };
        let parts = serve::Parts {
            checks: Checks::new(settings.name.clone(), Arc::clone(clock), checks),
            settings,
            authority: Arc::clone(&self.authority),
            attestor: Arc::new(TokenAttestor::new(Arc::clone(clock))),
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            tell: Arc::new(Silence),
            leadership: watch::channel(leadership).1,
            joining: None,
            sessions: Sessions::new(
                SessionSettings::default(),
                NoticeBoard::new(Arc::clone(store), Arc::new(Silence), Arc::clone(clock)),
                Arc::clone(store),
                Arc::new(Silence),
                Arc::clone(clock),
            ),
            admin: admin::Parts {
                mode: "act".to_owned(),
                version: "0.0.0".to_owned(),
                latest: watch::channel(Some(Arc::new(latest))).1,
                orders: self.book.clone(),
                nodes: self.book.clone(),
                sources: Arc::new(|_| vec![]),
                objects_json: Arc::new(|()| Ok("{}".to_owned())),
                happenings: Arc::new(|()| broadcast::channel(1).1),
                nudge: Arc::new(Notify::new()),
            },
        };
        tokio::spawn(serve::serve(parts, listener, self.shutdown.clone()));
        address
    }

    fn credentials(&self, role: Role) -> PathBuf {
        let path = self.folder.path().join(format!("{role}.toml"));
        let endpoints = vec!["127.0.0.1:1".to_owned(), self.follower.clone()];
        let life = Duration::from_secs(3600);
        let (credentials, _) =
            person_credentials(&self.authority, endpoints, role, "jo".parse().unwrap(), life).unwrap();
        credentials.write(&path).unwrap();
        path
    }

    /// Runs the program with credentials that name a dead endpoint and the follower.
    async fn run(&self, role: Role, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smartscale"));
        command
            .args(arguments)
            .arg("--credentials")
            .arg(self.credentials(role))
            .env_clear();
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_by_whoever_is_there_in_three_forms() {
    let cluster = Cluster::new().await;
    let table = cluster.run(Role::Viewer, &["status"]).await;
    assert_eq!(table.status.code(), Some(0), "{}", text(&table.stderr));
    assert!(
        text(&table.stdout).contains("leader       b, term 3; a answers"),
        "{}",
        text(&table.stdout)
    );
    let json = cluster.run(Role::Viewer, &["nodes", "-o", "json"]).await;
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["nodes"][0]["name"], "node-a");
    let yaml = cluster
        .run(Role::Viewer, &["pods", "--pending", "-o", "yaml"])
        .await;
    assert!(
        text(&yaml.stdout).contains("code: NoInstanceTypeFits"),
        "{}",
        text(&yaml.stdout)
    );
    let why = cluster
        .run(Role::Viewer, &["explain", "pod", "default/big"])
        .await;
    assert!(
        text(&why.stdout).contains("The filter that stopped it"),
        "{}",
        text(&why.stdout)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_asks_every_coordinator_and_fails_when_one_of_them_lacks_something_or_is_away() {
    let cluster = Cluster::new().await;
    let checked = cluster.run(Role::Viewer, &["check"]).await;
    assert_eq!(checked.status.code(), Some(1));
    assert!(
        text(&checked.stderr).contains("2 checks failed"),
        "{}",
        text(&checked.stderr)
    );
    let table = text(&checked.stdout);
    for words in [
        "coordinator at 127.0.0.1:1",
        "read the lease: no such table\n",
        "-> make it\n",
    ] {
        assert!(table.contains(words), "{words:?} is missing in: {table}");
    }

    let sound = ["check", "-o", "json", "--endpoint", &cluster.leader];
    let checked = cluster.run(Role::Viewer, &sound).await;
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let value: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    let report = &value["reports"][0];
    assert_eq!(report["program"], "coordinator b");
    assert_eq!(report["findings"][0]["outcome"], "skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_find_their_way_to_the_leader() {
    let cluster = Cluster::new().await;
    let drain = cluster
        .run(Role::Operator, &["drain", "node-a", "--timeout", "90s"])
        .await;
    assert_eq!(drain.status.code(), Some(0), "{}", text(&drain.stderr));
    assert!(text(&drain.stdout).contains("op-1"));
    let cancelled = cluster
        .run(Role::Operator, &["drain", "node-a", "--cancel"])
        .await;
    assert_eq!(cancelled.status.code(), Some(0), "{}", text(&cancelled.stderr));
    assert_eq!(
        *cluster.book.0.lock().unwrap(),
        [
            "drain node-a within Some(90s) by jo (operator)",
            "give the drain of node-a up by jo (operator)"
        ]
    );
    assert_eq!(
        cluster
            .run(Role::Operator, &["scale", "--to", "3", "--for", "2h"])
            .await
            .status
            .code(),
        Some(0)
    );
    let status = cluster.run(Role::Viewer, &["status", "-o", "json"]).await;
    let value: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(value["floor_nodes"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_the_way_out_and_have_their_exit_codes() {
    let cluster = Cluster::new().await;
    let refused = cluster.run(Role::Viewer, &["cordon", "node-a"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("`operator` may act"),
        "{}",
        text(&refused.stderr)
    );
    let unknown = cluster.run(Role::Operator, &["cordon", "node-b"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        text(&unknown.stderr).contains("did you mean node-a?"),
        "{}",
        text(&unknown.stderr)
    );
    let too_many = cluster.run(Role::Operator, &["scale", "--to", "5000"]).await;
    assert_eq!(too_many.status.code(), Some(2));
    assert!(
        text(&too_many.stderr).contains("max_nodes"),
        "{}",
        text(&too_many.stderr)
    );
    assert!(cluster.book.0.lock().unwrap().is_empty());
}

/// The exit code and both outputs.
fn said(output: &Output) -> String {
    format!(
        "{:?} {} {}",
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_with_a_key_that_never_leaves_the_machine() {
    use std::os::unix::fs::PermissionsExt as _;
    let cluster = Cluster::new().await;
    let home = tempfile::tempdir().unwrap();
    let file = |name: &str| home.path().join(name);
    let own = file("ann/credentials.toml");
    let as_ann = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smartscale"));
        command.args(arguments).arg("--credentials").arg(&own).env_clear();
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    };
    let (request, grant) = (file("ann.csr"), file("ann.grant"));
    let (request, grant) = (request.to_str().unwrap(), grant.to_str().unwrap());
    let asked = as_ann(&["login", "--request", request]).await;
    assert_eq!(asked.status.code(), Some(0), "{}", said(&asked));
    let key = file("ann/login.key");
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(!std::fs::read_to_string(request).unwrap().contains("PRIVATE"));
    let issue = [
        "identity",
        "issue",
        "--role",
        "viewer",
        "--for",
        "ann",
        "--request",
        request,
        "-o",
        grant,
    ];
    let refused = cluster.run(Role::Operator, &issue).await;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let issued = cluster.run(Role::Admin, &issue).await;
    assert_eq!(issued.status.code(), Some(0), "{}", said(&issued));
    assert!(!std::fs::read_to_string(grant).unwrap().contains("PRIVATE"));
    let taken = as_ann(&["login", "--grant", grant]).await;
    assert!(
        text(&taken.stdout).contains("admin/viewer/ann"),
        "{}",
        said(&taken)
    );
    assert_eq!(
        std::fs::metadata(&own).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(!key.exists());
    let status = as_ann(&["status"]).await;
    assert_eq!(status.status.code(), Some(0), "{}", said(&status));

    let list = cluster.run(Role::Admin, &["identity", "list"]).await;
    assert!(text(&list.stdout).contains("ann"), "{}", said(&list));
    let revoked = cluster
        .run(Role::Admin, &["identity", "revoke", "ann", "--reason", "left"])
        .await;
    assert_eq!(revoked.status.code(), Some(0), "{}", said(&revoked));
    let status = as_ann(&["status"]).await;
    assert!(text(&status.stderr).contains("revoked"), "{}", said(&status));
    // The answer again, without the key: of no use to anybody.
    let again = as_ann(&["login", "--grant", grant]).await;
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_listed_and_checked_and_a_change_in_it_is_named() {
    let cluster = Cluster::new().await;
    cluster.run(Role::Viewer, &["nodes"]).await;
    cluster.run(Role::Viewer, &["cordon", "node-a"]).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    let listed = loop {
        let listed = cluster.run(Role::Viewer, &["audit", "list"]).await;
        let said = text(&listed.stdout);
        if said.contains("ListNodes") && said.contains("permission_denied") {
            break said;
        }
        assert!(tokio::time::Instant::now() < end, "{said}");
    };
    assert!(listed.contains("jo (viewer)"), "{listed}");
    let whole = cluster.run(Role::Viewer, &["audit", "verify"]).await;
    assert_eq!(whole.status.code(), Some(0), "{}", said(&whole));
    let printed = text(&whole.stdout);
    let note = printed
        .lines()
        .find_map(|line| line.trim().strip_prefix("note "))
        .unwrap();
    let noted = cluster
        .run(Role::Viewer, &["audit", "verify", "--noted", note])
        .await;
    assert_eq!(noted.status.code(), Some(0), "{}", said(&noted));

    // Somebody who can write to the store hides who did it.
    let key = "audit#a#00000000000000000002";
    let mut item = cluster.store.get(key).await.unwrap().unwrap();
    item.body["who"] = "spiffe://smartscale/cluster/demo/admin/admin/mallory".into();
    let write = Write::Put {
        key: key.to_owned(),
        body: item.body,
        expires_at: item.expires_at,
        condition: Condition::Always,
    };
    cluster.store.append(&write).await.unwrap();
    let found = cluster.run(Role::Viewer, &["audit", "verify"]).await;
    assert_eq!(found.status.code(), Some(1), "{}", said(&found));
    assert!(
        text(&found.stdout).contains("record 2 was changed"),
        "{}",
        said(&found)
    );
}
