//! What was found out of pods for the last plan, so that the next one needs to look at new pods only.
//!
//! A pod is what its [`Arc`] points to, so what follows from a pod alone is found out once. Whether two pods are alike for
//! every filter hangs on the two and on the labels that anybody selects by, on nothing else: as long as these labels stay
//! the same, pods that were alike are alike. Classes themselves are numbered anew for each plan.

use std::sync::Arc;

use super::classes::{ClassId, QuickMap, QuickSet, address};
use crate::{drainability, model::Pod};

/// Number of a class across plans.
pub(super) type Token = u32;

/// What is known of one pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fact {
    /// Its class, if that is known.
    pub(super) token: Option<Token>,
    /// Number of the name of its node.
    pub(super) node: Option<u32>,
    /// It takes its room at any time: neither finished nor told to go.
    pub(super) stays: bool,
    /// Nothing in it speaks against its eviction, at any time.
    pub(crate) yields: bool,
    pub(super) priority: i32,
}

/// What was found out for earlier plans.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// There will be another plan.
    is_kept: bool,
    /// The cluster's pods, in their order. They are held, so that no other pod can get the address of one.
    pods: Vec<Arc<Pod>>,
    pub(super) facts: Arc<Vec<Fact>>,
    /// Of these pods, by address.
    pub(super) tokens: Arc<QuickMap<usize, Token>>,
    /// Tokens are below this number.
    next: Token,
    /// Names of nodes, numbered.
    pub(super) names: Arc<QuickMap<Arc<str>, u32>>,
    /// Labels of pods that were asked for.
    pod_keys: QuickSet<Arc<str>>,
}

impl Known {
    /// Nothing yet, for one plan after another.
    pub(crate) fn kept() -> Self {
        Self {
            is_kept: true,
            ..Self::default()
        }
    }

    /// Takes note of which pods there are now. What is new has no token yet.
    pub(super) fn update(&mut self, pods: &[Arc<Pod>]) {
        // Numbers of what is gone are given up all together, now and then.
        if self.tokens() + self.names.len() > 2 * pods.len() + 1024 {
            *self = Self {
                is_kept: self.is_kept,
                ..Self::default()
            };
        }
        if !self.is_kept {
            let facts: Vec<Fact> = pods.iter().map(|pod| self.fact(pod)).collect();
            self.facts = Arc::new(facts);
            return;
        }
        // Both are in the order of keys, and of most clusters nearly all of it is as before: only what lies between the
        // first and the last difference is looked at, pod by pod.
        let is_same = |pair: &(&Arc<Pod>, &Arc<Pod>)| Arc::ptr_eq(pair.0, pair.1);
        let start = self.pods.iter().zip(pods).take_while(is_same).count();
        let (old, new) = (&self.pods[start..], &pods[start..]);
        let end = old.iter().rev().zip(new.iter().rev()).take_while(is_same).count();
        let (old, new) = (start..self.pods.len() - end, &new[..new.len() - end]);
        let before = self.pods[old.clone()].iter().cloned();
        let before: Vec<(Arc<Pod>, Fact)> = before.zip(self.facts[old.clone()].iter().copied()).collect();
        let mut before = before.into_iter().peekable();
        let mut gone = Vec::new();
        let mut facts = Vec::with_capacity(new.len());
        for pod in new {
            // Out of order more than necessary is found out anew.
            while let Some((known, _)) =
                before.next_if(|(known, _)| !Arc::ptr_eq(known, pod) && known.key <= pod.key)
            {
                gone.push(known);
            }
            let known = before.next_if(|(known, _)| Arc::ptr_eq(known, pod));
            facts.push(match known {
                Some((_, fact)) => fact,
                None => self.fact(pod),
            });
        }
        gone.extend(before.map(|(pod, _)| pod));
        if !gone.is_empty() {
            let tokens = Arc::make_mut(&mut self.tokens);
            for pod in &gone {
                tokens.remove(&address(pod));
            }
        }
        self.pods.splice(old.clone(), new.iter().cloned());
        Arc::make_mut(&mut self.facts).splice(old, facts);
    }

    fn fact(&mut self, pod: &Pod) -> Fact {
        let node = pod.node.as_ref().map(|name| {
            if let Some(number) = self.names.get(name.as_str()) {
                return *number;
            }
            let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
            Arc::make_mut(&mut self.names).insert(name.shared(), number);
            number
        });
        Fact {
            token: None,
            node,
            stays: !pod.is_finished() && !pod.is_terminating(),
            yields: drainability::always_yields(pod),
            priority: pod.priority,
        }
    }

    /// Gives up what was known of classes unless these are the labels that were asked for then.
    pub(super) fn hold_for(&mut self, pod_keys: &QuickSet<&str>) {
        if self.pod_keys.len() == pod_keys.len() && pod_keys.iter().all(|key| self.pod_keys.contains(*key)) {
            return;
        }
        self.pod_keys = pod_keys.iter().map(|key| (*key).into()).collect();
        let facts = Arc::make_mut(&mut self.facts);
        facts.iter_mut().for_each(|fact| fact.token = None);
        self.tokens = Arc::default();
        self.next = 0;
    }

    /// How many tokens have been given.
    pub(super) fn tokens(&self) -> usize {
        self.next as usize
    }

    /// Gives tokens to the pods that have none yet. `classes` are those of all pods, numbered below `number`.
    pub(super) fn learn(&mut self, pods: &[Arc<Pod>], classes: &[ClassId], number: usize) {
        if self.facts.iter().all(|fact| fact.token.is_some()) {
            return;
        }
        let mut of_class: Vec<Option<Token>> = vec![None; number];
        for (fact, class) in self.facts.iter().zip(classes) {
            of_class[*class] = fact.token.or(of_class[*class]);
        }
        let tokens = Arc::make_mut(&mut self.tokens);
        tokens.reserve(pods.len().saturating_sub(tokens.len()));
        let facts = Arc::make_mut(&mut self.facts);
        for ((pod, fact), class) in pods.iter().zip(facts).zip(classes) {
            if fact.token.is_none() {
                let token = *of_class[*class].get_or_insert_with(|| {
                    self.next += 1;
                    self.next - 1
                });
                fact.token = Some(token);
                tokens.insert(address(pod), token);
            }
        }
    }
}
