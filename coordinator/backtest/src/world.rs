//! The cluster and the cloud at the present tick. Rows of the history, ends of nodes that chance has set and everything else
//! that lies ahead is private here, or is not here at all: whoever decides is handed this and cannot look ahead.
//!
//! ```text
//!   begin: due events ─▶ demand, pods wanted ─▶ surplus or new pods ─▶ bind   │ decide: launch, remove │ bind ─▶ measure
//! ```

use std::collections::VecDeque;

use jiff::Timestamp;
use smartscale_planner::{
    Policy,
    model::{Market, Zone},
};

use crate::{
    chance::{Chance, Draw},
    kinds::Kind,
    tick::{PER_MINUTE, Tick, ticks},
    workload::{self, Workload},
};

/// Pods wanted are the most of so many ticks, the present one included.
const WINDOW: u32 = 20;
/// A node is billed for so many ticks at least: 60 s.
const LEAST_BILLED: u32 = PER_MINUTE;
/// Of a pod's memory request, what it uses while it serves.
const MEMORY_USED: f64 = 0.8;
/// Demand that is above what is served by less is served.
const SLACK: f64 = 1e-9;

/// What does not change in a run.
#[derive(Debug)]
pub(crate) struct Scenery<'p> {
    pub(crate) policy: &'p Policy,
    pub(crate) workload: &'p Workload,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) start: Timestamp,
    pub(crate) chance: Chance,
}

/// A node's number, in the order of launches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) u32);

/// A pod's number, in the order in which pods were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PodId(pub(crate) u32);

/// A node that is billed: booting, Ready or draining.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// Index among the kinds.
    pub(crate) kind: usize,
    pub(crate) zone: Zone,
    pub(crate) market: Market,
    /// USD per hour.
    price: f64,
    pub(crate) launched: Tick,
    /// Hidden until it has come.
    ready_at: Tick,
    pub(crate) ready: bool,
    /// Since when it is.
    pub(crate) ready_since: Option<Tick>,
    /// It goes, and takes no pods.
    pub(crate) removed: bool,
    terminates_at: Option<Tick>,
    interrupted_at: Option<Tick>,
    /// Its pods, oldest first.
    pub(crate) pods: Vec<Bound>,
    /// How many of them serve: the first ones.
    serving: usize,
}

impl Node {
    /// Takes pods.
    pub(crate) fn is_open(&self) -> bool {
        self.ready && !self.removed
    }

    fn becomes_ready(&mut self, now: Tick) {
        self.ready = true;
        self.ready_since = Some(now);
    }
}

/// A pod on a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) id: PodId,
    pub(crate) made: Tick,
    serves_from: Tick,
}

/// A pod that waits for a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) id: PodId,
    pub(crate) made: Tick,
}

/// What was launched cannot be bought at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfStock;

/// Usage in percent of allocatable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_percent: f64,
    pub(crate) memory_percent: f64,
}

/// What a run adds up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) launches: u64,
    pub(crate) terminations: u64,
    pub(crate) evictions: u64,
}

/// What is measured at the end of a tick.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    pub(crate) requests: f64,
    pub(crate) wanted: u32,
    pub(crate) serving: u32,
    pub(crate) pending: u32,
    pub(crate) ready: u32,
    pub(crate) billed: u32,
    /// USD per hour.
    pub(crate) cost: f64,
    /// Requests of this tick that nobody served.
    pub(crate) unserved: f64,
    pub(crate) short: bool,
}

/// The present.
#[derive(Debug)]
pub(crate) struct World<'p> {
    scenery: &'p Scenery<'p>,
    now: Tick,
    /// In the order of launches.
    nodes: Vec<Node>,
    /// Oldest first.
    pending: VecDeque<Waiting>,
    bound: u32,
    serving: u32,
    requests: f64,
    wanted: Wanted,
    next_node: u32,
    next_pod: u32,
    /// Terminated before their least bill is over: until when, and the price.
    billed_on: Vec<(Tick, f64)>,
    counts: Counts,
    /// The node that scale-ins empty first.
    marked: Vec<NodeId>,
    version: u64,
}

/// The most pods that were wanted within the window: times and counts, the greatest first.
#[derive(Debug, Default)]
pub(crate) struct Wanted(VecDeque<(Tick, u32)>);

