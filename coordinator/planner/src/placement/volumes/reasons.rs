//! What volumes have against a host: which claim, and what is wrong with it.

use super::{BY_HAND, Binding, Choice, Known, Use, Volumes, is_in_place, reaches};
use crate::{
    explain::cause::{self, Cause},
    model::{BindingMode, Claim, ClaimPhase, Cluster, NodeTerm, PersistentVolume, Pod, VolumeSource},
    placement::{Host, QuickMap, ShapeId},
};

impl<'a> Volumes<'a> {
    /// All that speaks against the host; nothing if the volumes accept it.
    pub(in crate::placement) fn causes(
        &self,
        cluster: &'a Cluster,
        shape: ShapeId,
        pod: &Pod,
        host: &Host<'_>,
        hosts: &[Host<'_>],
        shape_of: impl Fn(&Pod) -> ShapeId,
    ) -> Vec<Cause> {
        let mut causes = Vec::new();
        let mut uses = self.of_shape[shape].claims.iter();
        for volume in &pod.volumes {
            let (name, own) = match &volume.source {
                VolumeSource::Claim(name) => (name, None),
                VolumeSource::OwnClaim { name, pod } => (name, Some(pod)),
                _ => continue,
            };
            let found = cluster
                .claims
                .iter()
                .find(|claim| claim.namespace == pod.key.namespace && claim.name == *name);
            let owned = |claim: &&Claim| {
                own.is_none_or(|pod| {
                    claim
                        .owner
                        .as_ref()
                        .is_some_and(|(uid, name)| uid == pod || name == pod)
                })
            };
            let problem = match (found, found.filter(owned)) {
                (None, _) => Some("does not exist".to_owned()),
                (Some(_), None) => Some("belongs to another pod".to_owned()),
                (_, Some(claim)) => uses
                    .next()
                    .and_then(|used| self.problem(cluster, claim, used, pod, host, hosts)),
            };
            causes.extend(problem.map(|problem| Cause::Claim {
                claim: name.to_string(),
                problem,
            }));
        }
        // One by one each claim could be had, but not all of them.
        if causes.is_empty() && self.choices(&self.of_shape[shape].claims, host).is_none() {
            causes.push(Cause::Claim {
                claim: "(several)".to_owned(),
                problem: "cannot be had there all at once: too few free volumes".to_owned(),
            });
        }
        if causes.is_empty() {
            causes = self.too_many(shape, host, shape_of);
        }
        causes
    }

    fn problem(
        &self,
        cluster: &'a Cluster,
        claim: &'a Claim,
        used: &Use,
        pod: &Pod,
        host: &Host<'_>,
        hosts: &[Host<'_>],
    ) -> Option<String> {
        match self.bindings[used.claim] {
            Binding::Never => return Some(never(cluster, claim)),
            _ if used.alone && self.users[used.claim] > 0 => {
                let uses = |other: &&&Pod| {
                    other.key != pod.key
                        && other.key.namespace == claim.namespace
                        && other.volumes.iter().any(
                            |volume| matches!(&volume.source, VolumeSource::Claim(name) if *name == claim.name),
                        )
                };
                let user = hosts.iter().flat_map(|host| &host.pods).find(uses);
                let user = user.map_or_else(|| "another pod".to_owned(), |user| user.key.to_string());
                return Some(format!("is ReadWriteOncePod and in use by {user}"));
            }
            Binding::Bound(volume) => {
                if !self.reaches_bound(std::slice::from_ref(used), host) {
                    return Some(out_of_reach(volume, host));
                }
            }
            Binding::Late(claim, class) => {
                if self.choices(std::slice::from_ref(used), host).is_some() {
                    return None;
                }
                let made_on = match &self.chosen[used.claim] {
                    Some((Choice::Made(node), _)) => Some(node),
                    _ => claim.selected_node.as_ref(),
                };
                return Some(match made_on {
                    Some(node) if *node != host.name => format!("gets its volume on {node}"),
                    _ if class.provisioner.is_empty() || &*class.provisioner == BY_HAND => format!(
                        "finds no free volume of class {} that reaches the node",
                        class.name
                    ),
                    _ => format!(
                        "finds no free volume that reaches the node, and class {} makes none there ({})",
                        class.name,
                        terms(&class.allowed_topologies)
                    ),
                });
            }
        }
        None
    }

    /// Drivers of which no more volumes can be attached, counted as `Volumes::attaches` does.
    fn too_many(&self, shape: ShapeId, host: &Host<'_>, shape_of: impl Fn(&Pod) -> ShapeId) -> Vec<Cause> {
        self.loads(&[shape], host, shape_of)
            .into_iter()
            .filter(super::Load::is_too_much)
            .map(|load| Cause::AttachLimit {
                driver: load.driver.to_owned(),
                attached: load.present,
                brings: load.more,
                limit: load.limit,
            })
            .collect()
    }
}

/// Why the scheduler will never find a volume for the claim.
fn never<'a>(cluster: &'a Cluster, claim: &'a Claim) -> String {
    let known = Known {
        claims: QuickMap::default(),
        volumes: QuickMap::default(),
        classes: &cluster.storage_classes,
    };
    if claim.being_deleted {
        return "is being deleted".to_owned();
    }
    if claim.phase == ClaimPhase::Lost {
        return "has lost its volume".to_owned();
    }
    if let Some(name) = &claim.volume {
        let exists = cluster.volumes.iter().any(|volume| volume.name == *name);
        return if exists {
            format!("asks for volume {name}, which is not bound to it yet")
        } else {
            format!("names volume {name}, which does not exist")
        };
    }
    match known.class(claim) {
        None => match &claim.storage_class {
            Some(name) if !name.is_empty() => {
                format!("is unbound, and its storage class {name} does not exist")
            }
            _ => "is unbound and has no storage class".to_owned(),
        },
        Some(class) if class.binding == BindingMode::Immediate => format!(
            "is unbound, and class {} binds it before the pod is placed",
            class.name
        ),
        Some(_) => "cannot be bound".to_owned(),
    }
}

fn out_of_reach(volume: &PersistentVolume, host: &Host<'_>) -> String {
    let name = &volume.name;
    if !reaches(volume, host) {
        let reach = volume.node_terms.as_deref().unwrap_or_default();
        return format!("has volume {name}, which is reached only from {}", terms(reach));
    }
    let elsewhere = volume
        .places
        .iter()
        .find(|place| {
            let one = PersistentVolume {
                places: vec![(*place).clone()],
                ..PersistentVolume::default()
            };
            !is_in_place(&one, host)
        })
        .map(|(key, values)| format!("{} {}", cause::short_key(key), values.join(" or ")));
    format!(
        "has volume {name} in {}",
        elsewhere.unwrap_or_else(|| "another place".to_owned())
    )
}

fn terms(terms: &[NodeTerm]) -> String {
    let term = |term: &NodeTerm| {
        let requirements = term.expressions.iter().chain(&term.fields);
        let parts: Vec<String> = requirements.map(cause::node_requirement).collect();
        parts.join(" and ")
    };
    let all: Vec<String> = terms.iter().map(term).collect();
    if all.is_empty() {
        "nowhere".to_owned()
    } else {
        all.join(" or ")
    }
}
