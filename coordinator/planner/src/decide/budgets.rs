//! Which disruption budgets cover which pods, asked once for pods that no selector tells apart.

use crate::{
    model::{Cluster, DisruptionBudget, NamespaceName, Pod},
    placement::{Classes, QuickMap},
};

/// Budgets by shape of pod.
#[derive(Clone, Debug)]
pub(super) struct Covering {
    by_shape: Vec<Vec<usize>>,
}

impl Covering {
    pub(super) fn new(cluster: &Cluster, classes: &Classes<'_>) -> Self {
        // By namespace and a label that the selector asks for, so that not every pod is held against every budget.
        type Label<'b> = Option<(&'b str, &'b str)>;
        let mut index: QuickMap<(&NamespaceName, Label<'_>), Vec<usize>> = QuickMap::default();
        for (number, budget) in cluster.disruption_budgets.iter().enumerate() {
            let Some(selector) = &budget.selector else {
                continue;
            };
            let label = selector.match_labels.iter().next();
            let label = label.map(|(key, value)| (&**key, &**value));
            index.entry((&budget.namespace, label)).or_default().push(number);
        }
        let of_shape = |pod: &&Pod| {
            let labels = pod.labels.iter().map(|(key, value)| Some((&**key, &**value)));
            let mut budgets: Vec<usize> = labels
                .chain([None])
                .filter_map(|label| index.get(&(&pod.key.namespace, label)))
                .flatten()
                .copied()
                .filter(|number| cluster.disruption_budgets[*number].covers(pod))
                .collect();
            budgets.sort_unstable();
            budgets
        };
        Self {
            by_shape: classes.shapes.iter().map(of_shape).collect(),
        }
    }

    /// The budgets that cover a pod, by their index in the cluster.
    pub(super) fn of<'s, 'a>(
        &'s self,
        cluster: &'a Cluster,
        shape: usize,
    ) -> impl Iterator<Item = (usize, &'a DisruptionBudget)> + use<'s, 'a> {
        let budgets = &cluster.disruption_budgets;
        self.by_shape[shape]
            .iter()
            .map(|index| (*index, &budgets[*index]))
    }
}
