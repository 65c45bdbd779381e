//! What a Deployment says of itself: how far its controller is, what it allows, and what a hand-over has left on it.

use serde_json::Value;
use smartscale_planner::model::keys;

use super::{annotation, text};

/// A Deployment that has been grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grown {
    pub(super) from: i64,
    pub(super) by: i64,
}

impl Grown {
    pub(super) fn to_text(self) -> String {
        format!("{}+{}", self.from, self.by)
    }

    pub(super) fn of(deployment: &Value) -> Option<Self> {
        let said = annotation(deployment, keys::HANDED_REPLICAS)?;
        let (from, by) = said.split_once('+')?;
        // As wide as Kubernetes' replicas: anybody may write the annotation, and no sum of two overflows.
        let grown = Self {
            from: from.parse::<i32>().ok()?.into(),
            by: by.parse::<i32>().ok()?.into(),
        };
        (grown.from >= 0 && grown.by > 0).then_some(grown)
    }
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer)?.as_i64()
}

pub(super) fn replicas(deployment: &Value) -> Option<i64> {
    number(deployment, "/spec/replicas")
}

/// Whether it still has what was added.
pub(super) fn is_grown(deployment: &Value, grown: Grown) -> bool {
    replicas(deployment) == Some(grown.from + grown.by)
}

/// Whether its controller has seen what it is to be, and all its pods are of the newest revision and available.
pub(super) fn is_settled(deployment: &Value) -> bool {
    let status = |what: &str| number(deployment, &format!("/status/{what}")).unwrap_or(0);
    let wanted = replicas(deployment).unwrap_or(0);
    is_observed(deployment)
        && [
            status("replicas"),
            status("updatedReplicas"),
            status("availableReplicas"),
        ] == [wanted; 3]
}

fn is_observed(deployment: &Value) -> bool {
    number(deployment, "/status/observedGeneration") >= number(deployment, "/metadata/generation")
}

/// Whether its controller is about to end pods that are too many of the newest revision, or has not looked yet.
pub(super) fn shrinks(deployment: &Value) -> bool {
    let status = |what: &str| number(deployment, &format!("/status/{what}")).unwrap_or(0);
    let wanted = replicas(deployment).unwrap_or(0);
    !is_observed(deployment) || status("replicas") > wanted && status("updatedReplicas") == status("replicas")
}

/// How many pods beyond its replicas a Deployment allows while it changes; 0 for one that is paused or replaces all at once.
pub(super) fn surge(deployment: &Value) -> i64 {
    let is_paused = deployment.pointer("/spec/paused").and_then(Value::as_bool) == Some(true);
    let rolls = text(deployment, "/spec/strategy/type") == Some("RollingUpdate");
    if is_paused || !rolls {
        return 0;
    }
    match deployment.pointer("/spec/strategy/rollingUpdate/maxSurge") {
        Some(Value::Number(number)) => number.as_i64().unwrap_or(0),
        // Rounded up, as the Deployment's controller does.
        Some(Value::String(share)) => {
            let percent: Option<i64> = share.strip_suffix('%').and_then(|digits| digits.parse().ok());
            let replicas = replicas(deployment).unwrap_or(0);
            percent
                .filter(|percent| (0..=100).contains(percent))
                .and_then(|percent| percent.checked_mul(replicas))
                .map_or(0, |hundredths| hundredths.saturating_add(99) / 100)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(replicas: i64, max_surge: &Value) -> Value {
        json!({
            "metadata": { "namespace": "default", "name": "web", "generation": 3 },
            "spec": {
                "replicas": replicas,
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": max_surge } },
            },
            "status": {
                "observedGeneration": 3, "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas,
            },
        })
    }

    #[test]
    fn surge_is_what_the_strategy_says_of_a_deployment_that_rolls() {
        for (replicas, max_surge, surge_is) in [
            (4, json!("25%"), 1),
            (5, json!("25%"), 2),
            (4, json!(3), 3),
            (4, json!(0), 0),
            (4, json!("0%"), 0),
            (4, json!("many"), 0),
            (i64::MAX, json!("90%"), 0),
        ] {
            assert_eq!(surge(&deployment(replicas, &max_surge)), surge_is, "{max_surge}");
        }
        let mut paused = deployment(4, &json!(1));
        paused["spec"]["paused"] = json!(true);
        assert_eq!(surge(&paused), 0);
        let mut replaced = deployment(4, &json!(1));
        replaced["spec"]["strategy"] = json!({ "type": "Recreate" });
        assert_eq!(surge(&replaced), 0);
    }

    #[test]
    fn a_deployment_is_settled_once_its_controller_has_seen_it_and_all_is_new_and_available() {
        let settled = deployment(4, &json!(1));
        assert!(is_settled(&settled) && !shrinks(&settled));
        let mut unseen = settled.clone();
        unseen["metadata"]["generation"] = json!(4);
        assert!(!is_settled(&unseen) && shrinks(&unseen));
        let mut rolls = settled.clone();
        rolls["status"]["updatedReplicas"] = json!(2);
        assert!(!is_settled(&rolls) && !shrinks(&rolls));
        let mut fewer = settled;
        fewer["spec"]["replicas"] = json!(3);
        assert!(!is_settled(&fewer) && shrinks(&fewer));
    }

    #[test]
    fn what_was_added_is_known_by_the_deployment_itself_until_somebody_else_scales_it() {
        let mut grown = deployment(5, &json!(1));
        assert_eq!(Grown::of(&grown), None);
        for nonsense in ["", "4", "4+", "+1", "4+0", "-1+1", "4+x", "9223372036854775807+1"] {
            grown["metadata"]["annotations"] = json!({ keys::HANDED_REPLICAS: nonsense });
            assert_eq!(Grown::of(&grown), None, "{nonsense:?}");
        }
        let by_one = Grown { from: 4, by: 1 };
        grown["metadata"]["annotations"] = json!({ keys::HANDED_REPLICAS: by_one.to_text() });
        assert_eq!(Grown::of(&grown), Some(by_one));
        assert!(is_grown(&grown, by_one));
        grown["spec"]["replicas"] = json!(9);
        assert!(!is_grown(&grown, by_one));
    }
}
