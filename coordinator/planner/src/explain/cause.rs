//! What exactly speaks against a node for a pod, with its figures.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::{
    PendingCode,
    model::{
        Bytes, LabelOperator, LabelRequirement, LabelSelector, MilliCpu, NodeOperator, NodeRequirement,
        PodKey, Taint,
    },
};

/// Why a node, or one that could be launched, does not take a pod: the first filter that refuses, and what it says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refusal {
    /// The filter, as in [`crate::PendingPod`].
    pub code: PendingCode,
    /// All that this filter has against it.
    pub causes: Vec<Cause>,
}

impl Refusal {
    /// How far from a yes it is, to find the nearest among refusals by one filter: shares of what is asked, or numbers of
    /// causes.
    pub(crate) fn distance(&self) -> f64 {
        let worst = self.causes.iter().map(Cause::distance).fold(0.0, f64::max);
        #[allow(clippy::cast_precision_loss, reason = "a number of causes")]
        let many = self.causes.len() as f64;
        worst + many * 1e-3
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, cause) in self.causes.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            cause.fmt(f)?;
        }
        Ok(())
    }
}

/// One thing that speaks against a node. Quantities are written as Kubernetes writes them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// A label, or the name, is not as the node selector or node affinity asks.
    Selector {
        /// What is asked, for example `tier=web`.
        asks: String,
        /// The node's value; `None` where it has no such label.
        has: Option<String>,
    },
    /// Required node affinity without any term.
    NoTerm,
    /// A taint that the pod does not tolerate, as `kubectl taint` writes it.
    Taint {
        /// `key=value:effect`.
        taint: String,
    },
    /// Something is short.
    Short {
        /// `cpu`, `memory`, `pods`, `ephemeral-storage` or an extended resource.
        resource: String,
        /// What the pod asks for.
        asks: String,
        /// What is free.
        free: String,
        /// What the node has for pods in all.
        allocatable: String,
        /// By how much it is short.
        short: String,
        /// The same as a share of what is asked.
        #[serde(skip)]
        share: f64,
    },
    /// A port of the host is taken.
    HostPort {
        /// `8080/TCP`.
        port: String,
        /// Who has it; of a DaemonSet on a node to come its own name.
        pod: PodKey,
    },
    /// A claim cannot be had there.
    Claim {
        /// Its name, in the pod's namespace.
        claim: String,
        /// What is wrong.
        problem: String,
    },
    /// No more volumes of the driver can be attached.
    AttachLimit {
        /// The CSI driver.
        driver: String,
        /// How many are attached.
        attached: usize,
        /// How many the pod brings.
        brings: usize,
        /// How many there may be.
        limit: i64,
    },
    /// The node lacks the label that a constraint counts by.
    Unlabelled {
        /// The topology key.
        topology_key: String,
    },
    /// No pod is there that it must be near.
    PodAffinity {
        /// Which pods.
        pods: String,
        /// What counts as near.
        topology_key: String,
        /// The node's value of it.
        domain: String,
    },
    /// A pod is there that must be kept apart.
    PodAntiAffinity {
        /// That pod.
        pod: Option<PodKey>,
        /// It is that pod which keeps away, not the one asked about.
        theirs: bool,
        /// Which pods the term speaks of.
        pods: String,
        /// What counts as near.
        topology_key: String,
        /// The node's value of it.
        domain: String,
    },
    /// A topology spread constraint would be broken.
    TopologySpread {
        /// Which pods are counted.
        pods: String,
        /// What is a domain.
        topology_key: String,
        /// The node's domain.
        domain: String,
        /// How many it would have, this pod included where it counts.
        would_have: i64,
        /// The emptiest domain; `None` where too few domains make the minimum 0.
        emptiest: Option<String>,
        /// How many that one has.
        least: i64,
        /// How many more a domain may have than the emptiest one.
        max_skew: i32,
    },
}

impl Cause {
    fn distance(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
        match self {
            Self::Short { share, .. } => *share,
            Self::TopologySpread {
                would_have,
                least,
                max_skew,
                ..
            } => (would_have - least - i64::from(*max_skew)) as f64,
            _ => 0.0,
        }
    }

    /// CPU, in thousandths of a core.
    pub(crate) fn short_cpu(asks: MilliCpu, used: MilliCpu, have: MilliCpu) -> Self {
        let free = have.minus(used);
        Self::Short {
            resource: "cpu".to_owned(),
            asks: asks.to_string(),
            free: free.to_string(),
            allocatable: have.to_string(),
            short: (used + asks - have).to_string(),
            share: share((used + asks - have).0, asks.0),
        }
    }

    /// Memory or disk.
    pub(crate) fn short_bytes(resource: &str, asks: Bytes, used: Bytes, have: Bytes) -> Self {
        Self::Short {
            resource: resource.to_owned(),
            asks: asks.to_string(),
            free: have.minus(used).to_string(),
            allocatable: have.to_string(),
            short: rounded_up(used + asks - have).to_string(),
            share: share((used + asks - have).0, asks.0),
        }
    }

