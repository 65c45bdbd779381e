//! What machines cost between two looks, as a pure function of what was seen at the second.
//!
//! A machine is billed from its launch until it was told to end, a minute at least. Where the cloud does not say when one
//! ended, it is billed until it was seen alive last. Prices are those in force at the look, and so is whether a node is empty.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use smartscale_planner::{
    Policy,
    drainability::{Evictability, Strictness, classify},
    model::{Cluster, InstanceType, Market, Node, PoolName, Zone},
    policy::PriceSource,
};

use crate::{
    act::fleet::{Instance, InstanceState},
    state::cost::{CostHour, CostRow, Peak, add_to, hour_of},
};

/// EC2 bills at least so much.
const LEAST_BILLED: SignedDuration = SignedDuration::from_secs(60);

/// What there was at a look.
pub(super) struct Look<'a> {
    /// The machines that the cloud knows of, ended ones too.
    pub(super) instances: &'a [Instance],
    /// The cluster; `None`: it is not seen well enough.
    pub(super) cluster: Option<&'a Cluster>,
    /// Pools and prices.
    pub(super) policy: &'a Policy,
    /// When.
    pub(super) at: Timestamp,
}

/// A machine that costs money, or did.
struct Machine<'a> {
    pool: PoolName,
    market: Market,
    instance_type: InstanceType,
    zone: Option<Zone>,
    from: Timestamp,
    until: Option<Timestamp>,
    node: Option<&'a Node>,
}

