//! `ca`: where the certificate authority stands, and the steps from one to the next.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Subcommand;
use smartscale_coordinator::{
    aws::{self, dynamodb::DynamoStore, kms::Kms},
    config::{Config, Store},
    serve::authority::{
        Names,
        rollover::{Files, Stage, Standing},
    },
    state::{
        SharedStore,
        records::{NodeRecord, Record as _},
        sqlite::SqliteStore,
    },
};
use smartscale_proto::time::SystemClock;

/// More machines than one coordinator has.
const MOST: usize = 20_000;

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Says which authority signs, which is trusted, and which machines the next step would lose.
    Status,
    /// Makes the next authority and trusts it beside the present one, which signs on.
    Begin,
    /// Has the next authority sign. The former one stays trusted.
    Switch {
        /// Also when machines would be lost by it.
        #[arg(long)]
        force: bool,
    },
    /// Trusts the former authority no more, and deletes its key.
    Finish {
        /// Also when machines would be lost by it.
        #[arg(long)]
        force: bool,
    },
    /// Seals the authority's key with a key of KMS, which from then on has to be asked to open it.
    Seal {
        /// The KMS key: its ARN, id or alias.
        #[arg(long)]
        kms_key: String,
    },
}

pub(crate) async fn run(config: &Config, command: &Ca) -> anyhow::Result<()> {
    let policy = super::policy::read(config).await?.0.policy;
    let names = Names {
        trust: config.trust.clone(),
        cluster: policy.cluster_id.as_str().parse()?,
    };
    let vault = Arc::new(Kms::new(config.region.clone(), &names));
    let files = Files::new(&config.ca_certificate, &config.ca_key, vault);
    match command {
        Ca::Status => show(&files.standing().await?, &records(config, &policy).await?),
        Ca::Begin => {
            let next = files.begin(names).await?;
            println!("sha256:{next} is trusted beside the present authority, which signs on.");
            println!(
                "Next: copy {} to the other coordinators, reload all of them (SIGHUP), put the new certificate beside the old \
                 one wherever new machines learn it (`ca_file`, `ca_fingerprint`), then `ca switch`.",
                config.ca_certificate.display()
            );
        }
        Ca::Switch { force } => {
            ready(config, &policy, &files, *force).await?;
            files.switch().await?;
            println!("The next authority signs from now on; the former one is still trusted.");
            println!(
                "Next: copy {} to the other coordinators, reload all of them (SIGHUP), hand out new credentials to people, \
                 then `ca finish`.",
                config.ca_key.display()
            );
        }
        Ca::Finish { force } => {
            ready(config, &policy, &files, *force).await?;
            files.finish().await?;
            println!("The former authority is trusted no more, and its key is deleted here.");
            println!(
                "Next: copy {} to the other coordinators, delete the former key there, reload all of them (SIGHUP), and take \
                 the former certificate out of what new machines are told.",
                config.ca_certificate.display()
            );
        }
        Ca::Seal { kms_key } => {
            files.seal(kms_key).await?;
            println!("{} is sealed with {kms_key}.", config.ca_key.display());
            println!(
                "Next: copy it to the other coordinators, let their roles use the key (kms:Decrypt), and delete copies of the file \
                 as it was. What a disk or a backup kept of it is worth nothing only after a rollover (`ca begin`)."
            );
        }
    }
    Ok(())
}

/// Whether the next step loses nobody.
async fn ready(
    config: &Config,
    policy: &smartscale_planner::Policy,
    files: &Files,
    force: bool,
) -> anyhow::Result<()> {
    if force {
        return Ok(());
    }
    let records = records(config, policy).await?;
    let standing = files.standing().await?;
    let lagging = standing.lagging(&records);
    let Some((instance, why)) = lagging.first() else {
        return Ok(());
    };
    anyhow::bail!(
        "{} of {} machines would be lost, {instance} among them: it {why}. Reload the coordinators (SIGHUP) and wait; an agent \
         that is away renews when it is back. `ca status` names them all, --force goes on without them",
        lagging.len(),
        records.len()
    )
}

fn show(standing: &Standing, records: &[NodeRecord]) {
    println!("signs     sha256:{}", standing.signing);
    if let Some(other) = &standing.other {
        println!("trusted   sha256:{other}");
    }
    let stage = match standing.stage {
        Stage::Alone => "one authority; `ca begin` makes the next",
        Stage::Introduced => "the next authority is trusted; `ca switch` has it sign",
        Stage::Switched => "the next authority signs; `ca finish` ends trust in the former one",
    };
    println!("stage     {stage}");
    if let Some(with) = &standing.sealed_with {
        println!("sealed    {with}");
    }
    let lagging = standing.lagging(records);
    println!(
        "machines  {} known, {} not ready for the next step",
        records.len(),
        lagging.len()
    );
    for (instance, why) in lagging {
        println!("  {instance} {why}");
    }
}

async fn records(config: &Config, policy: &smartscale_planner::Policy) -> anyhow::Result<Vec<NodeRecord>> {
    let clock = Arc::new(SystemClock);
    let cluster = policy.cluster_id.clone();
    let store: SharedStore = match &config.store {
        Store::Sqlite(path) => Arc::new(SqliteStore::open(path, cluster, clock)?),
        Store::DynamoDb(table) => {
            let sdk = aws::sdk_config(config.region.clone()).await;
            Arc::new(DynamoStore::new(&sdk, table.clone(), cluster, clock))
        }
    };
    let items = store
        .list(NodeRecord::PREFIX, false, MOST)
        .await
        .context("the node records cannot be read")?;
    let records = items.iter().map(NodeRecord::from_item);
    records
        .collect::<Result<_, _>>()
        .context("a node record cannot be read")
}
