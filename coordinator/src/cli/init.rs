//! `init`: everything a first coordinator needs, in one folder, nothing overwritten.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use smartscale_coordinator::{
    aws::kms::Kms,
    config,
    serve::{
        authority::{Authority, Names},
        init,
    },
};
use smartscale_proto::identity::{Role, Segment};

/// The commented policy that `init` writes.
const POLICY: &str = include_str!("policy.toml");

/// What `init` is told.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder to write into; created if it is not there.
    #[arg(long, default_value = "/etc/smartscale")]
    folder: PathBuf,
    /// Id of the cluster.
    #[arg(long)]
    cluster: Segment,
    /// The trust domain.
    #[arg(long, default_value = "smartscale")]
    trust: Segment,
    /// Where the coordinator listens.
    #[arg(long, default_value = "0.0.0.0:7443")]
    listen: String,
    /// host:port where agents and people reach it.
    #[arg(long)]
    advertise: String,
    /// Name of the first admin.
    #[arg(long, default_value = "admin")]
    admin: Segment,
    /// The KMS key (ARN, id or alias) that seals the CA's key: it is on no disk as it is.
    #[arg(long)]
    kms_key: Option<String>,
    /// The region of that key; by default the SDK's usual chain.
    #[arg(long, requires = "kms_key")]
    region: Option<String>,
}

pub(crate) async fn run(args: &InitArgs) -> anyhow::Result<()> {
    let configuration = args.folder.join("coordinator.toml");
    let policy = args.folder.join("policy.toml");
    for path in [&configuration, &policy] {
        anyhow::ensure!(
            !path.exists(),
            "{} is there already; nothing was changed",
            path.display()
        );
    }
    let text = config::TEMPLATE
        .replace("@LISTEN@", &args.listen)
        .replace("@ADVERTISE@", &args.advertise)
        .replace("@TRUST@", args.trust.as_str());
    // What was written must be what is read, before a key is made.
    config::parse(&configuration, &text)?;
    std::fs::create_dir_all(&args.folder)
        .with_context(|| format!("{} cannot be created", args.folder.display()))?;
    let names = Names {
        trust: args.trust.clone(),
        cluster: args.cluster.clone(),
    };
    let vault = Kms::new(args.region.clone(), &names);
    let created = init::init(
        &args.folder,
        names,
        vec![args.advertise.clone()],
        args.admin.clone(),
        (&vault, args.kms_key.as_deref()),
    )
    .await?;
    write(&policy, &POLICY.replace("@CLUSTER@", args.cluster.as_str()))?;
    write(&configuration, &text)?;
    println!("configuration   {}", configuration.display());
    println!("policy          {}", policy.display());
    println!("CA certificate  {}", created.ca_certificate.display());
    println!(
        "CA key          {} (keep it secret, and keep a copy)",
        created.ca_key.display()
    );
    println!(
        "credentials     {} (admin {}, until {})",
        created.credentials.display(),
        args.admin,
        created.credentials_end
    );
    println!("CA fingerprint  sha256:{}", created.fingerprint);
    println!("Next: put the pools into both files, then `smartscale-coordinator check-config`.");
    Ok(())
}

/// What `credentials` is told.
#[derive(Debug, Args)]
pub(crate) struct CredentialsArgs {
    /// What the person may do: viewer, operator or admin.
    #[arg(long)]
    role: Role,
    /// Who it is.
    #[arg(long)]
    name: Segment,
    /// How long the credentials last.
    #[arg(long, default_value = "8h")]
    life: String,
    /// The file to write (0600); must not be there.
    #[arg(long)]
    out: PathBuf,
}

/// Signs credentials for a person with the CA of the configuration at `path`.
pub(crate) async fn credentials(path: &Path, args: &CredentialsArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        !args.out.exists(),
        "{} is there already; nothing was changed",
        args.out.display()
    );
    let config = config::load(path)?;
    let policy = super::policy::read(&config).await?.0.policy;
    let life = smartscale_planner::duration::parse(&args.life).context("--life")?;
    let names = Names {
        trust: config.trust,
        cluster: policy.cluster_id.as_str().parse()?,
    };
    let vault = Kms::new(config.region, &names);
    let authority = Authority::load(names, &config.ca_certificate, &config.ca_key, &vault).await?;
    let endpoints = std::iter::once(config.advertise)
        .chain(config.peers.into_values())
        .collect();
    let (credentials, ends) =
        init::person_credentials(&authority, endpoints, args.role, args.name.clone(), life)?;
    credentials.write(&args.out)?;
    println!(
        "{} ({} {}, until {ends})",
        args.out.display(),
        args.role,
        args.name
    );
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
