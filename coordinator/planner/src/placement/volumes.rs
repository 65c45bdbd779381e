//! `VolumeBinding`, `VolumeZone`, `VolumeRestrictions` and `NodeVolumeLimits`: claims tie a pod to where their volumes are or can be.
//!
//! ```text
//! claim ─▶ Bound   its volume's node affinity and place labels
//!       ─▶ Late    a free volume of its class that reaches the node, the smallest that will do; else one is made there
//!       ─▶ Never   missing, going away, lost, or waiting for somebody else than the scheduler
//! ```
//!
//! Placing a pod decides for its late claims: the volume is kept for the claim, or it is made where the pod is, and until
//! it is there no other node will do for another pod (the scheduler notes both before it looks at the next pod).
//!
//! Storage capacity (CSIStorageCapacity) is not asked for, nor are the disks that only older API versions know.

mod reasons;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Host, Place, QuickMap, ShapeId};
use crate::{
    PendingCode,
    model::{
        BindingMode, Claim, ClaimPhase, Cluster, NamespaceName, PersistentVolume, Pod, StorageClass,
        VolumeSource, keys,
    },
};

/// The provisioner of classes whose volumes are made by hand.
const BY_HAND: &str = "kubernetes.io/no-provisioner";

type Limits = BTreeMap<Arc<str>, i64>;
type ClaimId = usize;
type VolumeId = usize;

/// What becomes of a claim.
#[derive(Clone, Copy, Debug)]
enum Binding<'a> {
    Never,
    Bound(&'a PersistentVolume),
    Late(&'a Claim, &'a StorageClass),
}

/// What placing a pod decided for a late claim.
#[derive(Clone, Debug)]
enum Choice {
    /// A volume is made on this node.
    Made(Arc<str>),
    /// This volume is its.
    Kept(VolumeId),
}

/// A CSI volume as it is attached: its driver and what tells it from others of that driver.
type Attached<'a> = (&'a str, (&'a str, &'a str));

/// One claim as a pod uses it.
#[derive(Clone, Copy, Debug)]
struct Use {
    claim: ClaimId,
    /// At most one pod may.
    alone: bool,
}

/// What a driver would have to attach to a node.
struct Load<'a> {
    driver: &'a str,
    present: usize,
    more: usize,
    limit: i64,
}

impl Load<'_> {
    /// Beyond the limit; one that gets nothing more is not asked.
    fn is_too_much(&self) -> bool {
        self.more > 0 && !i64::try_from(self.present + self.more).is_ok_and(|all| all <= self.limit)
    }
}

/// The claims of a pod.
#[derive(Clone, Debug, Default)]
struct Uses {
    claims: Arc<[Use]>,
    /// One of them can never be had.
    never: bool,
}

/// All claims that pods use, and who uses them.
#[derive(Clone, Debug, Default)]
pub(super) struct Volumes<'a> {
    of_shape: Vec<Uses>,
    bindings: Vec<Binding<'a>>,
    /// What each claim's volume is to a node.
    attached: Vec<Option<Attached<'a>>>,
    /// Limits on attached volumes by node, and by instance type for nodes to come: the least that is known of it.
    limits: QuickMap<&'a str, &'a Limits>,
    limits_of_type: QuickMap<&'a str, Limits>,
    /// How many pods use each claim.
    users: Vec<usize>,
    /// What placed pods decided for each late claim, and how many of them.
    chosen: Vec<Option<(Choice, usize)>>,
    volumes: Vec<&'a PersistentVolume>,
    /// The claim for which a placed pod keeps each volume.
    kept: Vec<Option<ClaimId>>,
    /// Volumes by class, the smallest first.
    by_class: QuickMap<&'a str, Vec<VolumeId>>,
}

