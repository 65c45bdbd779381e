//! The rights of each manifest, as the API server's own authorizer judges them: everything that they are for is allowed, and what a
//! thief of the credential would like is refused.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use smartscale_coordinator::check::Check as _;
use smartscale_coordinator::check::clock::TimeSource as _;
use smartscale_coordinator::check::rights::{Concern, Right, RightsCheck};
use smartscale_coordinator::kubernetes::check::ApiServer;
use smartscale_coordinator::kubernetes::{client, clock::ClusterClock};
use smartscale_coordinator::policy::ConfigMapName;
use smartscale_proto::check::Outcome;
use smartscale_proto::time::SystemClock;
use smartscale_tests::rig::wait;

use super::{DEADLINE, World, api, shared};

fn concerns() -> [(Concern, &'static str); 5] {
    let map = "kube-system/smartscale-policy".parse().unwrap();
    [
        (Concern::Base, "base"),
        (Concern::HandOver, "hand-over"),
        (Concern::Steer, "steer"),
        (Concern::JoinTokens, "join-tokens"),
        (Concern::Policy(map), "policy"),
    ]
}

/// The documents of the concern's manifest.
fn manifest(concern: &Concern) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(concern.folder())
        .join("rbac.yaml");
    serde_saphyr::from_multiple(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten();
    texts.map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The rights that the rules of a manifest give.
fn granted(concern: &Concern) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for role in manifest(concern) {
        if !matches!(role["kind"].as_str(), Some("ClusterRole" | "Role")) {
            continue;
        }
        let namespace = role["metadata"]["namespace"].as_str().map(str::to_owned);
        for rule in role["rules"].as_array().unwrap() {
            assert!(rule.get("nonResourceURLs").is_none(), "{rule}");
            let names = match texts(&rule["resourceNames"]) {
                names if names.is_empty() => vec![None],
                names => names.into_iter().map(Some).collect(),
            };
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        for name in &names {
                            rights.insert(Right {
                                verb: verb.clone(),
                                group: group.clone(),
                                resource: resource.clone(),
                                namespace: namespace.clone(),
                                name: name.clone(),
                            });
                        }
                    }
                }
            }
        }
    }
    rights
}

#[test]
fn each_manifest_gives_the_rights_that_the_coordinator_has_to_have_no_others_and_no_wildcard() {
    for (concern, _) in concerns() {
        let granted = granted(&concern);
        let needed: BTreeSet<_> = concern.rights().into_iter().collect();
        assert_eq!(granted, needed, "{concern:?}");
        for right in granted {
            let text = format!("{}{}{}", right.verb, right.group, right.resource);
            assert!(!text.contains('*'), "{right}");
        }
    }
}

fn right(verb: &str, group: &str, resource: &str, namespace: Option<&str>, name: Option<&str>) -> Right {
    Right {
        verb: verb.to_owned(),
        group: group.to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
    }
}

