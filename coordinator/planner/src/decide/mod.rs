//! The decision: pods first, then minimums, then metrics, then what can go.
//!
//! ```text
//! pending pods ─▶ existing and launching nodes ─▶ packing ─▶ launches ─┐
//! minimums ────────────────────────────────────────────────▶ launches ─┼─▶ nothing launched ─▶ removals
//! rules on averages ───────────────────────────────────────▶ launches ─┘
//! ```

mod bound;
mod brakes;
mod budgets;
mod company;
mod drafts;
mod due;
mod floors;
mod guard;
mod headroom;
mod honour;
mod interruptions;
mod joint;
mod launches;
mod lots;
mod offerings;
mod one_by_one;
mod packing;
mod pending;
mod podless;
mod preemption;
mod removals;
mod replacements;
mod reserved;
mod rules;
mod summary;
mod verdicts;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::{
    Action, Hold, Plan, Pods, Policy, Rule, RuleName, Snapshot,
    explain::words::count,
    model::{Market, Pod, PoolName, SETTLING},
    placement::{Host, Known, QuickMap, World},
    policy::{BurstableCpu, PriceSource, TypeSpec},
    snapshot::{Expected, Launching, State},
};
pub(crate) use brakes::{Brakes, launched};
use budgets::Covering;
pub(crate) use floors::Floor;
use floors::Floors;
pub(crate) use guard::Serving;
pub(crate) use headroom::is_headroom;
use interruptions::Interruptions;
pub(crate) use launches::Outcome;
pub(crate) use offerings::{Offering, PoolCount};
pub use removals::PATIENCE_FOR_EACH_POD;
use rules::Averages;
pub(crate) use rules::node_usage;
pub(crate) use verdicts::{Verdict, move_all};

/// What every part of a decision reads.
pub(crate) struct Context<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) policy: &'a Policy,
    /// Room to be kept free.
    headroom: &'a [Pod],
    pub(crate) now: Timestamp,
    pub(crate) offerings: Vec<Offering<'a>>,
    interruptions: Interruptions,
    counts: BTreeMap<PoolName, PoolCount>,
    covering: Covering,
    pub(crate) averages: Averages,
    pub(crate) brakes: Brakes,
    pub(crate) floors: Floors<'a>,
    pub(crate) cooldown_up: bool,
    pub(crate) cooldown_down: bool,
}

/// Looks on while a decision is made, for those who explain it.
pub(crate) trait Witness {
    /// Pods have their places, launches included; nothing has been removed yet.
    fn pods_are_placed<'a>(&mut self, context: &Context<'a>, world: &World<'a>, outcome: &Outcome<'a>);
}

impl Witness for () {
    fn pods_are_placed<'a>(&mut self, _: &Context<'a>, _: &World<'a>, _: &Outcome<'a>) {}
}

