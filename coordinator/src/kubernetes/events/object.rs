//! The objects of `events.k8s.io/v1`.
//!
//! An event's name is drawn from what it says and of what, but not from when: said again, it is the same event, whose
//! series counts one more (KEP-383). Its other fields are never changed, as the API server demands.

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use sha2::{Digest as _, Sha256};
use smartscale_planner::model::{NodeName, PodKey};

use super::note::Note;
use crate::{
    policy::ConfigMapName,
    tell::{Happening, Severity},
};

/// Who reports, as `kubectl describe` shows it.
const CONTROLLER: &str = "smartscale.io/coordinator";
/// Longest note that the API server takes, in bytes.
const NOTE: usize = 1024;

pub(super) fn of_node(node: &NodeName) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(node.to_string()),
        // As the kubelet does it: `kubectl describe node` looks for the name in this place.
        uid: Some(node.to_string()),
        ..ObjectReference::default()
    }
}

pub(super) fn of_pod(pod: &PodKey, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace.to_string()),
        name: Some(pod.name.to_string()),
        uid,
        ..ObjectReference::default()
    }
}

pub(super) fn of_config_map(config_map: &ConfigMapName, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("ConfigMap".into()),
        namespace: Some(config_map.namespace.clone()),
        name: Some(config_map.name.clone()),
        uid,
        ..ObjectReference::default()
    }
}

/// The event that says it for the first time.
pub(super) fn event(
    happening: &Happening,
    note: &Note,
    regarding: ObjectReference,
    instance: &str,
) -> v1::Event {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".into());
    let subject = text(&regarding.name);
    let kind = if happening.severity >= Severity::Warning {
        "Warning"
    } else {
        "Normal"
    };
    let mut digest = Sha256::new();
    for part in [
        kind,
        note.reason,
        &note.action,
        &happening.message,
        &text(&regarding.kind),
        &subject,
        // A pod that came again under its name has events of its own.
        &text(&regarding.uid),
    ] {
        digest.update(part);
        digest.update([0]);
    }
    let digest = hex::encode(digest.finalize());
    v1::Event {
        metadata: ObjectMeta {
            // A name has 253 characters at most, those of pods included.
            name: Some(format!(
                "{}.{}",
                cut(&subject, 200).trim_end_matches(['.', '-']),
                &digest[..16]
            )),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        action: Some(cut(
            if note.action.is_empty() {
                "none"
            } else {
                &note.action
            },
            128,
        )),
        event_time: Some(MicroTime(to_micros(happening.time))),
        note: Some(cut(&happening.message, NOTE)),
        reason: Some(note.reason.into()),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.into()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some(kind.into()),
        ..v1::Event::default()
    }
}

/// The series of an event that is said once more at `time`; `None` when it was said at that time or later already, as
/// after an answer that got lost.
pub(super) fn once_more(event: &v1::Event, time: Timestamp) -> Option<v1::EventSeries> {
    let time = to_micros(time);
    let (count, last) = match (&event.series, &event.event_time) {
        (Some(series), _) => (series.count, Some(&series.last_observed_time)),
        (None, first) => (1, first.as_ref()),
    };
    (last.is_none_or(|last| last.0 < time)).then(|| v1::EventSeries {
        count: count.saturating_add(1),
        last_observed_time: MicroTime(time),
    })
}

/// The API server reads six digits of a second and no more.
fn to_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// At most so many bytes of a text.
pub(super) fn cut(text: &str, bytes: usize) -> String {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
