//! A fleet that is asked less often while the cloud asks for fewer calls. EC2's quotas of calls belong to the account and
//! the region: whoever goes on at the same pace keeps everybody else from it too.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use smartscale_proto::time::SharedClock;

use super::fleet::{Drift, Fleet, FleetError, Instance, LaunchRequest, Launched, RefusalCause};
use crate::ids::{InstanceId, OperationId};

/// First rest after a throttled call; it doubles with each in a row.
const FIRST_REST: Duration = Duration::from_secs(2);
/// Longest rest.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// A fleet at the pace that the cloud allows. While it rests its calls are throttled at once, without being sent: whoever
/// called asks again later, and may have lost the right to by then.
pub struct Paced {
    fleet: Arc<dyn Fleet>,
    clock: SharedClock,
    pause: Mutex<Pause>,
}

#[derive(Debug, Default)]
struct Pause {
    until: Duration,
    rest: Duration,
}

impl Paced {
    /// The fleet, at such a pace.
    #[must_use]
    pub fn new(fleet: Arc<dyn Fleet>, clock: SharedClock) -> Self {
        Self {
            fleet,
            clock,
            pause: Mutex::default(),
        }
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, FleetError>> + Send,
        is_throttled: impl Fn(&T) -> bool,
    ) -> Result<T, FleetError> {
        let rests_for = self.pause().until.saturating_sub(self.clock.elapsed());
        if !rests_for.is_zero() {
            let words = format!("no call for {:.1} s more", rests_for.as_secs_f64());
            return Err(FleetError::Throttled(words));
        }
        let answer = call.await;
        let throttled = match &answer {
            Ok(answer) => is_throttled(answer),
            Err(FleetError::Throttled(_)) => true,
            // It says nothing about the pace.
            Err(FleetError::Refused(_) | FleetError::Unknown(_)) => return answer,
        };
        let mut pause = self.pause();
        if throttled {
            pause.rest = (pause.rest * 2).clamp(FIRST_REST, LONGEST_REST);
            pause.until = self.clock.elapsed().saturating_add(pause.rest);
        } else {
            pause.rest /= 2;
        }
        drop(pause);
        answer
    }
}

#[async_trait]
impl Fleet for Paced {
    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, FleetError> {
        let throttled = |launched: &Launched| {
            let mut causes = launched.refused.iter().map(|refused| refused.cause);
            causes.any(|cause| cause == RefusalCause::Throttled)
        };
        self.call(self.fleet.launch(request), throttled).await
    }

    async fn find(&self, operation: &OperationId) -> Result<Vec<Instance>, FleetError> {
        self.call(self.fleet.find(operation), |_| false).await
    }

    async fn list(&self) -> Result<Vec<Instance>, FleetError> {
        self.call(self.fleet.list(), |_| false).await
    }

    async fn look(&self, instance: &InstanceId) -> Result<Option<Instance>, FleetError> {
        self.call(self.fleet.look(instance), |_| false).await
    }

    async fn drift(&self) -> Result<Drift, FleetError> {
        self.call(self.fleet.drift(), |_| false).await
    }

    async fn terminate(&self, instances: &[InstanceId]) -> Result<(), FleetError> {
        self.call(self.fleet.terminate(instances), |()| false).await
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use smartscale_proto::time::Clock;

    use super::*;

    /// Throttles as many lists as it is told to.
    #[derive(Default)]
    struct Strict {
        throttles: Mutex<u32>,
        asked: Mutex<u32>,
    }

    #[async_trait]
    impl Fleet for Strict {
        async fn launch(&self, _: &LaunchRequest) -> Result<Launched, FleetError> {
            Ok(Launched::default())
        }
        async fn find(&self, _: &OperationId) -> Result<Vec<Instance>, FleetError> {
            Ok(Vec::new())
        }
        async fn list(&self) -> Result<Vec<Instance>, FleetError> {
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            let mut throttles = self.throttles.lock().unwrap_or_else(PoisonError::into_inner);
            if *throttles == 0 {
                return Ok(Vec::new());
            }
            *throttles -= 1;
            Err(FleetError::Throttled("RequestLimitExceeded".to_owned()))
        }
        async fn look(&self, _: &InstanceId) -> Result<Option<Instance>, FleetError> {
            Ok(None)
        }
        async fn terminate(&self, _: &[InstanceId]) -> Result<(), FleetError> {
            Ok(())
        }
    }

    #[derive(Default)]
    struct Hand(Mutex<Duration>);

    #[async_trait]
    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
        fn elapsed(&self) -> Duration {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
        async fn sleep(&self, _: Duration) {
            std::future::pending::<()>().await;
        }
    }

    #[tokio::test]
    async fn rests_double_while_calls_are_throttled_and_shrink_again() {
        let strict = Arc::new(Strict::default());
        let hand = Arc::new(Hand::default());
        let paced = Paced::new(strict.clone(), hand.clone());
        *strict.throttles.lock().unwrap_or_else(PoisonError::into_inner) = 7;
        let mut sent_at = Vec::new();
        let mut asked = 0;
        for second in 0..400 {
            *hand.0.lock().unwrap_or_else(PoisonError::into_inner) = Duration::from_secs(second);
            if sent_at.len() < 9 {
                let _ = paced.list().await;
            }
            let now = *strict.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if now > asked {
                sent_at.push(second);
                asked = now;
            }
        }
        let rests: Vec<u64> = sent_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(rests, [2, 4, 8, 16, 32, 60, 60, 1]);
        assert_eq!(paced.pause().rest, Duration::from_secs(15));
    }
}