impl Wanted {
    /// Takes up what is wanted at `now` and says the most.
    pub(crate) fn most(&mut self, now: Tick, wanted: u32) -> u32 {
        while self.0.back().is_some_and(|(_, count)| *count <= wanted) {
            self.0.pop_back();
        }
        self.0.push_back((now, wanted));
        while self.0.front().is_some_and(|(at, _)| now.since(*at) >= WINDOW) {
            self.0.pop_front();
        }
        self.0.front().map_or(wanted, |(_, count)| *count)
    }
}

impl<'p> World<'p> {
    /// The world before its first tick: these nodes, of a kind and a market each, are Ready.
    pub(crate) fn new(scenery: &'p Scenery<'p>, nodes: &[(usize, Market)]) -> Self {
        let mut world = Self {
            scenery,
            now: Tick::default(),
            nodes: Vec::new(),
            pending: VecDeque::new(),
            bound: 0,
            serving: 0,
            requests: 0.0,
            wanted: Wanted::default(),
            next_node: 0,
            next_pod: 0,
            billed_on: Vec::new(),
            counts: Counts::default(),
            marked: Vec::new(),
            version: 0,
        };
        for (kind, market) in nodes {
            world.place_first(*kind, *market);
        }
        world
    }

    /// A node of the start: in the cheapest zone that has fewest of its pool.
    fn place_first(&mut self, kind: usize, market: Market) {
        let Scenery { policy, kinds, .. } = self.scenery;
        let of = &kinds[kind];
        let Some(least) = of.least_price(policy, market) else {
            return;
        };
        let zones = policy.pools[of.pool].zones.iter();
        let cheapest = zones.filter(|zone| of.price(policy, zone, market) == Some(least));
        let Some(zone) = cheapest.min_by_key(|zone| (self.in_zone(of.pool, zone), *zone)) else {
            return;
        };
        let zone = zone.clone();
        self.add(kind, zone, market, least, Tick::default());
        let now = self.now;
        if let Some(node) = self.nodes.last_mut() {
            node.becomes_ready(now);
        }
    }

    fn in_zone(&self, pool: usize, zone: &Zone) -> usize {
        let kinds = &self.scenery.kinds;
        let is_there = |node: &&Node| kinds[node.kind].pool == pool && node.zone == *zone && !node.removed;
        self.nodes.iter().filter(is_there).count()
    }

    fn add(&mut self, kind: usize, zone: Zone, market: Market, price: f64, ready_at: Tick) -> NodeId {
        let id = NodeId(self.next_node);
        self.next_node += 1;
        let Scenery { chance, workload, .. } = self.scenery;
        let interrupted_at = match market {
            Market::Spot => workload::interrupted_at(&workload.cloud, self.now, chance.of(id.0, Draw::Life)),
            Market::OnDemand => None,
        };
        self.nodes.push(Node {
            id,
            kind,
            zone,
            market,
            price,
            launched: self.now,
            ready_at,
            ready: false,
            ready_since: None,
            removed: false,
            terminates_at: None,
            interrupted_at,
            pods: Vec::new(),
            serving: 0,
        });
        self.version += 1;
        id
    }

    /// Spares the present nodes all interruptions.
    pub(crate) fn spare(&mut self) {
        for node in &mut self.nodes {
            node.interrupted_at = None;
        }
    }

    /// Everything of a tick before the policy is asked.
    pub(crate) fn begin(&mut self, now: Tick, requests: f64) {
        let first = now == Tick::default();
        self.now = now;
        self.requests = requests;
        if !first {
            self.due();
        }
        let demanded = self.scenery.workload.wanted(self.demand_per_minute());
        let wanted = self.wanted.most(now, demanded);
        let present = self.bound + self.waiting();
        for _ in wanted..present {
            self.end_one();
        }
        for _ in present..wanted {
            self.make();
        }
        self.bind();
        if first {
            // Its pods serve already.
            for node in &mut self.nodes {
                node.serving = node.pods.len();
            }
            self.count_serving();
        }
    }

