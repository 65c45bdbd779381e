//! What each event does to a drain: the meaning of every answer of the API server.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use smartscale_planner::{
    BlockerCode,
    drainability::{Evictability, SkipReason, Strictness, classify},
    model::PodKey,
};

use super::{
    attempt::Attempt,
    engine::{Attempts, Engine, Event, Run},
    state::{Cordon, DrainState, PodRecord, PodStage, Stage},
};
use crate::kubelet::{OwnNode, OwnPod, Refusal};

/// Why a pod keeps a drain from going on.
const LOCAL_STORAGE: &str = "keeps data on this node, and the terms of this drain leave such pods alone";
/// Delay before a pod of a namespace that ends is looked at again.
const NAMESPACE_RETRY: Duration = Duration::from_secs(10);

impl Engine {
    pub(super) fn apply(&mut self, event: Event, drain: &mut DrainState, run: &mut Run) {
        match event {
            Event::Node(result) => {
                run.node.flying = false;
                match result {
                    Ok(node) => {
                        run.dirty = true;
                        self.seen(&node, drain, run);
                    }
                    Err(refusal) => self.node_refused(&refusal, drain, run),
                }
            }
            Event::Cordoned(result) => {
                run.node.flying = false;
                match result {
                    Ok(()) if drain.stage == Stage::Cordoning => {
                        drain.stage = Stage::Evicting;
                        drain.error.clear();
                        run.dirty = true;
                    }
                    Ok(()) => {}
                    Err(refusal) => self.node_refused(&refusal, drain, run),
                }
            }
            Event::Uncordoned(result) => {
                run.node.flying = false;
                match result {
                    // A node that is gone has no cordon.
                    Ok(()) | Err(Refusal::NotFound) if drain.stage == Stage::Aborting => {
                        drain.stage = Stage::Aborted;
                        run.dirty = true;
                    }
                    Ok(()) => {}
                    Err(refusal) => self.node_refused(&refusal, drain, run),
                }
            }
            Event::Listed(asked, Ok(pods)) => {
                run.list = Attempts {
                    next: self.tools.clock.elapsed() + self.tools.settings.poll,
                    ..Attempts::default()
                };
                run.listed = Some(asked);
                if !drain.error.is_empty() && drain.stage == Stage::Evicting {
                    drain.error.clear();
                    run.dirty = true;
                }
                self.reconcile(&pods, drain, run);
            }
            Event::Listed(_, Err(refusal)) => {
                let failures = run.list.failures + 1;
                let next = self.tools.clock.elapsed() + self.backoff(failures);
                run.list = Attempts {
                    flying: false,
                    next,
                    failures,
                };
                note(
                    &mut drain.error,
                    format!("the node's pods cannot be listed: {refusal}"),
                    run,
                );
            }
            Event::Attempted(uid, attempt) => self.attempted(&uid, attempt, drain, run),
            Event::Deleted(uid, result) => self.deleted(&uid, result, drain, run),
        }
    }

    /// The node before it is cordoned: says whose the cordon will be.
    fn seen(&self, node: &OwnNode, drain: &mut DrainState, run: &mut Run) {
        if drain.stage != Stage::Cordoning {
            return;
        }
        drain.error.clear();
        // A cordon with our mark is left from an earlier drain; one without it is a person's.
        drain.cordon = if node.unschedulable && node.cordoned_by.is_none() {
            Cordon::Foreign
        } else {
            Cordon::Ours
        };
        if drain.cordon == Cordon::Foreign {
            drain.stage = Stage::Evicting;
        }
        run.node.next = self.tools.clock.elapsed();
    }

    fn node_refused(&mut self, refusal: &Refusal, drain: &mut DrainState, run: &mut Run) {
        run.node.failures += 1;
        run.node.next = self.tools.clock.elapsed() + self.backoff(run.node.failures);
        if drain.stage == Stage::Cordoning && *refusal == Refusal::NotFound {
            drain.error = format!("the cluster has no node {}", drain.node);
            drain.stage = Stage::Failed;
            run.dirty = true;
            return;
        }
        let what = if drain.stage == Stage::Aborting {
            "uncordoned"
        } else {
            "cordoned"
        };
        note(
            &mut drain.error,
            format!("the node cannot be {what}: {refusal}"),
            run,
        );
    }

    /// Takes a list of the node's pods in.
    fn reconcile(&self, pods: &[OwnPod], drain: &mut DrainState, run: &mut Run) {
        let now = self.tools.clock.now();
        for own in pods {
            // The order to drain is an answer to every blocker, but to one that its terms keep.
            let strictness = Strictness {
                kube_system_blocks: false,
                local_storage_blocks: drain.keeps_local_storage(),
            };
            let verdict = classify(&own.pod, strictness, None, now);
            let kept = matches!(&verdict, Evictability::Block(blockers, _) if blockers.contains(&BlockerCode::LocalStorage));
            if kept && drain.stage == Stage::Evicting {
                give_up_for(&own.pod.key, drain);
            }
            let known = drain.record(&own.pod.uid).is_some();
            match verdict {
                Evictability::Skip(reason) => {
                    // A pod of ours that has ended by itself needs no eviction any more.
                    let ended =
                        matches!(reason, SkipReason::Finished | SkipReason::Gone) && !own.pod.is_mirror();
                    let leaving = own.pod.is_terminating() && reason != SkipReason::Gone;
                    if ended
                        && !leaving
                        && let Some(record) = drain.record(&own.pod.uid).filter(|record| record.is_open())
                    {
                        record.gone(now);
                        run.dirty = true;
                    }
                }
                Evictability::Leaving { .. } | Evictability::Evict(_) | Evictability::Block(..) => {
                    if !known {
                        drain.pods.push(PodRecord::new(own));
                        run.dirty = true;
                    }
                    if kept && let Some(record) = drain.record(&own.pod.uid) {
                        LOCAL_STORAGE.clone_into(&mut record.reason);
                    }
                    if let (Some(deletion), Some(record)) = (&own.pod.deletion, drain.record(&own.pod.uid)) {
                        run.dirty |= leaving(record, deletion.at);
                    }
                }
            }
        }
        for record in drain.pods.iter_mut().filter(|record| record.is_open()) {
            // A pod is gone when its name is free, or is another's.
            if !pods.iter().any(|own| *own.pod.uid == *record.uid) {
                record.gone(now);
                run.dirty = true;
            }
        }
    }

