//! What of the agents' reports is worth telling.

use smartscale_planner::model::PodKey;
use smartscale_proto::{
    time::duration_from_wire,
    v1::{BootReport, DrainPhase, DrainReport},
};

use super::{Sessions, words};
use crate::{
    ids::InstanceId,
    observe::agents::{Condition, HealthReport},
    tell::{Event, Happening, Severity},
};

impl Sessions {
    pub(super) fn happening(&self, severity: Severity, message: String, event: Event) -> Happening {
        Happening {
            time: self.clock.now(),
            severity,
            message,
            event,
        }
    }

    pub(super) fn tell_agent(&self, instance: &InstanceId, state: &str) {
        let message = format!("the agent of {instance} has {state}");
        let event = Event::Agent {
            instance: instance.clone(),
            state: state.to_owned(),
        };
        self.tell.tell(self.happening(Severity::Detail, message, event));
    }

    pub(super) fn boot_happening(&self, instance: &InstanceId, boot: &BootReport) -> Happening {
        let step = words(boot.step().as_str_name(), "BOOT_STEP_");
        let outcome = words(boot.outcome().as_str_name(), "OUTCOME_");
        let mut message = format!("{instance}: boot step {step} is {outcome}");
        if !boot.error.is_empty() {
            message = format!("{message}: {}", bounded(&boot.error));
        }
        if !boot.remedy.is_empty() {
            message = format!("{message} ({})", bounded(&boot.remedy));
        }
        let took = boot.took.as_ref().and_then(|took| duration_from_wire(took).ok());
        let event = Event::BootStep {
            instance: instance.clone(),
            step,
            outcome,
            seconds: took.unwrap_or_default().as_secs_f64(),
        };
        self.happening(Severity::Detail, message, event)
    }

    /// What has begun to be wrong with a machine since the report before, and what has ended.
    pub(super) fn condition_happenings(
        &self,
        instance: &InstanceId,
        old: Option<&HealthReport>,
        new: &HealthReport,
    ) -> Vec<Happening> {
        let before = old.map_or(&[][..], |old| &old.health.conditions);
        let now = &new.health.conditions;
        let has = |list: &[Condition], kind| list.iter().any(|one| one.kind == kind);
        let event = |state: String| Event::Agent {
            instance: instance.clone(),
            state,
        };
        let mut all = Vec::new();
        for condition in now.iter().filter(|one| !has(before, one.kind)) {
            let word = condition.word();
            let message = format!("{instance} is not well ({word}): {}", condition.detail);
            all.push(self.happening(condition.severity(), message, event(word)));
        }
        for condition in before.iter().filter(|one| !has(now, one.kind)) {
            let word = condition.word();
            let message = format!("{instance} is well again ({word})");
            all.push(self.happening(Severity::Detail, message, event(format!("no {word}"))));
        }
        all
    }

    /// What is new in a report against the one before.
    pub(super) fn drain_happenings(
        &self,
        instance: &InstanceId,
        old: Option<&DrainReport>,
        new: &DrainReport,
    ) -> Vec<Happening> {
        let event = |pod, state: &str| Event::Drain {
            instance: instance.clone(),
            operation: new.operation_id.clone(),
            pod,
            state: state.to_owned(),
        };
        let mut all = Vec::new();
        for pod in &new.pods {
            let before = old.and_then(|old| old.pods.iter().find(|known| known.uid == pod.uid));
            if before.is_none_or(|before| before.state != pod.state) {
                let state = words(pod.state().as_str_name(), "POD_STATE_");
                let key = PodKey::new(pod.namespace.as_str(), pod.name.as_str());
                let message = format!("{instance}: pod {key} is {state}");
                all.push(self.happening(Severity::Detail, message, event(Some(key), &state)));
            }
        }
        if old.is_none_or(|old| old.phase != new.phase) {
            let state = words(new.phase().as_str_name(), "DRAIN_PHASE_");
            let severity = match new.phase() {
                DrainPhase::Aborted | DrainPhase::Failed => Severity::Warning,
                _ => Severity::Detail,
            };
            let mut message = format!("the drain of {instance} is {state}");
            if !new.error.is_empty() {
                message = format!("{message}: {}", bounded(&new.error));
            }
            all.push(self.happening(severity, message, event(None, &state)));
        }
        all
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(300).collect()
}
