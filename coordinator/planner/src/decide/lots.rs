//! Pods that wait, as lots of alike ones, each with the cells that may take it.
//!
//! A cell is what a pool could launch in a zone. Constraints on zones (spread, affinity, anti-affinity) are settled before
//! any node is thought of: every pod that they concern is given its cell, one after another, as if it were placed there.
//! After that nodes can be filled without asking what is in other zones.

use std::collections::BTreeMap;

use super::{bound, offerings::Offering};
use crate::{
    model::{Pod, Resources},
    placement::{Host, Profile, QuickMap, ShapeId, World},
};

/// What a pool could launch in a zone.
#[derive(Clone, Debug)]
pub(super) struct Cell<'o, 'a> {
    pub(super) pool: usize,
    /// Usable offerings, cheapest first.
    pub(super) offerings: Vec<usize>,
    /// Any of their nodes, for what all have alike.
    sample: &'o Host<'a>,
    /// A number that cells of the same pool share in which all that has a price for each zone costs the same.
    pub(super) prices: usize,
    /// All of its nodes are of one kind and carry the same DaemonSets' pods: a lot that one may take, all may.
    pub(super) uniform: bool,
}

/// Pods that nothing tells apart.
#[derive(Clone, Debug)]
pub(super) struct Lot<'a> {
    pub(super) shape: ShapeId,
    /// Those not yet on a node are the ones from `next` on.
    pub(super) pods: Vec<&'a Pod>,
    pub(super) requests: &'a Resources,
    /// What they were worth at least in the cheapest mix, each.
    pub(super) worth: f64,
    /// The cell that was settled; `None` is any of those that can take them.
    pub(super) cell: Option<usize>,
    /// Cells with an offering that holds one of them.
    pub(super) cells: Vec<bool>,
}

/// All lots, the cells, and what packing needs to know of shapes.
#[derive(Clone, Debug)]
pub(super) struct Lots<'o, 'a> {
    pub(super) all: Vec<Lot<'a>>,
    pub(super) cells: Vec<Cell<'o, 'a>>,
    pub(super) profiles: Vec<Profile>,
    /// Pods whose cell was settled, in the order in which that happened.
    pub(super) settled: Vec<&'a Pod>,
    /// Pods for which packing is not tried: no offering holds them, no cell takes them, or something about them
    /// depends on more than cell and node.
    pub(super) others: Vec<&'a Pod>,
    /// What a unit of CPU, memory, pod slots and a node is worth.
    pub(super) worth: [f64; bound::ROWS],
}

impl<'o, 'a> Lots<'o, 'a> {
    /// Sorts pods into lots. The world is left as it was.
    pub(super) fn new(
        world: &mut World<'a>,
        offerings: &'o [Offering<'a>],
        usable: &[usize],
        pods: &[&'a Pod],
        worth: [f64; bound::ROWS],
    ) -> Self {
        let cells = cells(offerings, usable);
        let hosts: Vec<Vec<&Host<'a>>> = cells
            .iter()
            .map(|cell| {
                cell.offerings
                    .iter()
                    .map(|index| &offerings[*index].host)
                    .collect()
            })
            .collect();
        let mut lots = Self {
            profiles: world.profiles(&hosts),
            all: Vec::new(),
            cells,
            settled: Vec::new(),
            others: Vec::new(),
            worth,
        };
        let mut by_class: QuickMap<usize, usize> = QuickMap::default();
        for pod in pods {
            let next = lots.all.len();
            let index = *by_class.entry(world.classes.class(pod)).or_insert(next);
            if index == next {
                lots.all.push(lots.lot(world, offerings, pod));
            }
            lots.all[index].pods.push(pod);
        }
        lots.settle(world);
        lots
    }

    /// A lot without pods, for those like this one.
    fn lot(&self, world: &World<'a>, offerings: &[Offering<'a>], pod: &'a Pod) -> Lot<'a> {
        let holds = |cell: &Cell<'o, 'a>| {
            // The dearest is mostly the largest: what it cannot hold, few others can.
            let mut sizes = cell.offerings.iter().rev();
            sizes.any(|index| world.check_alone(pod, &offerings[*index].host).is_ok())
        };
        let amounts = bound::amounts(&pod.requests);
        Lot {
            shape: world.classes.shape(pod),
            pods: Vec::new(),
            requests: &pod.requests,
            worth: amounts.iter().zip(self.worth).map(|(a, w)| a * w).sum::<f64>() + 1e-9,
            cell: None,
            cells: self.cells.iter().map(holds).collect(),
        }
    }