impl<'a> Volumes<'a> {
    pub(super) fn new(cluster: &'a Cluster, shapes: &[&'a Pod]) -> Self {
        let mut volumes = Self {
            volumes: cluster.volumes.iter().collect(),
            ..Self::default()
        };
        volumes
            .volumes
            .sort_by_key(|volume| (volume.traits.storage, volume.name.clone()));
        volumes.kept = vec![None; volumes.volumes.len()];
        for (index, volume) in volumes.volumes.iter().enumerate() {
            volumes
                .by_class
                .entry(&volume.storage_class)
                .or_default()
                .push(index);
        }
        volumes.know_limits(cluster);
        let known = Known {
            claims: cluster
                .claims
                .iter()
                .map(|claim| ((&claim.namespace, &*claim.name), claim))
                .collect(),
            volumes: cluster
                .volumes
                .iter()
                .map(|volume| (&*volume.name, volume))
                .collect(),
            classes: &cluster.storage_classes,
        };
        let mut ids: QuickMap<(&NamespaceName, &str), ClaimId> = QuickMap::default();
        for pod in shapes {
            let mut uses = Vec::new();
            let mut never = false;
            for volume in &pod.volumes {
                let (name, own) = match &volume.source {
                    VolumeSource::Claim(name) => (name, None),
                    VolumeSource::OwnClaim { name, pod } => (name, Some(pod)),
                    _ => continue,
                };
                let claim = known.claims.get(&(&pod.key.namespace, &**name)).copied();
                let owned = |claim: &Claim| {
                    own.is_none_or(|pod| {
                        claim
                            .owner
                            .as_ref()
                            .is_some_and(|(uid, name)| uid == pod || name == pod)
                    })
                };
                let Some(claim) = claim.filter(|claim| owned(claim)) else {
                    never = true;
                    continue;
                };
                let id = *ids.entry((&claim.namespace, &claim.name)).or_insert_with(|| {
                    volumes.bindings.push(known.binding(claim));
                    volumes.attached.push(known.attached(claim));
                    volumes.bindings.len() - 1
                });
                never |= matches!(volumes.bindings[id], Binding::Never);
                uses.push(Use {
                    claim: id,
                    alone: own.is_none() && claim.is_for_one_pod(),
                });
            }
            volumes.of_shape.push(Uses {
                claims: uses.into(),
                never,
            });
        }
        volumes.users = vec![0; volumes.bindings.len()];
        volumes.chosen = vec![None; volumes.bindings.len()];
        volumes
    }

    /// Whether the pod's claims let it go there.
    pub(super) fn check(
        &self,
        shape: ShapeId,
        host: &Host<'_>,
        shape_of: impl Fn(&Pod) -> ShapeId,
    ) -> Result<(), PendingCode> {
        let Uses { claims: uses, never } = &self.of_shape[shape];
        let taken = uses.iter().any(|used| used.alone && self.users[used.claim] > 0);
        if *never || taken || !self.reaches_bound(uses, host) || self.choices(uses, host).is_none() {
            return Err(PendingCode::Volume);
        }
        if uses.is_empty() {
            Ok(())
        } else {
            self.attaches(&[shape], host, shape_of)
        }
    }

    /// `NodeVolumeLimits`: whether the host can have the volumes of all these pods attached beside those that it has.
    pub(super) fn attaches(
        &self,
        coming: &[ShapeId],
        host: &Host<'_>,
        shape_of: impl Fn(&Pod) -> ShapeId,
    ) -> Result<(), PendingCode> {
        if self.loads(coming, host, shape_of).iter().any(Load::is_too_much) {
            Err(PendingCode::Volume)
        } else {
            Ok(())
        }
    }

    /// What each driver with a limit would have to attach.
    fn loads<'s>(
        &'s self,
        coming: &[ShapeId],
        host: &Host<'_>,
        shape_of: impl Fn(&Pod) -> ShapeId,
    ) -> Vec<Load<'s>> {
        let of_type = || self.limits_of_type.get(&**host.labels.get(keys::INSTANCE_TYPE)?);
        let limits = match host.place {
            Place::Existing(_) => self.limits.get(&*host.name).copied(),
            Place::Launching(_) | Place::Planned => of_type(),
        };
        let Some(limits) = limits.filter(|limits| !limits.is_empty()) else {
            return Vec::new();
        };
        let attached = |shape: ShapeId| {
            let uses = self.of_shape[shape].claims.iter();
            uses.filter_map(|used| self.attached[used.claim])
        };
        let with_volumes = host.pods.iter().filter(|pod| !pod.volumes.is_empty());
        let present: BTreeSet<Attached<'a>> = with_volumes.flat_map(|pod| attached(shape_of(pod))).collect();
        let mut new: BTreeSet<Attached<'a>> = coming.iter().flat_map(|shape| attached(*shape)).collect();
        new.retain(|volume| !present.contains(volume));
        let load = |(driver, limit): (&'s Arc<str>, &i64)| {
            let of_driver =
                |all: &BTreeSet<Attached<'_>>| all.iter().filter(|(name, _)| **name == **driver).count();
            Load {
                driver,
                present: of_driver(&present),
                more: of_driver(&new),
                limit: *limit,
            }
        };
        limits.iter().map(load).collect()
    }

    fn know_limits(&mut self, cluster: &'a Cluster) {
        self.limits = cluster
            .attach_limits
            .iter()
            .map(|limits| (limits.node.as_str(), &limits.volumes))
            .collect();
        for node in &cluster.nodes {
            let (Some(limits), Some(of)) = (
                self.limits.get(node.name.as_str()),
                node.label(keys::INSTANCE_TYPE),
            ) else {
                continue;
            };
            let known = self.limits_of_type.entry(of).or_default();
            for (driver, limit) in *limits {
                known
                    .entry(driver.clone())
                    .and_modify(|least| *least = (*least).min(*limit))
                    .or_insert(*limit);
            }
        }
    }

    /// A pod comes to a host (`by` 1) or goes (-1).
    pub(super) fn change(&mut self, shape: ShapeId, pod: &Pod, host: &Host<'_>, by: i64) {
        if self.of_shape[shape].claims.is_empty() {
            return;
        }
        let uses = Arc::clone(&self.of_shape[shape].claims);
        for used in &*uses {
            let users = &mut self.users[used.claim];
            *users = if by > 0 {
                *users + 1
            } else {
                users.saturating_sub(1)
            };
        }
        // What was bound before the plan decided for its claims long ago.
        if pod.node.as_ref().is_some_and(|node| node.as_str() == &*host.name) {
            return;
        }
        let choices = if by > 0 { self.choices(&uses, host) } else { None };
        for used in uses
            .iter()
            .filter(|used| matches!(self.bindings[used.claim], Binding::Late(..)))
        {
            let chosen = &mut self.chosen[used.claim];
            if by > 0 {
                let choice = choices.iter().flatten().find(|(claim, _)| *claim == used.claim);
                let choice =
                    choice.map_or_else(|| Choice::Made(host.name.clone()), |(_, choice)| choice.clone());
                if let Choice::Kept(volume) = choice {
                    self.kept[volume] = Some(used.claim);
                }
                chosen.get_or_insert((choice, 0)).1 += 1;
            } else if let Some((choice, pods)) = chosen {
                *pods = pods.saturating_sub(1);
                if *pods == 0 {
                    if let Choice::Kept(volume) = choice {
                        self.kept[*volume] = None;
                    }
                    *chosen = None;
                }
            }
        }
    }

    fn reaches_bound(&self, uses: &[Use], host: &Host<'_>) -> bool {
        let bound = uses.iter().filter_map(|used| match self.bindings[used.claim] {
            Binding::Bound(volume) => Some(volume),
            _ => None,
        });
        let mut bound = bound.peekable();
        if bound.peek().is_none() {
            return true;
        }
        let has_place = keys::PLACES.iter().any(|key| host.labels.contains_key(*key));
        bound.all(|volume| reaches(volume, host) && (!has_place || is_in_place(volume, host)))
    }

    /// What placing the pod there would decide for each late claim; `None` if one of them cannot be had there.
    fn choices(&self, uses: &[Use], host: &Host<'_>) -> Option<Vec<(ClaimId, Choice)>> {
        let mut choices: Vec<(ClaimId, Choice)> = Vec::new();
        let mut late: Vec<(ClaimId, &Claim, &StorageClass)> = uses
            .iter()
            .filter_map(|used| match self.bindings[used.claim] {
                Binding::Late(claim, class) => Some((used.claim, claim, class)),
                _ => None,
            })
            .collect();
        late.sort_by_key(|(_, claim, _)| claim.wants.storage);
        for (id, claim, class) in late {
            let made_on = match &self.chosen[id] {
                Some((Choice::Made(node), _)) => Some(node),
                _ => claim.selected_node.as_ref(),
            };
            if made_on.is_some_and(|node| *node != host.name) {
                return None;
            }
            let free = if made_on.is_none() {
                self.free(id, claim, class, host, &choices)
            } else {
                None
            };
            let choice = match free {
                Some(volume) => Choice::Kept(volume),
                None if makes(class, host) => Choice::Made(host.name.clone()),
                None => return None,
            };
            choices.push((id, choice));
        }
        Some(choices)
    }

    /// The volume that such a claim would get there (`component-helpers/storage/volume.FindMatchingVolume`).
    fn free(
        &self,
        id: ClaimId,
        claim: &Claim,
        class: &StorageClass,
        host: &Host<'_>,
        choices: &[(ClaimId, Choice)],
    ) -> Option<VolumeId> {
        let mut smallest = None;
        for index in self.by_class.get(&*class.name)? {
            let volume = self.volumes[*index];
            let picked = choices
                .iter()
                .any(|(_, choice)| matches!(choice, Choice::Kept(other) if other == index));
            let its_own = match (self.kept[*index], &volume.claim) {
                (Some(kept), _) if kept == id => true,
                (Some(_), _) => continue,
                (None, Some(reference)) if is_of(reference, claim) => true,
                (None, Some(_)) => continue,
                (None, None) => false,
            };
            if picked || volume.being_deleted || !volume.traits.will_do(claim) {
                continue;
            }
            if its_own {
                return reaches(volume, host).then_some(*index);
            }
            let matches = volume.is_available
                && claim
                    .selector
                    .as_ref()
                    .is_none_or(|selector| selector.matches(&volume.labels))
                && volume.traits.access_modes.contains(claim.wants.access_modes)
                && reaches(volume, host);
            if matches && smallest.is_none() {
                smallest = Some(*index);
            }
        }
        smallest
    }
}

