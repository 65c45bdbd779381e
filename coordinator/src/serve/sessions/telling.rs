//! What of the agents' reports is worth telling.

use smartscale_planner::model::PodKey;
use smartscale_proto::v1::{BootReport, DrainPhase, DrainReport, Notice};

use super::{Sessions, words};
use crate::{
    ids::InstanceId,
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
        let event = Event::Agent {
            instance: instance.clone(),
            state: "booting".to_owned(),
        };
        self.happening(Severity::Detail, message, event)
    }

    pub(super) fn notice_happening(&self, instance: &InstanceId, notice: &Notice) -> Happening {
        let kind = words(notice.kind().as_str_name(), "NOTICE_KIND_");
        let message = format!("EC2 announced for {instance}: {}", kind.replace('_', " "));
        let event = Event::Noticed {
            instance: instance.clone(),
            notice: kind,
        };
        self.happening(Severity::Warning, message, event)
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
