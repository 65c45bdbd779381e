//! What goes on beside the calls: the coordinator's own certificate is renewed, also when the authority changes, of which
//! the agents are told; agents that lost our trust are thrown out within a second, and a new leader reads what agents told the former one.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use smartscale_proto::{time::SharedClock, tls::Rotating};
use tokio_util::sync::CancellationToken;

use super::{authority::Authority, leading::Leader, people::People, sessions::Sessions, trust::Trust};

/// How often the coordinator's own certificate is renewed: it lives for a day.
const ROTATION: Duration = Duration::from_secs(8 * 3600);
/// How often open sessions and streams are held against what was revoked.
const TRUST_PERIOD: Duration = Duration::from_millis(800);
const _: () = assert!(
    TRUST_PERIOD.as_millis() <= 800,
    "what is revoked ends within a second: a fifth of it is left for the store's answer"
);
/// Between attempts to read stored reports.
const LOAD_RETRY: Duration = Duration::from_secs(1);

/// Renews the coordinator's own certificate, by the machine's clock (see [`Authority`]), and at once when the authority
/// changes; then the agents in session are told to renew theirs.
pub(super) async fn rotate(
    authority: Arc<Authority>,
    material: Rotating,
    sessions: Arc<Sessions>,
    ending: CancellationToken,
) {
    let mut rotated = Timestamp::now();
    let mut changes = authority.changes();
    loop {
        // A minute at a time: a machine that slept for a day must notice when it wakes.
        let changed = tokio::select! {
            () = ending.cancelled() => return,
            Ok(()) = changes.changed() => true,
            () = tokio::time::sleep(Duration::from_secs(60)) => false,
        };
        if !changed && smartscale_proto::time::age(rotated, Timestamp::now()) < ROTATION {
            continue;
        }
        match authority.coordinator() {
            Ok(credential) => {
                material.set(credential);
                rotated = Timestamp::now();
                tracing::info!("the coordinator's own certificate was renewed");
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the coordinator's own certificate cannot be renewed"
                );
            }
        }
        if changed {
            tracing::info!(authority = ?authority, "the certificate authority was replaced");
            sessions.renew_all();
        }
    }
}

/// Ends the sessions of agents that are not trusted any more.
pub(super) async fn watch_trust(
    trust: Arc<Trust>,
    sessions: Arc<Sessions>,
    clock: SharedClock,
    ending: CancellationToken,
) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = ending.cancelled() => return,
            () = clock.sleep(TRUST_PERIOD) => {}
        }
        let connected = sessions.connected();
        if connected.is_empty() {
            continue;
        }
        match trust.lost(&connected).await {
            Ok(lost) => {
                failing = false;
                for (instance, why) in lost {
                    tracing::warn!(%instance, %why, "an agent is not trusted any more");
                    sessions.distrust(&instance, &why.to_string());
                }
            }
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "open sessions cannot be held against the node records");
            }
            Err(_) => {}
        }
    }
}

/// Ends the open streams of people who were revoked, here or by way of another coordinator.
pub(super) async fn watch_people(people: Arc<People>, clock: SharedClock, ending: CancellationToken) {
    loop {
        tokio::select! {
            () = ending.cancelled() => return,
            () = clock.sleep(TRUST_PERIOD) => {}
        }
        if people.are_watching()
            && let Err(error) = people.refresh().await
        {
            tracing::debug!(%error, "open streams of people cannot be held against what was revoked");
        }
    }
}

/// Reads stored reports at the beginning of each term of ours.
pub(super) async fn load_at_takeover(
    sessions: Arc<Sessions>,
    mut leader: Leader,
    clock: SharedClock,
    ending: CancellationToken,
) {
    let mut loaded_for = None;
    loop {
        let leading = leader.now();
        if leading.ours && loaded_for != Some(leading.epoch) {
            match sessions.load().await {
                Ok(()) => loaded_for = Some(leading.epoch),
                Err(error) => {
                    tracing::warn!(%error, "what agents reported cannot be read yet");
                    tokio::select! {
                        () = ending.cancelled() => return,
                        () = clock.sleep(LOAD_RETRY) => continue,
                    }
                }
            }
        }
        tokio::select! {
            () = ending.cancelled() => return,
            () = leader.changed() => {}
        }
    }
}
