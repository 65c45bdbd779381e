//! The hub: takes note of what happened and passes it on, without ever holding up whoever tells.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use smartscale_proto::{backoff::Backoff, time::SharedClock};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Event, Happening, Metrics, Notifier, NotifyError, Severity, Tell,
    desk::{Desk, Manners, Messenger, Patience},
    notifier::Dedupe,
};

/// How far a watching person may fall behind before events are skipped for them.
const WATCH_BACKLOG: usize = 1024;
/// What is still queued at the end has so long to be delivered.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Takes note of what happened. One per coordinator.
pub struct Hub {
    watchers: broadcast::Sender<Arc<Happening>>,
    queues: Vec<Queue>,
    metrics: Metrics,
}

/// Who is told.
#[derive(Clone)]
pub enum Recipient {
    /// Somebody who takes each happening as it comes.
    Each(Arc<dyn Notifier>),
    /// People, in messages, as they want to be told.
    People(Arc<dyn Messenger>, Manners),
}

impl Recipient {
    fn name(&self) -> &'static str {
        match self {
            Self::Each(notifier) => notifier.name(),
            Self::People(messenger, _) => messenger.name(),
        }
    }
}

/// How somebody is told.
pub struct Sink {
    /// Who.
    pub to: Recipient,
    /// What is less severe is not passed on.
    pub least: Severity,
    /// How many happenings may wait; more are dropped and counted.
    pub queue: usize,
    /// How often one is tried before it is dropped and counted.
    pub attempts: u32,
    /// Delays between those attempts.
    pub backoff: Backoff,
    /// The same thing in the same state is passed on once in this time; `None`: always.
    pub dedupe: Option<Duration>,
    /// How often the notifier is flushed; `None`: only at the end.
    pub flush_every: Option<Duration>,
}

impl Sink {
    /// For notifications to people: nothing below `least`, five attempts, the same thing once in ten minutes.
    #[must_use]
    pub fn for_people(notifier: Arc<dyn Notifier>, least: Severity) -> Self {
        Self::to_people(Recipient::Each(notifier), least)
    }

    /// The same in messages.
    #[must_use]
    pub fn for_messages(messenger: Arc<dyn Messenger>, manners: Manners, least: Severity) -> Self {
        Self::to_people(Recipient::People(messenger, manners), least)
    }

    fn to_people(to: Recipient, least: Severity) -> Self {
        Self {
            to,
            least,
            queue: 256,
            attempts: 5,
            backoff: Backoff::DEFAULT,
            dedupe: Some(Duration::from_secs(600)),
            flush_every: None,
        }
    }

    /// For counting: everything, as it comes, flushed every `period`.
    #[must_use]
    pub fn for_counting(notifier: Arc<dyn Notifier>, period: Duration) -> Self {
        Self {
            to: Recipient::Each(notifier),
            least: Severity::Detail,
            queue: 4096,
            attempts: 1,
            backoff: Backoff::DEFAULT,
            dedupe: None,
            flush_every: Some(period),
        }
    }
}

struct Queue {
    name: &'static str,
    least: Severity,
    sender: mpsc::Sender<Arc<Happening>>,
}

impl Hub {
    /// A hub with these sinks, and a courier for each: whoever builds the program runs them.
    #[must_use]
    pub fn new(metrics: Metrics, clock: &SharedClock, sinks: Vec<Sink>) -> (Arc<Self>, Vec<Courier>) {
        let mut queues = Vec::new();
        let mut couriers = Vec::new();
        for sink in sinks {
            let name = sink.to.name();
            metrics.begin_sink(name);
            let (sender, receiver) = mpsc::channel(sink.queue.max(1));
            queues.push(Queue {
                name,
                least: sink.least,
                sender,
            });
            couriers.push(Courier {
                name,
                receiver,
                way: Way::of(sink, &metrics, clock),
                clock: Arc::clone(clock),
            });
        }
        let (watchers, _) = broadcast::channel(WATCH_BACKLOG);
        (
            Arc::new(Self {
                watchers,
                queues,
                metrics,
            }),
            couriers,
        )
    }

    /// Everything from now on, for a person who watches. One who falls behind by a thousand events is told so
    /// (`Lagged`) and goes on with the oldest that is left.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Happening>> {
        self.watchers.subscribe()
    }

    /// The metrics that the hub counts into.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl Tell for Hub {
    fn tell(&self, happening: Happening) {
        log(&happening);
        self.metrics.count(&happening);
        let happening = Arc::new(happening);
        for queue in &self.queues {
            if happening.severity >= queue.least && queue.sender.try_send(Arc::clone(&happening)).is_err() {
                self.metrics.count_dropped(queue.name, 1);
            }
        }
        // An error only says that nobody watches.
        let _ = self.watchers.send(happening);
    }
}

fn log(happening: &Happening) {
    let (kind, subject) = (happening.event.kind(), happening.event.subject());
    let error_type = match &happening.event {
        Event::Operation { error_type, .. } => error_type.as_deref(),
        Event::Trouble { error_type } => Some(error_type.as_str()),
        _ => None,
    };
    let message = &happening.message;
    match happening.severity {
        Severity::Detail => tracing::debug!(kind, subject, error_type, "{message}"),
        Severity::Info => tracing::info!(kind, subject, error_type, "{message}"),
        Severity::Warning => tracing::warn!(kind, subject, error_type, "{message}"),
        Severity::Failure => tracing::error!(kind, subject, error_type, "{message}"),
    }
}

