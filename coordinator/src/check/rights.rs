//! Rights in the cluster: what a coordinator may have to do there, right by right, and whether it may.
//!
//! The manifests of `packaging/kubernetes` give these and no others, and the tests hold the two against each other. The adapters
//! do not read this list: that every right of it is used, and no other, is seen in the API server's audit log.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::future::join_all;
use smartscale_proto::check::Finding;

use super::Check;
use crate::policy::ConfigMapName;

const AREA: &str = "rights";

/// A right, as a rule of RBAC gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// `get`, `list`, …
    pub verb: String,
    /// Empty for the core group.
    pub group: String,
    /// With its subresource: `pods/eviction`.
    pub resource: String,
    /// Where; `None`: in all namespaces, or of what is in none.
    pub namespace: Option<String>,
    /// The only object that it is about.
    pub name: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, " in {namespace}")?;
        }
        Ok(())
    }
}

/// What rights are for: each has its folder in `packaging/kubernetes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concern {
    /// Observing, scaling, telling: every coordinator.
    Base,
    /// `[timing] hand_over`.
    HandOver,
    /// `scale_down.steer` of the policy.
    Steer,
    /// `[join] tokens = "minted"`.
    JoinTokens,
    /// A policy in this ConfigMap.
    Policy(ConfigMapName),
}

