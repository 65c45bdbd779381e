//! Builds a coordinator with its real adapters and runs it under systemd's eyes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use smartscale_coordinator::{
    act::{self, fleet::Fleet},
    aws::{
        self, cloudwatch::CloudWatch, dynamodb::DynamoStore, fleet::Ec2Fleet, kms::Kms, market::AwsMarket,
        queue::SqsQueue, sts::Sts,
    },
    check::Checks,
    command::CommandFleet,
    config::{self, Attestor, Config, FleetPool, Store},
    decide::{Pace, PolicyInForce},
    ids::TimedIds,
    kubernetes::{
        annotations::Annotations, events::Events, join_tokens::BootstrapTokens, nodes::KubeNodes,
        policy::PolicyMap, watch::Watch,
    },
    observe::{
        ClusterView,
        notices::listen::NoticeQueue,
        prometheus::{self, Prometheus},
        sources,
    },
    policy::{Judged, Keeper, Offer, Origin, Policies as _, PolicyFile},
    program::{self, Outside, OutsideTask, Program, Settings},
    serve::{
        attest::{self, Ec2Attestor, TokenAttestor},
        authority::{Authority, CertificateLife, Names, files},
        join_tokens::Joining,
        sessions::SessionSettings,
    },
    state::{SharedStore, lease, sqlite::SqliteStore},
    tell::{
        Severity,
        hub::{Hub, Sink},
        metrics::Metrics,
    },
};
use smartscale_planner::{
    Policy,
    model::{ClusterId, PoolName},
};
use smartscale_proto::{
    time::{SharedClock, SystemClock, within},
    tls::client::Expected,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::{
    channels, check,
    policy::{self, Cluster},
};

/// At its start a coordinator waits so long for the API server to tell the time.
const FIRST_DATE: Duration = Duration::from_secs(5);

/// Runs a coordinator with the policy of its file, or that of its ConfigMap once there is one.
pub(super) async fn run(config: Config, of_file: Option<Judged>) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&config).await?;
    let (in_force, warnings) = match (of_file, &config.policy) {
        (Some(judged), _) => judged,
        (None, Origin::ConfigMap(name)) => policy::awaited(name, &config.name, &cluster).await,
        (None, Origin::File(_)) => policy::read(&config).await?,
    };
    for warning in &warnings {
        tracing::warn!(%warning, "policy");
    }
    let (publish, _) = watch::channel(in_force);
    let (offers, _) = watch::channel(None);
    let shutdown = CancellationToken::new();
    let program = build(&config, &cluster, publish, &offers).await?;
    tracing::info!(listen = %config.listen, mode = %config.mode, name = %config.name, "coordinator starts");
    let authority = Arc::clone(&program.authority);
    let running = program::run(program, shutdown.clone());
    let signals = obey_signals(&config, offers, &authority, shutdown);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        ended = running => ended.context("the coordinator failed"),
        impatient = signals => impatient,
    }
}

