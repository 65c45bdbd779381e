//! What can be launched: every pool × zone × market × type that can be bought, as the node it would become.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::interruptions::Interruptions;
use crate::{
    Policy,
    model::{Labels, Market, Pod, PoolName, Resources, Taint, Zone, keys},
    placement::{DomainGroup, Host, Place, World},
    policy::{Pool, Price, TypeSpec},
    snapshot::{Backoff, Launching, State},
};

/// Something that can be bought.
#[derive(Clone, Debug)]
pub(crate) struct Offering<'a> {
    /// Index of its pool in the policy.
    pub(crate) pool: usize,
    pub(crate) spec: Arc<TypeSpec>,
    pub(crate) zone: Zone,
    pub(crate) market: Market,
    /// USD per hour, as it is compared with others ([`even`]).
    pub(crate) price: f64,
    /// What it really costs.
    pub(crate) quote: Price,
    /// It failed lately, or its pool is stopped.
    pub(crate) backed_off: bool,
    /// A number that those of the same pool, zone and market share.
    pub(crate) group: usize,
    /// All of these, itself among them, cheapest first.
    pub(crate) siblings: Arc<[usize]>,
    /// The node with the pods of its DaemonSets.
    pub(crate) host: Host<'a>,
    /// Another offering of the same pool, zone and market has at least as much of everything for no more.
    pub(crate) dominated: bool,
}

/// All offerings, cheapest first, then by names.
pub(super) fn all<'a>(
    world: &mut World<'a>,
    policy: &Policy,
    state: &State,
    interruptions: &Interruptions,
    now: Timestamp,
) -> Vec<Offering<'a>> {
    let mut offerings = Vec::new();
    let mut group = 0;
    for (index, pool) in policy.pools.iter().enumerate() {
        let stopped = state
            .stopped_pools
            .iter()
            .any(|stopped| stopped.pool == pool.name && stopped.until > now);
        for zone in &pool.zones {
            let beside = interruptions.beside(pool, zone);
            for market in &pool.markets {
                group += 1;
                let of_group = Template::new(pool, zone, *market);
                for spec in &pool.types {
                    let Some(quote) = pool.quote(spec, zone, *market) else {
                        continue;
                    };
                    if *market == Market::Spot
                        && let Some(beside) = &beside
                        && beside.forbids(pool, spec, quote.per_hour).is_some()
                    {
                        continue;
                    }
                    let failed = |b: &Backoff| {
                        b.until > now
                            && b.instance_type == spec.name
                            && b.zone == *zone
                            && b.market == *market
                    };
                    let backed_off = stopped || state.backoff.iter().any(failed);
                    offerings.push(Offering {
                        pool: index,
                        host: of_group.host(world, spec, Place::Planned),
                        spec: Arc::clone(spec),
                        zone: zone.clone(),
                        market: *market,
                        price: even(pool, spec, *market, quote),
                        quote: *quote,
                        backed_off,
                        group,
                        siblings: Arc::default(),
                        dominated: false,
                    });
                }
            }
        }
    }
    offerings.sort_by(|a, b| {
        let pool = |o: &Offering<'_>| &policy.pools[o.pool].name;
        a.price
            .total_cmp(&b.price)
            .then_with(|| pool(a).cmp(pool(b)))
            .then_with(|| a.spec.name.cmp(&b.spec.name))
            .then_with(|| a.zone.cmp(&b.zone))
            .then_with(|| a.market.cmp(&b.market))
    });
    introduce_siblings(&mut offerings, group);
    mark_dominated(&mut offerings);
    offerings
}

/// Zones in which a type costs so much more than in its cheapest one count as equally cheap.
const NEAR: f64 = 0.05;

/// A price as it is compared: where the market has a price for each zone, those near the lowest are all taken as the
/// dearest of them. Otherwise a price that moved by a thousandth would bring all nodes of a pool into one zone.
fn even(pool: &Pool, spec: &TypeSpec, market: Market, quote: &Price) -> f64 {
    if !spec.differs_by_zone(market) {
        return quote.per_hour;
    }
    let in_zones = || {
        let quotes = pool
            .zones
            .iter()
            .filter_map(|zone| pool.quote(spec, zone, market));
        quotes.map(|quote| quote.per_hour)
    };
    let near = in_zones().fold(f64::INFINITY, f64::min) * (1.0 + NEAR);
    if quote.per_hour > near {
        return quote.per_hour;
    }
    in_zones()
        .filter(|price| *price <= near)
        .fold(quote.per_hour, f64::max)
}

