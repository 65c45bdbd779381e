//! What a decision takes from the store: published attributes, pause, floor, back-off and stopped pools.

use std::sync::Arc;

use jiff::Timestamp;
use smartscale_planner::{Policy, Snapshot, snapshot::State};

use crate::{
    ids::Epoch,
    observe::snapshot::{self, Going},
    state::{
        SharedStore, StoreError,
        records::{BrakesLifted, Floor, OfferingRecord, Pause, PoolRecord, Record},
    },
};

/// More back-offs than a cluster has offerings.
const MOST_RECORDS: usize = 10_000;

/// What the store says at the moment of a decision.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// For the planner.
    pub state: State,
    /// Nodes that running operations remove.
    pub going: Going,
    /// A floor that a person set and that has not lapsed.
    pub floor: Option<Floor>,
    /// Items that could not be read, as sentences.
    pub warnings: Vec<String>,
    /// The term whose open operations are in it; `None`: nothing may be done after it.
    pub term: Option<Epoch>,
}

impl Standing {
    /// The policy with the floor as its minimum, never above its maximum.
    pub(super) fn apply_floor(&self, policy: &Arc<Policy>) -> Arc<Policy> {
        let Some(floor) = &self.floor else {
            return Arc::clone(policy);
        };
        let mut raised = Policy::clone(policy);
        raised.limits.min_nodes = raised
            .limits
            .min_nodes
            .max(floor.nodes)
            .min(raised.limits.max_nodes);
        Arc::new(raised)
    }
}

/// Reads it.
pub(super) async fn read(store: &SharedStore, now: Timestamp) -> Result<Standing, StoreError> {
    let attributes = store.attributes().await?;
    let (mut state, mut warnings) = snapshot::state_from(&attributes);
    let pause: Option<Pause> = setting(store, &mut warnings).await?;
    state.paused = pause.is_some_and(|pause| pause.until.is_none_or(|until| until > now));
    let lifted: Option<BrakesLifted> = setting(store, &mut warnings).await?;
    if let Some(lifted) = lifted.filter(|lifted| lifted.until > now) {
        warnings.push(format!(
            "{} lifted freezes and the bounds on launches and spending until {:.0}",
            lifted.by, lifted.until
        ));
        state.brakes_lifted_until = Some(lifted.until);
    }
    let floor: Option<Floor> = setting(store, &mut warnings).await?;
    for offering in all::<OfferingRecord>(store, &mut warnings).await? {
        state.backoff.push(offering.backoff);
    }
    for pool in all::<PoolRecord>(store, &mut warnings).await? {
        state.stopped_pools.extend(pool.stopped);
    }
    state.backoff.retain(|backoff| backoff.until > now);
    state.stopped_pools.retain(|stopped| stopped.until > now);
    for stopped in &state.stopped_pools {
        warnings.push(format!(
            "pool {} is stopped until {:.0} or `smartscale resume`: {}",
            stopped.pool, stopped.until, stopped.reason
        ));
    }
    Ok(Standing {
        state,
        going: Going::default(),
        floor: floor.filter(|floor| floor.until > now),
        warnings,
        term: None,
    })
}

/// All records of a kind. Those that cannot be read are passed over and said.
pub(super) async fn all<R: Record>(
    store: &SharedStore,
    warnings: &mut Vec<String>,
) -> Result<Vec<R>, StoreError> {
    newest(store, MOST_RECORDS, warnings).await
}

/// The last records of a kind by their keys, at most so many, the last first.
pub(super) async fn newest<R: Record>(
    store: &SharedStore,
    most: usize,
    warnings: &mut Vec<String>,
) -> Result<Vec<R>, StoreError> {
    let items = store.list(R::PREFIX, true, most).await?;
    let read = items.iter().map(R::from_item);
    Ok(read
        .filter_map(|record| record.map_err(|error| warnings.push(error.to_string())).ok())
        .collect())
}

/// A setting of its own key. One that cannot be read is passed over and said, so that it stops nothing else.
async fn setting<R: Record>(
    store: &SharedStore,
    warnings: &mut Vec<String>,
) -> Result<Option<R>, StoreError> {
    let Some(item) = store.get(R::PREFIX).await? else {
        return Ok(None);
    };
    match R::from_item(&item) {
        Ok(record) => Ok(Some(record)),
        Err(error) => {
            warnings.push(error.to_string());
            Ok(None)
        }
    }
}

/// Our nodes that are registered and not on their way out.
pub(super) fn node_count(snapshot: &Snapshot, policy: &Policy) -> usize {
    let ours =
        |node: &&smartscale_planner::model::Node| policy.pool_of(node).is_some() && !node.being_deleted;
    snapshot.cluster.nodes.iter().filter(ours).count()
}
