//! `check`: which of the checks a configuration asks for, for this command and for the coordinator that runs.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use clap::{Args, ValueEnum};
use smartscale_coordinator::{
    act::fleet::Fleet,
    aws::kms::Kms,
    check::{
        Check, Checks, Known,
        certificates::{AuthorityFiles, CertificateCheck, Standing},
        clock::ClockCheck,
        files::{FileCheck, Wanted},
        fleet::FleetCheck,
        metrics::MetricsCheck,
        peers::PeerCheck,
        policy::PolicyCheck,
        rights::{Concern, RightsCheck},
        store::StoreCheck,
    },
    config::{Attestor, Config, Store},
    kubernetes::check::ApiServer,
    observe::prometheus::{self, Prometheus},
    policy::{Origin, Policies},
    serve::authority::{Names, files},
    state::SharedStore,
};
use smartscale_planner::Policy;
use smartscale_proto::time::{SharedClock, SystemClock};

use super::{
    build, channels,
    policy::{self, Cluster},
};

/// How a report is printed.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Form of the report.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Tries everything and prints what came of it. Whether all went well.
pub(super) async fn run(config: &Config, args: &CheckArgs) -> anyhow::Result<bool> {
    let clock: SharedClock = Arc::new(SystemClock);
    let cluster = Cluster::connect(config).await;
    let place = policy::place(config, cluster.as_ref().ok());
    let offer = match &place {
        Some(place) => place.look().await.ok(),
        None => None,
    };
    let policy = offer
        .and_then(|offer| offer.judge(None).ok())
        .map(|(in_force, _)| in_force.policy);
    let mut checks: Vec<Arc<dyn Check>> = Vec::new();
    checks.extend(place.map(|place| self::policy(config, place)));
    match &cluster {
        Ok(cluster) => {
            let steers = policy.as_ref().is_some_and(|policy| policy.scale_down.steer);
            checks.extend(of_cluster(config, cluster, move || steers));
        }
        Err(error) => checks.push(Arc::new(Known::failed(
            "kubernetes",
            "read the kubeconfig",
            format!("{error:#}"),
            "look at [kubernetes] kubeconfig of coordinator.toml",
        ))),
    }
    match policy {
        Some(policy) => checks.extend(of_policy(config, &policy, &clock).await),
        None => checks.push(Arc::new(Known::skipped(
            "cloud",
            "certificates, store, fleet and Prometheus",
            "without a policy nobody knows of which cluster",
        ))),
    }
    checks.extend(of_machine(config));
    let report = Checks::new(config.name.clone(), clock, checks).report().await;
    match args.output {
        Output::Text => print!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(!report.has_failed())
}

pub(super) fn policy(config: &Config, place: Arc<dyn Policies>) -> Arc<dyn Check> {
    Arc::new(PolicyCheck {
        origin: config.policy.clone(),
        policies: place,
        launchable: config.fleet.launchable(),
    })
}

/// What can be tried once there is a way to the Kubernetes API.
pub(super) fn of_cluster(
    config: &Config,
    cluster: &Cluster,
    steers: impl Fn() -> bool + Send + Sync + 'static,
) -> Vec<Arc<dyn Check>> {
    let server = Arc::new(ApiServer::new(cluster.api(), Arc::clone(&cluster.clock)));
    let mut concerns = vec![Concern::Base];
    concerns.extend(config.timing.hand_over.map(|_| Concern::HandOver));
    concerns.extend(config.join_server.as_ref().map(|_| Concern::JoinTokens));
    if let Origin::ConfigMap(name) = &config.policy {
        concerns.push(Concern::Policy(name.clone()));
    }
    let concerns = move || {
        let steering = steers().then_some(Concern::Steer);
        concerns.iter().cloned().chain(steering).collect()
    };
    vec![
        Arc::new(ClockCheck(Arc::<ApiServer>::clone(&server))),
        Arc::new(RightsCheck {
            access: server,
            concerns: Box::new(concerns),
        }),
    ]
}

/// What can be tried once it is known which cluster it is.
async fn of_policy(config: &Config, policy: &Policy, clock: &SharedClock) -> Vec<Arc<dyn Check>> {
    let mut checks: Vec<Arc<dyn Check>> = Vec::new();
    match build::names(config, policy) {
        Ok(names) => checks.push(certificates(config, names, clock)),
        Err(error) => checks.push(Arc::new(Known::failed(
            "certificates",
            "made a name of the cluster's id",
            format!("{error:#}"),
            "choose a cluster.id of letters, digits and dashes",
        ))),
    }
    let sdk = build::sdk(config).await;
    checks.extend(channels::checks(config, &sdk, &policy.cluster_id, clock));
    match &config.store {
        // Opening would make it, as whoever runs this.
        Store::Sqlite(path) if !path.exists() => checks.push(Arc::new(FileCheck {
            key: "store.path",
            path: path.parent().unwrap_or(Path::new("/")).to_owned(),
            wanted: Wanted::Folder,
        })),
        kind => match build::store(kind, &sdk, &policy.cluster_id, clock) {
            Ok(store) => checks.push(self::store(config, store, clock)),
            Err(error) => checks.push(Arc::new(Known::failed(
                "store",
                "opened it",
                format!("{error:#}"),
                "let the coordinator's user read and write it (store.path)",
            ))),
        },
    }
    checks.push(fleet(
        config,
        build::fleet(config, &sdk, &policy.cluster_id, clock),
    ));
    if let Some(settings) = &config.prometheus {
        match build::prometheus(settings, &policy.cluster_id, clock) {
            Ok(prometheus) => checks.push(metrics(config, prometheus)),
            Err(error) => checks.push(Arc::new(Known::failed(
                "prometheus",
                "read [prometheus]",
                format!("{error:#}"),
                "mend the key that it names",
            ))),
        }
    }
    checks
}

pub(super) fn certificates(config: &Config, names: Names, clock: &SharedClock) -> Arc<dyn Check> {
    let files = Files {
        names,
        config: config.clone(),
    };
    Arc::new(CertificateCheck {
        files: Arc::new(files),
        clock: Arc::clone(clock),
    })
}

pub(super) fn store(config: &Config, store: SharedStore, clock: &SharedClock) -> Arc<dyn Check> {
    Arc::new(StoreCheck {
        kind: config.store.clone(),
        store,
        name: config.name.clone(),
        clock: Arc::clone(clock),
    })
}

pub(super) fn fleet(config: &Config, fleet: Arc<dyn Fleet>) -> Arc<dyn Check> {
    Arc::new(FleetCheck {
        fleet,
        is_ec2: config.fleet.is_ec2(),
    })
}

pub(super) fn metrics(config: &Config, prometheus: Arc<Prometheus>) -> Arc<dyn Check> {
    let label = config
        .prometheus
        .as_ref()
        .and_then(|settings| settings.node_label.clone());
    Arc::new(MetricsCheck {
        queries: prometheus,
        node_label: label.unwrap_or(prometheus::Settings::default().node_label),
    })
}

/// What needs no more than this machine and its network, and what is left out.
pub(super) fn of_machine(config: &Config) -> Vec<Arc<dyn Check>> {
    let mut checks: Vec<Arc<dyn Check>> = Vec::new();
    if config.prometheus.is_none() {
        let why = "utilisation comes from the agents alone";
        checks.push(Arc::new(Known::skipped(
            "prometheus",
            "[prometheus] is not configured",
            why,
        )));
    }
    checks.push(Arc::new(PeerCheck {
        peers: config.peers.clone(),
        clock: Arc::new(SystemClock),
    }));
    if config.attestor == Attestor::Token && config.fleet.is_ec2() {
        checks.push(Arc::new(FileCheck {
            key: "enrolment.secret_dir",
            path: config.secret_dir.clone(),
            wanted: Wanted::Folder,
        }));
    }
    if let Some(path) = config
        .prometheus
        .as_ref()
        .and_then(|settings| settings.bearer_token_file.clone())
    {
        checks.push(Arc::new(FileCheck {
            key: "prometheus.bearer_token_file",
            path,
            wanted: Wanted::Secret,
        }));
    }
    checks
}

/// The authority's files, the key opened as the coordinator would.
struct Files {
    names: Names,
    config: Config,
}

#[async_trait]
impl AuthorityFiles for Files {
    fn place(&self) -> String {
        let Config {
            ca_key,
            ca_certificate,
            ..
        } = &self.config;
        format!("{} and {}", ca_key.display(), ca_certificate.display())
    }

    async fn read(&self) -> Result<Standing, String> {
        let vault = Kms::new(self.config.region.clone(), &self.names);
        let held = files::read(&self.config.ca_certificate, &self.config.ca_key, &vault)
            .await
            .map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        Ok(Standing {
            ends: held.ends(),
            trusted: held.anchors().len(),
        })
    }
}
