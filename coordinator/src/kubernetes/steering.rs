//! Deletion costs of pods, written by the version that was read: what somebody else says at the same moment stays.

use http::Method;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use smartscale_manifests as manifests;
use smartscale_planner::model::{PodKey, keys};

use super::{
    api::{Api, MERGE_PATCH},
    nodes::pod_path,
};
use crate::act::{
    nodes::{NodesError, Priced},
    steering::standing::{Change, Standing},
};

/// How the deletion cost of a pod stands by its annotations.
pub(super) fn standing_of(pod: &manifests::ObjectMeta) -> Standing {
    let said = |key| pod.annotations.get(key).map(String::as_str);
    Standing::of(said(keys::DELETION_COST), said(keys::STEERED))
}

/// One look and, if there is something to do, one write; see [`Nodes::price`](crate::act::nodes::Nodes::price).
pub(super) async fn price(
    api: &Api,
    key: &PodKey,
    uid: &str,
    read: Option<manifests::ObjectMeta>,
    cost: Option<i32>,
) -> Result<Priced, NodesError> {
    let is_it =
        |pod: &manifests::ObjectMeta| pod.uid.as_deref() == Some(uid) && pod.deletion_timestamp.is_none();
    let Some(pod) = read.filter(is_it) else {
        return Ok(Priced::Gone);
    };
    let Some(change) = standing_of(&pod).change(cost) else {
        return Ok(Priced::Left);
    };
    let content = Some((MERGE_PATCH, patch(&pod, change).to_string().into_bytes()));
    match api
        .call::<IgnoredAny>(Method::PATCH, &pod_path(key)?, content)
        .await
    {
        Ok(_) => Ok(Priced::Written),
        Err(error) => match error.code() {
            Some(404) => Ok(Priced::Gone),
            Some(409) => Ok(Priced::Overtaken),
            _ => Err(error.into()),
        },
    }
}

/// A merge patch that only counts for the version that was read, which no later pod of the name has.
fn patch(pod: &manifests::ObjectMeta, change: Change) -> Value {
    let annotations = match change {
        Change::Say(cost) => {
            let cost = cost.to_string();
            json!({ keys::DELETION_COST: cost, keys::STEERED: cost })
        }
        Change::TakeBack => json!({ keys::DELETION_COST: null, keys::STEERED: null }),
        Change::Forget => json!({ keys::STEERED: null }),
    };
    json!({ "metadata": { "resourceVersion": pod.resource_version, "annotations": annotations } })
}

#[cfg(test)]
#[path = "steering_tests.rs"]
mod tests;