/// The objects by name.
struct Known<'a> {
    claims: QuickMap<(&'a NamespaceName, &'a str), &'a Claim>,
    volumes: QuickMap<&'a str, &'a PersistentVolume>,
    classes: &'a [StorageClass],
}

impl<'a> Known<'a> {
    fn binding(&self, claim: &'a Claim) -> Binding<'a> {
        if claim.being_deleted || claim.phase == ClaimPhase::Lost {
            return Binding::Never;
        }
        if let Some(volume) = &claim.volume {
            // One that only asks for a volume is bound by the volume controller, before the scheduler looks at it.
            return match self.volumes.get(&**volume) {
                Some(volume) if claim.phase == ClaimPhase::Bound => Binding::Bound(volume),
                _ => Binding::Never,
            };
        }
        match self.class(claim) {
            Some(class) if class.binding == BindingMode::WaitForFirstConsumer => Binding::Late(claim, class),
            _ => Binding::Never,
        }
    }

    fn class(&self, claim: &Claim) -> Option<&'a StorageClass> {
        match &claim.storage_class {
            Some(name) => self.classes.iter().find(|class| class.name == *name),
            // The volume controller gives it the newest of the default ones, even afterwards.
            None => self
                .classes
                .iter()
                .filter(|class| class.is_default)
                .min_by_key(|class| (std::cmp::Reverse(class.created), &class.name)),
        }
    }

