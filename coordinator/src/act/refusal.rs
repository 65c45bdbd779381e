//! What follows from a launch that the cloud refused, or whose machines did not join: offerings back off, pools stop.
//!
//! | cause | what follows |
//! | --- | --- |
//! | capacity, or none that is known | the offering (type, zone, market) backs off: 3 minutes, doubling to 30 |
//! | quota | the same in every zone of the pool, since a quota is the region's; told with the quota's code |
//! | configuration | the pool stops for an hour, or until a person resumes; told |
//! | throttling | nothing: the same call is made again, later |
//! | machines that do not join | their offerings back off; three launches in a row without a Ready node stop the pool |

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use smartscale_planner::{
    model::{InstanceType, Market, PoolName, Zone},
    snapshot::{Backoff, StoppedPool},
};

use super::{
    executor::Executor,
    fleet::{LaunchRequest, RefusalCause, RefusedOffering},
    journal::put,
};
use crate::{
    ids::Epoch,
    state::{
        Attributes, MAX_WRITES, StoreError, Write,
        records::{OfferingRecord, PoolRecord, Record as _},
    },
    tell::{ErrorType, Severity},
};

/// First back-off of an offering, in seconds; it doubles with each refusal in a row.
const FIRST_BACKOFF: i64 = 180;
/// Longest back-off, in seconds.
const LONGEST_BACKOFF: i64 = 1_800;
/// How long a pool stops unless a person resumes before.
const STOPS_FOR: SignedDuration = SignedDuration::from_hours(1);
/// Launches in a row of which no machine joined, until the pool stops.
const MOST_FAILED_JOINS: u32 = 3;
/// More records than a cluster has offerings.
const MOST_OFFERINGS: usize = 10_000;

/// An offering, as back-offs name it.
type Offering = (InstanceType, Zone, Market);

/// The offerings that a refusal speaks of. `zones` are those of the pool.
fn concerned(request: &LaunchRequest, zones: &[Zone], refused: &RefusedOffering) -> Vec<Offering> {
    let types = match &refused.instance_type {
        Some(instance_type) => std::slice::from_ref(instance_type),
        None => request.instance_types.as_slice(),
    };
    let here = std::slice::from_ref(&refused.zone);
    let zones = match refused.cause {
        RefusalCause::Capacity | RefusalCause::Other => here,
        RefusalCause::Quota if zones.is_empty() => here,
        RefusalCause::Quota => zones,
        RefusalCause::Configuration | RefusalCause::Throttled => &[],
    };
    let offerings = zones.iter().flat_map(|zone| {
        let offering = |of: &InstanceType| (of.clone(), zone.clone(), refused.market);
        types.iter().map(offering)
    });
    offerings.collect()
}

/// The next back-off after so many refusals in a row.
fn next(known: Option<&OfferingRecord>, offering: Offering, now: Timestamp) -> OfferingRecord {
    let failures = known.map_or(0, |record| record.failures);
    let seconds = (FIRST_BACKOFF << failures.min(10)).min(LONGEST_BACKOFF);
    let (instance_type, zone, market) = offering;
    OfferingRecord {
        backoff: Backoff {
            instance_type,
            zone,
            market,
            until: now + SignedDuration::from_secs(seconds),
        },
        failures: failures.saturating_add(1),
    }
}

impl Executor {
    /// Lets back off, or stop, what the cloud refused. Whatever the operation does next comes after it.
    ///
    /// # Errors
    /// [`StoreError`] when not all of it was written; it may be repeated.
    pub(super) async fn refused(
        &self,
        epoch: Epoch,
        request: &LaunchRequest,
        refused: &[RefusedOffering],
    ) -> Result<(), StoreError> {
        let zones = self.zones_of(&request.pool);
        let offerings = refused.iter().flat_map(|one| concerned(request, &zones, one));
        let new = self.back_off(epoch, offerings.collect()).await?;
        let quota = refused.iter().find(|one| one.cause == RefusalCause::Quota);
        if let Some(quota) = quota.filter(|_| new) {
            let message = format!(
                "a quota of the account keeps pool {} from growing on {}: {}",
                request.pool, quota.market, quota.message
            );
            self.trouble(Severity::Failure, message, ErrorType::Quota);
        }
        let wrong = refused
            .iter()
            .find(|one| one.cause == RefusalCause::Configuration);
        match wrong {
            Some(wrong) => self.stop_pool(epoch, &request.pool, &wrong.message).await,
            None => Ok(()),
        }
    }

    /// The offerings back off longer than the last time. Returns whether one of them did not before.
    async fn back_off(&self, epoch: Epoch, offerings: BTreeSet<Offering>) -> Result<bool, StoreError> {
        if offerings.is_empty() {
            return Ok(false);
        }
        let now = self.parts.clock.now();
        let items = self
            .parts
            .store
            .list(OfferingRecord::PREFIX, false, MOST_OFFERINGS)
            .await?;
        let known: Vec<OfferingRecord> = items
            .iter()
            .filter_map(|item| OfferingRecord::from_item(item).ok())
            .collect();
        let mut writes: Vec<Write> = Vec::new();
        let mut new = false;
        for offering in offerings {
            let is_same = |record: &&OfferingRecord| {
                let Backoff {
                    instance_type,
                    zone,
                    market,
                    ..
                } = &record.backoff;
                (instance_type, zone, *market) == (&offering.0, &offering.1, offering.2)
            };
            let known = known.iter().find(is_same);
            new |= known.is_none();
            let record = next(known, offering, now);
            // The count of failures in a row is forgotten some time after the back-off.
            let forgotten = record.backoff.until + SignedDuration::from_secs(LONGEST_BACKOFF);
            writes.push(put(&record, Some(forgotten))?);
        }
        for some in writes.chunks(MAX_WRITES) {
            self.parts.store.commit(epoch, some, &Attributes::new()).await?;
        }
        Ok(new)
    }