/// Tells each offering which others are of its group; groups are numbered up to `last`.
fn introduce_siblings(offerings: &mut [Offering<'_>], last: usize) {
    let mut members = vec![Vec::new(); last + 1];
    for (index, offering) in offerings.iter().enumerate() {
        members[offering.group].push(index);
    }
    let members: Vec<Arc<[usize]>> = members.into_iter().map(Arc::from).collect();
    for offering in offerings {
        offering.siblings = Arc::clone(&members[offering.group]);
    }
}

/// Types that no packing needs to try first: an equal or better one costs no more. They stay in the list of what would
/// do, and are tried where a pod asks for them by label.
fn mark_dominated(offerings: &mut [Offering<'_>]) {
    let mut groups: BTreeMap<(usize, Zone, Market, Arc<str>), Vec<usize>> = BTreeMap::new();
    for (index, offering) in offerings.iter().enumerate().filter(|(_, o)| !o.backed_off) {
        let key = (
            offering.pool,
            offering.zone.clone(),
            offering.market,
            offering.spec.arch.clone(),
        );
        groups.entry(key).or_default().push(index);
    }
    for group in groups.values() {
        for (position, worse) in group.iter().enumerate() {
            // Cheaper or equal ones stand before it.
            let beaten = group[..position].iter().any(|better| {
                let (better, worse) = (&offerings[*better], &offerings[*worse]);
                !better.dominated && covers(&better.host, &worse.host)
            });
            offerings[*worse].dominated = beaten;
        }
    }
}

fn covers(better: &Host<'_>, worse: &Host<'_>) -> bool {
    let (b, w) = (&better.allocatable, &worse.allocatable);
    b.cpu >= w.cpu
        && b.memory >= w.memory
        && b.ephemeral_storage >= w.ephemeral_storage
        && b.pods >= w.pods
        && w.extended
            .iter()
            .all(|(name, amount)| b.extended.get(name).is_some_and(|have| have >= amount))
        && better.pods.len() == worse.pods.len()
}

/// What all nodes of a pool, zone and market have alike.
struct Template<'p> {
    pool: &'p Pool,
    labels: Labels,
    taints: Arc<[Taint]>,
    arch: Arc<str>,
    instance_type: Arc<str>,
}

impl<'p> Template<'p> {
    fn new(pool: &'p Pool, zone: &Zone, market: Market) -> Self {
        let mut labels = pool.labels.clone();
        for (key, value) in [
            (keys::POOL, pool.name.as_str()),
            (keys::MARKET, market.as_str()),
            (keys::ZONE, zone.as_str()),
            (keys::REGION, zone.region()),
            (keys::OS, "linux"),
            // No pod can name it: a label's value has no brackets.
            (keys::HOSTNAME, "[new]"),
        ] {
            labels.insert(key.into(), value.into());
        }
        Self {
            pool,
            labels,
            taints: pool.taints.clone().into(),
            arch: keys::ARCH.into(),
            instance_type: keys::INSTANCE_TYPE.into(),
        }
    }

    /// The node that a launch of this type becomes, with its DaemonSets' pods on it.
    fn host<'a>(&self, world: &mut World<'a>, spec: &TypeSpec, place: Place) -> Host<'a> {
        let mut labels = self.labels.clone();
        labels.insert(self.arch.clone(), spec.arch.clone());
        labels.insert(self.instance_type.clone(), spec.name.as_str().into());
        let mut host = Host {
            place,
            pool: None,
            name: "[new]".into(),
            labels: Arc::new(labels),
            taints: Arc::clone(&self.taints),
            allocatable: self.pool.allocatable(spec),
            used: Resources::default(),
            pods: Vec::new(),
            bound: Vec::new(),
            fullness: 0.0,
            kind: 0,
            domains: Vec::new(),
            accepts: true,
            is_destination: false,
            gone: false,
        };
        world.enroll(&mut host);
        let mut daemons: Vec<&'a Pod> = world
            .cluster
            .daemon_sets
            .iter()
            .map(|set| &set.template)
            .filter(|pod| world.is_daemon_for(pod, &host))
            .collect();
        daemons.sort_by(|a, b| a.key.cmp(&b.key));
        for pod in daemons {
            host.add(pod);
        }
        host
    }
}