/// SIGHUP reloads the policy's file and the certificate authority; the first SIGTERM or SIGINT begins the shutdown, the second ends everything.
async fn obey_signals(
    config: &Config,
    offers: watch::Sender<Option<Offer>>,
    authority: &Authority,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut reload = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // systemd's watchdog is fed by the runtime that runs everything else: if that stalls, it is restarted.
    let mut alive = tokio::time::interval(Duration::from_secs(10));
    loop {
        tokio::select! {
            _ = alive.tick() => {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                continue;
            }
            _ = reload.recv() => {
                if let Origin::File(path) = &config.policy {
                    offers.send_replace(PolicyFile(path.clone()).look().await.ok());
                }
                reread(authority, config).await;
                continue;
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        anyhow::ensure!(!shutdown.is_cancelled(), "a second signal ended the shutdown");
        tracing::info!("shutting down");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        shutdown.cancel();
    }
}

/// Takes a changed certificate authority over; one that cannot be used is refused and the old one goes on.
async fn reread(authority: &Authority, config: &Config) {
    let vault = Kms::new(config.region.clone(), authority.names());
    match files::read(&config.ca_certificate, &config.ca_key, &vault).await {
        Ok(held) => {
            if authority.replace(held) {
                tracing::info!("the certificate authority was read again");
            }
        }
        Err(error) => tracing::error!(
            error = format!("{:#}", anyhow::Error::from(error)),
            "the certificate authority is refused; the old one goes on"
        ),
    }
}

/// How machines prove themselves.
fn attestor(
    config: &Config,
    names: &Names,
    sdk: &aws_config::SdkConfig,
    cluster: &ClusterId,
    clock: &SharedClock,
) -> anyhow::Result<Arc<dyn attest::Attestor>> {
    let (Attestor::Ec2 { role, oldest }, config::Fleet::Ec2(pools)) = (&config.attestor, &config.fleet)
    else {
        return Ok(Arc::new(TokenAttestor::new(Arc::clone(clock))));
    };
    let settings = attest::ec2::Settings {
        region: config.region.clone().unwrap_or_default(),
        role: role.clone(),
        oldest: *oldest,
    };
    let coordinator = Expected {
        trust: names.trust.clone(),
        cluster: names.cluster.clone(),
    };
    let sts = Arc::new(Sts::new(Arc::clone(clock))?);
    let instances = Arc::new(ec2_fleet(config, pools, sdk, cluster));
    let attestor = Ec2Attestor::new(settings, coordinator, sts, instances, Arc::clone(clock))?;
    Ok(Arc::new(attestor))
}

/// What keeps the policy in step with where it comes from.
fn policy_tasks(
    config: &Config,
    cluster: &Cluster,
    publish: watch::Sender<PolicyInForce>,
    offers: &watch::Sender<Option<Offer>>,
    hub: &Arc<Hub>,
) -> Vec<OutsideTask> {
    let keeper = Keeper {
        origin: config.policy.clone(),
        offers: offers.subscribe(),
        publish,
        tell: Arc::<Hub>::clone(hub),
        clock: Arc::clone(&cluster.clock) as _,
    };
    let mut tasks: Vec<OutsideTask> = vec![("the policy", Box::new(move |stop| Box::pin(keeper.run(stop))))];
    if let Origin::ConfigMap(name) = &config.policy {
        let map = PolicyMap::new(cluster.api(), name.clone());
        let offers = offers.clone();
        tasks.push((
            "the policy's ConfigMap",
            Box::new(move |stop| Box::pin(map.run(offers, stop))),
        ));
    }
    tasks
}

async fn build(
    config: &Config,
    reached: &Cluster,
    publish: watch::Sender<PolicyInForce>,
    offers: &watch::Sender<Option<Offer>>,
) -> anyhow::Result<Program> {
    let clock: SharedClock = Arc::clone(&reached.clock) as _;
    let policy = publish.subscribe();
    let place = policy::place(config, Some(reached)).context("there is a way to the cluster")?;
    let cluster_id = policy.borrow().policy.cluster_id.clone();
    let names = names(config, &policy.borrow().policy)?;
    let vault = Kms::new(config.region.clone(), &names);
    let authority = Authority::load(names.clone(), &config.ca_certificate, &config.ca_key, &vault)
        .await
        .context("the certificate authority cannot be used")?
        .with_life(CertificateLife::new(config.certificate_life)?);
    let sdk = sdk(config).await;
    let store = store(&config.store, &sdk, &cluster_id, &clock)?;
    let gauges = Metrics::new(env!("CARGO_PKG_VERSION"));
    let kube = reached.client.clone();
    // Asked before anything is dated. A server that is away is met again by whoever needs it.
    let _ = within(&SystemClock, FIRST_DATE, kube.apiserver_version()).await;
    let fleet = fleet(config, &sdk, &cluster_id, &clock);
    let attestor = attestor(config, &names, &sdk, &cluster_id, &clock)?;
    let mut sinks = vec![
        Sink::for_people(
            Arc::new(Events::new(kube.clone(), config.name.to_string())),
            Severity::Info,
        ),
        Sink::for_people(Arc::new(Annotations::new(kube)), Severity::Info),
    ];
    sinks.extend(channels::sinks(config, &sdk, &cluster_id, &clock)?);
    if let Some((namespace, period)) = &config.cloudwatch {
        let cloudwatch = CloudWatch::new(&sdk, namespace.clone(), cluster_id.to_string(), gauges.clone());
        sinks.push(Sink::for_counting(Arc::new(cloudwatch), *period));
    }
    let (log, carrier) = channels::log(config, &sdk, &cluster_id, &gauges, &clock).unzip();
    let (hub, couriers) = Hub::new(gauges, &clock, sinks);
    let watching = Watch::new(reached.api());
    let watch_task: OutsideTask = ("the watch", {
        let watching = Arc::clone(&watching);
        Box::new(move |stop| Box::pin(watching.run(stop)))
    });
    let mut tasks = policy_tasks(config, reached, publish, offers, &hub);
    tasks.push(watch_task);
    if let Some(carrier) = carrier {
        tasks.push((
            "the log of decisions",
            Box::new(move |stop| Box::pin(carrier.run(stop))),
        ));
    }
    let metrics = config
        .prometheus
        .as_ref()
        .map(|settings| prometheus(settings, &cluster_id, &clock))
        .transpose()?;
    let mut checks = vec![check::policy(config, place)];
    let in_force = policy.clone();
    checks.extend(check::of_cluster(config, reached, move || {
        in_force.borrow().policy.scale_down.steer
    }));
    checks.push(check::certificates(config, names, &clock));
    checks.push(check::store(config, Arc::clone(&store), &clock));
    checks.push(check::fleet(config, Arc::clone(&fleet)));
    checks.extend(metrics.clone().map(|metrics| check::metrics(config, metrics)));
    checks.extend(channels::checks(config, &sdk, &cluster_id, &clock));
    checks.extend(check::of_machine(config));
    let checks = Checks::new(config.name.clone(), Arc::clone(&clock), checks);
    let queue = config.notices_queue.as_ref().map(|url| {
        let queue: Arc<dyn NoticeQueue> = Arc::new(SqsQueue::new(&sdk, url.clone()));
        queue
    });
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("serve.listen: {} cannot be listened at", config.listen))?;
    let http = match config.http {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .with_context(|| format!("http.listen: {address} cannot be listened at"))?,
        ),
        None => None,
    };
    let api = reached.api();
    let joining = config.join_server.clone().map(|server| Joining {
        server,
        tokens: Arc::new(BootstrapTokens::new(api.clone())),
    });
    let nodes = Arc::new(KubeNodes::new(api));
    let cluster: Arc<dyn ClusterView> = watching;
    let settings = settings(config, &policy.borrow().policy)?;
    Ok(Program {
        settings,
        authority: Arc::new(authority),
        attestor,
        policy,
        clock,
        ids: Arc::new(TimedIds),
        rvn: lease::random_rvn(),
        store,
        hub,
        couriers,
        outside: Outside {
            fleet,
            nodes,
            cluster,
            metrics: metrics.map(|metrics| metrics as _),
            queue,
            market: config
                .market
                .map(|settings| (Arc::new(AwsMarket::new(&sdk)) as _, settings)),
            log: log.map(|log| log as _),
            joining,
            checks,
            tasks,
        },
        listener,
        http,
    })
}

