//! What stands above pods: DaemonSets, disruption budgets and namespaces.

use std::sync::Arc;

use super::{LabelSelector, Labels, NamespaceName, Pod};

/// A DaemonSet: one pod of its kind on every node that its template accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct DaemonSet {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: Arc<str>,
    /// The pod that it puts on a node, unbound. Carries the tolerations that the DaemonSet controller adds.
    pub template: Pod,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, PartialEq)]
pub struct DisruptionBudget {
    /// Its namespace; only pods in there are covered.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: Arc<str>,
    /// Which pods; `None` covers none, the empty selector all.
    pub selector: Option<LabelSelector>,
    /// How many may go now (`status.disruptionsAllowed`; 0 while the status is older than the spec).
    pub disruptions_allowed: i32,
    /// `unhealthyPodEvictionPolicy: AlwaysAllow`: pods that are not ready do not count.
    pub always_evict_unhealthy: bool,
}

impl DisruptionBudget {
    /// Whether it covers this pod.
    pub fn covers(&self, pod: &Pod) -> bool {
        self.namespace == pod.key.namespace
            && self
                .selector
                .as_ref()
                .is_some_and(|selector| selector.matches(&pod.labels))
    }
}

/// A namespace with its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: NamespaceName,
    /// Its labels; the API server adds `kubernetes.io/metadata.name`.
    pub labels: Labels,
}
