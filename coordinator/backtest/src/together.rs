//! Several policies on one history, run at once on the processors there are.
//!
//! ```text
//!   policies with the same pools and limits:   policy · policy · …   thresholds   fixed ─▶ oracle
//!   those with others:                         policy · …            thresholds   fixed ─▶ oracle
//! ```
//! What a policy is compared with depends on its pools and limits and on nothing else of it, so policies that have these in
//! common share it. Results are in the order of the policies, whoever was done first.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZero,
    panic::resume_unwind,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
};

use smartscale_planner::Policy;

use crate::{
    Outcome, Progress, Rehearsal, Rival, Series, TooLarge, Totals, Trace, Workload, progress::Counted,
    series::Minutes,
};

/// What is replayed: one history, by each of several policies.
#[derive(Debug, Clone, Copy)]
pub struct Backtests<'a> {
    /// The history.
    pub trace: &'a Trace,
    /// The policies.
    pub policies: &'a [Policy],
    /// What serves the requests, and where.
    pub workload: &'a Workload,
    /// What chance is derived from; the same in every run.
    pub seed: u64,
    /// Whether runs are kept minute by minute: 3 MB for a month. Without, their series are empty.
    pub keep_series: bool,
}

impl Backtests<'_> {
    /// What follows a run of these.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress::new(self.trace.ticks(), self.policies.len())
    }

    /// Replays the history by every policy and by what they are compared with, as many runs at a time as there are processors.
    /// `progress` follows.
    ///
    /// Each policy's outcome in its place, or [`TooLarge`] where its fleet is.
    pub fn run(&self, rivals: &BTreeSet<Rival>, progress: &Progress) -> Vec<Result<Outcome, TooLarge>> {
        let groups = self.groups();
        let mut runs = Vec::new();
        for (index, members) in groups.iter().enumerate() {
            let group = Arc::new(Group {
                backtests: *self,
                first: members[0],
                rehearsal: OnceLock::new(),
            });
            // The longest first: nobody should have to wait long for what is begun last.
            let mut whats: Vec<What> = members.iter().map(|policy| What::Policy(*policy)).collect();
            if rivals.contains(&Rival::Thresholds) {
                whats.push(What::Thresholds);
            }
            // The oracle is short where the fixed fleet is.
            if rivals.contains(&Rival::Fixed) || rivals.contains(&Rival::Oracle) {
                whats.push(What::FixedAndOracle);
            }
            progress.expect((whats.len() - members.len()) as u64);
            runs.extend(whats.into_iter().map(|what| (index, Arc::clone(&group), what)));
        }
        let done = on_all_processors(runs, |(index, group, what)| (index, group.replay(what, progress)));

        let mut compared = vec![BTreeMap::new(); groups.len()];
        let mut outcomes = BTreeMap::new();
        for (group, done) in done {
            match done {
                Done::Policy(policy, outcome) => {
                    outcomes.insert(policy, (group, outcome));
                }
                Done::Rivals(totals) => compared[group].extend(totals),
            }
        }
        let outcomes = outcomes.into_values().map(|(group, outcome)| {
            let (policy, series) = outcome?;
            let asked = compared[group].iter().filter(|(rival, _)| rivals.contains(rival));
            Ok(Outcome {
                policy,
                rivals: asked.map(|(rival, totals)| (*rival, *totals)).collect(),
                series,
            })
        });
        outcomes.collect()
    }

    /// Indices of policies, those with the same pools and limits together.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (index, policy) in self.policies.iter().enumerate() {
            let is_like = |members: &&mut Vec<usize>| {
                let first = &self.policies[members[0]];
                first.limits == policy.limits && first.pools == policy.pools
            };
            match groups.iter_mut().find(is_like) {
                Some(members) => members.push(index),
                None => groups.push(vec![index]),
            }
        }
        groups
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
enum What {
    /// By the policy of this index.
    Policy(usize),
    Thresholds,
    FixedAndOracle,
}

/// How one run went.
enum Done {
    Policy(usize, Result<(Totals, Series), TooLarge>),
    Rivals(Vec<(Rival, Totals)>),
}

/// Policies with the same pools and limits. What their runs have in common is made by the first of them and is gone with the
/// last: it can be large, and there may be many groups.
struct Group<'a> {
    backtests: Backtests<'a>,
    /// Index of one of the policies.
    first: usize,
    rehearsal: OnceLock<Result<Rehearsal<'a>, TooLarge>>,
}

impl Group<'_> {
    fn replay(&self, what: What, progress: &Progress) -> Done {
        let Backtests {
            trace,
            policies,
            workload,
            seed,
            keep_series,
        } = self.backtests;
        let make = || Rehearsal::new(trace, &policies[self.first], workload, seed);
        let rehearsal = match (self.rehearsal.get_or_init(make), what) {
            (Ok(rehearsal), _) => rehearsal,
            (Err(error), What::Policy(policy)) => return Done::Policy(policy, Err(*error)),
            (Err(_), _) => return Done::Rivals(Vec::new()),
        };
        let mut rival = Counted {
            count: progress.of_rivals(),
            inner: (),
        };
        match what {
            What::Policy(policy) => {
                let count = progress.of_policy(policy);
                let by = &policies[policy];
                let mut minutes = Counted {
                    count,
                    inner: Minutes::new(trace),
                };
                let totals = if keep_series {
                    rehearsal.policy(by, &mut minutes)
                } else {
                    rehearsal.policy(by, &mut Counted { count, inner: () })
                };
                Done::Policy(policy, Ok((totals, minutes.inner.series)))
            }
            What::Thresholds => Done::Rivals(vec![(Rival::Thresholds, rehearsal.thresholds(&mut rival))]),
            What::FixedAndOracle => {
                let fixed = rehearsal.fixed(&mut rival);
                let oracle = rehearsal.oracle(&fixed);
                Done::Rivals(vec![(Rival::Fixed, fixed), (Rival::Oracle, oracle)])
            }
        }
    }
}

