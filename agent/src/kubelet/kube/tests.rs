#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

mod fuzz;
mod server;

use super::*;

fn refusal(code: u16, body: &'static str) -> Refusal {
    refused(&Answer {
        status: StatusCode::from_u16(code).unwrap(),
        headers: http::HeaderMap::new(),
        body: body.into(),
    })
}

#[test]
fn every_answer_of_the_api_server_has_its_meaning() {
    let budget = r#"{"status":"Failure","message":"Cannot evict pod as it would violate the pod's disruption budget.",
        "reason":"TooManyRequests","details":{"causes":[{"reason":"DisruptionBudget","message":"needs 2"}]},"code":429}"#;
    assert!(matches!(refusal(429, budget), Refusal::Budget(_)));
    let throttled = r#"{"status":"Failure","message":"too many requests","reason":"TooManyRequests",
        "details":{"retryAfterSeconds":3},"code":429}"#;
    assert_eq!(
        refusal(429, throttled),
        Refusal::Throttled {
            after: Some(Duration::from_secs(3))
        }
    );
    let two = r#"{"status":"Failure","message":"This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        "reason":"InternalError","code":500}"#;
    assert_eq!(refusal(500, two), Refusal::MultipleBudgets);
    let ending = r#"{"status":"Failure","message":"pods is forbidden","reason":"Forbidden",
        "details":{"causes":[{"reason":"NamespaceTerminating","message":"namespace x is being terminated"}]},"code":403}"#;
    assert_eq!(refusal(403, ending), Refusal::NamespaceTerminating);
    let forbidden =
        r#"{"status":"Failure","message":"no relationship found","reason":"Forbidden","code":403}"#;
    assert!(matches!(refusal(403, forbidden), Refusal::Refused(_)));
    assert_eq!(refusal(404, "{}"), Refusal::NotFound);
    assert_eq!(refusal(409, "{}"), Refusal::OtherUid);
    assert!(matches!(refusal(503, "{}"), Refusal::Unavailable(_)));
}

#[test]
fn a_pod_with_a_field_that_makes_no_sense_leaves_all_the_same() {
    let pod: manifests::Pod = serde_json::from_str(
        r#"{"metadata":{"name":"a","namespace":"default","uid":"u1"},
            "spec":{"nodeName":"n","priority":7,"terminationGracePeriodSeconds":5,
                    "containers":[{"name":"c","resources":{"requests":{"cpu":"a lot"}}}]},
            "status":{"phase":"Running"}}"#,
    )
    .unwrap();
    let own = own(&pod).unwrap();
    assert_eq!((own.pod.priority, own.grace), (7, Duration::from_secs(5)));
    assert_eq!(own.pod.key.to_string(), "default/a");
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_yet_is_named() {
    let api = KubeconfigApi::new(Path::new("/nowhere/kubelet.kubeconfig"));
    let refusal = api.node("n").await.unwrap_err();
    assert!(
        refusal.to_string().contains("/nowhere/kubelet.kubeconfig"),
        "{refusal}"
    );
}
