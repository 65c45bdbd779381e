//! A draft, once more: a few nodes are taken apart, and what was on them is drafted anew.
//!
//! That merges two nodes into one, splits one into two, swaps a type, or moves pods so that a node goes — whatever is
//! cheaper. It is kept only if it is; so the draft never gets worse. Every node that wastes much has its turn, with others
//! that chance picks beside it; but it is always the same chance, and how long that goes on is counted in steps. It ends
//! sooner where it does not pay.

use super::{Draft, Drafting, Drafts, Style};
use crate::decide::packing::Room;

/// So many nodes are taken apart at a time, one number after another.
const WINDOWS: [usize; 5] = [2, 3, 5, 8, 13];
/// At most as much work as went into the drafts before, but no less than this, in steps.
const LEAST_WORK: usize = 60_000;
/// What each tenth of that must save, as a share of the price, so that another follows.
const PAYS: f64 = 3e-4;
/// After so many attempts a node, and so many besides, that all failed, no more are made.
const FAILURES: (usize, usize) = (2, 40);

impl Drafting<'_, '_, '_> {
    /// Improves the draft as long as that pays and all work stays below `steps`. Returns whether it could.
    pub(in crate::decide) fn improve(
        &mut self,
        best: &mut Drafts,
        styles: &[Style],
        room: &Room,
        steps: usize,
    ) -> bool {
        let work = self.steps.max(LEAST_WORK);
        let until = steps.min(self.steps + work);
        let mut judged = (self.steps + work / 10, best.cost * (1.0 - PAYS));
        let mut all = room.clone();
        for node in &best.nodes {
            self.count(&mut all, node.offering, true);
        }
        let mut ranking = self.ranking(best);
        let mut chance: u64 = 1;
        let mut failures = 0;
        let mut attempt = 0;
        let mut improved = false;
        while self.steps < until && best.nodes.len() > 1 {
            if failures > FAILURES.0 * best.nodes.len() + FAILURES.1 {
                break;
            }
            if self.steps >= judged.0 {
                if best.cost > judged.1 {
                    break;
                }
                judged = (self.steps + work / 10, best.cost * (1.0 - PAYS));
            }
            let window = WINDOWS[attempt % WINDOWS.len()].min(best.nodes.len());
            let style = styles[attempt / WINDOWS.len() % styles.len()];
            let mut chosen = vec![ranking[attempt / 2 % ranking.len()]];
            while chosen.len() < window {
                // Knuth's linear congruential generator; its upper bits are the good ones.
                chance = chance
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                #[allow(clippy::cast_possible_truncation, reason = "31 bits")]
                let mut next = (chance >> 33) as usize % best.nodes.len();
                // Half of the others are of the worst quarter.
                if chosen.len() % 2 == 1 {
                    next /= 4;
                }
                while chosen.contains(&ranking[next]) {
                    next = (next + 1) % best.nodes.len();
                }
                chosen.push(ranking[next]);
            }
            attempt += 1;
            if self.redraft(best, &chosen, style, &mut all) {
                ranking = self.ranking(best);
                improved = true;
                failures = 0;
            } else {
                failures += 1;
            }
        }
        improved
    }

    /// The nodes, those first whose price is furthest above the worth of what is on them.
    fn ranking(&mut self, drafts: &Drafts) -> Vec<usize> {
        self.steps += drafts.nodes.len();
        let waste: Vec<f64> = drafts
            .nodes
            .iter()
            .map(|node| {
                #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
                let worth = |(lot, number): &(usize, usize)| self.lots.all[*lot].worth * *number as f64;
                self.offerings[node.offering].price - node.content.iter().map(worth).sum::<f64>()
            })
            .collect();
        let mut ranking: Vec<usize> = (0..drafts.nodes.len()).collect();
        ranking.sort_by(|a, b| waste[*b].total_cmp(&waste[*a]).then(a.cmp(b)));
        ranking
    }

    /// Drafts anew what is on these nodes; `all` is the room with all nodes counted. Returns whether that is cheaper, and
    /// then changes the draft.
    fn redraft(&mut self, best: &mut Drafts, chosen: &[usize], style: Style, all: &mut Room) -> bool {
        self.left.fill(0);
        let mut lots = Vec::new();
        let mut cost = 0.0;
        let lacking = self.lacking(all);
        for node in chosen {
            let Draft { offering, content } = &best.nodes[*node];
            cost += self.offerings[*offering].price;
            for (lot, number) in content {
                self.left[*lot] += number;
                lots.push(*lot);
            }
            self.count(all, *offering, false);
        }
        self.open(lots);
        let free = all.nodes;
        all.nodes = all.nodes.saturating_sub(best.nodes.len() - chosen.len());
        let again = self.run(style, all);
        all.nodes = free;
        for node in &again.nodes {
            self.count(all, node.offering, true);
        }
        let cheaper =
            again.cost < cost - 1e-9 || (again.cost < cost + 1e-9 && again.nodes.len() < chosen.len());
        if again.left == 0 && cheaper && self.lacking(all) <= lacking {
            best.cost += again.cost - cost;
            let mut index = 0;
            best.nodes.retain(|_| {
                index += 1;
                !chosen.contains(&(index - 1))
            });
            best.nodes.extend(again.nodes);
            return true;
        }
        for node in &again.nodes {
            self.count(all, node.offering, false);
        }
        for node in chosen {
            self.count(all, best.nodes[*node].offering, true);
        }
        false
    }

    /// How many on-demand nodes the pools' shares would ask for besides.
    fn lacking(&self, room: &Room) -> usize {
        let lacking = |pool: &crate::policy::Pool| {
            room.pools.get(&pool.name).map_or(0, |count| {
                let staying = count.nodes - count.being_deleted.min(count.nodes);
                pool.on_demand_of(staying).saturating_sub(count.on_demand)
            })
        };
        self.policy.pools.iter().map(lacking).sum()
    }

    /// Counts a node of the offering, or no longer.
    fn count(&self, room: &mut Room, offering: usize, comes: bool) {
        let offering = &self.offerings[offering];
        if let Some(count) = room.pools.get_mut(&self.policy.pools[offering.pool].name) {
            if comes {
                count.add(Some(offering.zone.clone()), offering.market);
            } else {
                count.remove(&offering.zone, offering.market);
            }
        }
    }

    /// Opens those of the lots of which something is left.
    fn open(&mut self, mut lots: Vec<usize>) {
        lots.sort_by_key(|lot| self.rank[*lot]);
        lots.dedup();
        self.steps += lots.len() * self.lots.cells.len();
        self.sizes = (0..self.lots.cells.len())
            .map(|cell| super::sizes(self.lots, &lots, cell))
            .collect();
        self.open_apart = self
            .apart
            .iter()
            .map(|members| {
                members
                    .iter()
                    .copied()
                    .filter(|lot| self.left[*lot] > 0)
                    .collect()
            })
            .filter(|members: &Vec<usize>| !members.is_empty())
            .collect();
        self.open_seeds = lots;
    }
}