/// Does all of `tasks`, on a thread for each processor; the results are in the order of the tasks.
fn on_all_processors<T: Send, R: Send>(tasks: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(tasks.len());
    let queue = Mutex::new(tasks.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let worker = || {
        let mut done = Vec::new();
        while let Some((index, task)) = next() {
            done.push((index, work(task)));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        // This thread is one of them.
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut done = worker();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    const POLICY: &str = "[cluster]\nid = \"c\"\n[limits]\nmin_nodes = 1\nmax_nodes = 10\n
[[pool]]\nname = \"w\"\nzones = [\"us-east-1a\"]\ninstance_types = [\"m\"]\nmax_nodes = 10\n
[[instance_type]]\nname = \"m\"\ncpu = \"1\"\nmemory = \"4Gi\"\non_demand_price = 240.0\n";
    const WORKLOAD: &str = "[workload]\nrequests_per_pod = 10.0\ncpu = \"500m\"\nmemory = \"1Gi\"\n";

    fn policy(sustained: &str, max_nodes: u32) -> Policy {
        let text = POLICY
            .replacen("max_nodes = 10", &format!("max_nodes = {max_nodes}"), 1)
            .replace(
                "[[pool]]",
                &format!("[scale_down]\nwhen = \"fits\"\nsustained = \"{sustained}\"\n[[pool]]"),
            );
        Policy::from_toml(&text).unwrap().0
    }

    fn trace() -> Trace {
        let rows = (0..90).map(|minute| {
            let requests = if minute % 20 < 10 { 80 } else { 5 };
            format!(
                "2026-01-01T{:02}:{:02}:00Z,{requests}\n",
                minute / 60,
                minute % 60
            )
        });
        let text: String = std::iter::once("time,requests\n".to_owned())
            .chain(rows)
            .collect();
        Trace::from_csv(text.as_bytes()).unwrap()
    }

    #[test]
    fn several_policies_come_to_what_each_comes_to_alone_in_their_order() {
        let (trace, workload) = (trace(), Workload::from_toml(WORKLOAD).unwrap());
        let policies = [
            policy("1m", 10),
            policy("10m", 4),
            policy("10m", 10),
            policy("1m", 4),
        ];
        let backtests = Backtests {
            trace: &trace,
            policies: &policies,
            workload: &workload,
            seed: 1,
            keep_series: true,
        };
        let rivals = Rival::ALL.into();
        let together = backtests.run(&rivals, &backtests.progress());
        assert_eq!(together.len(), policies.len());
        for (policy, outcome) in policies.iter().zip(&together) {
            let alone = crate::Backtest {
                trace: &trace,
                policy,
                workload: &workload,
                seed: 1,
            };
            assert_eq!(outcome, &alone.run(&rivals));
        }
        let cost = |index: usize| together[index].as_ref().unwrap().policy.cost_usd;
        assert!(cost(0) < cost(2) && cost(1) != cost(2));
    }

    #[test]
    fn policies_share_what_they_are_compared_with_where_pools_and_limits_are_the_same() {
        let (trace, workload) = (trace(), Workload::from_toml(WORKLOAD).unwrap());
        let policies = [policy("1m", 10), policy("10m", 4), policy("10m", 10)];
        let backtests = Backtests {
            trace: &trace,
            policies: &policies,
            workload: &workload,
            seed: 1,
            keep_series: false,
        };
        assert_eq!(backtests.groups(), [vec![0, 2], vec![1]]);
        let progress = backtests.progress();
        assert_eq!((progress.part(), progress.under_way()), (0.0, vec![]));
        let outcomes = backtests.run(&[Rival::Thresholds].into(), &progress);
        // Three policies, and thresholds twice.
        let runs = progress.of_rivals().load(std::sync::atomic::Ordering::Relaxed) / u64::from(trace.ticks());
        assert_eq!((runs, progress.part(), progress.under_way()), (2, 1.0, vec![]));
        for outcome in outcomes {
            let outcome = outcome.unwrap();
            assert!(outcome.series.minutes.is_empty() && outcome.rivals.len() == 1);
        }
    }

    #[test]
    fn results_are_in_the_order_of_the_tasks_and_a_panic_of_one_is_not_lost() {
        let tasks: Vec<u32> = (0..100).collect();
        let doubled = on_all_processors(tasks.clone(), |task| task * 2);
        assert_eq!(doubled, tasks.iter().map(|task| task * 2).collect::<Vec<_>>());
        assert!(on_all_processors(Vec::<u32>::new(), |task| task).is_empty());
        let failed = std::panic::catch_unwind(|| {
            on_all_processors(vec![1, 2, 3], |task| assert_ne!(task, 2));
        });
        assert!(failed.is_err());
    }
}
