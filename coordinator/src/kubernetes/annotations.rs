//! Why a node is there, and why it is going, where `kubectl describe node` shows it when the events have lapsed.
//!
//! | annotation | while |
//! | --- | --- |
//! | `smartscale.io/launched-because`, `…/launched-by` | the node is there |
//! | `smartscale.io/leaving-because`, `…/leaving-by` | a drain or removal of it is under way |
//!
//! One patch at each beginning and end of an operation; the `…-by` is the operation that `smartscale explain` tells of.

use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use kube::Client;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use smartscale_planner::model::NodeName;
use smartscale_proto::time::SystemClock;

use super::{
    api::{Api, ApiError, MERGE_PATCH},
    events::may_pass,
    nodes::node_path,
};
use crate::tell::{Event, Happening, Notifier, NotifyError};

/// Characters of a reason that are written.
const LONGEST: usize = 500;

/// [`Notifier`] by annotations of nodes.
pub struct Annotations {
    api: Api,
}

impl Annotations {
    /// Writes through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        // As with events: nothing here waits but for the network.
        Self {
            api: Api::new(client, Arc::new(SystemClock)),
        }
    }

    async fn write(&self, node: &NodeName, annotations: &Value) -> Result<(), ApiError> {
        // Of a name that is no object's, and of a node that is gone, nobody asks.
        let Ok(path) = node_path(node) else { return Ok(()) };
        let patch = json!({ "metadata": { "annotations": annotations } });
        let content = Some((MERGE_PATCH, patch.to_string().into_bytes()));
        match self.api.call::<IgnoredAny>(Method::PATCH, &path, content).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(404) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What is written of a happening, and at which nodes; nulls take back.
fn annotations(happening: &Happening) -> Option<(&[NodeName], Value)> {
    let Event::Operation {
        operation,
        operation_kind,
        ended,
        succeeded,
        reason,
        nodes,
        ..
    } = &happening.event
    else {
        return None;
    };
    let because: String = reason.chars().take(LONGEST).collect();
    let annotations = match (operation_kind.as_str(), ended, succeeded) {
        ("launch", true, true) => json!({
            "smartscale.io/launched-because": because,
            "smartscale.io/launched-by": operation,
        }),
        ("remove" | "drain", false, _) => json!({
            "smartscale.io/leaving-because": because,
            "smartscale.io/leaving-by": operation,
        }),
        ("remove" | "drain", true, _) => json!({
            "smartscale.io/leaving-because": null,
            "smartscale.io/leaving-by": null,
        }),
        _ => return None,
    };
    Some((nodes, annotations))
}

#[async_trait]
impl Notifier for Annotations {
    fn name(&self) -> &'static str {
        "annotations"
    }

    async fn notify(&self, happening: &Happening) -> Result<(), NotifyError> {
        let Some((nodes, annotations)) = annotations(happening) else {
            return Ok(());
        };
        // All are tried; what can be mended is returned, so that those are tried again.
        let mut answer = Ok(());
        for node in nodes {
            match self.write(node, &annotations).await {
                Ok(()) => {}
                Err(error) if may_pass(&error) => answer = Err(NotifyError::Passing(error.to_string())),
                Err(error) => answer = answer.and(Err(NotifyError::Refused(error.to_string()))),
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

    use super::*;
    use crate::{
        kubernetes::testing::{client, lines, status},
        tell::{Grounds, Severity},
    };

    fn operation(kind: &str, ended: bool, succeeded: bool, reason: &str) -> Happening {
        Happening {
            time: "2026-01-02T03:04:05Z".parse().unwrap(),
            severity: Severity::Info,
            message: String::new(),
            event: Event::Operation {
                operation: "op-1".parse().unwrap(),
                operation_kind: kind.into(),
                phase: String::new(),
                ended,
                succeeded,
                reason: reason.into(),
                nodes: vec!["i-1".into(), "../pods".into(), "i-2".into()],
                pods: Vec::new(),
                error_type: None,
                decision: None,
                grounds: Grounds::default(),
            },
        }
    }

    #[tokio::test]
    async fn nodes_that_joined_say_what_they_were_launched_for_and_names_that_are_no_objects_are_passed_over()
    {
        let (client, log) = client(|_| (200, "{}".into()));
        let launch = operation("launch", true, true, "1 pending pod");
        Annotations::new(client).notify(&launch).await.unwrap();
        assert_eq!(
            lines(&log),
            ["PATCH /api/v1/nodes/i-1", "PATCH /api/v1/nodes/i-2"]
        );
        let written = json!({
            "smartscale.io/launched-because": "1 pending pod",
            "smartscale.io/launched-by": "op-1",
        });
        assert_eq!(log.lock().unwrap()[0].body["metadata"]["annotations"], written);
    }

    #[test]
    fn a_node_that_is_going_says_why_until_it_does_not_go_any_more() {
        for kind in ["remove", "drain"] {
            let begun = operation(kind, false, false, &"x".repeat(600));
            let (_, written) = annotations(&begun).unwrap();
            assert_eq!(
                written["smartscale.io/leaving-because"].as_str().unwrap().len(),
                LONGEST
            );
            assert_eq!(written["smartscale.io/leaving-by"], "op-1");
            let aborted = operation(kind, true, false, "x");
            let (_, written) = annotations(&aborted).unwrap();
            assert!(written["smartscale.io/leaving-because"].is_null());
        }
    }

    #[test]
    fn a_launch_that_is_under_way_or_failed_has_no_node_that_could_say_anything() {
        assert!(annotations(&operation("launch", false, false, "x")).is_none());
        assert!(annotations(&operation("launch", true, false, "x")).is_none());
        assert!(annotations(&operation("recycle", true, true, "x")).is_none());
    }

    #[tokio::test]
    async fn a_node_that_is_gone_is_passed_over_and_an_api_server_that_is_away_is_asked_again() {
        let (gone, _) = client(|_| status(404, "not found", None));
        let launch = operation("launch", true, true, "x");
        assert_eq!(Annotations::new(gone).notify(&launch).await, Ok(()));
        let (away, _) = client(|_| status(503, "later", None));
        let answer = Annotations::new(away).notify(&launch).await;
        assert!(matches!(answer, Err(NotifyError::Passing(_))), "{answer:?}");
        let (closed, _) = client(|_| status(403, "no", None));
        let answer = Annotations::new(closed).notify(&launch).await;
        assert!(matches!(answer, Err(NotifyError::Refused(_))), "{answer:?}");
    }
}