/// Decides what to do about the cluster of `snapshot` at `now`. Pure: the same input gives the same plan.
///
/// A launching entry lapses 5 minutes after `since`; times after `now` are not believed.
pub fn plan(snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Plan {
    decide(&mut (), snapshot, policy, now, &mut Known::default())
}

/// The same before a witness, which changes nothing.
pub(crate) fn plan_before(
    witness: &mut impl Witness,
    snapshot: &Snapshot,
    policy: &Policy,
    now: Timestamp,
) -> Plan {
    decide(witness, snapshot, policy, now, &mut Known::default())
}

/// Plans one snapshot after another. The plans are those of [`plan`], sooner: what was found out about pods that are
/// still there (the same [`Arc`](std::sync::Arc)s) is remembered.
#[derive(Debug)]
pub struct Planner {
    known: Known,
}

impl Default for Planner {
    fn default() -> Self {
        Self { known: Known::kept() }
    }
}

impl Planner {
    /// As [`plan`].
    pub fn plan(&mut self, snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Plan {
        decide(&mut (), snapshot, policy, now, &mut self.known)
    }
}

fn decide(
    witness: &mut impl Witness,
    snapshot: &Snapshot,
    policy: &Policy,
    now: Timestamp,
    known: &mut Known,
) -> Plan {
    let state = &snapshot.state;
    let mut launching: Vec<&Launching> = state
        .launching
        .iter()
        .filter(|entry| now.duration_since(entry.since) < SETTLING)
        .collect();
    launching.sort_by(|a, b| {
        let key = |l: &Launching| {
            (
                l.pool.clone(),
                l.zone.clone(),
                l.instance_type.clone(),
                l.market,
                l.since,
            )
        };
        key(a).cmp(&key(b))
    });
    let headroom = headroom::pods(policy, &snapshot.cluster, state.expected.as_ref());
    let mut world = World::new(&snapshot.cluster, &headroom, policy, now, known);
    let interruptions = Interruptions::of(policy, &snapshot.cluster);
    let offerings = offerings::all(&mut world, policy, state, &interruptions, now);
    world.open_domains(&offerings::domains(&offerings));
    for (index, entry) in launching.iter().enumerate() {
        if let Some(host) = offerings::launching(&mut world, policy, entry, index) {
            world.push(host);
        }
    }
    due::close(&mut world, policy, state, now);
    let context = Context {
        snapshot,
        policy,
        headroom: &headroom,
        now,
        offerings,
        interruptions,
        counts: offerings::counts(&world, policy, &launching),
        covering: Covering::new(&snapshot.cluster, &world.classes),
        averages: Averages::of(&snapshot.metrics, policy, now),
        brakes: Brakes::new(snapshot, policy, &launching, now),
        floors: Floors::of(policy, now),
        cooldown_up: state.last_scale_action == Some(Action::ScaleUp)
            && recent(state, policy.scale_up.cooldown, now),
        cooldown_down: state
            .last_scale_action
            .is_some_and(|action| action != Action::None)
            && recent(state, policy.scale_down.cooldown, now),
    };
    context.decide(&mut world, witness)
}

/// What the pods that wait cost per hour at least, in USD, beside the room on the cluster's nodes: no plan can be cheaper,
/// most must be dearer, because nodes and pods come whole. For benchmarks.
pub fn least_cost(snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> f64 {
    let mut world = World::new(&snapshot.cluster, &[], policy, now, &mut Known::default());
    let interruptions = Interruptions::of(policy, &snapshot.cluster);
    let offerings = offerings::all(&mut world, policy, &snapshot.state, &interruptions, now);
    let waiting: Vec<&Pod> = snapshot
        .cluster
        .pods
        .iter()
        .map(|pod| &**pod)
        .filter(|pod| pod.wants_place())
        .collect();
    bound::of(&world, &offerings, &waiting, true).cost
}

/// Whether the last action is less than `cooldown` ago. One that claims to lie ahead counts as just done.
fn recent(state: &State, cooldown: std::time::Duration, now: Timestamp) -> bool {
    let cooldown = SignedDuration::try_from(cooldown).unwrap_or(SignedDuration::MAX);
    state
        .last_scale_time
        .is_some_and(|at| now.duration_since(at) < cooldown)
}

impl<'a> Context<'a> {
    fn decide(&self, world: &mut World<'a>, witness: &mut impl Witness) -> Plan {
        let mut holds: BTreeSet<Hold> = BTreeSet::new();
        if self.snapshot.state.paused {
            holds.insert(Hold::Paused);
        }
        if self.snapshot.state.scaling_in_progress {
            holds.insert(Hold::OperationInProgress);
        }
        holds.extend(self.averages.holds(self.asks_averages_below()));
        holds.extend(self.brakes.holds());

        let waiting = self.waiting_pods(world);
        let mut others = waiting.clone();
        let nominated = preemption::place_nominated(world, &mut others);
        let mut placements = self.placements(world, &nominated, world.hosts.len());
        let (found, unplaced) = place_on_nodes(world, &others);
        let (unplaced, mut expendable): (Vec<&Pod>, Vec<&Pod>) = unplaced
            .into_iter()
            .partition(|pod| pod.priority >= self.policy.scale_up.priority_cutoff);
        let outcome = self.launch(world, found, &unplaced, &mut expendable, &mut holds);
        placements.extend(outcome.placed.iter().cloned());
        let placed = placements.len();
        let pending = self.pending(world, &outcome, &expendable);
        let preemptions = self.preemptions(world, &waiting, &placements);
        witness.pods_are_placed(self, world, &outcome);
        if pending
            .iter()
            .any(|pod| pod.code == crate::PendingCode::AtMaxNodes)
        {
            holds.insert(Hold::AtMax);
        }
        let somebody_could = placed > 0 || pending.iter().any(|pod| pending::could_be_taken(pod.code));
        let removals = self.removals(world, &outcome.launches, somebody_could, &mut holds);
        let mut launch = outcome.launches;
        launch.extend(removals.launch);
        placements.extend(removals.placements);
        let action = match (launch.is_empty(), removals.remove.is_empty()) {
            (false, false) => Action::Replace,
            (false, true) => Action::ScaleUp,
            (true, false) => Action::ScaleDown,
            (true, true) => Action::None,
        };
        let mut plan = Plan {
            action,
            summary: String::new(),
            launch,
            remove: removals.remove,
            pods: Pods { placed, pending },
            nodes: removals.nodes,
            rules: self.rules(waiting.len()),
            held_by: holds.into_iter().collect(),
            assumptions: Vec::new(),
            placements,
            unneeded_since: removals.unneeded_since,
            steer: removals.steer,
        };
        plan.assumptions = self.assumptions(&plan);
        plan.assumptions.extend(preemptions);
        plan.assumptions.extend(self.floors.notes());
        plan.assumptions
            .extend(forecast_note(self.snapshot.state.expected));
        plan.summary = summary::of(&plan);
        plan
    }

    /// Pods that wait for a place, the most urgent first, then the largest, those alike together, then by name.
    fn waiting_pods(&self, world: &World<'a>) -> Vec<&'a Pod> {
        let cluster = &self.snapshot.cluster;
        let mut pods: Vec<&Pod> = world
            .unbound
            .iter()
            .map(|index| &*cluster.pods[*index])
            .filter(|pod| pod.wants_place() && !pod.resource_claims)
            .collect();
        pods.sort_by(|a, b| a.key.cmp(&b.key));
        let largest =
            |pick: fn(&Offering<'_>) -> f64| self.offerings.iter().map(pick).fold(1.0_f64, f64::max);
        let (cpu, memory) = (
            largest(|o| o.host.allocatable.cpu.as_f64()),
            largest(|o| o.host.allocatable.memory.as_f64()),
        );
        let size = |pod: &Pod| (pod.requests.cpu.as_f64() / cpu).max(pod.requests.memory.as_f64() / memory);
        let mut first: QuickMap<usize, usize> = QuickMap::default();
        let mut ranked: Vec<_> = pods
            .into_iter()
            .enumerate()
            .map(|(index, pod)| {
                let class = *first.entry(world.classes.class(pod)).or_insert(index);
                (std::cmp::Reverse(pod.priority), size(pod), class, pod)
            })
            .collect();
        ranked.sort_by(|a, b| {
            a.0.cmp(&b.0)
                .then_with(|| b.1.total_cmp(&a.1))
                .then(a.2.cmp(&b.2))
        });
        ranked.into_iter().map(|(.., pod)| pod).collect()
    }

    fn rules(&self, waiting: usize) -> Vec<Rule> {
        let averages = &self.averages;
        #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
        let value = waiting as f64;
        vec![
            averages.cpu_above.clone(),
            averages.memory_above.clone(),
            averages.cpu_below.clone(),
            averages.memory_below.clone(),
            Rule {
                rule: RuleName::PendingPods,
                value: Some(value),
                threshold: 0.0,
                fired: waiting > 0,
                source: self.snapshot.metrics.source,
                age_seconds: Some(0),
            },
        ]
    }

    /// What a reader must know about the figures of the launches.
    fn assumptions(&self, plan: &Plan) -> Vec<String> {
        let mut assumptions = Vec::new();
        let assumed =
            |name: &crate::model::InstanceType| self.policy.types.get(name).is_some_and(|spec| spec.built_in);
        if plan
            .launch
            .iter()
            .any(|launch| launch.instance_types.iter().any(assumed))
        {
            assumptions.push(
                "memory of types from the built-in catalogue is taken as EC2's nominal figure less 7.5 %"
                    .to_owned(),
            );
        }
        if plan.launch.iter().any(|launch| {
            launch.market == Market::Spot && launch.price_source == Some(PriceSource::Catalogue)
        }) {
            assumptions.push(
                "spot prices of the built-in catalogue are assumed to be 35 % of the on-demand price"
                    .to_owned(),
            );
        }
        assumptions.extend(self.too_dear(plan));
        let bursting = self.bursting(plan);
        if !bursting.is_empty() {
            assumptions.push(bursting.join("; "));
        }
        assumptions
    }

    /// Types that are bought on demand because their interruptions on spot would cost more than it saves, each once.
    fn too_dear(&self, plan: &Plan) -> BTreeSet<String> {
        let on_demand = plan
            .launch
            .iter()
            .filter(|launch| launch.market == Market::OnDemand);
        let notes = on_demand.filter_map(|launch| {
            let pool = self.policy.pool(launch.pool.as_str())?;
            let spec = self.policy.types.get(launch.instance_types.first()?)?;
            let spot = pool.price(spec, &launch.zone, Market::Spot)?;
            let beside = self.interruptions.beside(pool, &launch.zone)?;
            let dear = beside.forbids(pool, spec, spot)?;
            Some(format!(
                "{} is not bought on spot: interruptions of its {} would cost {:.4} USD an hour \
                 (cost.spot_interruptions_per_node_day × cost.eviction_usd), more than it saves",
                spec.name,
                count(dear.pods, "pod"),
                dear.per_hour
            ))
        });
        notes.collect()
    }

    /// Types that a launch may be of and whose CPU was counted in full though it lasts for minutes only.
    fn bursting(&self, plan: &Plan) -> Vec<String> {
        let mut types: Vec<&TypeSpec> = Vec::new();
        for launch in &plan.launch {
            let pool = self.policy.pool(launch.pool.as_str());
            if pool.is_none_or(|pool| pool.burstable_cpu == BurstableCpu::Baseline) {
                continue;
            }
            for name in &launch.instance_types {
                let spec = self.policy.types.get(name).filter(|spec| spec.is_burstable());
                types.extend(spec.map(AsRef::as_ref));
            }
        }
        types.sort_by(|a, b| a.by_price(b));
        types.dedup_by(|a, b| a.name == b.name);
        let counted = |spec: &&TypeSpec| {
            format!(
                "{}: {} CPUs were counted, {} of them can last",
                spec.name, spec.cpu, spec.baseline_percent
            )
        };
        types.iter().map(counted).collect()
    }

    pub(crate) fn asks_averages_below(&self) -> bool {
        self.policy.scale_down.when == crate::policy::ScaleDownWhen::Thresholds
    }
}

/// What the forecast adds to what a reader sees in the cluster.
fn forecast_note(expected: Option<Expected>) -> Option<String> {
    let expected = expected.filter(|expected| expected.pods > 0)?;
    Some(format!(
        "room for {} of {} CPU is kept, as the forecast expects them",
        count(expected.pods as usize, "more pod"),
        expected.cpu_millis
    ))
}

/// Pods that were placed, in order, each with its host, and those that were not.
type Placed<'a> = (Vec<(&'a Pod, usize)>, Vec<&'a Pod>);

/// Places pods on nodes that exist or are on their way, again until a pass places none.
fn place_on_nodes<'a>(world: &mut World<'a>, waiting: &[&'a Pod]) -> Placed<'a> {
    let mut left: Vec<&Pod> = waiting.to_vec();
    let mut found: Vec<(&'a Pod, usize)> = Vec::new();
    // How many had been placed when one of the class was refused; `None` if no host has room, whatever is on others.
    let mut refused: QuickMap<usize, Option<usize>> = QuickMap::default();
    let mut last: Option<(usize, usize)> = None;
    loop {
        let before = found.len();
        for pod in std::mem::take(&mut left) {
            let class = world.classes.class(pod);
            let looks_around = world.looks_around(pod);
            let placed = found.len();
            if refused
                .get(&class)
                .is_some_and(|then| then.is_none_or(|then| then == placed))
            {
                left.push(pod);
                continue;
            }
            // Where the one before it went is now fuller than before: still the best, as long as there is room.
            let same = last
                .filter(|(of, host)| {
                    *of == class && !looks_around && world.check(pod, &world.hosts[*host]).is_ok()
                })
                .map(|(_, host)| host);
            if let Some(host) = same.or_else(|| world.find(pod, |host| host.accepts)) {
                world.put(pod, host);
                found.push((pod, host));
                last = Some((class, host));
            } else {
                let has_room = |host: &Host<'_>| host.accepts && world.check_alone(pod, host).is_ok();
                let may_change = looks_around && world.hosts.iter().any(has_room);
                refused.insert(class, may_change.then_some(placed));
                left.push(pod);
            }
        }
        if found.len() == before || left.is_empty() {
            return (found, left);
        }
    }
}
