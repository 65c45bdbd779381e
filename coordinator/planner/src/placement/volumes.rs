//! `VolumeBinding`, `VolumeZone` and `VolumeRestrictions`: claims tie a pod to where their volumes are.
//!
//! Attach limits are not asked for: they stand in CSINode objects, which are not read.

use super::{Host, World};
use crate::{
    PendingCode,
    model::{BindingMode, Claim, Pod, VolumeSource},
};

/// The provisioner of classes whose volumes are made by hand.
const BY_HAND: &str = "kubernetes.io/no-provisioner";

pub(super) fn check(world: &World<'_>, pod: &Pod, host: &Host<'_>) -> Result<(), PendingCode> {
    for volume in &pod.volumes {
        let VolumeSource::Claim(name) = &volume.source else {
            continue;
        };
        let claim = world
            .cluster
            .claims
            .iter()
            .find(|c| c.namespace == pod.key.namespace && c.name == *name);
        let usable = claim.is_some_and(|claim| {
            !claim.being_deleted
                && is_reachable(world, claim, host)
                && !(claim.once_pod && is_taken(world, pod, name))
        });
        if !usable {
            return Err(PendingCode::Volume);
        }
    }
    Ok(())
}

/// Whether the claim's volume is, or can be made, where the host is.
fn is_reachable(world: &World<'_>, claim: &Claim, host: &Host<'_>) -> bool {
    let matches =
        |terms: &[crate::model::NodeTerm]| terms.iter().any(|term| term.matches(&host.name, &host.labels));
    if let Some(volume) = &claim.volume {
        let volume = world.cluster.volumes.iter().find(|v| v.name == *volume);
        return volume.is_some_and(|volume| volume.node_terms.as_deref().is_none_or(matches));
    }
    let class = match &claim.storage_class {
        Some(name) => world
            .cluster
            .storage_classes
            .iter()
            .find(|class| class.name == *name),
        None => world
            .cluster
            .storage_classes
            .iter()
            .filter(|class| class.is_default)
            .min_by(|a, b| a.name.cmp(&b.name)),
    };
    // A claim without class, or of one that binds at once, is somebody else's to bind before the scheduler looks at it.
    class.is_some_and(|class| {
        class.binding == BindingMode::WaitForFirstConsumer
            && &*class.provisioner != BY_HAND
            && (class.allowed_topologies.is_empty() || matches(&class.allowed_topologies))
    })
}

/// Whether another pod holds a claim that only one pod may have.
fn is_taken(world: &World<'_>, pod: &Pod, claim: &str) -> bool {
    world
        .hosts
        .iter()
        .filter(|host| !host.gone)
        .flat_map(|host| &host.pods)
        .any(|other| {
            other.key != pod.key
                && other.key.namespace == pod.key.namespace
                && other
                    .volumes
                    .iter()
                    .any(|v| matches!(&v.source, VolumeSource::Claim(name) if &**name == claim))
        })
}
