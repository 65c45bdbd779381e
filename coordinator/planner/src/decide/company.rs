//! Who is on a node that is being filled, as far as pods keep each other away: anti-affinity and spread by hostname, host
//! ports. Whoever came first, all must bear each other, so that the order on a node does not matter.

use crate::{
    model::{HostPort, Pod},
    placement::{Host, Profile, World},
};

/// What is on the node that is being filled, as far as pods keep each other away. Stamps spare clearing.
#[derive(Default)]
pub(super) struct Company<'a> {
    stamp: u32,
    held: Vec<u32>,
    matched: Vec<u32>,
    /// By spread constraint: stamp and count of those that count, stamp and skew where somebody asks.
    counted: Vec<(u32, i64)>,
    asked: Vec<(u32, i64)>,
    ports: Vec<&'a HostPort>,
}

impl<'a> Company<'a> {
    /// For so many anti-affinity terms and spread constraints.
    pub(super) fn new((terms, constraints): (usize, usize)) -> Self {
        Self {
            held: vec![0; terms],
            matched: vec![0; terms],
            counted: vec![(0, 0); constraints],
            asked: vec![(0, 0); constraints],
            ..Self::default()
        }
    }

    /// An empty node, but for its DaemonSets' pods.
    pub(super) fn begin(&mut self, profiles: &[Profile], world: &World<'a>, host: &Host<'a>) {
        self.stamp += 1;
        self.ports.clear();
        for pod in &host.pods {
            self.add(&profiles[world.classes.shape(pod)], pod);
        }
    }

    fn count(&self, constraint: usize) -> i64 {
        let (stamp, count) = self.counted[constraint];
        if stamp == self.stamp { count } else { 0 }
    }

    /// Whether those on the node and one more bear each other, whichever came first.
    pub(super) fn accepts(&self, profile: &Profile, pod: &Pod) -> bool {
        let is_there = |terms: &[usize], on: &[u32]| terms.iter().any(|term| on[*term] == self.stamp);
        !is_there(&profile.matched, &self.held)
            && !is_there(&profile.holds, &self.matched)
            && profile.spread.iter().all(|(constraint, skew)| {
                self.count(*constraint) + i64::from(profile.counted.contains(constraint)) <= *skew
            })
            && profile.counted.iter().all(|constraint| {
                let (stamp, skew) = self.asked[*constraint];
                stamp != self.stamp || self.count(*constraint) < skew
            })
            && pod
                .host_ports
                .iter()
                .all(|port| self.ports.iter().all(|taken| !taken.conflicts(port)))
    }

    pub(super) fn add(&mut self, profile: &Profile, pod: &'a Pod) {
        for term in &profile.holds {
            self.held[*term] = self.stamp;
        }
        for term in &profile.matched {
            self.matched[*term] = self.stamp;
        }
        for (constraint, skew) in &profile.spread {
            self.asked[*constraint] = (self.stamp, *skew);
        }
        for constraint in &profile.counted {
            self.counted[*constraint] = (self.stamp, self.count(*constraint) + 1);
        }
        self.ports.extend(&pod.host_ports);
    }
}
