//! Builds a coordinator with its real adapters and runs it under systemd's eyes.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use smartscale_coordinator::{
    act,
    aws::{
        self, cloudwatch::CloudWatch, dynamodb::DynamoStore, fleet::Ec2Fleet, kms::Kms, market::AwsMarket,
        queue::SqsQueue, sns::Sns, sts::Sts,
    },
    config::{self, Attestor, Config, Store},
    decide::{Pace, PolicyInForce},
    ids::TimedIds,
    kubernetes::{
        api::Api, client, clock::ClusterClock, events::Events, join_tokens::BootstrapTokens,
        nodes::KubeNodes, watch::Watch,
    },
    observe::{
        ClusterView, MetricsSource,
        notices::listen::NoticeQueue,
        prometheus::{self, Prometheus},
        sources,
    },
    program::{self, Outside, OutsideTask, Program, Settings},
    serve::{
        attest::{self, Ec2Attestor, TokenAttestor},
        authority::{Authority, CertificateLife, Names, files},
        join_tokens::Joining,
        sessions::SessionSettings,
    },
    state::{SharedStore, lease, sqlite::SqliteStore},
    tell::{
        hub::{Hub, Sink},
        metrics::Metrics,
    },
};
use smartscale_planner::{Policy, policy::Warning};
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

/// At its start a coordinator waits so long for the API server to tell the time.
const FIRST_DATE: Duration = Duration::from_secs(5);

pub(super) async fn run(config: Config, policy: (Policy, Vec<Warning>)) -> anyhow::Result<()> {
    for warning in &policy.1 {
        tracing::warn!(%warning, "policy");
    }
    let text = std::fs::read_to_string(&config.policy_path).context("the policy cannot be read")?;
    let in_force = PolicyInForce {
        policy: Arc::new(policy.0),
        text: text.into(),
        warnings: Arc::default(),
    };
    let (publish, policy) = watch::channel(in_force);
    let shutdown = CancellationToken::new();
    let program = build(&config, policy).await?;
    tracing::info!(listen = %config.listen, mode = %config.mode, name = %config.name, "coordinator starts");
    let authority = Arc::clone(&program.authority);
    let running = program::run(program, shutdown.clone());
    let signals = obey_signals(&config, publish, &authority, shutdown);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        ended = running => ended.context("the coordinator failed"),
        impatient = signals => impatient,
    }
}

