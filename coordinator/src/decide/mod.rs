//! Deciding: takes a snapshot, asks the planner, writes the record, and hands the plan to the executor.
//!
//! ```text
//!  period ─┐
//!  nudge  ─┼─▶ gather state ─▶ assemble ─▶ plan ─▶ record ─▶ submit (only the leader, only in mode act)
//!  cluster ┘   (store)          (observe)  (pure)  (store)    (act)
//! ```
//!
//! A burst of pending pods is planned as one: a change of the cluster is answered when it has been quiet for
//! `batch_idle`, at the latest after `batch_most`. A coordinator that does not lead plans all the same, for those
//! who ask it, and neither records nor acts.

mod foresight;
mod record;
mod settings;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::json;
use smartscale_planner::{
    Action, Hold, Plan, Planner, Policy, Snapshot,
    model::{Cluster, NodeName},
    snapshot::State,
};
use smartscale_proto::time::{SharedClock, within};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::foresight::{Foresight, Turned};
pub use self::{foresight::Foreseen, record::cost_change_per_hour, settings::Standing};
use crate::{
    act::{Executor, steering},
    config::Mode,
    ids::{DecisionId, Epoch, SharedIds},
    observe::{
        ClusterView,
        accounts::{self, Accounts},
        notices::{Notice, NoticeKind, board::NoticeBoard},
        snapshot::{self, Going},
        sources::View,
    },
    serve::view::Latest,
    state::{Attributes, SharedStore, StoreError, lease::Leadership},
    tell::{DecisionLog, ErrorType, Event, Grounds, Happening, Severity, SharedTell},
};

/// The policy in force with the text it was read from.
#[derive(Debug, Clone)]
pub struct PolicyInForce {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Its TOML.
    pub text: Arc<str>,
    /// What follows from what the market says and is surely not meant, as sentences.
    pub warnings: Arc<[String]>,
}

/// How often, and how soon after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// A decision at least so often.
    pub period: Duration,
    /// A burst of changes is over when none came for so long,
    pub batch_idle: Duration,
    /// at the latest after this.
    pub batch_most: Duration,
}

/// Where a plan is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// On a thread beside the async runtime: a large cluster may take a while.
    Aside,
    /// Where the loop runs: a simulation whose events come in the same order each time has no other threads.
    Here,
}

/// What a decider works with.
pub struct Parts {
    /// Whether plans are carried out.
    pub mode: Mode,
    /// How often.
    pub pace: Pace,
    /// Where plans are made.
    pub thinking: Thinking,
    /// The clock.
    pub clock: SharedClock,
    /// Where records and settings are kept.
    pub store: SharedStore,
    /// What is observed.
    pub view: View,
    /// Nudges: something in the cluster changed.
    pub cluster: Arc<dyn ClusterView>,
    /// The policy in force.
    pub policy: watch::Receiver<PolicyInForce>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// What EC2 announced.
    pub notices: Arc<NoticeBoard>,
    /// Who carries plans out.
    pub executor: Arc<Executor>,
    /// Who is told.
    pub tell: SharedTell,
    /// Where decisions are kept beside the store; `None`: nowhere.
    pub log: Option<Arc<dyn DecisionLog>>,
    /// Nudges of people.
    pub nudge: Arc<Notify>,
    /// Ids of decisions.
    pub ids: SharedIds,
}

/// The loop that decides.
pub struct Decider {
    parts: Parts,
    latest: watch::Sender<Option<Arc<Latest>>>,
    records: record::Records,
    published: Attributes,
    loaded_for: Option<Epoch>,
    planner: Planner,
    unneeded_since: std::collections::BTreeMap<NodeName, Timestamp>,
    store_failed: bool,
    /// Brakes that hold something.
    brakes: BTreeSet<Hold>,
    foresight: Foresight,
    accounts: Accounts,
}

impl Decider {
    /// A decider and what it publishes after each decision.
    #[must_use]
    pub fn new(parts: Parts) -> (Self, watch::Receiver<Option<Arc<Latest>>>) {
        let (latest, published) = watch::channel(None);
        let decider = Self {
            parts,
            latest,
            records: record::Records::default(),
            published: Attributes::new(),
            loaded_for: None,
            planner: Planner::default(),
            unneeded_since: std::collections::BTreeMap::new(),
            store_failed: false,
            brakes: BTreeSet::new(),
            foresight: Foresight::default(),
            accounts: Accounts::default(),
        };
        (decider, published)
    }