/// Gives a host a name and a hostname of its own.
pub(super) fn named<'a>(host: &Host<'a>, name: &str) -> Host<'a> {
    let mut labels = (*host.labels).clone();
    labels.insert(keys::HOSTNAME.into(), name.into());
    Host {
        name: name.into(),
        labels: Arc::new(labels),
        ..host.clone()
    }
}

/// A node that was launched and has not registered yet. `None` if the policy lacks its pool or type: then nobody knows
/// what it will be.
pub(super) fn launching<'a>(
    world: &mut World<'a>,
    policy: &Policy,
    entry: &Launching,
    index: usize,
) -> Option<Host<'a>> {
    let pool = policy.pool(entry.pool.as_str())?;
    let spec = policy.types.get(&entry.instance_type)?;
    let host = Template::new(pool, &entry.zone, entry.market).host(world, spec, Place::Launching(index));
    Some(named(&host, &format!("launching[{index}]")))
}

/// A group for each pool × zone, for spread domains. What differs between types and markets opens none: which of them
/// EC2 gives is not known before.
pub(super) fn domains(offerings: &[Offering<'_>]) -> Vec<DomainGroup> {
    let mut groups: BTreeMap<(usize, &Zone), DomainGroup> = BTreeMap::new();
    let mut kinds = BTreeSet::new();
    for offering in offerings {
        let host = &offering.host;
        let group = groups.entry((offering.pool, &offering.zone)).or_insert_with(|| {
            let mut common = (*host.labels).clone();
            for key in [keys::HOSTNAME, keys::INSTANCE_TYPE, keys::MARKET, keys::ARCH] {
                common.remove(key);
            }
            DomainGroup {
                common,
                nodes: Vec::new(),
            }
        });
        // One of each kind will do.
        if kinds.insert((offering.pool, &offering.zone, host.kind)) {
            group
                .nodes
                .push((Arc::clone(&host.labels), Arc::clone(&host.taints)));
        }
    }
    groups.into_values().collect()
}

/// Nodes of one pool, existing, launching and planned.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolCount {
    pub(crate) nodes: usize,
    pub(crate) on_demand: usize,
    pub(crate) zones: BTreeMap<Zone, usize>,
    /// Those that are on their way out: they count towards the maximum, not towards the minimum.
    pub(crate) being_deleted: usize,
}

impl PoolCount {
    pub(super) fn add(&mut self, zone: Option<Zone>, market: Market) {
        self.nodes += 1;
        self.on_demand += usize::from(market == Market::OnDemand);
        if let Some(zone) = zone {
            *self.zones.entry(zone).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, zone: &Zone, market: Market) {
        self.nodes = self.nodes.saturating_sub(1);
        self.on_demand -= usize::from(market == Market::OnDemand && self.on_demand > 0);
        if let Some(nodes) = self.zones.get_mut(zone) {
            *nodes = nodes.saturating_sub(1);
        }
    }

    /// The market that the next node of the pool should be of.
    pub(super) fn wanted(&self, pool: &Pool) -> Market {
        let [wanted, _] = self.markets(pool);
        wanted
    }

    /// That market, and the one that is used where it has no offering.
    pub(super) fn markets(&self, pool: &Pool) -> [Market; 2] {
        let staying = self.nodes - self.being_deleted.min(self.nodes);
        if self.on_demand < pool.on_demand_of(staying + 1) {
            [Market::OnDemand, Market::Spot]
        } else {
            [Market::Spot, Market::OnDemand]
        }
    }
}

/// Counts by pool name, of all that exist or are launching.
pub(super) fn counts(
    world: &World<'_>,
    policy: &Policy,
    launching: &[&Launching],
) -> BTreeMap<PoolName, PoolCount> {
    let mut counts: BTreeMap<PoolName, PoolCount> = policy
        .pools
        .iter()
        .map(|pool| (pool.name.clone(), PoolCount::default()))
        .collect();
    for host in &world.hosts {
        let (Place::Existing(node), Some(pool)) = (host.place, host.pool) else {
            continue;
        };
        let node = &world.cluster.nodes[node];
        if let Some(count) = counts.get_mut(&policy.pools[pool].name) {
            if node.being_deleted {
                count.nodes += 1;
                count.being_deleted += 1;
            } else {
                count.add(node.zone(), node.market().unwrap_or(Market::OnDemand));
            }
        }
    }
    for entry in launching {
        if let Some(count) = counts.get_mut(&entry.pool) {
            count.add(Some(entry.zone.clone()), entry.market);
        }
    }
    counts
}