    /// Gives a cell to every pod whose constraints ask for one: first to those that may be refused somewhere, again until
    /// none is served, then to those that only count in what others ask for.
    fn settle(&mut self, world: &mut World<'a>) {
        let mut free = Vec::new();
        let mut choosy = Vec::new();
        let mut counted = Vec::new();
        for lot in std::mem::take(&mut self.all) {
            let profile = &self.profiles[lot.shape];
            if profile.odd || !lot.cells.contains(&true) {
                self.others.extend(&lot.pods);
            } else if !profile.zonal {
                free.push(lot);
            } else if profile.choosy {
                choosy.push(lot);
            } else {
                counted.push(lot);
            }
        }
        let mut load = vec![0.0; self.cells.len()];
        let mut parts: Vec<Lot<'a>> = Vec::new();
        let mut ghosts: Vec<(ShapeId, usize)> = Vec::new();
        for lots in [&choosy, &counted] {
            let mut left: Vec<(&Lot<'a>, &[&'a Pod])> =
                lots.iter().map(|lot| (lot, lot.pods.as_slice())).collect();
            let mut part_of: QuickMap<(usize, usize), usize> = QuickMap::default();
            loop {
                let mut served = false;
                for (index, (lot, pods)) in left.iter_mut().enumerate() {
                    while let Some((pod, rest)) = pods.split_first() {
                        let Some(cell) = self.choose(world, lot, &load) else {
                            break;
                        };
                        *pods = rest;
                        served = true;
                        world.count_in_cell(lot.shape, self.cells[cell].sample, 1);
                        ghosts.push((lot.shape, cell));
                        load[cell] += lot.worth;
                        let next = parts.len();
                        let part = *part_of.entry((index, cell)).or_insert(next);
                        if part == next {
                            parts.push(Lot {
                                pods: Vec::new(),
                                cell: Some(cell),
                                ..(*lot).clone()
                            });
                        }
                        parts[part].pods.push(pod);
                        self.settled.push(pod);
                    }
                }
                if !served {
                    break;
                }
            }
            self.others.extend(left.iter().flat_map(|(_, pods)| pods.iter()));
        }
        for (shape, cell) in ghosts {
            world.count_in_cell(shape, self.cells[cell].sample, -1);
        }
        self.all = free;
        self.all.extend(parts);
    }

    /// The cell for the next pod of a lot: where fewest of those stand that it counts with, then the least loaded.
    fn choose(&self, world: &World<'a>, lot: &Lot<'a>, load: &[f64]) -> Option<usize> {
        let mut best: Option<(usize, i64)> = None;
        for (index, cell) in self.cells.iter().enumerate() {
            if !lot.cells[index] || !world.cell_takes(lot.shape, cell.sample) {
                continue;
            }
            let crowd = world.crowd(lot.shape, cell.sample);
            let better = best.is_none_or(|(other, least)| {
                crowd < least || (crowd == least && load[index] < load[other] - 1e-9)
            });
            if better {
                best = Some((index, crowd));
            }
        }
        best.map(|(index, _)| index)
    }
}

fn cells<'o, 'a>(offerings: &'o [Offering<'a>], usable: &[usize]) -> Vec<Cell<'o, 'a>> {
    let mut cells: Vec<Cell<'o, 'a>> = Vec::new();
    for index in usable {
        let offering = &offerings[*index];
        let known = cells.iter_mut().find(|cell| {
            let sample = &offerings[cell.offerings[0]];
            cell.pool == offering.pool && sample.zone == offering.zone
        });
        match known {
            Some(cell) => {
                cell.uniform &= offering.host.kind == cell.sample.kind
                    && offering.host.used == cell.sample.used
                    && offering.host.pods.len() == cell.sample.pods.len();
                cell.offerings.push(*index);
            }
            None => cells.push(Cell {
                pool: offering.pool,
                offerings: vec![*index],
                prices: 0,
                sample: &offering.host,
                uniform: true,
            }),
        }
    }
    // By pool and zone, whatever is the cheapest in each.
    cells.sort_by(|a, b| {
        let zone = |cell: &Cell<'_, '_>| &offerings[cell.offerings[0]].zone;
        a.pool.cmp(&b.pool).then_with(|| zone(a).cmp(zone(b)))
    });
    let costs = |cell: &Cell<'_, '_>| {
        let of_cell = cell.offerings.iter().map(|index| &offerings[*index]);
        let mut costs: Vec<(&str, u64)> = of_cell
            .filter(|offering| offering.spec.differs_by_zone(offering.market))
            .map(|offering| (offering.spec.name.as_str(), offering.price.to_bits()))
            .collect();
        costs.sort_unstable();
        (cell.pool, costs)
    };
    let mut known = BTreeMap::new();
    for cell in &mut cells {
        let next = known.len();
        cell.prices = *known.entry(costs(cell)).or_insert(next);
    }
    cells
}