    /// Decides until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.decide().await;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.wait() => {}
            }
        }
    }

    /// Ends when it is time for the next decision.
    async fn wait(&mut self) {
        let Parts {
            pace,
            clock,
            cluster,
            nudge,
            leadership,
            policy,
            executor,
            ..
        } = &mut self.parts;
        tokio::select! {
            biased;
            () = clock.sleep(pace.period) => {}
            () = nudge.notified() => {}
            () = executor.wants_a_plan() => {}
            _ = leadership.changed() => {}
            _ = policy.changed() => {}
            () = cluster.changed() => {
                let settle = async { while within(&**clock, pace.batch_idle, cluster.changed()).await.is_some() {} };
                within(&**clock, pace.batch_most, settle).await;
            }
        }
    }

    async fn decide(&mut self) {
        let began = self.parts.clock.elapsed();
        let standing = match self.standing().await {
            Ok(standing) => {
                self.store_failed = false;
                Some(standing)
            }
            Err(error) => {
                // Without the store nothing can be journaled, so nothing is done; what is seen is still shown.
                if !self.store_failed {
                    self.say(
                        Severity::Warning,
                        format!("decisions hold: {error}"),
                        trouble(ErrorType::Store),
                    );
                }
                self.store_failed = true;
                None
            }
        };
        let now = self.parts.clock.now();
        let force = self.parts.policy.borrow_and_update().clone();
        let mut warnings: Vec<String> = force.warnings.to_vec();
        let (state, policy, going) = match &standing {
            Some(standing) => {
                warnings.extend(standing.warnings.iter().cloned());
                (
                    standing.state.clone(),
                    standing.apply_floor(&force.policy),
                    standing.going.clone(),
                )
            }
            None => {
                warnings.push("the state store does not answer: nothing is done".to_owned());
                (
                    State {
                        paused: true,
                        ..State::default()
                    },
                    Arc::clone(&force.policy),
                    Going::default(),
                )
            }
        };
        let assembled = snapshot::assemble(&self.parts.view, state, &going, now);
        warnings.extend(assembled.warnings());
        let mut snapshot = assembled.snapshot;
        let foreseen = self.look_ahead(&mut snapshot, &policy, now).await;
        let snapshot = Arc::new(snapshot);
        let Some(plan) = self.plan(Arc::clone(&snapshot), Arc::clone(&policy), now).await else {
            return;
        };
        let decision = match standing.as_ref().and_then(|standing| standing.term) {
            Some(term) => self.carry_out(&plan, term, now, began).await,
            None => {
                self.records.forget();
                None
            }
        };
        self.say_brakes(&plan);
        if let Some(standing) = &standing {
            self.publish_attributes(standing, &snapshot, &plan).await;
        }
        let cluster = assembled.sees_cluster.then_some(&snapshot.cluster);
        self.keep_accounts(cluster, &policy).await;
        let latest = Latest {
            at: now,
            snapshot,
            cost_change_per_hour: cost_change_per_hour(&plan),
            plan,
            policy,
            policy_toml: force.text,
            decision,
            of_templates: self.parts.executor.of_templates(),
            warnings,
            foreseen,
            steered: self
                .parts
                .cluster
                .latest()
                .value
                .as_deref()
                .map(steering::marked)
                .unwrap_or_default(),
        };
        self.latest.send_replace(Some(Arc::new(latest)));
    }

    /// Learns what is asked for, and puts what is expected into the snapshot. The leader remembers it for the next one.
    async fn look_ahead(
        &mut self,
        snapshot: &mut Snapshot,
        policy: &Policy,
        now: Timestamp,
    ) -> Option<Foreseen> {
        let demand = self.foresight.look(snapshot, policy, now)?;
        let leads = self.parts.leadership.borrow().may_act(&*self.parts.clock);
        let store = &self.parts.store;
        if let Some(term) = leads
            && let Err(error) = self.foresight.remember(policy, store, term, now).await
        {
            tracing::warn!(%error, "the forecast's history cannot be had from the store");
        }
        let seen = self.foresight.see(&demand, snapshot, policy, now);
        if let Some(term) = leads
            && let Err(error) = self.foresight.write_down(store, term, now).await
        {
            tracing::warn!(%error, "the forecast's history is not in the store");
        }
        let (foreseen, turned) = seen?;
        if leads.is_some() {
            match turned {
                Some(Turned::Off) => self.say(
                    Severity::Warning,
                    "the forecast has been worse than none for a day and raises no floor until it would have been better"
                        .to_owned(),
                    trouble(ErrorType::Forecast),
                ),
                Some(Turned::On) => self.say(
                    Severity::Info,
                    "the forecast would have been better than none again and raises the floor".to_owned(),
                    trouble(ErrorType::Forecast),
                ),
                None => {}
            }
        }
        Some(foreseen)
    }

    /// Accounts what the machines cost, as the leader and whether or not it acts.
    async fn keep_accounts(&mut self, cluster: Option<&Cluster>, policy: &Policy) {
        let Some(term) = self.parts.leadership.borrow().may_act(&*self.parts.clock) else {
            return;
        };
        let fleet = self.parts.view.fleet();
        let seen = accounts::Seen {
            fleet: &fleet,
            cluster,
            policy,
        };
        if let Err(error) = self.accounts.keep(&seen, &self.parts.store, term).await {
            tracing::warn!(%error, "what the machines cost is not in the store");
        }
    }

    /// Plans, as a rule off the async runtime.
    async fn plan(
        &mut self,
        snapshot: Arc<Snapshot>,
        policy: Arc<Policy>,
        now: Timestamp,
    ) -> Option<Arc<Plan>> {
        if self.parts.thinking == Thinking::Here {
            return Some(Arc::new(self.planner.plan(&snapshot, &policy, now)));
        }
        let mut planner = std::mem::take(&mut self.planner);
        let planning = tokio::task::spawn_blocking(move || {
            let plan = planner.plan(&snapshot, &policy, now);
            (planner, plan)
        });
        match planning.await {
            Ok((planner, plan)) => {
                self.planner = planner;
                Some(Arc::new(plan))
            }
            Err(error) => {
                self.say(
                    Severity::Failure,
                    format!("the planner failed: {error}"),
                    trouble(ErrorType::Planner),
                );
                None
            }
        }
    }

    /// Records a decision that was made with the operations of `epoch` and, where that is meant, hands it to the
    /// executor. Only the leader of that very term does either: planning takes a while, and another term's operations
    /// are not in the plan.
    async fn carry_out(
        &mut self,
        plan: &Arc<Plan>,
        epoch: Epoch,
        now: Timestamp,
        began: Duration,
    ) -> Option<DecisionId> {
        let leads = self.parts.leadership.borrow().may_act(&*self.parts.clock);
        if leads != Some(epoch) {
            self.records.forget();
            return None;
        }
        // A launch that was refused hears also that nothing is to be launched any more.
        let acts = self.parts.mode == Mode::Act
            && (plan.action != Action::None || self.parts.executor.awaits_a_plan());
        let states = self.parts.view.states(now);
        let mut entry = self.records.next(plan, now, epoch, self.parts.mode, &states, || {
            self.parts.ids.decision(now)
        });
        if acts {
            // The record is written before its operations, so that no operation lacks its reason.
            self.write(&entry.record).await;
            match self.parts.executor.submit(plan, &entry.record.id, epoch).await {
                Ok(operations) => entry.record.operations = operations,
                Err(error) => {
                    let message = format!("decision {} was not carried out: {error}", entry.record.id);
                    self.say(Severity::Warning, message, trouble(ErrorType::Journal));
                }
            }
        }
        if acts || entry.due {
            self.write(&entry.record).await;
        }
        if let Some(log) = &self.parts.log
            && entry.is_news()
        {
            log.note(&entry.record);
        }
        let id = entry.record.id.clone();
        let severity = if plan.action != Action::None && entry.fresh {
            Severity::Info
        } else {
            Severity::Detail
        };
        let event = Event::Decided {
            decision: id.clone(),
            action: plan.action.to_string(),
            reasons: plan
                .rules
                .iter()
                .filter(|rule| rule.fired)
                .map(|rule| rule.rule.to_string())
                .collect(),
            seconds: self.parts.clock.elapsed().saturating_sub(began).as_secs_f64(),
            grounds: Grounds::of(plan, entry.record.cost_change_per_hour),
            nodes: plan.remove.iter().map(|removal| removal.node.clone()).collect(),
            operations: entry.record.operations.clone(),
        };
        let verb = if self.parts.mode == Mode::Observe && plan.action != Action::None {
            "would act: "
        } else {
            ""
        };
        self.say(severity, format!("{verb}{}", plan.summary), event);
        self.records.keep(entry.record);
        Some(id)
    }

    async fn write(&self, record: &crate::state::records::DecisionRecord) {
        if let Err(error) = record::append(&self.parts.store, record).await {
            self.say(
                Severity::Warning,
                format!("decision {} was not recorded: {error}", record.id),
                trouble(ErrorType::Store),
            );
        }
    }

    /// What the store and the executor know: pause, floor, back-off, operations, since when nodes are unneeded.
    async fn standing(&mut self) -> Result<Standing, StoreError> {
        let epoch = self.parts.leadership.borrow().may_act(&*self.parts.clock);
        if let Some(epoch) = epoch {
            self.parts.executor.begin_term(epoch).await;
        }
        let now = self.parts.clock.now();
        let mut standing = settings::read(&self.parts.store, now).await?;
        standing.term = self
            .parts
            .executor
            .fill(&mut standing.state, &mut standing.going.leaving);
        standing.going.doomed = self.parts.executor.doomed();
        standing.warnings.extend(standing.going.doomed.iter().map(|node| {
            format!("{node} is being taken back or gone: its pods are planned for as if they waited")
        }));
        standing.state.announced = self.parts.notices.announced();
        standing.warnings.extend(
            self.parts
                .notices
                .all()
                .iter()
                .filter(|notice| notice.kind != NoticeKind::SpotInterruption)
                .map(announcement),
        );
        standing.warnings.extend(self.parts.notices.queue_error());
        // The leader's own memory is the newest; a new leader and a follower take what was published.
        if epoch.is_some() && epoch == self.loaded_for {
            standing.state.unneeded_since = self.unneeded_since.clone();
        } else {
            // Another leader may have published other values since.
            self.published.clear();
        }
        self.loaded_for = epoch;
        Ok(standing)
    }

    /// Tells when a brake of the policy begins to hold something, and when it holds it no more.
    fn say_brakes(&mut self, plan: &Plan) {
        let is_brake = |hold: &Hold| matches!(hold, Hold::Freeze | Hold::LaunchRate | Hold::Spending);
        let brakes: BTreeSet<Hold> = plan.held_by.iter().copied().filter(is_brake).collect();
        for brake in brakes.symmetric_difference(&self.brakes) {
            let holds = brakes.contains(brake);
            let what = match brake {
                Hold::Freeze => "a freeze window of the policy",
                Hold::LaunchRate => "limits.max_launches_per_hour",
                _ => "limits.max_usd_per_hour",
            };
            let (severity, message) = match (holds, brake) {
                // It was written down that it comes.
                (true, Hold::Freeze) => (Severity::Info, format!("{what} holds: {}", plan.summary)),
                (true, _) => (Severity::Warning, format!("{what} holds: {}", plan.summary)),
                (false, _) => (Severity::Info, format!("{what} holds nothing any more")),
            };
            let event = Event::Brake {
                brake: brake.to_string(),
                holds,
            };
            self.say(severity, message, event);
        }
        self.brakes = brakes;
    }

    /// Publishes what people and dashboards read, and what a next leader goes on from.
    async fn publish_attributes(&mut self, standing: &Standing, snapshot: &Snapshot, plan: &Plan) {
        self.unneeded_since.clone_from(&plan.unneeded_since);
        let Some(epoch) = self.parts.leadership.borrow().may_act(&*self.parts.clock) else {
            return;
        };
        let average = |rule: smartscale_planner::RuleName| {
            plan.rules
                .iter()
                .find(|candidate| candidate.rule == rule)
                .and_then(|candidate| candidate.value)
        };
        // Tenths are enough for a dashboard, and spare a write whenever only the noise moved.
        let tenths = |value: Option<f64>| value.map(|value| (value * 10.0).round() / 10.0);
        let pending = plan.pods.placed + plan.pods.pending.len();
        let now_true = Attributes::from([
            (
                "cluster_id".to_owned(),
                json!(self.parts.policy.borrow().policy.cluster_id),
            ),
            (
                "node_count".to_owned(),
                json!(settings::node_count(snapshot, &self.parts.policy.borrow().policy)),
            ),
            (
                "last_cpu_avg".to_owned(),
                json!(tenths(average(smartscale_planner::RuleName::CpuAbove))),
            ),
            (
                "last_memory_avg".to_owned(),
                json!(tenths(average(smartscale_planner::RuleName::MemoryAbove))),
            ),
            ("last_pending_pods".to_owned(), json!(pending)),
            ("paused".to_owned(), json!(standing.state.paused)),
            ("unneeded_since".to_owned(), json!(plan.unneeded_since)),
        ]);
        let changed: Attributes = now_true
            .iter()
            .filter(|(key, value)| self.published.get(*key) != Some(*value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if changed.is_empty() {
            return;
        }
        match self.parts.store.commit(epoch, &[], &changed).await {
            Ok(()) => self.published.extend(changed),
            Err(error) => tracing::warn!(%error, "the published attributes were not written"),
        }
    }

    fn say(&self, severity: Severity, message: String, event: Event) {
        self.parts.tell.tell(Happening {
            time: self.parts.clock.now(),
            severity,
            message,
            event,
        });
    }
}

/// What EC2 announced of a machine that is still at work, as a sentence.
fn announcement(notice: &Notice) -> String {
    let since = notice
        .since()
        .map_or_else(String::new, |at| format!(" since {at:.0}"));
    format!(
        "{}: {} (said by {}{since})",
        notice.instance,
        notice.words(),
        notice.sources()
    )
}

fn trouble(error_type: ErrorType) -> Event {
    Event::Trouble {
        error_type: error_type.into(),
    }
}
