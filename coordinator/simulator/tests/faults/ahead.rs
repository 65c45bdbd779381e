//! Nodes that are there before the demand is: by a schedule, and by what a forecast has learnt. Nothing fails here; hours
//! pass as fast as they are computed.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use jiff::SignedDuration;
use smartscale_coordinator::state::records::ForecastHour;
use smartscale_planner::model::{Bytes, MilliCpu, Resources};
use smartscale_proto::time::Clock as _;
use smartscale_simulator::cluster::{Deployment, Template};

use crate::{
    doors::Rates,
    scheduler::Owner,
    town::POLICY,
    world::{Character, Outcome, World},
};

/// The service's pods when little is asked for: they fit on the two nodes that there always are.
pub(crate) const FEW: u32 = 4;
/// And when much is: seven nodes.
pub(crate) const MANY: u32 = 20;

/// Plays a script in a world of one coordinator, and gives what it says at its end.
pub(crate) fn rehearse<F, T>(policy: &str, script: impl FnOnce(Arc<World>) -> F) -> T
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let calm = Rates {
        faults: 0,
        crashes: 0,
    };
    let character = Character {
        number: 1,
        machines: 2,
        coordinators: calm,
        agents: calm,
        ahead: [SignedDuration::ZERO; 3],
        until: Duration::ZERO,
        pace: Duration::ZERO,
    };
    let (scheduler, world, machines) = World::new(7, policy, None, character, false);
    let requests = Resources {
        cpu: MilliCpu(500),
        memory: Bytes(300 << 20),
        ..Resources::default()
    };
    let web = Deployment::new("shop", "web", FEW, Template::new(requests));
    world.town.cluster.apply_deployment(web);
    world.begin(machines);
    let said = Arc::new(Mutex::new(None));
    let (playing, says) = (script(Arc::clone(&world)), Arc::clone(&said));
    let stage = Arc::clone(&world);
    world.handle.spawn(Owner::World, async move {
        *says.lock().unwrap() = Some(playing.await);
        stage.at_rest.store(true, Ordering::Relaxed);
    });
    let Outcome { violation, tail, .. } = world.end(scheduler);
    assert_eq!(violation, None, "{}", tail.join("\n"));
    said.lock().unwrap().take().unwrap()
}

impl World {
    pub(crate) fn want(&self, pods: u32) {
        self.town.cluster.scale(&[("web", pods)]);
    }

    pub(crate) async fn until(&self, minutes: u64) {
        let moment = Duration::from_secs(60 * minutes);
        self.time.sleep(moment.saturating_sub(self.time.elapsed())).await;
    }

    /// Nodes that take pods.
    fn ready(&self) -> usize {
        let nodes = self.town.cluster.model().nodes;
        let takes_pods = |node: &&_| {
            let node: &smartscale_planner::model::Node = node;
            node.ready && !node.unschedulable && node.taints.is_empty()
        };
        nodes.iter().filter(takes_pods).count()
    }

    /// How many pods have no node a few seconds after so many are wanted.
    async fn wait_when_wanted(&self, pods: u32) -> usize {
        self.want(pods);
        self.time.sleep(Duration::from_secs(5)).await;
        self.town.cluster.pending()
    }
}

/// The policy with more in it.
fn policy(more: &str) -> String {
    format!("{POLICY}\n{more}")
}

/// At a quarter past nine much is asked for, and half an hour later little.
async fn a_peak_that_people_know_of(world: Arc<World>) -> (usize, usize, usize) {
    world.until(15).await;
    let before = world.ready();
    let waiting = world.wait_when_wanted(MANY).await;
    world.until(45).await;
    world.want(FEW);
    world.until(60).await;
    (before, waiting, world.ready())
}

