//! The lease: how often it is acquired in a second where eight contend for it and each hands it over at once, on either
//! store; and how long nobody leads after the leader was killed, with the default times.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use smartscale_coordinator::{
    aws::dynamodb::DynamoStore,
    state::{
        SharedStore,
        lease::{Lease, Settings, random_rvn},
        sqlite::SqliteStore,
    },
    tell::Silent,
};
use smartscale_proto::time::{SharedClock, SystemClock};
use smartscale_tests::rig::{DynamoDb, Folder, aws, stack::TABLE, wait};
use smartscale_tests::site::policy;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{Row, site, spread::spread};

const CONTENDERS: usize = 8;
/// How long they contend.
const WINDOW: Duration = Duration::from_secs(20);
/// For the slowest take-over.
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) async fn take(rounds: u32) -> anyhow::Result<Vec<Row>> {
    let mut rows = vec![sqlite().await?, dynamodb().await?];
    let lease = Settings::default().lease.as_secs();
    rows.push(Row::new(
        "lease: nobody leads after a kill",
        spread(take_overs(rounds).await?)?,
        format!(
            "least / median / greatest of {rounds}; lease of {lease} s, the leader killed, until `status` names the other"
        ),
    ));
    Ok(rows)
}

async fn sqlite() -> anyhow::Result<Row> {
    let folder = Folder::new("figures-lease")?;
    let path = folder.path().join("state.db");
    let store = || -> anyhow::Result<SharedStore> {
        Ok(Arc::new(SqliteStore::open(&path, "bench".into(), clock())?))
    };
    acquisitions("SQLite", store).await
}

async fn dynamodb() -> anyhow::Result<Row> {
    let folder = Folder::new("figures-lease")?;
    let server = DynamoDb::start(&folder).await?;
    server.create_table(TABLE).await?;
    let config = aws::config(&server.url(), &aws::Key::root()).await;
    let store = || -> anyhow::Result<SharedStore> {
        Ok(Arc::new(DynamoStore::new(
            &config,
            TABLE,
            "bench".into(),
            clock(),
        )))
    };
    acquisitions("DynamoDB Local", store).await
}

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

/// Lets contenders, each with a connection of its own, take the lease from each other.
async fn acquisitions(name: &str, store: impl Fn() -> anyhow::Result<SharedStore>) -> anyhow::Result<Row> {
    let end = Instant::now() + WINDOW;
    let acquired = Arc::new(AtomicU32::new(0));
    let mut contenders = JoinSet::new();
    for number in 0..CONTENDERS {
        contenders.spawn(contend(number, store()?, end, Arc::clone(&acquired)));
    }
    while let Some(ended) = contenders.join_next().await {
        ended??;
    }
    let acquired = f64::from(acquired.load(Ordering::Relaxed));
    Ok(Row::new(
        format!("lease: acquisitions per second, {name}"),
        format!("{:.0}", acquired / WINDOW.as_secs_f64()),
        format!(
            "{CONTENDERS} contenders that look every millisecond, each hands over at once; {} s",
            WINDOW.as_secs()
        ),
    ))
}

async fn contend(
    number: usize,
    store: SharedStore,
    end: Instant,
    acquired: Arc<AtomicU32>,
) -> anyhow::Result<()> {
    let settings = Settings {
        watch: Duration::from_millis(1),
        ..Settings::default()
    };
    while Instant::now() < end {
        let (lease, mut leadership) = Lease::new(
            format!("contender-{number}").parse()?,
            settings.check()?,
            Arc::clone(&store),
            clock(),
            Arc::new(Silent),
            random_rvn(),
        );
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(lease.run(shutdown.clone()));
        let leads = leadership.wait_for(|leadership| leadership.may_act(&SystemClock).is_some());
        if let Ok(leads) = timeout_at(end, leads).await {
            leads?;
            acquired.fetch_add(1, Ordering::Relaxed);
        }
        shutdown.cancel();
        task.await?;
    }
    Ok(())
}

/// Kills whoever leads, again and again.
async fn take_overs(rounds: u32) -> anyhow::Result<Vec<SignedDuration>> {
    let mut site = site::start("figures-lease", &policy("[limits]\nmin_nodes = 0\n")).await?;
    let mut leader = 0;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let standby = 1 - leader;
        site.start_coordinator(standby)?;
        // It watches the lease for more than one renewal.
        tokio::time::sleep(Settings::default().renew * 2).await;
        let begun = Timestamp::now();
        site.coordinator(leader)?.kill();
        wait::until_true("the standby to lead", DEADLINE, || async {
            Ok(site.ask(&["status"]).await?["leading"] == true)
        })
        .await?;
        times.push(Timestamp::now().duration_since(begun));
        leader = standby;
    }
    Ok(times)
}
