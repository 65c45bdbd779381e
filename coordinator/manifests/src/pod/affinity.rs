//! Affinity and topology spread, with `matchLabelKeys` worked into the selectors as the API server does it (KEP-3633,
//! KEP-3243): a key counts only if the pod has the label and the selector does not name it already.

use smartscale_planner::model::{
    self, LabelOperator, LabelRequirement, Labels, NamespaceName, NodeRequirement, NodeTerm,
    UnsatisfiableAction, Weighted,
};

use super::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
    TopologySpreadConstraint,
};
use crate::convert::{self, Field};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

#[derive(Default)]
pub(super) struct Converted {
    pub(super) node: model::NodeAffinity,
    pub(super) near: Vec<model::PodAffinityTerm>,
    pub(super) apart: Vec<model::PodAffinityTerm>,
    pub(super) preferred: Vec<Weighted<model::PodAffinityTerm>>,
}

pub(super) fn convert(
    at: &str,
    affinity: Option<&Affinity>,
    namespace: &NamespaceName,
    labels: &Labels,
) -> Result<Converted, Field> {
    let mut converted = Converted::default();
    let Some(affinity) = affinity else {
        return Ok(converted);
    };
    if let Some(node) = &affinity.node_affinity {
        let path = format!("{at}.affinity.nodeAffinity");
        if let Some(required) = &node.required {
            converted.node.required = Some(node_terms(&format!("{path}.{REQUIRED}"), required)?);
        }
        for (index, term) in node.preferred.iter().enumerate() {
            let item = node_term(
                &format!("{path}.{PREFERRED}[{index}].preference"),
                &term.preference,
            )?;
            converted.node.preferred.push(Weighted {
                weight: term.weight,
                item,
            });
        }
    }
    let both = [
        ("podAffinity", &affinity.pod_affinity, 1),
        ("podAntiAffinity", &affinity.pod_anti_affinity, -1),
    ];
    for (field, terms, sign) in both {
        let Some(terms) = terms else { continue };
        for (index, term) in terms.required.iter().enumerate() {
            let term = pod_term(
                &format!("{at}.affinity.{field}.{REQUIRED}[{index}]"),
                term,
                namespace,
                labels,
            )?;
            if sign > 0 {
                converted.near.push(term);
            } else {
                converted.apart.push(term);
            }
        }
        for (index, term) in terms.preferred.iter().enumerate() {
            let path = format!("{at}.affinity.{field}.{PREFERRED}[{index}].podAffinityTerm");
            let item = pod_term(&path, &term.pod_affinity_term, namespace, labels)?;
            converted.preferred.push(Weighted {
                weight: sign * term.weight,
                item,
            });
        }
    }
    Ok(converted)
}

pub(crate) fn node_terms(path: &str, selector: &NodeSelector) -> Result<Vec<NodeTerm>, Field> {
    selector
        .node_selector_terms
        .iter()
        .enumerate()
        .map(|(index, term)| node_term(&format!("{path}.nodeSelectorTerms[{index}]"), term))
        .collect()
}

fn node_term(path: &str, term: &NodeSelectorTerm) -> Result<NodeTerm, Field> {
    let requirements = |field: &str, list: &[NodeSelectorRequirement]| {
        list.iter()
            .enumerate()
            .map(|(index, requirement)| {
                Ok(NodeRequirement {
                    key: requirement.key.as_str().into(),
                    operator: convert::word(
                        || format!("{path}.{field}[{index}].operator"),
                        &requirement.operator,
                    )?,
                    values: convert::strings(&requirement.values),
                })
            })
            .collect::<Result<Vec<_>, Field>>()
    };
    Ok(NodeTerm {
        expressions: requirements("matchExpressions", &term.match_expressions)?,
        fields: requirements("matchFields", &term.match_fields)?,
    })
}

fn pod_term(
    path: &str,
    term: &PodAffinityTerm,
    namespace: &NamespaceName,
    labels: &Labels,
) -> Result<model::PodAffinityTerm, Field> {
    let mut selector = match &term.label_selector {
        Some(selector) => Some(convert::selector(&format!("{path}.labelSelector"), selector)?),
        None => None,
    };
    if let Some(selector) = &mut selector {
        merge(selector, &term.match_label_keys, LabelOperator::In, labels);
        merge(selector, &term.mismatch_label_keys, LabelOperator::NotIn, labels);
    }
    let namespace_selector = match &term.namespace_selector {
        Some(selector) => Some(convert::selector(&format!("{path}.namespaceSelector"), selector)?),
        None => None,
    };
    let mut namespaces: Vec<NamespaceName> =
        term.namespaces.iter().map(|name| name.as_str().into()).collect();
    if namespaces.is_empty() && namespace_selector.is_none() {
        namespaces.push(namespace.clone());
    }
    Ok(model::PodAffinityTerm {
        selector,
        namespaces,
        namespace_selector,
        topology_key: term.topology_key.as_str().into(),
    })
}

/// Requires (or excludes) the pod's own value of each key.
fn merge(selector: &mut model::LabelSelector, keys: &[String], operator: LabelOperator, labels: &Labels) {
    for key in keys {
        let Some(value) = labels.get(key.as_str()) else {
            continue;
        };
        if !selector.mentions(key) {
            selector.match_expressions.push(LabelRequirement {
                key: key.as_str().into(),
                operator,
                values: vec![value.clone()],
            });
        }
    }
}

pub(super) fn spread(
    at: &str,
    constraints: &[TopologySpreadConstraint],
    labels: &Labels,
) -> Result<Vec<model::SpreadConstraint>, Field> {
    constraints
        .iter()
        .enumerate()
        .map(|(index, constraint)| {
            let path = |field: &str| format!("{at}.topologySpreadConstraints[{index}].{field}");
            let mut selector = match &constraint.label_selector {
                Some(selector) => Some(convert::selector(&path("labelSelector"), selector)?),
                None => None,
            };
            if let Some(selector) = &mut selector {
                merge(selector, &constraint.match_label_keys, LabelOperator::In, labels);
            }
            let honor = |field: &str, policy: Option<&str>, default: bool| match policy {
                None | Some("") => Ok(default),
                Some("Honor") => Ok(true),
                Some("Ignore") => Ok(false),
                Some(other) => Err(Field::new(
                    path(field),
                    format!("`{other}` is neither Honor nor Ignore"),
                )),
            };
            Ok(model::SpreadConstraint {
                max_skew: constraint.max_skew,
                topology_key: constraint.topology_key.as_str().into(),
                when_unsatisfiable: match constraint.when_unsatisfiable.as_str() {
                    "DoNotSchedule" => UnsatisfiableAction::DoNotSchedule,
                    "ScheduleAnyway" => UnsatisfiableAction::ScheduleAnyway,
                    other => {
                        return Err(Field::new(
                            path("whenUnsatisfiable"),
                            format!("`{other}` is neither DoNotSchedule nor ScheduleAnyway"),
                        ));
                    }
                },
                selector,
                min_domains: constraint.min_domains,
                honor_node_affinity: honor(
                    "nodeAffinityPolicy",
                    constraint.node_affinity_policy.as_deref(),
                    true,
                )?,
                honor_taints: honor(
                    "nodeTaintsPolicy",
                    constraint.node_taints_policy.as_deref(),
                    false,
                )?,
            })
        })
        .collect()
}
