//! The forecast, shown what a coordinator would be shown: what pods ask for, what they use, how long nodes took to boot.

use smartscale_planner::{
    Policy,
    forecast::{Band, BootTimes, Demand, Forecaster, Terms},
    model::Resources,
    snapshot::Expected,
};

use crate::{
    series::Forecast,
    tick::{TICK, Tick},
    world::World,
};

/// What comes, by what was there up to the present tick.
#[derive(Debug)]
pub(super) struct Foresight {
    forecaster: Forecaster,
    boots: BootTimes,
    /// The last tick whose boots are counted.
    seen: Tick,
    terms: Terms,
    each: Resources,
    /// What was expected last.
    expected: Option<Expected>,
    /// What was expected last, in mCPU.
    band: Band,
}

impl Foresight {
    /// `None` where the policy wants no forecast, or no node holds a pod.
    pub(super) fn new(policy: &Policy, each: &Resources) -> Option<Self> {
        if !policy.forecast.enabled {
            return None;
        }
        let boots = BootTimes::default();
        Some(Self {
            terms: Terms::of(policy, each, boots.most())?,
            forecaster: Forecaster::default(),
            boots,
            seen: Tick::default(),
            each: each.clone(),
            expected: None,
            band: Band::default(),
        })
    }

    /// Looks at the world as it is, and says what room it should have beyond what pods ask for.
    pub(super) fn expect(&mut self, world: &World<'_>) -> Option<Expected> {
        self.time_boots(world);
        let demand = self.demand(world);
        if !self.forecaster.observe(world.time(), &demand, &self.terms) {
            return self.expected;
        }
        let expectation = self.forecaster.expect(&self.terms);
        self.band = expectation.band;
        self.expected = expectation.room(&self.each, &self.terms);
        self.expected
    }

    /// The band that was expected last, whether room was wanted for it or not. `None` while too little was seen for one.
    pub(super) fn band(&self) -> Option<Forecast> {
        let pods = |cpu: f64| (cpu / self.each.cpu.as_f64()).max(0.0);
        (self.band != Band::default()).then(|| Forecast {
            median: pods(self.band.median),
            high: pods(self.band.high),
        })
    }

    fn time_boots(&mut self, world: &World<'_>) {
        let now = world.now();
        let is_new = |ready: Tick| ready > self.seen && ready <= now;
        let mut any = false;
        for node in world.nodes() {
            if let Some(ready) = node.ready_since.filter(|ready| is_new(*ready)) {
                self.boots.add(TICK * ready.since(node.launched));
                any = true;
            }
        }
        self.seen = now;
        if any {
            self.terms.boot = self.boots.most();
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "numbers of pods")]
    fn demand(&self, world: &World<'_>) -> Demand {
        let bound: usize = world.nodes().iter().map(|node| node.pods.len()).sum();
        let waiting = world.pending().len();
        let capacity: f64 = world
            .nodes()
            .iter()
            .filter(|node| node.is_open())
            .map(|node| world.scenery().kinds[node.kind].allocatable.cpu.as_f64())
            .sum();
        let used = world.averages().cpu_percent / 100.0 * capacity;
        let requests = |pods: usize| pods as f64 * self.each.cpu.as_f64();
        Demand {
            requested: requests(bound + waiting),
            waiting: requests(waiting),
            used: Some(used),
        }
    }
}
