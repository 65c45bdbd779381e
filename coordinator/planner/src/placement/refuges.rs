//! How much room there is for pods that would have to move, asked once for pods that are alike.
//!
//! Whether the pods of a node find other places is otherwise a matter of trying them one after another. Where many hosts
//! would take a pod the answer is known without that: each of those that move before it spoils one host at most.

use super::{World, affinity::DomainId, classes::ClassId};

/// Room for the pods of one class while nothing is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refuge {
    /// No host has room for it, or this one alone, whatever is on others.
    Nowhere(Option<usize>),
    /// At least so many hosts take it, wherever pods may have moved: any one of them, as long as nothing came there.
    Hosts(usize),
}

/// What was found out, by class. It holds as long as nothing is put anywhere or taken away.
#[derive(Clone, Debug)]
pub(crate) struct Refuges {
    /// So many are enough to know.
    enough: usize,
    /// By class.
    known: Vec<Option<Refuge>>,
}

impl Refuges {
    /// For pods of hosts that are in the world now.
    pub(crate) fn new(world: &World<'_>) -> Self {
        let most = world.hosts.iter().map(|host| host.pods.len()).max();
        Self {
            enough: most.unwrap_or(0) + 1,
            known: vec![None; world.classes.number()],
        }
    }

    /// The room for pods of the class; `None` for those that something beside the hosts decides about: volumes that tie
    /// them to a place, resource claims.
    pub(crate) fn of(&mut self, world: &World<'_>, class: ClassId) -> Option<Refuge> {
        if let Some(known) = self.known[class] {
            return Some(known);
        }
        let pod = world.classes.samples[class];
        if pod.resource_claims || world.classes.ties[world.classes.shape_of(class)] {
            return None;
        }
        let found = refuge(world, class, self.enough);
        self.known[class] = Some(found);
        Some(found)
    }
}

fn refuge(world: &World<'_>, class: ClassId, enough: usize) -> Refuge {
    let pod = world.classes.samples[class];
    let shape = world.classes.shape_of(class);
    let asks = world.counts.asks_one_host(shape);
    // Each part must have hosts enough: the domains of a spread constraint, or all hosts as one.
    let mut parts: Vec<(Option<DomainId>, usize)> = match asks {
        None => Vec::new(),
        Some(None) => vec![(None, 0)],
        Some(Some(spread)) => world
            .counts
            .domains_of(spread)
            .map(|domain| (Some(domain), 0))
            .collect(),
    };
    let mut lacking = parts.len();
    let mut with_room = Vec::new();
    for index in world.order.iter().copied() {
        let host = &world.hosts[index];
        let takes = !host.gone
            && host.is_destination
            && host.allocatable.fits(&host.used, &pod.requests).is_ok()
            && world.check_alone_as(shape, pod, host).is_ok();
        if !takes {
            continue;
        }
        if with_room.len() < 2 {
            with_room.push(index);
        }
        let Some(spread) = asks else {
            if with_room.len() == 2 {
                break;
            }
            continue;
        };
        if !world.counts.check_host(shape, host) {
            continue;
        }
        let domain = spread.map(|spread| world.counts.domain_of(spread, host));
        if let Some((_, hosts)) = parts.iter_mut().find(|(part, _)| *part == domain) {
            *hosts += 1;
            lacking -= usize::from(*hosts == enough);
            if lacking == 0 {
                break;
            }
        }
    }
    match with_room.as_slice() {
        [] => Refuge::Nowhere(None),
        [only] => Refuge::Nowhere(Some(*only)),
        _ => Refuge::Hosts(parts.iter().map(|(_, hosts)| *hosts).min().unwrap_or(0)),
    }
}