    fn attempted(&mut self, uid: &str, attempt: Attempt, drain: &mut DrainState, run: &mut Run) {
        let now = self.tools.clock.now();
        let elapsed = self.tools.clock.elapsed();
        let settings = self.tools.settings;
        let attempts = run.pods.entry(uid.to_owned()).or_default();
        attempts.flying = false;
        let failures = attempts.failures + 1;
        let Some(record) = drain.record(uid) else { return };
        run.dirty = true;
        let (refusal, called) = match attempt {
            Attempt::Gone => return record.gone(now),
            Attempt::Leaving { ends_at } => {
                leaving(record, ends_at);
                return;
            }
            Attempt::Accepted { grace } => {
                record.evictions += 1;
                record.evicted_at.get_or_insert(now);
                if record.is_open() {
                    let grace = SignedDuration::try_from(grace.unwrap_or(record.grace)).unwrap_or_default();
                    leaving(record, now.checked_add(grace).unwrap_or(now));
                }
                return;
            }
            Attempt::Refused { refusal, called } => (refusal, called),
        };
        if !record.is_open() || !matches!(record.stage, PodStage::Waiting | PodStage::Budget) {
            return;
        }
        record.evictions += u32::from(called);
        record.reason = refusal.to_string();
        let (stage, delay, failures) = match refusal {
            // No failure: the budget will open. It holds no slot meanwhile.
            Refusal::Budget(_) => (PodStage::Budget, settings.budget_retry, 0),
            Refusal::MultipleBudgets => (PodStage::Budget, settings.slow_retry, 0),
            Refusal::NamespaceTerminating => (PodStage::Waiting, NAMESPACE_RETRY, 0),
            Refusal::Throttled { after } => {
                let delay = self
                    .backoff(failures)
                    .max(after.unwrap_or_default().min(settings.slow_retry));
                (PodStage::Waiting, delay, failures)
            }
            Refusal::Refused(_) => (PodStage::Waiting, settings.slow_retry, failures),
            Refusal::Unavailable(_) | Refusal::NotFound | Refusal::OtherUid => {
                (PodStage::Waiting, self.backoff(failures), failures)
            }
        };
        tracing::debug!(pod = %record.key, reason = record.reason, "the eviction was refused");
        record.stage = stage;
        if let Some(attempts) = run.pods.get_mut(uid) {
            (attempts.next, attempts.failures) = (elapsed + delay, failures);
        }
    }

    fn deleted(&mut self, uid: &str, result: Result<(), Refusal>, drain: &mut DrainState, run: &mut Run) {
        let attempts = run.pods.entry(uid.to_owned()).or_default();
        attempts.flying = false;
        attempts.failures += 1;
        let failures = attempts.failures;
        run.dirty = true;
        let now = self.tools.clock.now();
        let Some(record) = drain.record(uid) else { return };
        match result {
            Ok(()) => {
                tracing::warn!(pod = %record.key, "the pod was deleted at the deadline");
                record.stage = PodStage::Forced;
                if record.reason.is_empty() {
                    "the deadline passed".clone_into(&mut record.reason);
                }
            }
            Err(Refusal::NotFound) => record.gone(now),
            Err(refusal) => {
                record.reason = refusal.to_string();
                let next = self.tools.clock.elapsed() + self.backoff(failures);
                if let Some(attempts) = run.pods.get_mut(uid) {
                    attempts.next = next;
                }
            }
        }
    }
}

/// The pod was told to go; whether that is news.
fn leaving(record: &mut PodRecord, ends_at: Timestamp) -> bool {
    let news = record.stage != PodStage::Terminating || record.ends_at != Some(ends_at);
    record.ends_at = Some(ends_at);
    if record.is_open() && record.stage != PodStage::Forced {
        record.stage = PodStage::Terminating;
        record.reason.clear();
        return news;
    }
    false
}

/// Gives a drain up for a pod whose data its terms keep.
fn give_up_for(key: &PodKey, drain: &mut DrainState) {
    tracing::warn!(pod = %key, "the drain is given up: the pod has local storage");
    drain.error = format!("pod {key} {LOCAL_STORAGE}");
    drain.stage = Stage::Aborting;
}

/// Keeps the last error that concerns the whole drain.
fn note(error: &mut String, text: String, run: &mut Run) {
    if *error != text {
        tracing::warn!(error = text, "the drain is held up");
        *error = text;
        run.dirty = true;
    }
}