/// What a thief of the coordinator's credential would like, and what mistakes in a manifest would give.
fn coveted() -> Vec<Right> {
    let anywhere = |verb, group, resource| right(verb, group, resource, None, None);
    let system = |verb, group, resource| right(verb, group, resource, Some("kube-system"), None);
    let mut coveted = vec![
        anywhere("*", "*", "*"),
        anywhere("get", "", "secrets"),
        anywhere("list", "", "secrets"),
        anywhere("watch", "", "secrets"),
        anywhere("create", "", "secrets"),
        system("get", "", "secrets"),
        system("list", "", "secrets"),
        system("delete", "", "secrets"),
        system("patch", "", "secrets"),
        anywhere("get", "", "configmaps"),
        anywhere("list", "", "configmaps"),
        system("list", "", "configmaps"),
        system("update", "", "configmaps"),
        right(
            "list",
            "",
            "configmaps",
            Some("kube-system"),
            Some("smartscale-other-nodes"),
        ),
        right(
            "get",
            "",
            "configmaps",
            Some("kube-system"),
            Some("smartscale-policy"),
        ),
        right(
            "patch",
            "",
            "configmaps",
            Some("kube-system"),
            Some("smartscale-policy"),
        ),
        right(
            "list",
            "",
            "configmaps",
            Some("default"),
            Some("smartscale-policy"),
        ),
        // Into workloads, and into nodes by way of them.
        anywhere("create", "", "pods"),
        anywhere("update", "", "pods"),
        anywhere("deletecollection", "", "pods"),
        anywhere("create", "", "pods/exec"),
        anywhere("get", "", "pods/exec"),
        anywhere("create", "", "pods/attach"),
        anywhere("create", "", "pods/portforward"),
        anywhere("get", "", "pods/log"),
        anywhere("patch", "", "pods/ephemeralcontainers"),
        anywhere("patch", "", "pods/status"),
        anywhere("create", "", "pods/binding"),
        anywhere("create", "", "nodes"),
        anywhere("update", "", "nodes"),
        anywhere("deletecollection", "", "nodes"),
        anywhere("get", "", "nodes/proxy"),
        anywhere("create", "", "nodes/proxy"),
        anywhere("patch", "", "nodes/status"),
        anywhere("create", "apps", "deployments"),
        anywhere("update", "apps", "deployments"),
        anywhere("delete", "apps", "deployments"),
        anywhere("patch", "apps", "deployments/scale"),
        anywhere("patch", "apps", "replicasets"),
        anywhere("patch", "apps", "statefulsets"),
        anywhere("patch", "apps", "daemonsets"),
        anywhere("create", "batch", "jobs"),
        anywhere("patch", "autoscaling", "horizontalpodautoscalers"),
        anywhere("delete", "", "namespaces"),
        anywhere("delete", "", "persistentvolumes"),
        anywhere("delete", "", "persistentvolumeclaims"),
        anywhere("delete", "storage.k8s.io", "volumeattachments"),
        anywhere("patch", "policy", "poddisruptionbudgets"),
        anywhere("delete", "policy", "poddisruptionbudgets"),
        // To more rights, and away from traces.
        anywhere("create", "", "serviceaccounts/token"),
        anywhere("impersonate", "", "users"),
        anywhere("impersonate", "", "groups"),
        anywhere("impersonate", "", "serviceaccounts"),
        anywhere("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
        anywhere("create", "rbac.authorization.k8s.io", "rolebindings"),
        anywhere("escalate", "rbac.authorization.k8s.io", "clusterroles"),
        anywhere("bind", "rbac.authorization.k8s.io", "clusterroles"),
        anywhere(
            "update",
            "certificates.k8s.io",
            "certificatesigningrequests/approval",
        ),
        anywhere(
            "delete",
            "admissionregistration.k8s.io",
            "validatingadmissionpolicies",
        ),
        anywhere(
            "delete",
            "admissionregistration.k8s.io",
            "validatingadmissionpolicybindings",
        ),
        anywhere(
            "create",
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations",
        ),
        anywhere("delete", "events.k8s.io", "events"),
        anywhere("list", "events.k8s.io", "events"),
        system("update", "coordination.k8s.io", "leases"),
    ];
    for (concern, _) in concerns() {
        coveted.extend(concern.rights());
    }
    coveted
}

/// Makes a service account that has the rights of this manifest and no others: the coordinator's has what other tests gave it.
async fn account(world: &World, concern: &Concern, word: &str) -> String {
    let name = format!("rbac-{word}");
    for mut object in manifest(concern) {
        let kind = object["kind"].as_str().unwrap().to_owned();
        object["metadata"]["name"] = json!(name);
        if kind.ends_with("Binding") {
            object["roleRef"]["name"] = json!(name);
            object["subjects"][0]["name"] = json!(name);
        }
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let gvk = GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(world.cluster.client(), namespace, &resource),
            None => Api::all_with(world.cluster.client(), &resource),
        };
        let apply = PatchParams::apply("rig").force();
        api.patch(&name, &apply, &Patch::Apply(&object)).await.unwrap();
    }
    format!("system:serviceaccount:kube-system:{name}")
}

/// Whether the authorizer lets `user`.
pub(super) async fn may(
    reviews: &Api<SubjectAccessReview>,
    user: &str,
    right: &Right,
) -> anyhow::Result<bool> {
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
    let review = serde_json::from_value(json!({
        "metadata": {},
        "spec": {
            "user": user,
            "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
            "resourceAttributes": {
                "verb": right.verb, "group": right.group, "resource": resource, "subresource": subresource,
                "namespace": right.namespace, "name": right.name,
            },
        },
    }))?;
    let judged = reviews.create(&PostParams::default(), &review).await?;
    Ok(judged.status.is_some_and(|status| status.allowed))
}

#[test]
fn each_manifest_allows_what_it_is_for_and_refuses_what_a_thief_would_like() {
    shared(async |world| {
        let reviews = world.admin::<SubjectAccessReview>();
        for (concern, word) in concerns() {
            let user = account(&world, &concern, word).await;
            let allowed = concern.rights();
            let what = format!("the rights of {word}");
            wait::until_true(&what, DEADLINE, || async {
                for right in &allowed {
                    if !may(&reviews, &user, right).await? {
                        return Ok(false);
                    }
                }
                Ok(true)
            })
            .await
            .unwrap();
            for right in coveted() {
                if allowed.contains(&right) {
                    continue;
                }
                assert!(!may(&reviews, &user, &right).await.unwrap(), "{word} may {right}");
            }
        }
    });
}

#[test]
fn the_check_finds_the_coordinators_rights_and_clock_and_misses_what_was_not_given() {
    shared(async |world| {
        let clock = Arc::new(ClusterClock::new(Arc::new(SystemClock)));
        let settings = client::Settings {
            kubeconfig: Some(world.kubeconfig.clone()),
            ..client::Settings::default()
        };
        let client = client::connect(&settings, &clock).await.unwrap();
        let server = Arc::new(ApiServer::new(api(client), Arc::clone(&clock)));
        let (version, ahead) = server.ahead().await.unwrap();
        assert!(
            version.starts_with("v1.") && ahead.is_zero(),
            "{version} {ahead:?}"
        );
        // Another ConfigMap's, which no test gives.
        let other = "kube-system/smartscale-policy-of-another".parse().unwrap();
        let check = RightsCheck {
            access: server,
            concerns: Box::new(move || vec![Concern::Base, Concern::Policy(ConfigMapName::clone(&other))]),
        };
        let findings = check.run().await;
        let outcomes: Vec<_> = findings.iter().map(|finding| finding.outcome).collect();
        assert_eq!(
            outcomes,
            [Outcome::Passed, Outcome::Failed, Outcome::Failed],
            "{findings:?}"
        );
    });
}