pub(super) fn names(config: &Config, policy: &Policy) -> anyhow::Result<Names> {
    Ok(Names {
        trust: config.trust.clone(),
        cluster: policy.cluster_id.as_str().parse().context("policy: cluster.id")?,
    })
}

pub(super) fn store(
    kind: &Store,
    sdk: &aws_config::SdkConfig,
    cluster: &ClusterId,
    clock: &SharedClock,
) -> anyhow::Result<SharedStore> {
    let (cluster, clock) = (cluster.clone(), Arc::clone(clock));
    Ok(match kind {
        Store::Sqlite(path) => Arc::new(SqliteStore::open(path, cluster, clock)?),
        Store::DynamoDb(table) => Arc::new(DynamoStore::new(sdk, table.clone(), cluster, clock)),
    })
}

/// What AWS' adapters share. Where nothing is AWS', nobody looks for a region and credentials that are not there.
pub(super) async fn sdk(config: &Config) -> aws_config::SdkConfig {
    if config.needs_aws() {
        aws::sdk_config(config.region.clone()).await
    } else {
        aws_config::SdkConfig::builder().build()
    }
}

pub(super) fn fleet(
    config: &Config,
    sdk: &aws_config::SdkConfig,
    cluster: &ClusterId,
    clock: &SharedClock,
) -> Arc<dyn Fleet> {
    match &config.fleet {
        config::Fleet::Ec2(pools) => Arc::new(ec2_fleet(config, pools, sdk, cluster)),
        config::Fleet::Command(settings) => Arc::new(CommandFleet::new(
            settings.clone(),
            cluster.to_string(),
            Arc::clone(clock),
        )),
    }
}