/// Carries happenings to one recipient, in order, with retries.
pub struct Courier {
    name: &'static str,
    receiver: mpsc::Receiver<Arc<Happening>>,
    way: Way,
    clock: SharedClock,
}

enum Way {
    Each(Box<Each>),
    People(Box<Desk>),
}

impl Way {
    fn of(sink: Sink, metrics: &Metrics, clock: &SharedClock) -> Self {
        let dedupe = sink.dedupe.map(Dedupe::new);
        let patience = Patience {
            attempts: sink.attempts.max(1),
            backoff: sink.backoff,
        };
        let (metrics, clock) = (metrics.clone(), Arc::clone(clock));
        match sink.to {
            Recipient::People(messenger, manners) => Self::People(Box::new(Desk::new(
                messenger, manners, dedupe, patience, metrics, clock,
            ))),
            Recipient::Each(notifier) => Self::Each(Box::new(Each {
                notifier,
                dedupe,
                patience,
                flush_every: sink.flush_every,
                metrics,
                clock,
            })),
        }
    }
}

impl Courier {
    /// Who is served.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Carries until `stop`, then delivers what is queued for a last moment.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            name,
            receiver,
            way,
            clock,
        } = self;
        // A sink that hangs holds nobody's end up, whatever it was told last.
        let enough = async {
            stop.cancelled().await;
            clock.sleep(LAST_WORDS).await;
        };
        let carrying = match way {
            Way::Each(each) => each.carry(receiver, &stop).boxed(),
            Way::People(desk) => desk.run(receiver, &stop).boxed(),
        };
        tokio::select! {
            () = carrying => {}
            () = enough => tracing::warn!(sink = name, "stopped with happenings undelivered"),
        }
    }
}

/// Carries each happening as it comes.
struct Each {
    notifier: Arc<dyn Notifier>,
    dedupe: Option<Dedupe>,
    patience: Patience,
    flush_every: Option<Duration>,
    metrics: Metrics,
    clock: SharedClock,
}

