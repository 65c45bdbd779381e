//! Worker machines: what an EC2 instance of a real K3s cluster is, as far as one kernel can show it.
//!
//! ```text
//!  EC2 ──DescribeInstances──▶ Workers ──power──▶ machine (own pid, mount, network, uts, ipc and cgroup namespaces)
//!                                                  systemd ─┬─ user-data ◀── IMDS at 169.254.169.254
//!                                                           ├─ smartscale-agent ──systemctl──┐
//!                                                           └─ k3s-agent ◀───────────────────┘
//!                                                                ├─ containerd ── runc ── pods
//!                                                                └─ kubelet ──▶ the switch ──▶ kube-apiserver
//! ```
//!
//! Each machine has a disk and a network card of its own; it boots the surrounding system's own systemd from an overlay over
//! that system and the image that `packaging/worker/bake` makes of the agent's package. [`machines`](super::machines) does the
//! same at a hundredth of the price where a test is not about what happens on the machine.

mod group;
mod image;
pub mod k3s;
mod machine;
pub mod network;
pub(in crate::rig) mod road;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

pub use image::{Disk, IMAGE, Image};
pub use machine::Worker;

use super::Folder;
use super::machines::World;
use network::Network;

const LOOK: Duration = Duration::from_millis(300);

type Machines = Arc<Mutex<BTreeMap<String, Worker>>>;

/// All worker machines of a test. Dropped, it switches them off.
pub struct Workers {
    image: Image,
    machines: Machines,
    task: JoinHandle<()>,
    // Dropped in this order: machines before what they talk to.
    server: k3s::Server,
    network: Arc<Network>,
}

impl Workers {
    /// Starts watching EC2: an instance that appears is a machine that is switched on, one that ends is one that is gone.
    ///
    /// # Errors
    /// The machines' image cannot be made.
    pub(super) async fn start(
        folder: &Folder,
        world: World,
        network: Network,
        server: k3s::Server,
    ) -> anyhow::Result<Self> {
        let hall = Hall {
            world,
            network: Arc::new(network),
            folder: folder.clone(),
            image: Image::bake(&super::programs::agent()?).await?,
            machines: Machines::default(),
        };
        Ok(Self {
            machines: Arc::clone(&hall.machines),
            network: Arc::clone(&hall.network),
            image: hall.image.clone(),
            server,
            task: tokio::spawn(watch(hall)),
        })
    }

    /// The server's half of K3s.
    #[must_use]
    pub fn server(&self) -> &k3s::Server {
        &self.server
    }

    /// The machines' image.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The switch.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The ids of the machines that there are, switched on or off.
    pub async fn ids(&self) -> Vec<String> {
        self.machines.lock().await.keys().cloned().collect()
    }

    /// One machine. Nobody else gets at it until what is given is dropped.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn get(&self, id: &str) -> anyhow::Result<Held<'_>> {
        MutexGuard::try_map(self.machines.lock().await, |machines| machines.get_mut(id))
            .ok()
            .with_context(|| format!("there is no machine {id}"))
    }
}

/// A machine that the test works on.
pub type Held<'a> = tokio::sync::MappedMutexGuard<'a, Worker>;

impl Drop for Workers {
    fn drop(&mut self) {
        self.task.abort();
        // Here and not when the runtime comes to drop the task: the test's folder goes next.
        if let Ok(mut machines) = self.machines.try_lock() {
            machines.clear();
        }
    }
}

/// Where the machines stand.
struct Hall {
    world: World,
    network: Arc<Network>,
    folder: Folder,
    image: Image,
    machines: Machines,
}

async fn watch(hall: Hall) {
    let mut told = BTreeSet::new();
    loop {
        if let Err(error) = hall.look().await
            && told.insert(format!("{error:#}"))
        {
            eprintln!("rig: workers: {error:#}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Hall {
    async fn look(&self) -> anyhow::Result<()> {
        let instances = self.world.instances().await?;
        let gone = {
            let mut machines = self.machines.lock().await;
            let (stay, gone) = std::mem::take(&mut *machines)
                .into_iter()
                .partition(|(id, _)| instances.contains_key(id));
            *machines = stay;
            gone
        };
        // Until the last process has ended that takes a moment, which nobody needs to wait for.
        tokio::task::spawn_blocking(move || drop::<BTreeMap<_, _>>(gone));
        for (id, instance) in instances {
            if self.machines.lock().await.contains_key(&id) {
                continue;
            }
            let launched = self.world.launched(&id, &instance).await?;
            let worker = Worker::new(
                &self.folder,
                &self.network,
                &self.image,
                launched.known,
                launched.size.1,
                launched.secret,
            )
            .await
            .with_context(|| format!("switch {id} on"))?;
            self.machines.lock().await.insert(id, worker);
        }
        self.machines
            .lock()
            .await
            .values_mut()
            .try_for_each(Worker::supervise)
    }
}