fn ec2_fleet(
    config: &Config,
    pools: &BTreeMap<PoolName, FleetPool>,
    sdk: &aws_config::SdkConfig,
    cluster: &ClusterId,
) -> Ec2Fleet {
    let pools = pools.iter().map(|(name, pool)| {
        let pool = aws::fleet::PoolSettings {
            launch_template: pool.launch_template.clone(),
            version: pool.version.clone(),
            subnets: pool.subnets.clone(),
        };
        (name.clone(), pool)
    });
    Ec2Fleet::new(
        sdk,
        aws::fleet::Settings {
            cluster_id: cluster.to_string(),
            pools: pools.collect(),
            secret_dir: (config.attestor == Attestor::Token).then(|| config.secret_dir.clone()),
        },
    )
}

pub(super) fn prometheus(
    settings: &config::Prometheus,
    cluster_id: &ClusterId,
    clock: &SharedClock,
) -> anyhow::Result<Arc<Prometheus>> {
    let default = prometheus::Settings::default();
    let or = |ours: &Option<String>, default: Option<String>| ours.clone().or(default);
    let queries = prometheus::Queries {
        cpu: or(&settings.cpu, default.queries.cpu.clone()),
        memory: or(&settings.memory, default.queries.memory.clone()),
        node_cpu: or(&settings.node_cpu, default.queries.node_cpu.clone()),
        node_memory: or(&settings.node_memory, default.queries.node_memory.clone()),
    };
    let settings = prometheus::Settings {
        url: settings.url.clone(),
        queries,
        node_label: settings
            .node_label
            .clone()
            .unwrap_or_else(|| default.node_label.clone()),
        cluster_id: cluster_id.to_string(),
        timeout: settings.timeout,
        auth: settings
            .bearer_token_file
            .clone()
            .map_or(prometheus::Auth::None, prometheus::Auth::BearerFile),
        ..default
    };
    Ok(Arc::new(Prometheus::new(&settings, Arc::clone(clock))?))
}

fn settings(config: &Config, policy: &Policy) -> anyhow::Result<Settings> {
    let timing = config.timing;
    let lease = lease::Settings {
        lease: config.lease.length,
        renew: config.lease.renewal,
        margin: config.lease.margin,
        watch: (config.lease.renewal / 2).min(Duration::from_secs(2)),
        call: config.lease.renewal.min(Duration::from_secs(4)),
    };
    let mut sources = sources::Settings {
        fleet_period: timing.fleet,
        ..Default::default()
    };
    if let Some(prometheus) = &config.prometheus {
        sources.metrics_period = prometheus.period;
    }
    sources.agents_stand_in = config.prometheus.is_none();
    sources.cadence.interval = policy.scale_up.reading_interval;
    sources.cadence.kept = policy.scale_down.sustained + Duration::from_secs(600);
    Ok(Settings {
        name: config.name.clone(),
        mode: config.mode,
        advertise: config.advertise.clone(),
        peers: config.peers.clone(),
        pace: Pace {
            period: timing.period,
            batch_idle: timing.batch_idle,
            batch_most: timing.batch_most,
        },
        lease: lease.check()?,
        act: act::Settings {
            reconcile: timing.fleet,
            ready: timing.ready,
            agent_silent: timing.agent_silent,
            orphan_grace: timing.orphan_grace,
            detach: timing.detach,
            hand_over: timing.hand_over,
            sick: timing.sick,
            secret_life: config.secret_life,
            ..Default::default()
        },
        sources,
        sessions: SessionSettings::default(),
        shutdown: timing.shutdown,
    })
}
