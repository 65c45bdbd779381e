//! The loop that asks the market, and the policy with its answers.
//!
//! Each of four questions has a period of its own and, when it fails, a retry that comes later each time. A failure leaves
//! what was known before; how old that is can be seen, and past a limit it is said.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use smartscale_planner::policy::{Offers, Undescribed};
use smartscale_proto::{
    backoff::Backoff,
    time::{SharedClock, age},
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{MarketError, MarketSource, check};
use crate::{decide::PolicyInForce, observe::sources::SourceState};

/// Refused entries that are named; more are counted.
const MOST_NAMED: usize = 3;

/// How often the market is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What types have, where they are offered and what they cost on demand: these change by the month.
    pub catalogue: Duration,
    /// What they cost as spot.
    pub spot: Duration,
    /// Spot prices are said to be stale after this; the rest after three times its period.
    pub stale: Duration,
    /// When an answer failed.
    pub retry: Backoff,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            catalogue: Duration::from_secs(24 * 3600),
            spot: Duration::from_secs(5 * 60),
            stale: Duration::from_secs(3600),
            retry: Backoff::new(Duration::from_secs(5), Duration::from_secs(600)).unwrap_or(Backoff::DEFAULT),
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Types,
    Zones,
    Spot,
    OnDemand,
}

impl Question {
    const ALL: [Self; 4] = [Self::Types, Self::Zones, Self::Spot, Self::OnDemand];

    fn period(self, settings: &Settings) -> Duration {
        match self {
            Self::Spot => settings.spot,
            Self::Types | Self::Zones | Self::OnDemand => settings.catalogue,
        }
    }

    /// An older answer is stale.
    fn limit(self, settings: &Settings) -> Duration {
        match self {
            Self::Spot => settings.stale,
            Self::Types | Self::Zones | Self::OnDemand => settings.catalogue.saturating_mul(3),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Types => "instance types",
            Self::Zones => "zones of instance types",
            Self::OnDemand => "on-demand prices",
            Self::Spot => "spot prices",
        })
    }
}

/// How a question stands.
#[derive(Debug, Clone, Default)]
struct Standing {
    answered: Option<Timestamp>,
    error: Option<String>,
    /// By [`Clock::elapsed`](smartscale_proto::time::Clock::elapsed); zero is at once.
    due: Duration,
    failures: u32,
}

type Standings = BTreeMap<Question, Standing>;

/// How old what is known of the market is; clones see the same.
#[derive(Debug, Clone)]
pub struct MarketView {
    standings: Arc<Mutex<Standings>>,
    settings: Settings,
}

impl MarketView {
    /// The market as a source. As old as its spot prices, if these are asked for and nothing else is stale. `None` while
    /// nothing is asked.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> Option<SourceState> {
        let standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let staleness = |question: Question, standing: &Standing| {
            let limit = question.limit(&self.settings).as_secs_f64().max(1.0);
            let age = standing.answered.map(|at| age(at, now).as_secs_f64());
            age.map_or(f64::INFINITY, |age| age / limit)
        };
        let stalest = standings
            .iter()
            .max_by(|a, b| staleness(*a.0, a.1).total_cmp(&staleness(*b.0, b.1)))?;
        let fresh = staleness(*stalest.0, stalest.1) <= 1.0;
        let spot = standings.get(&Question::Spot).filter(|_| fresh);
        let answered = spot.unwrap_or(stalest.1).answered;
        let errors: Vec<String> = standings
            .iter()
            .filter_map(|(question, standing)| Some(format!("{question}: {}", standing.error.as_ref()?)))
            .collect();
        Some(SourceState {
            source: "market",
            at: answered,
            age: answered.map(|at| age(at, now)),
            fresh,
            error: (!errors.is_empty()).then(|| errors.join("; ")),
        })
    }
}

/// The loop. One per coordinator.
pub struct Keeper {
    source: Arc<dyn MarketSource>,
    policy: watch::Receiver<PolicyInForce>,
    in_force: watch::Sender<PolicyInForce>,
    settings: Settings,
    clock: SharedClock,
    view: MarketView,
    offers: Offers,
    wanted: Undescribed,
    first: Option<oneshot::Sender<()>>,
}

/// What a keeper keeps for others.
pub struct Kept {
    /// The policy with the market's answers in it.
    pub policy: watch::Receiver<PolicyInForce>,
    /// How old these are.
    pub view: MarketView,
    /// Ends when everything has been asked once, whether it was answered or not.
    pub first: oneshot::Receiver<()>,
}

impl Keeper {
    /// The loop for a policy, and what it keeps.
    #[must_use]
    pub fn new(
        source: Arc<dyn MarketSource>,
        policy: watch::Receiver<PolicyInForce>,
        settings: Settings,
        clock: SharedClock,
    ) -> (Self, Kept) {
        let (in_force, published) = watch::channel(policy.borrow().clone());
        let (first, asked) = oneshot::channel();
        let view = MarketView {
            standings: Arc::default(),
            settings,
        };
        let keeper = Self {
            source,
            policy,
            in_force,
            settings,
            clock,
            view: view.clone(),
            offers: Offers::default(),
            wanted: Undescribed::default(),
            first: Some(first),
        };
        let kept = Kept {
            policy: published,
            view,
            first: asked,
        };
        (keeper, kept)
    }