/// Group, resources and verbs of a rule.
type Rule = (&'static str, &'static [&'static str], &'static [&'static str]);

const BASE: &[Rule] = &[
    (
        "",
        &[
            "pods",
            "namespaces",
            "persistentvolumes",
            "persistentvolumeclaims",
        ],
        &["list", "watch"],
    ),
    ("", &["nodes"], &["list", "watch", "get", "patch", "delete"]),
    ("apps", &["daemonsets"], &["list", "watch"]),
    ("policy", &["poddisruptionbudgets"], &["list", "watch"]),
    (
        "storage.k8s.io",
        &["storageclasses", "csinodes"],
        &["list", "watch"],
    ),
    ("storage.k8s.io", &["volumeattachments"], &["list"]),
    ("scheduling.k8s.io", &["priorityclasses"], &["list", "watch"]),
    ("", &["pods"], &["get", "delete"]),
    ("", &["pods/eviction"], &["create"]),
    ("events.k8s.io", &["events"], &["create", "get", "patch"]),
];
const HAND_OVER: &[Rule] = &[
    ("apps", &["deployments"], &["get", "list", "patch"]),
    ("apps", &["replicasets"], &["get"]),
    ("autoscaling", &["horizontalpodautoscalers"], &["list"]),
    ("", &["pods"], &["list", "patch"]),
];
const STEER: &[Rule] = &[("", &["pods"], &["patch"])];
const JOIN_TOKENS: &[Rule] = &[("", &["secrets"], &["create"])];
const POLICY: &[Rule] = &[("", &["configmaps"], &["list", "watch"])];

impl Concern {
    /// What has to be applied for it.
    #[must_use]
    pub fn folder(&self) -> &'static str {
        match self {
            Self::Base => "packaging/kubernetes",
            Self::HandOver => "packaging/kubernetes/hand-over",
            Self::Steer => "packaging/kubernetes/steer",
            Self::JoinTokens => "packaging/kubernetes/join-tokens",
            Self::Policy(_) => "packaging/kubernetes/policy",
        }
    }

    /// The rights that it takes.
    #[must_use]
    pub fn rights(&self) -> Vec<Right> {
        let (rules, namespace, name) = match self {
            Self::Base => (BASE, None, None),
            Self::HandOver => (HAND_OVER, None, None),
            Self::Steer => (STEER, None, None),
            Self::JoinTokens => (JOIN_TOKENS, Some("kube-system"), None),
            Self::Policy(map) => (POLICY, Some(&*map.namespace), Some(&*map.name)),
        };
        let right = |group: &str, resource: &str, verb: &str| Right {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        };
        let all = rules.iter().flat_map(|(group, resources, verbs)| {
            resources
                .iter()
                .flat_map(move |resource| verbs.iter().map(move |verb| right(group, resource, verb)))
        });
        all.collect()
    }
}

/// Who knows what the coordinator may do.
#[async_trait]
pub trait Access: Send + Sync {
    /// Whether the right is there.
    ///
    /// # Errors
    /// A sentence: nobody answers, or the question is refused.
    async fn has(&self, right: &Right) -> Result<bool, String>;
}

/// Asks for every right of what is configured.
pub struct RightsCheck {
    /// Who is asked.
    pub access: Arc<dyn Access>,
    /// What the coordinator does at this moment: a policy may ask for more.
    pub concerns: Box<dyn Fn() -> Vec<Concern> + Send + Sync>,
}

impl RightsCheck {
    async fn of(&self, concern: &Concern) -> Vec<Finding> {
        let folder = concern.folder();
        let rights = concern.rights();
        let tried = format!("asked for the {} rights of {folder}", rights.len());
        let answers = join_all(rights.iter().map(|right| self.access.has(right))).await;
        let answers: Vec<_> = rights.iter().zip(answers).collect();
        if let Some(error) = answers.iter().find_map(|(_, answer)| answer.as_ref().err()) {
            let remedy = "look at the server and the credential of the kubeconfig ([kubernetes] kubeconfig)";
            return vec![Finding::failed(AREA, tried, error.clone(), remedy)];
        }
        let missing = answers.iter().filter(|(_, answer)| *answer == Ok(false));
        let missing: Vec<Finding> = missing
            .map(|(right, _)| {
                let remedy = format!("kubectl apply -k {folder}, and use its service account's credential");
                Finding::failed(AREA, format!("asked whether it may {right}"), "no", remedy)
            })
            .collect();
        if missing.is_empty() {
            return vec![Finding::passed(AREA, tried, "it has them")];
        }
        missing
    }

    /// A credential that may do everything works, and would be the cluster's if it were stolen.
    async fn of_everything(&self) -> Option<Finding> {
        let everything = Right {
            verb: "*".to_owned(),
            group: "*".to_owned(),
            resource: "*".to_owned(),
            namespace: None,
            name: None,
        };
        let has = self.access.has(&everything).await.ok()?;
        has.then(|| {
            Finding::warning(
                AREA,
                "asked whether it may do everything",
                "yes",
                "use the credential of the service account that packaging/kubernetes makes (packaging/README.md), and not an \
                 administrator's",
            )
        })
    }
}

#[async_trait]
impl Check for RightsCheck {
    fn area(&self) -> &'static str {
        AREA
    }

    async fn run(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for concern in (self.concerns)() {
            findings.extend(self.of(&concern).await);
        }
        findings.extend(self.of_everything().await);
        findings
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use std::collections::BTreeSet;

    use smartscale_proto::check::Outcome;

    use super::{
        super::testing::{outcomes, says_what_to_do},
        *,
    };

    fn all() -> Vec<Concern> {
        let map = "kube-system/smartscale-policy".parse().unwrap();
        vec![
            Concern::Base,
            Concern::HandOver,
            Concern::Steer,
            Concern::JoinTokens,
            Concern::Policy(map),
        ]
    }

    /// Allows what it is given to.
    struct Allows<F>(F);

    #[async_trait]
    impl<F: Fn(&Right) -> Result<bool, String> + Send + Sync> Access for Allows<F> {
        async fn has(&self, right: &Right) -> Result<bool, String> {
            (self.0)(right)
        }
    }

    async fn run(allows: impl Fn(&Right) -> Result<bool, String> + Send + Sync + 'static) -> Vec<Finding> {
        let check = RightsCheck {
            access: Arc::new(Allows(allows)),
            concerns: Box::new(all),
        };
        let findings = check.run().await;
        says_what_to_do(&findings);
        findings
    }

    #[test]
    fn no_right_is_listed_twice_and_none_is_of_everything() {
        for concern in all() {
            let rights = concern.rights();
            let each: BTreeSet<_> = rights.iter().collect();
            assert_eq!(each.len(), rights.len(), "{concern:?}");
            for right in rights {
                for part in [&right.verb, &right.group, &right.resource] {
                    assert!(!part.contains('*'), "{right}");
                }
            }
        }
    }

    #[tokio::test]
    async fn rights_that_are_there_are_a_line_for_each_concern() {
        let findings = run(|right| Ok(right.verb != "*")).await;
        assert_eq!(outcomes(&findings), [Outcome::Passed; 5]);
    }

    #[tokio::test]
    async fn a_right_that_is_missing_is_named_with_what_gives_it() {
        let findings = run(|right| Ok(right.verb != "*" && right.resource != "configmaps")).await;
        let failed: Vec<_> = findings
            .iter()
            .filter(|finding| finding.outcome == Outcome::Failed)
            .collect();
        assert_eq!(failed.len(), 2);
        assert_eq!(
            failed[0].tried,
            "asked whether it may list configmaps smartscale-policy in kube-system"
        );
        assert!(
            failed[0].remedy.contains("packaging/kubernetes/policy"),
            "{failed:?}"
        );
    }

    #[tokio::test]
    async fn a_credential_that_may_do_everything_is_to_be_looked_at() {
        let findings = run(|_| Ok(true)).await;
        assert_eq!(outcomes(&findings)[5..], [Outcome::Warning]);
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_one_failure_for_each_concern() {
        let findings = run(|_| Err("connection refused".to_owned())).await;
        assert_eq!(outcomes(&findings), [Outcome::Failed; 5]);
    }
}
