//! What a batch costs at least: the cheapest fractional mix of nodes that covers CPU, memory, pod slots and the number of
//! nodes that pods which keep apart force, all at once.
//!
//! It is a linear program of four rows. Its dual says what a unit of each is worth, which is how packing compares pods of
//! different shape. Solved by the simplex method on the dual, whose origin is always feasible: prices are not negative.

use super::offerings::Offering;
use crate::{
    model::{Pod, Resources},
    placement::{QuickMap, ShapeId, World},
};

/// CPU, memory, pod slots, nodes.
pub(super) const ROWS: usize = 4;

/// The least cost, and the worth of one unit of each row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bound {
    pub(super) cost: f64,
    pub(super) worth: [f64; ROWS],
    /// How much of what the mix gives is asked for: 1 where a row is scarce.
    pub(super) used: [f64; ROWS],
    asked: [f64; ROWS],
}

impl Bound {
    /// What a unit is worth where nodes come whole. A row that is nearly as scarce as another is worth nothing to a mix of
    /// fractions, but still runs out on many a node: it takes its part of the cost by how scarce it is.
    pub(super) fn softened(&self) -> [f64; ROWS] {
        let scarce = |row: usize| {
            if self.asked[row] > 0.0 {
                self.used[row].powi(8)
            } else {
                0.0
            }
        };
        let all: f64 = (0..3).map(scarce).sum();
        let part = |row: usize| {
            if self.worth[row] > 0.0 || all <= 0.0 || row >= 3 {
                0.0
            } else {
                scarce(row) / all
            }
        };
        let rest = 1.0 - (0..3).map(part).sum::<f64>();
        std::array::from_fn(|row| match part(row) {
            part if part > 0.0 => self.cost * part / self.asked[row],
            _ => self.worth[row] * rest,
        })
    }
}

/// What these pods cost at least; with `on_hosts`, beside the room that is on the world's hosts.
pub(super) fn of(world: &World<'_>, offerings: &[Offering<'_>], pods: &[&Pod], on_hosts: bool) -> Bound {
    let mut asked = [0.0; ROWS];
    let mut apart: QuickMap<ShapeId, f64> = QuickMap::default();
    for pod in pods {
        for (sum, amount) in asked.iter_mut().zip(amounts(&pod.requests)) {
            *sum += amount;
        }
        let shape = world.classes.shape(pod);
        if world.keeps_apart(shape) {
            *apart.entry(shape).or_default() += 1.0;
        }
    }
    asked[3] = apart.into_values().fold(0.0, f64::max);
    for host in world
        .hosts
        .iter()
        .filter(|host| on_hosts && !host.gone && host.accepts)
    {
        let room = room(&host.allocatable, &host.used);
        for (sum, room) in asked.iter_mut().zip(room) {
            *sum = (*sum - room).max(0.0);
        }
    }
    let columns: Vec<_> = offerings
        .iter()
        .filter(|o| !o.backed_off && !o.dominated)
        .map(|o| (room(&o.host.allocatable, &o.host.used), o.price))
        .collect();
    solve(&columns, asked)
}

/// What is free, and the node itself.
pub(super) fn room(allocatable: &Resources, used: &Resources) -> [f64; ROWS] {
    let [cpu, memory, pods, _] = amounts(allocatable);
    let [used_cpu, used_memory, used_pods, _] = amounts(used);
    [
        (cpu - used_cpu).max(0.0),
        (memory - used_memory).max(0.0),
        (pods - used_pods).max(0.0),
        1.0,
    ]
}

/// Resources as rows; no nodes.
pub(super) fn amounts(of: &Resources) -> [f64; ROWS] {
    #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
    let pods = of.pods as f64;
    [of.cpu.as_f64(), of.memory.as_f64(), pods, 0.0]
}

/// Pivots at most; each raises the bound, so that stopping early leaves one that holds.
const PIVOTS: usize = 200;