    /// Asks until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&mut self) {
        loop {
            let force = self.policy.borrow_and_update().clone();
            self.want(force.policy.undescribed());
            self.publish(&force);
            for question in self.due() {
                self.ask(question).await;
                self.publish(&force);
            }
            if let Some(first) = self.first.take() {
                // Nobody may wait for it any more.
                let _ = first.send(());
            }
            let next = self.standings().values().map(|standing| standing.due).min();
            let pause = async {
                match next {
                    Some(due) => {
                        let left = due.saturating_sub(self.clock.elapsed());
                        self.clock.sleep(left).await;
                    }
                    None => std::future::pending().await,
                }
            };
            let mut policy = self.policy.clone();
            tokio::select! {
                biased;
                changed = policy.changed() => if changed.is_err() { return std::future::pending().await },
                () = pause => {}
            }
        }
    }

    fn standings(&self) -> std::sync::MutexGuard<'_, Standings> {
        let standings = self.view.standings.lock();
        standings.unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks all anew where something else is wanted.
    fn want(&mut self, wanted: Undescribed) {
        if wanted == self.wanted {
            return;
        }
        let asks = |question: &Question| match question {
            Question::Spot => wanted.spot,
            Question::Types | Question::Zones | Question::OnDemand => !wanted.types.is_empty(),
        };
        let questions = Question::ALL.into_iter().filter(asks);
        *self.standings() = questions
            .map(|question| (question, Standing::default()))
            .collect();
        self.wanted = wanted;
    }

    fn due(&self) -> Vec<Question> {
        let now = self.clock.elapsed();
        let standings = self.standings();
        let due = standings.iter().filter(|(_, standing)| standing.due <= now);
        due.map(|(question, _)| *question).collect()
    }

    async fn ask(&mut self, question: Question) {
        // The time before the call: that is when it was true.
        let at = self.clock.now();
        let answer = self.answer(question, at).await;
        let elapsed = self.clock.elapsed();
        let settings = self.settings;
        let mut standings = self.standings();
        let standing = standings.entry(question).or_default();
        let before = standing.error.take();
        match answer {
            Ok(problems) => {
                *standing = Standing {
                    answered: Some(at),
                    error: refused(&problems),
                    due: elapsed.saturating_add(question.period(&settings)),
                    failures: 0,
                };
            }
            Err(error) => {
                standing.failures = standing.failures.saturating_add(1);
                standing.error = Some(error.to_string());
                let delay = settings.retry.delay(standing.failures, &mut rand::rng());
                standing.due = elapsed.saturating_add(delay);
            }
        }
        if let Some(error) = standing
            .error
            .as_ref()
            .filter(|error| before.as_ref() != Some(*error))
        {
            tracing::warn!(%question, %error, "the market");
        }
    }

    /// Asks one question and takes the answer up; returns what was refused of it.
    async fn answer(&mut self, question: Question, at: Timestamp) -> Result<Vec<String>, MarketError> {
        let (source, wanted) = (&self.source, &self.wanted);
        match question {
            Question::Types => {
                let (types, problems) = check::types(source.types(wanted).await?, wanted)?;
                self.offers.types = types;
                Ok(problems)
            }
            Question::Zones => {
                let (zones, problems) = check::zones(source.zones(wanted).await?, wanted)?;
                self.offers.zones = zones;
                Ok(problems)
            }
            Question::OnDemand => {
                let answer = source.on_demand_prices(wanted).await?;
                let (prices, problems) = check::on_demand(answer, wanted, at)?;
                self.offers.on_demand = prices;
                Ok(problems)
            }
            Question::Spot => {
                let (prices, problems) = check::spot(source.spot_prices(wanted).await?, wanted, at)?;
                self.offers.spot = prices;
                Ok(problems)
            }
        }
    }

    /// Puts the policy with the answers in force, if that makes a difference.
    fn publish(&self, force: &PolicyInForce) {
        let (policy, warnings) = force.policy.with_offers(&self.offers);
        let warnings: Arc<[String]> = warnings.iter().map(ToString::to_string).collect();
        self.in_force.send_if_modified(|current| {
            let same = *current.policy == policy
                && Arc::ptr_eq(&current.text, &force.text)
                && current.warnings == warnings;
            if !same {
                *current = PolicyInForce {
                    policy: Arc::new(policy),
                    text: Arc::clone(&force.text),
                    warnings,
                };
            }
            !same
        });
    }
}

/// The refused entries of an answer as an error.
fn refused(problems: &[String]) -> Option<String> {
    let named: Vec<&str> = problems.iter().take(MOST_NAMED).map(String::as_str).collect();
    let more = problems.len().saturating_sub(named.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    (!named.is_empty()).then(|| format!("refused: {}{more}", named.join(", ")))
}
