//! logind's delay locks (<https://systemd.io/INHIBITOR_LOCKS/>).
//!
//! Anybody on the machine may send a signal that looks like logind's. So the signal only makes us ask, and logind's own
//! property `PreparingForShutdown` decides.

use std::{env, path::PathBuf, time::Duration};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{
    Delay, Shutdowns,
    bus::{Bus, BusError, Target},
};
use crate::error::Failure;

const MANAGER: Target<'static> = Target {
    service: "org.freedesktop.login1",
    object: "/org/freedesktop/login1",
    interface: "org.freedesktop.login1.Manager",
};
const PROPERTIES: Target<'static> = Target {
    interface: "org.freedesktop.DBus.Properties",
    ..MANAGER
};
const SIGNAL: &str = "PrepareForShutdown";
/// Longest delay that is believed.
const MOST: Duration = Duration::from_secs(3600);

/// logind.
#[derive(Debug, Clone)]
pub struct Logind {
    socket: PathBuf,
}

impl Default for Logind {
    /// logind of the system's bus, which `DBUS_SYSTEM_BUS_ADDRESS` may move.
    fn default() -> Self {
        let address = env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_default();
        let path = address
            .strip_prefix("unix:path=")
            .and_then(|rest| rest.split([',', ';']).next());
        Self::new(path.unwrap_or("/run/dbus/system_bus_socket"))
    }
}

impl Logind {
    /// logind of the bus at `socket`.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    async fn wait(&self) -> Result<Delay, BusError> {
        let mut bus = Bus::connect(&self.socket).await?;
        bus.subscribe(&format!(
            "type='signal',sender='{}',path='{}',interface='{}',member='{SIGNAL}'",
            MANAGER.service, MANAGER.object, MANAGER.interface
        ))
        .await?;
        let why = "The node is drained before the machine goes";
        let mut answer = bus
            .call(
                MANAGER,
                "Inhibit",
                &["shutdown", "smartscale-agent", why, "delay"],
            )
            .await?;
        let lock = answer
            .take_fd()
            .ok_or(BusError::Nonsense("logind's answer holds no lock"))?;
        let most = property(&mut bus, "InhibitDelayMaxUSec").await?;
        let most = Duration::from_micros(most.arguments().variant_u64().unwrap_or_default()).min(MOST);
        tracing::info!(?most, "a shutdown of this machine waits for a drain");
        while !is_preparing(&mut bus).await? {
            bus.signal(MANAGER.interface, SIGNAL).await?;
        }
        let (call_off, called_off) = oneshot::channel();
        tokio::spawn(async move {
            // Ends with the connection, or when nobody waits any more.
            let mut call_off = call_off;
            let off = async {
                loop {
                    bus.signal(MANAGER.interface, SIGNAL).await?;
                    if !is_preparing(&mut bus).await? {
                        return Ok::<_, BusError>(());
                    }
                }
            };
            let over = tokio::select! {
                off = off => off.is_ok(),
                () = call_off.closed() => false,
            };
            if over {
                let _ = call_off.send(());
            } else {
                // A lost connection calls nothing off.
                call_off.closed().await;
            }
        });
        Ok(Delay {
            most,
            called_off,
            lock: Box::new(lock),
        })
    }
}

async fn property(bus: &mut Bus, name: &str) -> Result<super::bus::Message, BusError> {
    bus.call(PROPERTIES, "Get", &[MANAGER.interface, name]).await
}

async fn is_preparing(bus: &mut Bus) -> Result<bool, BusError> {
    let answer = property(bus, "PreparingForShutdown").await?;
    answer
        .arguments()
        .variant_truth()
        .ok_or(BusError::Nonsense("PreparingForShutdown is no truth"))
}

#[async_trait]
impl Shutdowns for Logind {
    async fn announced(&self) -> Result<Delay, Failure> {
        Ok(self.wait().await?)
    }
}