impl Each {
    /// Delivers until `stop`, and then what is still queued.
    async fn carry(mut self, mut receiver: mpsc::Receiver<Arc<Happening>>, stop: &CancellationToken) {
        let clock = Arc::clone(&self.clock);
        let mut next_flush = self.flush_every.map(|every| clock.elapsed() + every);
        loop {
            let flush = async {
                match next_flush {
                    Some(at) => clock.sleep(at.saturating_sub(clock.elapsed())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = flush => {
                    self.flush().await;
                    next_flush = self.flush_every.map(|every| clock.elapsed() + every);
                }
                happening = receiver.recv() => match happening {
                    Some(happening) => self.deliver(&happening, stop).await,
                    None => break,
                },
            }
        }
        receiver.close();
        while let Some(happening) = receiver.recv().await {
            self.deliver(&happening, stop).await;
        }
        self.flush().await;
    }

    async fn deliver(&mut self, happening: &Happening, stop: &CancellationToken) {
        if let Some(dedupe) = &mut self.dedupe
            && !dedupe.is_news(happening, self.clock.elapsed())
        {
            return;
        }
        let (name, attempts) = (self.notifier.name(), self.patience.attempts);
        for attempt in 1..=attempts {
            let error = match self.notifier.notify(happening).await {
                Ok(()) => {
                    self.metrics.count_notified(name, true, 1);
                    return;
                }
                Err(error) => error,
            };
            tracing::warn!(sink = name, attempt, %error, kind = happening.event.kind(), "not told");
            if matches!(error, NotifyError::Refused(_)) || attempt == attempts {
                break;
            }
            let delay = self.patience.backoff.delay(attempt, &mut rand::rng());
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.clock.sleep(delay) => {}
            }
        }
        self.metrics.count_notified(name, false, 1);
    }

    async fn flush(&self) {
        if let Err(error) = self.notifier.flush().await {
            tracing::warn!(sink = self.notifier.name(), %error, "not flushed");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use std::sync::Mutex;

    use async_trait::async_trait;
    use jiff::Timestamp;
    use smartscale_proto::time::SystemClock;

    use super::*;

    /// Tokio's paused time as a clock.
    struct Paused(tokio::time::Instant);

    #[async_trait]
    impl smartscale_proto::time::Clock for Paused {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            self.0.elapsed()
        }

        async fn sleep(&self, duration: Duration) {
            tokio::time::sleep(duration).await;
        }
    }

    #[derive(Default)]
    struct Recorder {
        fails: Mutex<Vec<NotifyError>>,
        heard: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Notifier for Recorder {
        fn name(&self) -> &'static str {
            "recorder"
        }

        async fn notify(&self, happening: &Happening) -> Result<(), NotifyError> {
            if let Some(error) = self.fails.lock().unwrap().pop() {
                return Err(error);
            }
            self.heard.lock().unwrap().push(happening.message.clone());
            Ok(())
        }

        async fn flush(&self) -> Result<(), NotifyError> {
            self.heard.lock().unwrap().push("flush".into());
            Ok(())
        }
    }

    fn trouble(message: &str, severity: Severity) -> Happening {
        Happening {
            time: Timestamp::UNIX_EPOCH,
            severity,
            message: message.into(),
            event: Event::Trouble {
                error_type: "test".into(),
            },
        }
    }

    fn hub(recorder: &Arc<Recorder>, change: impl FnOnce(&mut Sink)) -> (Arc<Hub>, Courier) {
        let mut sink = Sink::for_people(Arc::clone(recorder) as _, Severity::Info);
        change(&mut sink);
        let clock: SharedClock = Arc::new(SystemClock);
        let (hub, mut couriers) = Hub::new(Metrics::new("test"), &clock, vec![sink]);
        (hub, couriers.pop().unwrap())
    }

    /// A sink that takes a call and never answers it.
    struct Hanging;

    #[async_trait]
    impl Notifier for Hanging {
        fn name(&self) -> &'static str {
            "hanging"
        }

        async fn notify(&self, _: &Happening) -> Result<(), NotifyError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_never_answers_does_not_hold_the_end_up() {
        let sink = Sink::for_people(Arc::new(Hanging), Severity::Info);
        let clock: SharedClock = Arc::new(Paused(tokio::time::Instant::now()));
        let (hub, mut couriers) = Hub::new(Metrics::new("test"), &clock, vec![sink]);
        let stop = CancellationToken::new();
        let running = tokio::spawn(couriers.pop().unwrap().run(stop.clone()));
        hub.tell(trouble("first", Severity::Warning));
        hub.tell(trouble("second", Severity::Warning));
        // It is in the middle of telling the first.
        tokio::time::sleep(Duration::from_secs(60)).await;
        stop.cancel();
        running.await.unwrap();
        assert_eq!(clock.elapsed(), Duration::from_secs(60) + LAST_WORDS);
    }

    /// Lets the courier deliver all there is.
    async fn deliver(courier: Courier) {
        let stop = CancellationToken::new();
        stop.cancel();
        courier.run(stop).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_small_or_told_already_is_not_passed_on() {
        let recorder = Arc::new(Recorder::default());
        let (hub, courier) = hub(&recorder, |_| {});
        hub.tell(trouble("a", Severity::Warning));
        hub.tell(trouble("a", Severity::Warning));
        hub.tell(trouble("b", Severity::Detail));
        hub.tell(trouble("c", Severity::Failure));
        deliver(courier).await;
        assert_eq!(*recorder.heard.lock().unwrap(), ["a", "c", "flush"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_is_tried_again_and_a_refusal_is_not() {
        let recorder = Arc::new(Recorder::default());
        let passing = NotifyError::Passing("busy".into());
        *recorder.fails.lock().unwrap() = vec![
            NotifyError::Refused("no such topic".into()),
            passing.clone(),
            passing,
        ];
        let (hub, courier) = hub(&recorder, |_| {});
        let task = tokio::spawn(courier.run(CancellationToken::new()));
        hub.tell(trouble("refused after two attempts", Severity::Info));
        hub.tell(trouble("delivered", Severity::Info));
        drop(hub);
        task.await.unwrap();
        assert_eq!(*recorder.heard.lock().unwrap(), ["delivered", "flush"]);
    }

    #[tokio::test(start_paused = true)]
    async fn telling_never_blocks_and_what_is_dropped_is_counted() {
        let recorder = Arc::new(Recorder::default());
        let (hub, courier) = hub(&recorder, |sink| sink.queue = 2);
        for n in 0..5 {
            hub.tell(trouble(&n.to_string(), Severity::Info));
        }
        assert!(
            hub.metrics()
                .encode()
                .contains(r#"smartscale_happenings_dropped_total{sink="recorder"} 3"#),
            "{}",
            hub.metrics().encode()
        );
        deliver(courier).await;
        assert_eq!(*recorder.heard.lock().unwrap(), ["0", "1", "flush"]);
    }

    #[tokio::test(start_paused = true)]
    async fn counters_are_flushed_at_their_interval() {
        let recorder = Arc::new(Recorder::default());
        let (hub, courier) = hub(&recorder, |sink| sink.flush_every = Some(Duration::from_secs(60)));
        let stop = CancellationToken::new();
        let task = tokio::spawn(courier.run(stop.clone()));
        hub.tell(trouble("a", Severity::Info));
        tokio::time::sleep(Duration::from_secs(125)).await;
        stop.cancel();
        task.await.unwrap();
        assert_eq!(*recorder.heard.lock().unwrap(), ["a", "flush", "flush", "flush"]);
    }

    #[tokio::test]
    async fn a_person_who_watches_hears_everything() {
        let recorder = Arc::new(Recorder::default());
        let (hub, _courier) = hub(&recorder, |_| {});
        let mut watch = hub.subscribe();
        hub.tell(trouble("a", Severity::Detail));
        assert_eq!(watch.recv().await.unwrap().message, "a");
    }
}