/// Solves it for `columns` of (what a node gives, its price) and what is asked.
pub(super) fn solve(columns: &[([f64; ROWS], f64)], asked: [f64; ROWS]) -> Bound {
    // Rows in units of what is asked, so that all numbers are of a size.
    let scale = asked.map(|amount| if amount > 0.0 { amount } else { 1.0 });
    let mut profit: [f64; ROWS] = std::array::from_fn(|row| if asked[row] > 0.0 { 1.0 } else { 0.0 });
    // One dictionary row a column: slack = price - Σ coefficient × variable.
    let mut rows: Vec<([f64; ROWS], f64)> = columns
        .iter()
        .map(|(gives, price)| {
            let coefficients = std::array::from_fn(|row| gives[row].max(0.0) / scale[row]);
            (coefficients, price.max(0.0))
        })
        .collect();
    // What stands at each place of the dictionary: a worth (below ROWS) or the slack of a column.
    let mut outside: [usize; ROWS] = std::array::from_fn(|row| row);
    let mut inside: Vec<usize> = (ROWS..ROWS + rows.len()).collect();
    let mut cost = 0.0;
    for _ in 0..PIVOTS {
        let entering = (0..ROWS)
            .filter(|place| profit[*place] > 1e-12)
            .max_by(|a, b| profit[*a].total_cmp(&profit[*b]).then(b.cmp(a)));
        let Some(entering) = entering else { break };
        let leaving = (0..rows.len())
            .filter(|index| rows[*index].0[entering] > 1e-12)
            .min_by(|a, b| {
                let ratio = |index: &usize| rows[*index].1 / rows[*index].0[entering];
                ratio(a).total_cmp(&ratio(b)).then(inside[*a].cmp(&inside[*b]))
            });
        // Nothing bounds it: no node gives any of it, so that no mix covers what is asked.
        let Some(leaving) = leaving else {
            profit[entering] = 0.0;
            continue;
        };
        let (mut pivot_row, mut pivot_price) = rows[leaving];
        let pivot = pivot_row[entering];
        pivot_row[entering] = 1.0;
        for coefficient in &mut pivot_row {
            *coefficient /= pivot;
        }
        pivot_price /= pivot;
        for (index, (coefficients, price)) in rows.iter_mut().enumerate() {
            if index == leaving {
                continue;
            }
            let factor = coefficients[entering];
            coefficients[entering] = 0.0;
            for (coefficient, of_pivot) in coefficients.iter_mut().zip(pivot_row) {
                *coefficient -= factor * of_pivot;
            }
            *price = (*price - factor * pivot_price).max(0.0);
        }
        let factor = profit[entering];
        profit[entering] = 0.0;
        for (coefficient, of_pivot) in profit.iter_mut().zip(pivot_row) {
            *coefficient -= factor * of_pivot;
        }
        cost += factor * pivot_price;
        rows[leaving] = (pivot_row, pivot_price);
        std::mem::swap(&mut outside[entering], &mut inside[leaving]);
    }
    let mut used = [1.0; ROWS];
    for (place, variable) in outside.iter().enumerate() {
        if *variable < ROWS {
            used[*variable] = 1.0 / (1.0 - profit[place]).max(1.0);
        }
    }
    let mut worth = [0.0; ROWS];
    for (index, variable) in inside.iter().enumerate() {
        if *variable < ROWS {
            worth[*variable] = rows[index].1 / scale[*variable];
        }
    }
    Bound {
        cost,
        worth,
        used,
        asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_mix_covers_everything_at_once() {
        // 10 CPU and 10 memory from nodes of (2, 1) and (1, 2): 3⅓ of each.
        let bound = solve(
            &[([2.0, 1.0, 0.0, 1.0], 3.0), ([1.0, 2.0, 0.0, 1.0], 3.0)],
            [10.0, 10.0, 0.0, 0.0],
        );
        assert!((bound.cost - 20.0).abs() < 1e-9, "{bound:?}");
        assert!((bound.worth[0] - 1.0).abs() < 1e-9 && (bound.worth[1] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn nodes_that_are_forced_cost_at_least_the_cheapest() {
        let bound = solve(
            &[([10.0, 10.0, 9.0, 1.0], 5.0), ([1.0, 1.0, 9.0, 1.0], 1.0)],
            [10.0, 10.0, 5.0, 7.0],
        );
        // Six small ones and a third of a large one give 7 nodes only with more small ones: 6⅔ and ⅓.
        assert!((bound.cost - (20.0 / 3.0 + 5.0 / 3.0)).abs() < 1e-9, "{bound:?}");
    }
}