impl Look<'_> {
    /// Accounts the time from `from` up to this look in its hours. What an hour has accounted already is not accounted
    /// again. `hours` must have every hour of that time that the store has.
    pub(super) fn account(&self, from: Timestamp, hours: &mut BTreeMap<Timestamp, CostHour>) {
        let machines = self.machines();
        let busy = self.busy();
        for begins in spanned(from, self.at) {
            let hour = hours.entry(begins).or_insert_with(|| CostHour::new(begins));
            let (begin, end) = (from.max(hour.until), self.at.min(hour.ends()));
            if begin >= end {
                continue;
            }
            hour.seconds += end.duration_since(begin).as_secs_f64();
            hour.until = end;
            for machine in &machines {
                let billed = machine
                    .until
                    .unwrap_or(end)
                    .min(end)
                    .duration_since(machine.from.max(begin));
                if billed.is_positive() {
                    add_to(&mut hour.rows, &self.row(machine, &busy, billed.as_secs_f64()));
                }
            }
            // Of the look itself, which the last of these hours has.
            if end == self.at
                && let Some(peak) = self.at_work(&machines)
                && hour
                    .peak
                    .is_none_or(|known| known.usd_per_hour < peak.usd_per_hour)
            {
                hour.peak = Some(peak);
            }
        }
    }

    fn row(&self, machine: &Machine<'_>, busy: &BTreeSet<&str>, seconds: f64) -> CostRow {
        let mut row = CostRow::new(
            machine.pool.clone(),
            machine.market,
            machine.instance_type.clone(),
        );
        row.node_seconds = seconds;
        let is_empty = machine
            .node
            .is_some_and(|node| is_at_work(node) && !busy.contains(node.name.as_str()));
        match self.cluster {
            Some(_) if is_empty => row.empty_seconds = seconds,
            Some(_) => {}
            None => row.unseen_seconds = seconds,
        }
        let spec = self.policy.spec(machine.instance_type.as_str());
        let price = spec.and_then(|spec| match (machine.market, &machine.zone) {
            (Market::OnDemand, _) => Some(&spec.on_demand),
            (Market::Spot, Some(zone)) => spec.spot.in_zone(zone),
            (Market::Spot, None) => None,
        });
        let (Some(spec), Some(price)) = (spec, price) else {
            row.unpriced_seconds = seconds;
            return row;
        };
        if price.source == PriceSource::Catalogue || spec.on_demand.source == PriceSource::Catalogue {
            row.assumed_seconds = seconds;
        }
        let hours = seconds / 3600.0;
        row.usd = hours * price.per_hour;
        row.on_demand_usd = hours * spec.on_demand.per_hour;
        if row.empty_seconds > 0.0 {
            row.empty_usd = row.usd;
        }
        row
    }

    /// The machines of the fleet, and nodes of our pools whose machine is not among them: somebody else launched it.
    fn machines(&self) -> Vec<Machine<'_>> {
        let mut nodes: HashMap<&str, &Node> = HashMap::new();
        for node in self.cluster.iter().flat_map(|cluster| &cluster.nodes) {
            nodes.insert(machine_of(node), node);
        }
        let of_fleet = self.instances.iter().map(|instance| {
            let node = nodes.remove(instance.id.as_str());
            Machine {
                pool: instance.pool.clone().unwrap_or_else(|| "".into()),
                market: instance.market,
                instance_type: instance.instance_type.clone(),
                zone: Some(instance.zone.clone()),
                from: instance.launched_at,
                until: billed_until(instance),
                node,
            }
        });
        let mut machines: Vec<Machine<'_>> = of_fleet.collect();
        let others = self.cluster.iter().flat_map(|cluster| &cluster.nodes);
        machines.extend(others.filter_map(|node| {
            nodes.remove(machine_of(node))?;
            let pool = self.policy.pool_of(node)?;
            // One that is not Ready may be all that is left of a machine that the cloud has forgotten.
            node.ready.then(|| Machine {
                pool: pool.name.clone(),
                market: node.market().unwrap_or(Market::OnDemand),
                instance_type: node.instance_type().unwrap_or_else(|| "unknown".into()),
                zone: node.zone(),
                from: node.created.unwrap_or(Timestamp::MIN),
                until: None,
                node: Some(node),
            })
        }));
        machines
    }

    /// Nodes on which a pod is that would have to go elsewhere.
    fn busy(&self) -> BTreeSet<&str> {
        let pods = self.cluster.iter().flat_map(|cluster| &cluster.pods);
        pods.filter(|pod| {
            let fate = classify(pod, Strictness::default(), None, self.at);
            !matches!(fate, Evictability::Skip(_))
        })
        .filter_map(|pod| Some(pod.node.as_ref()?.as_str()))
        .collect()
    }

    /// The nodes at work, and what they would cost on demand. Those whose type nobody knows are not in the amount.
    fn at_work(&self, machines: &[Machine<'_>]) -> Option<Peak> {
        self.cluster?;
        let mut peak = Peak {
            at: self.at,
            nodes: 0,
            usd_per_hour: 0.0,
        };
        for machine in machines {
            if machine.until.is_none() && machine.node.is_some_and(is_at_work) {
                peak.nodes = peak.nodes.saturating_add(1);
                let spec = self.policy.spec(machine.instance_type.as_str());
                peak.usd_per_hour += spec.map_or(0.0, |spec| spec.on_demand.per_hour);
            }
        }
        Some(peak)
    }
}

/// Until when a machine is billed; `None`: it goes on.
fn billed_until(instance: &Instance) -> Option<Timestamp> {
    match instance.state {
        InstanceState::Pending | InstanceState::Running => None,
        InstanceState::ShuttingDown
        | InstanceState::Terminated
        | InstanceState::Stopping
        | InstanceState::Stopped => {
            // Without a time of its end it has been billed up to the last look.
            let least = instance.launched_at.checked_add(LEAST_BILLED).ok();
            Some(instance.ended_at.max(least).unwrap_or(instance.launched_at))
        }
    }
}

fn is_at_work(node: &Node) -> bool {
    node.ready && !node.being_deleted
}

/// The instance id of a node's machine, as its provider id names it; else its name.
fn machine_of(node: &Node) -> &str {
    let id = node.provider_id.as_deref().and_then(|id| id.rsplit('/').next());
    id.filter(|id| id.starts_with("i-"))
        .unwrap_or_else(|| node.name.as_str())
}

/// The hours in which a stretch of time lies.
pub(super) fn spanned(from: Timestamp, to: Timestamp) -> impl Iterator<Item = Timestamp> {
    let first = hour_of(from);
    std::iter::successors(Some(first), |hour| {
        hour.checked_add(crate::state::cost::HOUR).ok()
    })
    .take_while(move |hour| *hour < to)
}