    /// Whole units: slots for pods, extended resources.
    pub(crate) fn short_units(resource: &str, asks: i64, used: i64, have: i64) -> Self {
        let short = used.saturating_add(asks).saturating_sub(have);
        Self::Short {
            resource: resource.to_owned(),
            asks: asks.to_string(),
            free: have.saturating_sub(used).max(0).to_string(),
            allocatable: have.to_string(),
            short: short.to_string(),
            share: share(short, asks),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
fn share(short: i64, asks: i64) -> f64 {
    short as f64 / asks.max(1) as f64
}

/// To the next Mi or Ki, so that a figure can be read; never below what is short.
fn rounded_up(bytes: Bytes) -> Bytes {
    let shift = match bytes.0 {
        0x10_0000.. => 20,
        0x400.. => 10,
        _ => 0,
    };
    let unit = 1_i64 << shift;
    Bytes(bytes.0.saturating_add(unit - 1) / unit * unit)
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Selector { asks, has: Some(has) } => write!(f, "asks for {asks}, the node has {has}"),
            Self::Selector { asks, has: None } => write!(f, "asks for {asks}, the node has no such label"),
            Self::NoTerm => f.write_str("its required node affinity has no term, which no node satisfies"),
            Self::Taint { taint } => write!(f, "does not tolerate {taint}"),
            Self::Short {
                resource,
                asks,
                free,
                allocatable,
                short,
                ..
            } => write!(
                f,
                "{resource}: {short} short (asks for {asks}, {free} of {allocatable} free)"
            ),
            Self::HostPort { port, pod } => write!(f, "host port {port} is taken by {pod}"),
            Self::Claim { claim, problem } => write!(f, "claim {claim} {problem}"),
            Self::AttachLimit {
                driver,
                attached,
                brings,
                limit,
            } => write!(
                f,
                "{driver}: {attached} volumes attached and {brings} more, at most {limit}"
            ),
            Self::Unlabelled { topology_key } => write!(f, "the node has no label {topology_key}"),
            Self::PodAffinity {
                pods,
                topology_key,
                domain,
            } => write!(f, "no pod {pods} in {} {domain}", short_key(topology_key)),
            Self::PodAntiAffinity {
                pod,
                theirs,
                pods,
                topology_key,
                domain,
            } => {
                let place = format!("in {} {domain}", short_key(topology_key));
                match (pod, theirs) {
                    (Some(pod), false) => write!(f, "{pod} is {place}, and it keeps away from {pods}"),
                    (Some(pod), true) => write!(f, "{pod} {place} keeps pods {pods} away"),
                    (None, _) => write!(f, "a pod {pods} is {place}"),
                }
            }
            Self::TopologySpread {
                pods,
                topology_key,
                domain,
                would_have,
                emptiest,
                least,
                max_skew,
            } => {
                let key = short_key(topology_key);
                write!(f, "{key} {domain} would have {would_have} of {pods}, ")?;
                match emptiest {
                    Some(emptiest) => write!(f, "{emptiest} has {least}")?,
                    None => write!(f, "the least counts as {least}")?,
                }
                write!(f, "; max skew {max_skew}")
            }
        }
    }
}

/// The well-known topology keys as people say them.
pub(crate) fn short_key(key: &str) -> &str {
    match key {
        crate::model::keys::ZONE => "zone",
        crate::model::keys::REGION => "region",
        crate::model::keys::HOSTNAME => "node",
        other => other,
    }
}

/// A taint as `kubectl taint` writes it.
pub(crate) fn taint(taint: &Taint) -> String {
    if taint.value.is_empty() {
        format!("{}:{:?}", taint.key, taint.effect)
    } else {
        format!("{}={}:{:?}", taint.key, taint.value, taint.effect)
    }
}

/// A label selector as `kubectl -l` writes it; `none` for one that selects nobody, `any` for one that selects everybody.
pub(crate) fn selector(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else {
        return "(none)".to_owned();
    };
    let labels = selector
        .match_labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let parts: Vec<String> = labels
        .chain(selector.match_expressions.iter().map(label_requirement))
        .collect();
    if parts.is_empty() {
        "(any)".to_owned()
    } else {
        parts.join(",")
    }
}

fn label_requirement(requirement: &LabelRequirement) -> String {
    let (key, values) = (&requirement.key, list(&requirement.values));
    match requirement.operator {
        LabelOperator::In => format!("{key} in ({values})"),
        LabelOperator::NotIn => format!("{key} notin ({values})"),
        LabelOperator::Exists => key.to_string(),
        LabelOperator::DoesNotExist => format!("!{key}"),
    }
}

/// A requirement of node affinity, in the same notation.
pub(crate) fn node_requirement(requirement: &NodeRequirement) -> String {
    let (key, values) = (&requirement.key, list(&requirement.values));
    match requirement.operator {
        NodeOperator::In => format!("{key} in ({values})"),
        NodeOperator::NotIn => format!("{key} notin ({values})"),
        NodeOperator::Exists => key.to_string(),
        NodeOperator::DoesNotExist => format!("!{key}"),
        NodeOperator::Gt => format!("{key}>{values}"),
        NodeOperator::Lt => format!("{key}<{values}"),
    }
}

fn list(values: &[Arc<str>]) -> String {
    values.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_said_with_all_its_figures() {
        let cpu = Cause::short_cpu(MilliCpu(500), MilliCpu(1750), MilliCpu(2000));
        assert_eq!(cpu.to_string(), "cpu: 250m short (asks for 500m, 250m of 2 free)");
        let memory = Cause::short_bytes("memory", Bytes(1 << 30), Bytes(5), Bytes(1 << 30));
        assert_eq!(
            memory.to_string(),
            "memory: 5 short (asks for 1Gi, 1023Mi of 1Gi free)"
        );
        assert_eq!(rounded_up(Bytes((3 << 20) + 1)), Bytes(4 << 20));
    }
}