/// SIGHUP reloads the policy and the certificate authority; the first SIGTERM or SIGINT begins the shutdown, the second ends everything.
async fn obey_signals(
    config: &Config,
    publish: watch::Sender<PolicyInForce>,
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
                load_again(&config.policy_path, &publish);
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

/// Takes a changed policy over; a bad one is refused and the old one goes on.
fn load_again(path: &std::path::Path, publish: &watch::Sender<PolicyInForce>) {
    let loaded = config::load_policy(path)
        .map_err(anyhow::Error::from)
        .and_then(|(policy, warnings)| {
            let text = std::fs::read_to_string(path)?;
            Ok((policy, warnings, text))
        });
    match loaded {
        Ok((policy, _, _)) if policy.cluster_id != publish.borrow().policy.cluster_id => {
            tracing::error!("the policy is of another cluster; the old one goes on");
        }
        Ok((policy, warnings, text)) => {
            for warning in warnings {
                tracing::warn!(%warning, "policy");
            }
            publish.send_replace(PolicyInForce {
                policy: Arc::new(policy),
                text: text.into(),
                warnings: Arc::default(),
            });
            tracing::info!("the policy was reloaded");
        }
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "the policy is refused; the old one goes on"
            );
        }
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
    fleet: &Arc<Ec2Fleet>,
    clock: &SharedClock,
) -> anyhow::Result<Arc<dyn attest::Attestor>> {
    let Attestor::Ec2 { role, oldest } = &config.attestor else {
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
    let instances = Arc::<Ec2Fleet>::clone(fleet);
    let attestor = Ec2Attestor::new(settings, coordinator, sts, instances, Arc::clone(clock))?;
    Ok(Arc::new(attestor))
}

async fn build(config: &Config, policy: watch::Receiver<PolicyInForce>) -> anyhow::Result<Program> {
    let cluster_clock = Arc::new(ClusterClock::new(Arc::new(SystemClock)));
    let clock: SharedClock = Arc::clone(&cluster_clock) as _;
    let cluster_id = policy.borrow().policy.cluster_id.clone();
    let names = Names {
        trust: config.trust.clone(),
        cluster: cluster_id.as_str().parse().context("policy: cluster.id")?,
    };
    let vault = Kms::new(config.region.clone(), &names);
    let authority = Authority::load(names.clone(), &config.ca_certificate, &config.ca_key, &vault)
        .await
        .context("the certificate authority cannot be used")?
        .with_life(CertificateLife::new(config.certificate_life)?);
    let sdk = aws::sdk_config(config.region.clone()).await;
    let store: SharedStore = match &config.store {
        Store::Sqlite(path) => Arc::new(SqliteStore::open(path, cluster_id.clone(), Arc::clone(&clock))?),
        Store::DynamoDb(table) => Arc::new(DynamoStore::new(
            &sdk,
            table.clone(),
            cluster_id.clone(),
            Arc::clone(&clock),
        )),
    };
    let gauges = Metrics::new(env!("CARGO_PKG_VERSION"));
    let reached = client::Settings {
        kubeconfig: config.kubeconfig.clone(),
        ..Default::default()
    };
    let kube = client::connect(&reached, &cluster_clock)
        .await
        .context("the Kubernetes API")?;
    // Asked before anything is dated. A server that is away is met again by whoever needs it.
    let _ = within(&SystemClock, FIRST_DATE, kube.apiserver_version()).await;
    let pools = config.pools.iter().map(|(name, pool)| {
        let pool = aws::fleet::PoolSettings {
            launch_template: pool.launch_template.clone(),
            version: pool.version.clone(),
            subnets: pool.subnets.clone(),
        };
        (name.clone(), pool)
    });
    let fleet = Ec2Fleet::new(
        &sdk,
        aws::fleet::Settings {
            cluster_id: cluster_id.to_string(),
            pools: pools.collect(),
            secret_dir: (config.attestor == Attestor::Token).then(|| config.secret_dir.clone()),
        },
    );
    let fleet = Arc::new(fleet);
    let attestor = attestor(config, &names, &fleet, &clock)?;
    let mut sinks = vec![Sink::for_people(
        Arc::new(Events::new(kube.clone(), config.name.to_string())),
        smartscale_coordinator::tell::Severity::Info,
    )];
    if let Some(topic) = &config.sns_topic {
        sinks.push(Sink::for_people(
            Arc::new(Sns::new(&sdk, topic.clone(), cluster_id.to_string())),
            config.notify_least,
        ));
    }
    if let Some((namespace, period)) = &config.cloudwatch {
        let cloudwatch = CloudWatch::new(&sdk, namespace.clone(), cluster_id.to_string(), gauges.clone());
        sinks.push(Sink::for_counting(Arc::new(cloudwatch), *period));
    }
    let (hub, couriers) = Hub::new(gauges, &clock, sinks);
    let watching = Watch::new(Api::new(kube.clone(), Arc::clone(&clock)));
    let watch_task: OutsideTask = ("the watch", {
        let watching = Arc::clone(&watching);
        Box::new(move |stop| Box::pin(watching.run(stop)))
    });
    let metrics = config
        .prometheus
        .as_ref()
        .map(|settings| prometheus(settings, &cluster_id, &clock))
        .transpose()?;
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
    let api = Api::new(kube, Arc::clone(&clock));
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
            metrics,
            queue,
            market: config
                .market
                .map(|settings| (Arc::new(AwsMarket::new(&sdk)) as _, settings)),
            joining,
            tasks: vec![watch_task],
        },
        listener,
        http,
    })
}

fn prometheus(
    settings: &config::Prometheus,
    cluster_id: &smartscale_planner::model::ClusterId,
    clock: &SharedClock,
) -> anyhow::Result<Arc<dyn MetricsSource>> {
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