    /// Serving, Ready, terminated, interrupted: in this order.
    fn due(&mut self) {
        let now = self.now;
        for node in &mut self.nodes {
            let starting = node.pods[node.serving..].iter();
            node.serving += starting.take_while(|pod| pod.serves_from <= now).count();
        }
        self.count_serving();
        for node in &mut self.nodes {
            if !node.ready && node.ready_at <= now {
                node.becomes_ready(now);
                self.version += 1;
            }
        }
        self.terminate();
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            if !node.removed && node.interrupted_at.is_some_and(|at| at <= now) {
                self.remove_at(index);
            }
        }
        self.terminate();
    }

    fn count_serving(&mut self) {
        let serving: usize = self.nodes.iter().map(|node| node.serving).sum();
        self.serving = u32::try_from(serving).unwrap_or(u32::MAX);
    }

    /// Ends the nodes whose time has come.
    fn terminate(&mut self) {
        let now = self.now;
        let before = self.nodes.len();
        let billed_on = &mut self.billed_on;
        billed_on.retain(|(until, _)| *until > now);
        self.nodes.retain(|node| {
            let stays = node.terminates_at.is_none_or(|at| at > now);
            let least = node.launched.after(LEAST_BILLED);
            if !stays && least > now {
                billed_on.push((least, node.price));
            }
            stays
        });
        let ended = before - self.nodes.len();
        if ended > 0 {
            self.counts.terminations += ended as u64;
            self.version += 1;
        }
    }

    /// A pod that is wanted.
    fn make(&mut self) {
        self.pending.push_back(Waiting {
            id: PodId(self.next_pod),
            made: self.now,
        });
        self.next_pod += 1;
        self.version += 1;
    }

    /// Ends a pod that is not wanted any more: one that waits; else the youngest of the node that was marked first and has
    /// some, or of the one with the most (the youngest of those).
    fn end_one(&mut self) {
        self.version += 1;
        if self.pending.pop_back().is_some() {
            return;
        }
        let holds = |node: &&mut Node| !node.pods.is_empty();
        let rank = |id: NodeId| self.marked.iter().position(|marked| *marked == id);
        let chosen = self.nodes.iter_mut().filter(holds).max_by_key(|node| {
            let marked = rank(node.id).map(|rank| usize::MAX - rank);
            (marked, node.pods.len(), node.launched, node.id)
        });
        if let Some(node) = chosen {
            node.pods.pop();
            if node.serving > node.pods.len() {
                node.serving -= 1;
                self.serving -= 1;
            }
            self.bound -= 1;
        }
    }

    /// Gives the pods that wait their places, one at a time: the fullest node that has room, the oldest of those.
    pub(crate) fn bind(&mut self) {
        let Scenery { kinds, workload, .. } = self.scenery;
        let starts = ticks(workload.pod_start);
        #[allow(clippy::cast_precision_loss, reason = "milli-cores, far below 2^53")]
        let share = |node: &Node| {
            node.pods.len() as f64 * workload.cpu.as_f64() / kinds[node.kind].allocatable.cpu.as_f64()
        };
        while let Some(pod) = self.pending.front().copied() {
            let has_room =
                |node: &&mut Node| node.is_open() && node.pods.len() < kinds[node.kind].room as usize;
            let best = self.nodes.iter_mut().filter(has_room).max_by(|a, b| {
                let by_age = (b.launched, b.id).cmp(&(a.launched, a.id));
                share(a).total_cmp(&share(b)).then(by_age)
            });
            let Some(node) = best else { break };
            self.pending.pop_front();
            node.pods.push(Bound {
                id: pod.id,
                made: pod.made,
                serves_from: self.now.after(starts),
            });
            self.bound += 1;
            self.version += 1;
            if starts == 0 {
                node.serving += 1;
                self.serving += 1;
            }
        }
    }

    /// Launches a node.
    ///
    /// # Errors
    /// [`OutOfStock`], which costs nothing.
    pub(crate) fn launch(&mut self, kind: usize, zone: &Zone, market: Market) -> Result<NodeId, OutOfStock> {
        let Scenery {
            policy,
            workload,
            kinds,
            chance,
            ..
        } = self.scenery;
        let of = &kinds[kind];
        let out = |stockout: &workload::Stockout| stockout.covers(&of.spec.name, zone, market, self.time());
        if workload.cloud.stockouts.iter().any(out) {
            return Err(OutOfStock);
        }
        let price = of.price(policy, zone, market).ok_or(OutOfStock)?;
        let boot = chance.of(self.next_node, Draw::Boot);
        let ready_at = workload::ready_at(&workload.cloud, self.now, boot);
        let id = self.add(kind, zone.clone(), market, price, ready_at);
        let now = self.now;
        if let Some(node) = self.nodes.last_mut().filter(|node| node.ready_at <= now) {
            node.becomes_ready(now);
        }
        self.counts.launches += 1;
        Ok(id)
    }

    /// Removes a node: at once when it holds no pods, else it drains first.
    pub(crate) fn remove(&mut self, id: NodeId) {
        let open = |node: &Node| node.id == id && !node.removed;
        if let Some(index) = self.nodes.iter().position(open) {
            self.remove_at(index);
            self.terminate();
        }
    }

    fn remove_at(&mut self, index: usize) {
        let drain = ticks(self.scenery.workload.cloud.drain);
        let node = &mut self.nodes[index];
        let pods = std::mem::take(&mut node.pods);
        self.serving -= u32::try_from(node.serving).unwrap_or(u32::MAX);
        node.serving = 0;
        node.removed = true;
        let lasts = if pods.is_empty() { 0 } else { drain };
        node.terminates_at = Some(self.now.after(lasts));
        let count = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        self.bound -= count;
        self.counts.evictions += u64::from(count);
        self.version += 1;
        for _ in 0..count {
            self.make();
        }
    }

    /// Says which nodes scale-ins are to empty first.
    pub(crate) fn mark(&mut self, nodes: Vec<NodeId>) {
        self.marked = nodes;
    }

    /// What is measured at the end of the tick.
    pub(crate) fn measure(&self) -> Measured {
        let served = f64::from(self.serving) * self.scenery.workload.requests_per_pod;
        let demand = self.demand_per_minute();
        let short = served + SLACK < demand;
        let billed_on = self.billed_on.iter().map(|(_, price)| price);
        let prices = self.nodes.iter().map(|node| &node.price).chain(billed_on);
        let ready = self.nodes.iter().filter(|node| node.is_open()).count();
        Measured {
            requests: self.requests,
            wanted: self.bound + self.waiting(),
            serving: self.serving,
            pending: self.waiting(),
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            billed: u32::try_from(self.nodes.len() + self.billed_on.len()).unwrap_or(u32::MAX),
            cost: prices.sum(),
            unserved: if short {
                (demand - served) / f64::from(PER_MINUTE)
            } else {
                0.0
            },
            short,
        }
    }

    /// The present tick.
    pub(crate) fn now(&self) -> Tick {
        self.now
    }

    /// Its time.
    pub(crate) fn time(&self) -> Timestamp {
        self.now.time(self.scenery.start)
    }

    /// What does not change.
    pub(crate) fn scenery(&self) -> &'p Scenery<'p> {
        self.scenery
    }

    /// Requests a minute, at the rate of this tick.
    pub(crate) fn demand_per_minute(&self) -> f64 {
        self.requests * f64::from(PER_MINUTE)
    }

    /// Nodes that are billed, in the order of launches.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Pods without a place, oldest first.
    pub(crate) fn pending(&self) -> &VecDeque<Waiting> {
        &self.pending
    }

    fn waiting(&self) -> u32 {
        u32::try_from(self.pending.len()).unwrap_or(u32::MAX)
    }

    /// Another number whenever a node or pod is another, or elsewhere.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// What has been added up.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// What each serving pod uses of its CPU request.
    fn load(&self) -> f64 {
        let each = self.demand_per_minute() / f64::from(self.serving.max(1));
        (each / self.scenery.workload.requests_per_pod).min(1.0)
    }

    /// Usage of one node.
    pub(crate) fn usage(&self, node: &Node) -> Usage {
        self.used([node].into_iter())
    }

    /// Averages over the Ready nodes that were not removed.
    pub(crate) fn averages(&self) -> Usage {
        self.used(self.nodes.iter().filter(|node| node.is_open()))
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "numbers of pods, milli-cores and bytes, far below 2^53"
    )]
    fn used<'n>(&self, nodes: impl Iterator<Item = &'n Node>) -> Usage {
        let Scenery { workload, kinds, .. } = self.scenery;
        let (mut serving, mut cpu, mut memory) = (0, 0.0, 0.0);
        for node in nodes {
            let allocatable = &kinds[node.kind].allocatable;
            serving += node.serving;
            cpu += allocatable.cpu.as_f64();
            memory += allocatable.memory.0 as f64;
        }
        let pods = serving as f64;
        let percent = |used: f64, of: f64| if of > 0.0 { used / of * 100.0 } else { 0.0 };
        Usage {
            cpu_percent: percent(pods * workload.cpu.as_f64() * self.load(), cpu),
            memory_percent: percent(pods * workload.memory.0 as f64 * MEMORY_USED, memory),
        }
    }
}
