//! Polls for notices, tells each once, and starts the drain of an interruption without asking anybody.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use smartscale_proto::{
    time::{SharedClock, age},
    v1::session_request::Report,
};
use tokio::sync::watch;

use super::{Notice, NoticeKind, NoticeSource};
use crate::{
    config,
    drain::{Drainer, Order},
    outbox::Outbox,
    state::{StateFolder, read_json, write_json},
};

/// The file of the ids that were told.
const FILE: &str = "notices.json";
/// Ids that are remembered; a machine sees a handful in its life.
const MOST: usize = 64;

/// Watches for notices.
pub struct Watcher {
    /// Where they come from.
    pub source: Arc<dyn NoticeSource>,
    /// Where they are told.
    pub outbox: Outbox,
    /// Who drains.
    pub drainer: Drainer,
    /// Where the ids are kept.
    pub folder: Arc<dyn StateFolder>,
    /// The clock.
    pub clock: SharedClock,
    /// How often the source is asked.
    pub interval: Duration,
    /// The terms of a drain that an interruption begins.
    pub drain: config::Drain,
    /// The node's name, once it is known.
    pub node: watch::Receiver<Option<String>>,
}

impl Watcher {
    /// Watches for ever.
    pub async fn run(mut self) {
        // Without a node there is nothing to drain, and nobody to tell whose notice it is.
        let Ok(node) = self
            .node
            .wait_for(Option::is_some)
            .await
            .map(|node| node.clone().unwrap_or_default())
        else {
            return;
        };
        let mut told: VecDeque<String> = read_json(&*self.folder, FILE).unwrap_or_default();
        let mut silent = false;
        loop {
            match self.source.standing().await {
                Ok(notices) => {
                    silent = false;
                    for notice in notices {
                        self.see(notice, &node, &mut told).await;
                    }
                }
                Err(error) if !silent => {
                    silent = true;
                    tracing::warn!(%error, "notices cannot be read");
                }
                Err(_) => {}
            }
            self.clock.sleep(self.interval).await;
        }
    }

    async fn see(&self, notice: Notice, node: &str, told: &mut VecDeque<String>) {
        if told.contains(&notice.id) {
            return;
        }
        tracing::warn!(kind = ?notice.kind, id = notice.id, at = ?notice.at, detail = notice.detail, "EC2 announces");
        // First of all the drain: it needs nobody.
        if notice.kind == NoticeKind::SpotInterruption {
            self.drainer.order(self.order(&notice, node)).await;
        }
        self.outbox.put(Report::Notice(notice.to_wire(self.clock.now())));
        told.push_back(notice.id);
        while told.len() > MOST {
            told.pop_front();
        }
        if let Err(error) = write_json(&*self.folder, FILE, told) {
            tracing::error!(%error, "the notices that were told cannot be kept");
        }
    }

    /// Budgeted backwards: forced ends need their time before the machine is taken.
    fn order(&self, notice: &Notice, node: &str) -> Order {
        let left = notice
            .at
            .map(|at| age(self.clock.now(), at).saturating_sub(self.drain.spot_reserve));
        Order {
            operation: notice.operation(),
            node: node.to_owned(),
            timeout: left
                .unwrap_or(self.drain.spot_deadline)
                .min(self.drain.spot_deadline),
            on_timeout: self.drain.spot_on_timeout,
            reason: format!("EC2 takes this spot instance back ({})", notice.detail),
            taken_at: notice.at,
        }
    }
}
