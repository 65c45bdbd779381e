//! Selectors: over the labels of objects, and over labels and fields of nodes.

use std::sync::Arc;

use super::Labels;

/// A `metav1.LabelSelector`. The empty one matches everything; `None` around it matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    /// Labels that must have these values.
    pub match_labels: Labels,
    /// Further requirements, all of which must hold.
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement on labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelRequirement {
    /// The label.
    pub key: Arc<str>,
    /// How it is compared.
    pub operator: LabelOperator,
    /// What it is compared with.
    pub values: Vec<Arc<str>>,
}

/// Operators of a label selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum LabelOperator {
    /// There and one of the values.
    In,
    /// Absent, or none of the values.
    NotIn,
    /// There.
    Exists,
    /// Absent.
    DoesNotExist,
}

impl LabelSelector {
    /// A selector of one label's value.
    pub fn of(key: &str, value: &str) -> Self {
        Self {
            match_labels: [(key.into(), value.into())].into(),
            match_expressions: Vec::new(),
        }
    }

    /// Whether these labels satisfy every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self
                .match_expressions
                .iter()
                .all(|requirement| requirement.matches(labels))
    }

    /// Whether it has no requirement at all.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether a requirement of this key stands in it.
    pub fn mentions(&self, key: &str) -> bool {
        self.match_labels.contains_key(key) || self.match_expressions.iter().any(|r| &*r.key == key)
    }
}

impl LabelRequirement {
    /// Whether these labels satisfy it (`labels.Requirement.Matches`).
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => value.is_some_and(|v| self.values.contains(v)),
            LabelOperator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

/// One term of a node selector: all its requirements must hold; one term of several suffices. A term without any
/// matches no node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    /// Over labels.
    pub expressions: Vec<NodeRequirement>,
    /// Over fields; only `metadata.name` exists.
    pub fields: Vec<NodeRequirement>,
}

/// One requirement on a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeRequirement {
    /// The label, or the field's path.
    pub key: Arc<str>,
    /// How it is compared.
    pub operator: NodeOperator,
    /// What it is compared with.
    pub values: Vec<Arc<str>>,
}

/// Operators of a node selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum NodeOperator {
    /// There and one of the values.
    In,
    /// Absent, or none of the values.
    NotIn,
    /// There.
    Exists,
    /// Absent.
    DoesNotExist,
    /// A whole number above the only value.
    Gt,
    /// A whole number below the only value.
    Lt,
}

impl NodeTerm {
    /// Whether a node of this name and these labels satisfies the term.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.expressions.is_empty() && self.fields.is_empty() {
            return false;
        }
        self.expressions
            .iter()
            .all(|r| r.matches(labels.get(&r.key).map(AsRef::as_ref)))
            && self
                .fields
                .iter()
                .all(|r| &*r.key == "metadata.name" && r.matches(Some(name)))
    }
}

impl NodeRequirement {
    /// Whether a value, `None` if absent, satisfies it (`component-helpers/scheduling/corev1/nodeaffinity`).
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|w| &**w == v);
        let number = |v: &str| v.parse::<i64>().ok();
        let compared = |holds: fn(i64, i64) -> bool| match (value.and_then(number), self.values.as_slice()) {
            (Some(have), [bound]) => number(bound).is_some_and(|bound| holds(have, bound)),
            _ => false,
        };
        match self.operator {
            NodeOperator::In => value.is_some_and(listed),
            NodeOperator::NotIn => value.is_none_or(|v| !listed(v)),
            NodeOperator::Exists => value.is_some(),
            NodeOperator::DoesNotExist => value.is_none(),
            NodeOperator::Gt => compared(|have, bound| have > bound),
            NodeOperator::Lt => compared(|have, bound| have < bound),
        }
    }
}