    /// Machines of a launch did not become Ready nodes: `offerings` back off. After three launches in a row of which none
    /// did, the pool stops.
    ///
    /// # Errors
    /// [`StoreError`] as for [`refused`](Self::refused).
    pub(super) async fn did_not_join(
        &self,
        epoch: Epoch,
        pool: &PoolName,
        offerings: BTreeSet<Offering>,
        where_it_stopped: &str,
    ) -> Result<(), StoreError> {
        self.back_off(epoch, offerings).await?;
        let mut record = self.pool_record(pool).await?;
        record.failed_joins = record.failed_joins.saturating_add(1);
        let writes = [put(&record, None)?];
        self.parts
            .store
            .commit(epoch, &writes, &Attributes::new())
            .await?;
        if record.failed_joins < MOST_FAILED_JOINS {
            return Ok(());
        }
        let reason = format!(
            "{} launches in a row brought no Ready node; the last: {where_it_stopped}",
            record.failed_joins
        );
        self.stop_pool(epoch, pool, &reason).await
    }

    /// The write that forgets that launches of the pool failed, if any did.
    pub(super) async fn has_joined(&self, pool: &PoolName) -> Option<Write> {
        let record = self.pool_record(pool).await.ok()?;
        let forget = record.failed_joins > 0 && record.stopped.is_none();
        forget.then(|| Write::Delete { key: record.key() })
    }

    /// Nothing of the pool is launched for an hour, unless a person resumes before.
    async fn stop_pool(&self, epoch: Epoch, pool: &PoolName, reason: &str) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let mut record = self.pool_record(pool).await?;
        let stopped = record.stopped.take();
        let new = stopped.is_none_or(|stopped| stopped.until <= now);
        record.failed_joins = 0;
        record.stopped = Some(StoppedPool {
            pool: pool.clone(),
            until: now + STOPS_FOR,
            reason: reason.to_owned(),
        });
        let writes = [put(&record, Some(now + STOPS_FOR + STOPS_FOR))?];
        self.parts
            .store
            .commit(epoch, &writes, &Attributes::new())
            .await?;
        if new {
            let message =
                format!("pool {pool} is stopped for an hour, or until `smartscale resume`: {reason}");
            self.trouble(Severity::Failure, message, ErrorType::PoolStopped);
        }
        Ok(())
    }

    async fn pool_record(&self, pool: &PoolName) -> Result<PoolRecord, StoreError> {
        let fresh = PoolRecord {
            pool: pool.clone(),
            failed_joins: 0,
            stopped: None,
        };
        let item = self.parts.store.get(&fresh.key()).await?;
        // One that cannot be read is replaced: it only ever makes us wait.
        Ok(item
            .and_then(|item| PoolRecord::from_item(&item).ok())
            .unwrap_or(fresh))
    }

    fn zones_of(&self, pool: &PoolName) -> Vec<Zone> {
        let policy = self.parts.policy.borrow();
        let pool = policy.policy.pool(pool.as_str());
        pool.map(|pool| pool.zones.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

    use super::*;

    fn request() -> LaunchRequest {
        LaunchRequest {
            operation: "op-1".parse().unwrap(),
            attempt: 1,
            pool: "workers".into(),
            zone: "us-east-1a".into(),
            market: Market::Spot,
            instance_types: vec!["t3.small".into(), "t3.large".into()],
            count: 2,
            enrolment_secret: None,
        }
    }

    fn refusal(cause: RefusalCause, instance_type: Option<&str>) -> RefusedOffering {
        RefusedOffering {
            instance_type: instance_type.map(Into::into),
            zone: "us-east-1a".into(),
            market: Market::Spot,
            cause,
            message: String::new(),
        }
    }

    #[test]
    fn capacity_concerns_one_offering_a_quota_all_zones_and_the_rest_none() {
        let zones = ["us-east-1a".into(), "us-east-1b".into()];
        let offerings = |cause, of| concerned(&request(), &zones, &refusal(cause, of)).len();
        assert_eq!(offerings(RefusalCause::Capacity, Some("t3.small")), 1);
        assert_eq!(offerings(RefusalCause::Capacity, None), 2);
        assert_eq!(offerings(RefusalCause::Quota, Some("t3.small")), 2);
        assert_eq!(offerings(RefusalCause::Quota, None), 4);
        assert_eq!(offerings(RefusalCause::Configuration, None), 0);
        assert_eq!(offerings(RefusalCause::Throttled, None), 0);
    }

    #[test]
    fn back_offs_grow_from_three_minutes_to_thirty() {
        let now = Timestamp::UNIX_EPOCH;
        let mut known: Option<OfferingRecord> = None;
        let minutes: Vec<i64> = (0..6)
            .map(|_| {
                let offering = ("t3.small".into(), "us-east-1a".into(), Market::Spot);
                let record = next(known.as_ref(), offering, now);
                let until = record.backoff.until;
                known = Some(record);
                until.duration_since(now).as_mins()
            })
            .collect();
        assert_eq!(minutes, [3, 6, 12, 24, 30, 30]);
    }
}
