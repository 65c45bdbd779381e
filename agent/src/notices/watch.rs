//! Polls for notices, tells each once, and starts the drain of an interruption without asking anybody.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use smartscale_proto::{
    time::{SharedClock, age},
    v1::session_request::Report,
};
use tokio::sync::watch;

use super::{Notice, NoticeKind, NoticeSource};
use crate::{
    drain::{DrainState, Drainer, Order, Stage, TermsKeeper},
    outbox::Outbox,
    retire::{Retirer, retired_by},
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
    pub terms: TermsKeeper,
    /// Who stops the kubelet.
    pub retirer: Retirer,
    /// The node's name, once it is known.
    pub node: watch::Receiver<Option<String>>,
}

/// After the moment when EC2 took a machine, a drain of that notice says nothing any more.
const STALE: Duration = Duration::from_secs(60);

impl Watcher {
    /// Watches for ever.
    pub async fn run(self) {
        tokio::join!(self.poll(), self.stop_kubelet());
    }

    /// Once the node is drained because EC2 takes the machine, the kubelet is stopped for good: nobody has to ask for it,
    /// and where the coordinator deletes the Node before the machine is gone, it must not register again.
    async fn stop_kubelet(&self) {
        let mut state = self.drainer.state();
        loop {
            let ended = state.borrow_and_update().clone();
            let ended = ended.as_deref().and_then(|drain| self.ends_machine(drain));
            if let Some(operation) = ended
                && retired_by(&*self.folder).is_none()
            {
                tracing::info!(
                    op = operation,
                    "the node is empty and its machine is taken: the kubelet is stopped"
                );
                self.retirer.stop(operation).await;
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    /// The notice that takes the machine of a drain that is over.
    fn ends_machine(&self, drain: &DrainState) -> Option<String> {
        let over = matches!(drain.stage, Stage::Drained | Stage::Failed);
        let stands = drain
            .taken_at
            .is_some_and(|at| age(at, self.clock.now()) <= STALE);
        let mut operations = drain.operations.iter();
        let notice = operations.find(|operation| Notice::ends_machine(operation))?;
        (over && stands).then(|| notice.clone())
    }

    async fn poll(&self) {
        let mut node = self.node.clone();
        // Without a node there is nothing to drain, and nobody to tell whose notice it is.
        let Ok(node) = node
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
        let terms = self.terms.present();
        let left = notice
            .at
            .map(|at| age(self.clock.now(), at).saturating_sub(terms.spot_reserve));
        Order {
            operation: notice.operation(),
            node: node.to_owned(),
            timeout: left.unwrap_or(terms.spot_deadline).min(terms.spot_deadline),
            on_timeout: terms.spot_on_timeout,
            reason: format!("EC2 takes this spot instance back ({})", notice.detail),
            taken_at: notice.at,
            local_storage: terms.local_storage,
        }
    }
}
