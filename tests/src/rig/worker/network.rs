//! The wires between worker machines: network namespaces of the test's own, and a bridge with one cable to each machine.
//!
//! ```text
//!  test's namespace            switch (a namespace)                machine (a namespace each)
//!  127.0.0.1:PORT ◀──forward── 10.7.255.254:OTHER  bridge ══ veth ══ eth0 10.7.x.y
//!  IMDS            ◀──────────────────forward────────────────────  169.254.169.254:80 on lo
//! ```
//! The rig's servers listen on loopback, which other namespaces do not see. A socket stays in the namespace where it was
//! made, so a thread goes there, listens, and hands the socket to the test, which forwards what comes. Nothing of the
//! machine's own network is touched, and nothing is left behind: a namespace goes with the process that holds it.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::thread::LinkNameSpaceType;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::super::process::{Process, Program};
use super::super::{Folder, wait};

/// The switch's address, where the rig's servers are reached from a machine. It lies in the VPC's range and in no subnet of
/// it, as the machines have the addresses that EC2 gives them.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 7, 255, 254);
/// Where EC2's instances find their metadata.
pub const IMDS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);

/// A network namespace, there as long as this is.
#[derive(Debug)]
pub struct Namespace {
    holder: Process,
    path: PathBuf,
}

impl Namespace {
    /// A new one, empty but for a loopback.
    ///
    /// # Errors
    /// The sandbox does not allow it: `CAP_SYS_ADMIN` is needed.
    pub async fn new(folder: &Folder, name: &str) -> anyhow::Result<Self> {
        let program = Program::new(name, "unshare")
            .arg("--net")
            .arg("sleep")
            .arg("infinity");
        let mut holder = Process::spawn(program, folder)?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id().context("no holder")?));
        let own = std::fs::metadata("/proc/self/ns/net").context("look at the own namespace")?;
        wait::until_true("a network namespace", Duration::from_secs(10), || {
            let exited = holder.exited();
            let there = std::fs::metadata(&path);
            async {
                if let Some(status) = exited? {
                    bail!("unshare --net: {status}");
                }
                Ok(there?.ino() != own.ino())
            }
        })
        .await
        .with_context(|| holder.tail(5))?;
        let namespace = Self { holder, path };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its file, for `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Carries out lines of `ip` in it (each without the program's name).
    ///
    /// # Errors
    /// `ip` refused one, with its words.
    pub fn ip(&self, lines: &str) -> anyhow::Result<()> {
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", self.path.display()))
            .args(["ip", "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("run nsenter and ip (Debian: util-linux, iproute2)")?;
        if let Some(mut input) = child.stdin.take() {
            writeln!(input, "{lines}").context("write to ip")?;
        }
        let output = child.wait_with_output().context("wait for ip")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("ip {lines:?}: {} {said}", output.status);
        }
        Ok(())
    }

    /// Listens on an address of the namespace.
    ///
    /// # Errors
    /// It cannot be entered, or the address cannot be bound.
    pub fn listen(&self, address: SocketAddrV4) -> anyhow::Result<TcpListener> {
        let file = File::open(&self.path).context("open the namespace")?;
        // A thread of its own: the namespace is the thread's, and it ends with it.
        let made = std::thread::spawn(move || -> anyhow::Result<std::net::TcpListener> {
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("enter the namespace")?;
            let listener = std::net::TcpListener::bind(address).with_context(|| format!("bind {address}"))?;
            listener.set_nonblocking(true).context("make it asynchronous")?;
            Ok(listener)
        });
        let listener = made.join().ok().context("the listening thread panicked")??;
        TcpListener::from_std(listener).context("use the socket")
    }
}

/// Hands on every connection that comes to `listener`. It ends, and all connections with it, when the task is aborted.
pub fn forward(listener: TcpListener, target: SocketAddr) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((mut near, _)) = accepted else { continue };
                    connections.spawn(async move {
                        // Who cannot be connected sees a connection that closes, as with any proxy.
                        let Ok(mut far) = TcpStream::connect(target).await else { return };
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    })
}

/// The switch and what is reached through it.
#[derive(Debug)]
pub struct Network {
    switch: Namespace,
    tasks: Vec<JoinHandle<()>>,
}

impl Network {
    /// A switch without cables.
    ///
    /// # Errors
    /// The sandbox allows no namespaces or no bridge.
    pub async fn new(folder: &Folder) -> anyhow::Result<Self> {
        let switch = Namespace::new(folder, "switch").await?;
        switch.ip(&format!(
            "link add bridge0 type bridge\naddr add {GATEWAY}/16 dev bridge0\nlink set bridge0 up"
        ))?;
        Ok(Self {
            switch,
            tasks: Vec::new(),
        })
    }

    /// Makes a server of the test's loopback reachable for the machines, on a free port of [`GATEWAY`], which is returned.
    ///
    /// # Errors
    /// As [`Namespace::listen`].
    pub fn reach(&mut self, server: SocketAddr) -> anyhow::Result<SocketAddrV4> {
        let listener = self.listen(0)?;
        let port = listener.local_addr().context("read the port")?.port();
        self.tasks.push(forward(listener, server));
        Ok(SocketAddrV4::new(GATEWAY, port))
    }

    /// Listens on a port of [`GATEWAY`].
    ///
    /// # Errors
    /// As [`Namespace::listen`].
    pub fn listen(&self, port: u16) -> anyhow::Result<TcpListener> {
        self.switch.listen(SocketAddrV4::new(GATEWAY, port))
    }

    /// A machine's network card with the address `own`, plugged in.
    ///
    /// # Errors
    /// The kernel refuses a link, for instance because two machines have one address.
    pub async fn plug(&self, folder: &Folder, name: &str, own: Ipv4Addr) -> anyhow::Result<Card> {
        let namespace = Namespace::new(folder, &format!("network-{name}")).await?;
        let [_, _, high, low] = own.octets();
        let cable = format!("cable{high}-{low}");
        let holder = namespace.holder.id().context("no holder")?;
        self.switch.ip(&format!(
            "link add {cable} type veth peer name eth0 netns {holder}\nlink set {cable} master bridge0\nlink set {cable} up"
        ))?;
        namespace.ip(&format!(
            "addr add {own}/16 dev eth0\nlink set eth0 up\nroute add default via {GATEWAY}\naddr add {}/32 dev lo",
            IMDS.ip()
        ))?;
        Ok(Card { namespace, cable })
    }

    /// Pulls a machine's cable out (`false`) or puts it in again.
    ///
    /// # Errors
    /// The card is not of this switch.
    pub fn connect(&self, card: &Card, plugged: bool) -> anyhow::Result<()> {
        let state = if plugged { "up" } else { "down" };
        self.switch.ip(&format!("link set {} {state}", card.cable))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A machine's network card: the namespace that it boots into, each time.
#[derive(Debug)]
pub struct Card {
    namespace: Namespace,
    cable: String,
}

impl Card {
    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}