    /// The CSI volume that the claim stands for; while there is none, one of the class's driver.
    fn attached(&self, claim: &'a Claim) -> Option<Attached<'a>> {
        match claim.volume.as_ref().and_then(|name| self.volumes.get(&**name)) {
            Some(volume) => Some((volume.driver.as_deref()?, ("", &volume.handle))),
            None => Some((
                &self.class(claim)?.provisioner,
                (claim.namespace.as_str(), &claim.name),
            )),
        }
    }
}

impl crate::model::VolumeTraits {
    /// Whether a volume like this is large enough and of the right kind.
    fn will_do(&self, claim: &Claim) -> bool {
        let wants = &claim.wants;
        self.storage >= wants.storage
            && self.is_block == wants.is_block
            && self.attributes_class == wants.attributes_class
    }
}

fn is_of((namespace, name, uid): &(NamespaceName, Arc<str>, Arc<str>), claim: &Claim) -> bool {
    *namespace == claim.namespace && *name == claim.name && (uid.is_empty() || *uid == claim.uid)
}

/// Whether the node can reach the volume.
fn reaches(volume: &PersistentVolume, host: &Host<'_>) -> bool {
    let terms = volume.node_terms.as_ref();
    terms.is_none_or(|terms| terms.iter().any(|term| term.matches("", &host.labels)))
}

/// Whether the node has the place labels of the volume; an older label of a volume may be a newer one of the node.
fn is_in_place(volume: &PersistentVolume, host: &Host<'_>) -> bool {
    volume.places.iter().all(|(key, values)| {
        let newer = match &**key {
            key if key.ends_with("/zone") => keys::ZONE,
            _ => keys::REGION,
        };
        let value = host.labels.get(key).or_else(|| host.labels.get(newer));
        value.is_some_and(|value| values.contains(value))
    })
}

/// Whether a volume of the class can be made for the node.
fn makes(class: &StorageClass, host: &Host<'_>) -> bool {
    let allowed = |terms: &[crate::model::NodeTerm]| terms.iter().any(|term| term.matches("", &host.labels));
    !class.provisioner.is_empty()
        && &*class.provisioner != BY_HAND
        && (class.allowed_topologies.is_empty() || allowed(&class.allowed_topologies))
}
