//! The composition root: every part of the agent and its real adapter, in one place.

use std::{fs, path::Path, sync::Arc};

use anyhow::Context as _;
use smartscale_agent::{
    Config, Parts, config,
    drain::Tools,
    enrol::{Attestor, TokenFile, ec2::Ec2},
    health::proc::ProcVitals,
    k3s::{DiskFiles, cacerts::Cacerts},
    kubelet::{KubeletApi, kube::KubeconfigApi},
    machine::{MachineIdentity, StaticMachine, credentials::Role, imds::Imds},
    notices::{NoNotices, NoticeSource},
    outbox::Outbox,
    secrets::{SecretFolder, Secrets, aws::SecretsManager},
    shutdown::logind::Logind,
    state::{DiskFolder, StateFolder},
    units::Systemctl,
};
use smartscale_proto::time::{SharedClock, SystemClock};

/// The agent's world on this machine.
pub(crate) fn parts(config: Config) -> anyhow::Result<Parts> {
    let clock: SharedClock = Arc::new(SystemClock);
    let imds = match &config.machine {
        Some(_) => None,
        None => Some(Arc::new(Imds::new(
            &config.imds.endpoint,
            config.imds.hops,
            Arc::clone(&clock),
        )?)),
    };
    let (machine, notices): (Arc<dyn MachineIdentity>, Arc<dyn NoticeSource>) = match (&config.machine, &imds)
    {
        (None, Some(imds)) => (Arc::<Imds>::clone(imds), Arc::<Imds>::clone(imds)),
        (Some(machine), _) => (Arc::new(StaticMachine(machine.clone())), Arc::new(NoNotices)),
        (None, None) => anyhow::bail!("there is neither IMDS nor a [machine]"),
    };
    let secrets: Arc<dyn Secrets> = match &config.secrets.folder {
        Some(folder) => Arc::new(SecretFolder(folder.clone())),
        None => {
            let names = &config.secrets;
            Arc::new(SecretsManager::new(
                imds.clone(),
                names.region.clone(),
                names.endpoint.clone(),
            ))
        }
    };
    let by = |role| -> anyhow::Result<Arc<dyn Attestor>> {
        Ok(Arc::new(Ec2 {
            imds: imds.clone().context("an EC2 instance has IMDS")?,
            role,
            coordinator: config.expected.clone(),
            clock: Arc::clone(&clock),
        }))
    };
    let attestor: Arc<dyn Attestor> = match &config.attestor {
        config::Attestor::Token(path) => Arc::new(TokenFile(path.clone())),
        config::Attestor::Ec2Identity => by(Role::Identity)?,
        config::Attestor::Ec2Profile => by(Role::Profile)?,
    };
    let k3s = &config.k3s;
    Ok(Parts {
        boot_id: boot_id()?,
        folder: Arc::new(DiskFolder::new(&config.state_dir)),
        machine,
        notices,
        secrets,
        attestor,
        units: Arc::new(Systemctl::new(
            &k3s.systemctl,
            &k3s.journalctl,
            Arc::clone(&clock),
        )),
        files: Arc::new(DiskFiles {
            run_dir: config.run_dir.clone(),
            config_dir: k3s.config_dir.clone(),
        }),
        server: Arc::new(Cacerts::new(Arc::clone(&clock))),
        kubelet: kubelet(&k3s.kubeconfig),
        vitals: Arc::new(ProcVitals::new(
            &config.proc,
            &k3s.data_dir,
            &k3s.healthz,
            &k3s.runtime_socket,
            Arc::clone(&clock),
        )?),
        shutdowns: Arc::new(Logind::default()),
        clock,
        config,
    })
}

/// What a drain needs where no agent runs.
pub(crate) fn tools(config: &Config) -> anyhow::Result<Tools> {
    let clock: SharedClock = Arc::new(SystemClock);
    let folder: Arc<dyn StateFolder> = Arc::new(DiskFolder::new(&config.state_dir));
    Ok(Tools {
        api: kubelet(&config.k3s.kubeconfig),
        outbox: Outbox::new(Arc::clone(&folder), Arc::clone(&clock)),
        folder,
        clock,
        boot_id: boot_id()?,
        settings: config.drain.settings,
    })
}

fn kubelet(kubeconfig: &Path) -> Arc<dyn KubeletApi> {
    Arc::new(KubeconfigApi::new(kubeconfig))
}

fn boot_id() -> anyhow::Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(PATH).context(PATH)?.trim().to_owned())
}
