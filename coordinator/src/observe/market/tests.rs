#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use smartscale_planner::{
    Policy, PriceSource,
    model::{Bytes, Market, MilliCpu},
};
use smartscale_proto::time::{Clock, SharedClock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{keeper::Kept, *};
use crate::{decide::PolicyInForce, observe::sources::SourceState};

const POLICY: &str = r#"
[cluster]
id = "demo"
[[pool]]
name = "workers"
instance_types = ["m5.large", "t3.small"]
zones = ["us-east-1a", "us-east-1b"]
markets = ["spot", "on-demand"]
"#;

struct TestClock(tokio::time::Instant);

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + self.elapsed()
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A market that says what it is told to, and counts what it is asked.
#[derive(Default)]
struct Stall {
    spot: Mutex<BTreeMap<(&'static str, &'static str), f64>>,
    zones: Mutex<Vec<(&'static str, &'static str)>>,
    cpu: Mutex<i64>,
    small_on_demand: Mutex<f64>,
    fails: Mutex<bool>,
    asked: Mutex<BTreeMap<&'static str, usize>>,
}

impl Stall {
    fn ask(&self, what: &'static str) -> Result<(), MarketError> {
        *self.asked.lock().unwrap().entry(what).or_default() += 1;
        if *self.fails.lock().unwrap() {
            return Err(MarketError("UnauthorizedOperation".to_owned()));
        }
        Ok(())
    }

    fn asked(&self, what: &str) -> usize {
        self.asked.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    fn set_spot(&self, name: &'static str, zone: &'static str, per_hour: f64) {
        self.spot.lock().unwrap().insert((name, zone), per_hour);
    }
}

fn answer<T>(entries: impl IntoIterator<Item = T>) -> Answer<T> {
    Answer {
        entries: entries.into_iter().collect(),
        problems: Vec::new(),
    }
}

#[async_trait]
impl MarketSource for Stall {
    async fn types(&self, wanted: &Undescribed) -> Result<Answer<(InstanceType, Nominal)>, MarketError> {
        self.ask("types")?;
        let cpu = MilliCpu(*self.cpu.lock().unwrap());
        let nominal = |cpu| Nominal {
            cpu,
            memory: Bytes(8 << 30),
            arch: "amd64".into(),
            extended: BTreeMap::new(),
            spot: true,
        };
        let types = wanted.types.iter().cloned();
        Ok(answer(types.map(|name| {
            let cpu = if name.as_str() == "t3.small" {
                cpu
            } else {
                MilliCpu(2000)
            };
            (name, nominal(cpu))
        })))
    }

    async fn zones(&self, _: &Undescribed) -> Result<Answer<(InstanceType, Zone)>, MarketError> {
        self.ask("zones")?;
        let zones = self.zones.lock().unwrap().clone();
        Ok(answer(
            zones.into_iter().map(|(name, zone)| (name.into(), zone.into())),
        ))
    }

    async fn on_demand_prices(&self, _: &Undescribed) -> Result<Answer<(InstanceType, f64)>, MarketError> {
        self.ask("on demand")?;
        let small = *self.small_on_demand.lock().unwrap();
        Ok(answer([("m5.large".into(), 0.107), ("t3.small".into(), small)]))
    }

    async fn spot_prices(&self, _: &Undescribed) -> Result<Answer<SpotQuote>, MarketError> {
        self.ask("spot")?;
        let spot = self.spot.lock().unwrap().clone();
        let quote = |((name, zone), per_hour): ((&str, &str), f64)| SpotQuote {
            instance_type: name.into(),
            zone: zone.into(),
            per_hour,
            since: Timestamp::UNIX_EPOCH,
        };
        Ok(answer(spot.into_iter().map(quote)))
    }
}

struct Running {
    stall: Arc<Stall>,
    force: watch::Sender<PolicyInForce>,
    kept: Kept,
    clock: SharedClock,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn in_force(text: &str) -> PolicyInForce {
    PolicyInForce {
        policy: Arc::new(Policy::from_toml(text).unwrap().0),
        text: text.into(),
        warnings: Arc::default(),
    }
}

/// A market in which everything is on sale everywhere, unless `prepare` has it otherwise.
async fn run(text: &str, prepare: impl FnOnce(&Stall)) -> Running {
    let stall = Arc::new(Stall::default());
    *stall.cpu.lock().unwrap() = 2000;
    *stall.small_on_demand.lock().unwrap() = 0.0228;
    for name in ["m5.large", "t3.small"] {
        for zone in ["us-east-1a", "us-east-1b"] {
            stall.set_spot(name, zone, 0.01);
            stall.zones.lock().unwrap().push((name, zone));
        }
    }
    prepare(&stall);
    let clock: SharedClock = Arc::new(TestClock(tokio::time::Instant::now()));
    let (force, policy) = watch::channel(in_force(text));
    let (keeper, mut kept) = Keeper::new(stall.clone(), policy, Settings::default(), Arc::clone(&clock));
    let stop = CancellationToken::new();
    tokio::spawn(keeper.run(stop.clone()));
    (&mut kept.first).await.unwrap();
    Running {
        stall,
        force,
        kept,
        clock,
        stop,
    }
}

impl Running {
    fn price(&self, name: &str, zone: &str, market: Market) -> Option<(f64, PriceSource)> {
        let policy = self.kept.policy.borrow().policy.clone();
        let quote = policy.pools[0].quote(&policy.types[name], &zone.into(), market)?;
        Some((quote.per_hour, quote.source))
    }

    fn spot(&self, name: &str, zone: &str) -> Option<(f64, PriceSource)> {
        self.price(name, zone, Market::Spot)
    }

    fn state(&self) -> Option<SourceState> {
        self.kept.view.state(self.clock.now())
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn prices_are_asked_for_again_and_take_effect_with_their_age() {
    let running = run(POLICY, |_| {}).await;
    let spot = PriceSource::SpotPriceHistory;
    assert_eq!(running.spot("m5.large", "us-east-1a"), Some((0.01, spot)));
    running.stall.set_spot("m5.large", "us-east-1a", 0.02);
    pass(299).await;
    assert_eq!(running.spot("m5.large", "us-east-1a"), Some((0.01, spot)));
    assert_eq!(running.state().unwrap().age, Some(Duration::from_secs(299)));
    pass(2).await;
    assert_eq!(running.spot("m5.large", "us-east-1a"), Some((0.02, spot)));
    assert!(running.state().unwrap().age < Some(Duration::from_secs(2)));
    assert_eq!(
        (running.stall.asked("spot"), running.stall.asked("types")),
        (2, 1)
    );
    pass(24 * 3600).await;
    assert_eq!(running.stall.asked("zones"), 2);
}

#[tokio::test(start_paused = true)]
async fn an_absurd_entry_is_refused_and_said_and_the_others_count() {
    let running = run(POLICY, |stall| {
        stall.set_spot("m5.large", "us-east-1a", -0.01);
        stall.set_spot("m5.large", "us-east-1b", f64::INFINITY);
        stall.set_spot("x1.huge", "us-east-1b", 0.01);
        *stall.cpu.lock().unwrap() = -1;
        *stall.small_on_demand.lock().unwrap() = f64::NAN;
    })
    .await;
    assert_eq!(running.spot("m5.large", "us-east-1a"), None);
    assert_eq!(running.spot("m5.large", "us-east-1b"), None);
    let on_demand = |name| running.price(name, "us-east-1a", Market::OnDemand);
    assert_eq!(on_demand("m5.large"), Some((0.107, PriceSource::AwsPricing)));
    let error = running.state().unwrap().error.unwrap();
    for part in [
        "spot prices: refused: m5.large in us-east-1a at -0.01 USD/h, m5.large in us-east-1b at inf USD/h",
        "on-demand prices: refused: t3.small at NaN USD/h",
        "instance types: refused: t3.small with",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(running.state().unwrap().fresh);
}

#[tokio::test(start_paused = true)]
async fn a_market_that_fails_leaves_what_was_known_and_is_said_when_that_is_stale() {
    let running = run(POLICY, |_| {}).await;
    *running.stall.fails.lock().unwrap() = true;
    pass(1800).await;
    let known = Some((0.01, PriceSource::SpotPriceHistory));
    assert_eq!(running.spot("m5.large", "us-east-1a"), known);
    let state = running.state().unwrap();
    assert!(
        state.fresh
            && state
                .error
                .unwrap()
                .contains("spot prices: UnauthorizedOperation")
    );
    let asked = running.stall.asked("spot");
    assert!(
        (5..=20).contains(&asked),
        "it comes back later each time: {asked}"
    );
    pass(1900).await;
    assert!(!running.state().unwrap().fresh);
    assert_eq!(running.spot("m5.large", "us-east-1a"), known);
    *running.stall.fails.lock().unwrap() = false;
    pass(601).await;
    let state = running.state().unwrap();
    assert!(state.fresh && state.error.is_none(), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn a_market_that_never_answered_leaves_the_catalogue() {
    let running = run(POLICY, |stall| *stall.fails.lock().unwrap() = true).await;
    let (_, source) = running.spot("m5.large", "us-east-1a").unwrap();
    assert_eq!(source, PriceSource::Catalogue);
    let state = running.state().unwrap();
    assert_eq!((state.at, state.fresh), (None, false));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_anything_that_was_asked_for_takes_nothing_away() {
    let running = run(POLICY, |stall| stall.zones.lock().unwrap().clear()).await;
    assert!(running.spot("m5.large", "us-east-1a").is_some());
    let error = running.state().unwrap().error.unwrap();
    assert!(
        error.contains("zones of instance types: the answer has nothing"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_which_nothing_is_offered_is_warned_of() {
    let elsewhere = |stall: &Stall| {
        let mut zones = stall.zones.lock().unwrap();
        zones.retain(|(name, _)| *name == "t3.small");
    };
    let one = POLICY.replace(r#""m5.large", "t3.small""#, r#""m5.large""#);
    let two = format!(
        "{one}[[pool]]\nname = \"others\"\ninstance_types = [\"t3.small\"]\nzones = [\"us-east-1a\"]\n"
    );
    let running = run(&two, elsewhere).await;
    let warnings = running.kept.policy.borrow().warnings.clone();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("`workers`"), "{warnings:?}");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_describes_its_types_asks_nothing_and_another_one_is_asked_for_at_once() {
    let described = format!(
        "{}[[instance_type]]\nname = \"t3.small\"\ncpu = 2\nmemory = \"2Gi\"\non_demand_price = 0.02\n",
        POLICY.replace(r#""m5.large", "#, "")
    );
    let mut running = run(&described, |_| {}).await;
    pass(3600).await;
    assert_eq!((running.state(), running.stall.asked("types")), (None, 0));
    running.force.send_replace(in_force(POLICY));
    running.kept.policy.changed().await.unwrap();
    pass(1).await;
    let spot = Some((0.01, PriceSource::SpotPriceHistory));
    assert_eq!(running.spot("m5.large", "us-east-1b"), spot);
    assert_eq!(&*running.kept.policy.borrow().text, POLICY);
}