#[test]
fn by_a_schedule_nodes_are_there_before_the_peak_and_go_after_it() {
    let (before, waiting, after) = rehearse(POLICY, a_peak_that_people_know_of);
    assert!(before == 2 && waiting > 0, "without one: {before}, {waiting}");
    assert_eq!(after, 2);
    let schedule = "[[schedule]]\nname = \"peak\"\ncron = \"15 9 * * *\"\nduration = \"30m\"\nlead = \"5m\"\nmin_nodes = 7";
    let (before, waiting, after) = rehearse(&policy(schedule), a_peak_that_people_know_of);
    assert_eq!((before, waiting, after), (7, 0, 2));
}

/// Much is asked for at the beginning of every hour, for five minutes: how many pods wait then, hour by hour. At ten minutes to
/// hour `killed` the coordinator dies with all that it remembers.
async fn peaks_at_each_hour(world: Arc<World>, hours: u64, killed: u64) -> Vec<usize> {
    let mut waiting = Vec::new();
    for hour in 1..=hours {
        if hour == killed {
            world.until(60 * hour - 10).await;
            world.gone_for(0, Duration::from_secs(20));
        }
        world.until(60 * hour).await;
        waiting.push(world.wait_when_wanted(MANY).await);
        world.until(60 * hour + 5).await;
        world.want(FEW);
    }
    waiting
}

#[test]
fn by_the_forecast_nodes_are_there_before_what_comes_every_hour_and_a_new_leader_knows_it_too() {
    let forecast = policy("[forecast]\nenabled = true");
    let waiting = rehearse(&forecast, |world| peaks_at_each_hour(world, 16, 15));
    assert!(waiting[..3].iter().all(|pods| *pods > 0), "{waiting:?}");
    assert!(waiting[13..].iter().all(|pods| *pods == 0), "{waiting:?}");
    let without = rehearse(POLICY, |world| peaks_at_each_hour(world, 3, 0));
    assert!(without.iter().all(|pods| *pods > 0), "{without:?}");
}

/// Pods stay as many as they are, and what they use wanders: what is expected of it never comes. In which minute it was said that
/// the forecast is worse than none, and whether room was kept in the hours before and is in the half one after.
async fn use_that_wanders(world: Arc<World>) -> (Option<u64>, bool, bool) {
    let (mut said, mut before, mut after) = (None, false, false);
    for minute in 0..27 * 60 {
        world.until(minute).await;
        // What pods are made for is learnt while they become more.
        let grown = u32::try_from(minute).unwrap().min(MANY - FEW);
        if minute <= 20 {
            world.want(FEW + grown);
        } else {
            let busy = 30 + u32::try_from(minute * 7919 % 61).unwrap();
            world.busy.store(busy, Ordering::Relaxed);
        }
        let latest = world.coordinators.lock().unwrap()[&0].latest.borrow().clone();
        let room = latest
            .and_then(|latest| latest.snapshot.state.expected)
            .is_some_and(|room| room.pods > 0);
        let words = "the forecast has been worse than none for a day";
        if said.is_none() && world.trace.tail().iter().any(|line| line.contains(words)) {
            said = Some(minute);
        }
        match said {
            None => before |= room,
            Some(said) if minute > said + 30 => break,
            Some(said) => after |= room && minute > said + 1,
        }
    }
    (said, before, after)
}

#[test]
fn a_forecast_that_is_worse_than_none_for_a_day_says_so_and_keeps_no_room_any_more() {
    let forecast = policy("[forecast]\nenabled = true");
    let (said, before, after) = rehearse(&forecast, use_that_wanders);
    assert!(said.is_some_and(|minute| minute >= 24 * 60), "{said:?}");
    assert!(before && !after, "{before} {after} at {said:?}");
}

#[test]
fn what_was_asked_for_is_written_down_by_the_hour() {
    let hours = rehearse(POLICY, async |world: Arc<World>| {
        world.until(3 * 60 + 5).await;
        world.town.records::<ForecastHour>()
    });
    assert_eq!(hours.len(), 3);
    let of_pods = |minute: &Option<u32>| *minute == Some(500 * FEW);
    assert!(
        hours[1..]
            .iter()
            .all(|hour| hour.hour.minutes.iter().all(of_pods)),
        "{hours:?}"
    );
}
