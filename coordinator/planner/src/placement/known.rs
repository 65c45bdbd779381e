//! Which pods were found alike for the last plan, so that the next one needs to look at new pods only.
//!
//! A class is found by all that filters may ask a pod for, which for many pods is much to read. Whether two pods are
//! alike hangs on the two and on the labels that anybody selects by, on nothing else: as long as these labels stay the
//! same, pods that were alike are alike. The classes themselves are numbered anew for each plan.

use std::{collections::HashSet, sync::Arc};

use super::classes::{ClassId, QuickMap, QuickSet, address};
use crate::model::Pod;

/// Number of a class across plans.
pub(super) type Token = usize;

/// What was found out for earlier plans.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// By the pod's address. The pod is held, so that no other can get this address.
    tokens: QuickMap<usize, (Arc<Pod>, Token)>,
    next: Token,
    /// Labels of pods that were asked for.
    pod_keys: HashSet<Arc<str>>,
}

impl Known {
    /// What is known of each pod.
    pub(super) fn tokens(&self, pods: &[Arc<Pod>]) -> Vec<Option<Token>> {
        let token = |pod: &Arc<Pod>| self.tokens.get(&address(pod)).map(|(_, token)| *token);
        pods.iter().map(token).collect()
    }

    /// Tokens are below this number.
    pub(super) fn most(&self) -> usize {
        self.next
    }

    /// Whether pods that were alike are so where these labels are asked for.
    pub(super) fn holds_for(&self, pod_keys: &QuickSet<&str>) -> bool {
        self.pod_keys.len() == pod_keys.len() && pod_keys.iter().all(|key| self.pod_keys.contains(*key))
    }

    /// Remembers the classes of these pods; `tokens` is what is still true of what was known.
    pub(super) fn learn(
        &mut self,
        pods: &[Arc<Pod>],
        tokens: &[Option<Token>],
        classes: &[ClassId],
        pod_keys: &QuickSet<&str>,
    ) {
        if !self.holds_for(pod_keys) {
            *self = Self {
                pod_keys: pod_keys.iter().map(|key| (*key).into()).collect(),
                ..Self::default()
            };
        }
        let mut of_class: QuickMap<ClassId, Token> = QuickMap::default();
        for (token, class) in tokens.iter().zip(classes) {
            of_class.extend(token.map(|token| (*class, token)));
        }
        let new = pods
            .iter()
            .zip(classes)
            .zip(tokens)
            .filter(|(_, token)| token.is_none());
        for ((pod, class), _) in new {
            let token = *of_class.entry(*class).or_insert_with(|| {
                self.next += 1;
                self.next - 1
            });
            self.tokens.insert(address(pod), (Arc::clone(pod), token));
        }
        // Pods that are gone are let go together, now and then.
        if self.tokens.len() > 2 * pods.len() {
            let present: QuickSet<usize> = pods.iter().map(|pod| address(pod)).collect();
            self.tokens.retain(|address, _| present.contains(address));
        }
    }
}
