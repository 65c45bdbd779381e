//! What is said of a happening, and at which objects.

use smartscale_planner::model::{NodeName, PodKey};

use crate::{
    policy::ConfigMapName,
    tell::{Event, Happening},
};

/// A launch for hundreds of pods is said at so many of them: events are small change, not a flood.
const PODS: usize = 20;

/// What an event is about.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum About {
    Node(NodeName),
    Pod(PodKey),
    /// With its UID.
    ConfigMap(ConfigMapName, Option<String>),
}

/// What is said of a happening, and of what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Note {
    pub(super) reason: &'static str,
    pub(super) action: String,
    pub(super) about: Vec<About>,
}

/// What is said where; `None` of what concerns no object of the cluster.
pub(super) fn note(happening: &Happening) -> Option<Note> {
    let node = |name: &str| vec![About::Node(NodeName::new(name))];
    Some(match &happening.event {
        Event::Operation {
            operation_kind,
            phase,
            ended,
            succeeded,
            nodes,
            pods,
            ..
        } => {
            let about = nodes.iter().cloned().map(About::Node);
            let about = about.chain(pods.iter().take(PODS).cloned().map(About::Pod));
            Note {
                reason: reason(operation_kind, *ended, *succeeded),
                action: phase.clone(),
                about: about.collect(),
            }
        }
        Event::Joined { instance, .. } => Note {
            reason: "SmartScaleJoined",
            action: "join".into(),
            about: node(instance.as_str()),
        },
        Event::Noticed { instance, notice, .. } => Note {
            reason: match notice.as_str() {
                "spot_interruption" => "SpotInterruption",
                "rebalance" => "SpotRebalance",
                "maintenance" => "InstanceMaintenance",
                _ => "InstanceNotice",
            },
            action: notice.clone(),
            about: node(instance.as_str()),
        },
        Event::Drain {
            instance, pod, state, ..
        } => {
            let mut about = node(instance.as_str());
            about.extend(pod.clone().map(About::Pod));
            Note {
                reason: "SmartScaleDrain",
                action: state.clone(),
                about,
            }
        }
        Event::Policy {
            state,
            config_map: Some(config_map),
            uid,
            ..
        } => Note {
            reason: if state == "in_force" {
                "PolicyInForce"
            } else {
                "PolicyRefused"
            },
            action: "policy".into(),
            about: vec![About::ConfigMap(config_map.clone(), uid.clone())],
        },
        Event::LeaseAcquired { .. }
        | Event::LeaseLost { .. }
        | Event::Decided { .. }
        | Event::Source { .. }
        | Event::Agent { .. }
        | Event::BootStep { .. }
        | Event::Admin { .. }
        | Event::Brake { .. }
        | Event::Policy { config_map: None, .. }
        | Event::Trouble { .. } => return None,
    })
    .filter(|note| !note.about.is_empty())
}

/// The reason of an operation's event: the kind, and how it stands.
fn reason(kind: &str, ended: bool, succeeded: bool) -> &'static str {
    match (kind, ended, succeeded) {
        ("launch", false, _) => "TriggeredScaleUp",
        ("launch", true, true) => "ScaledUp",
        ("launch", true, false) => "ScaleUpFailed",
        ("remove", false, _) => "TriggeredScaleDown",
        ("remove", true, true) => "ScaledDown",
        ("remove", true, false) => "ScaleDownFailed",
        (_, false, _) => "OperationRunning",
        (_, true, true) => "OperationSucceeded",
        (_, true, false) => "OperationFailed",
    }
}
