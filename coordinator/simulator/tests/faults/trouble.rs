//! What happens to a world from outside, as the seed draws it: pods come and go, machines are taken, people order and cordon,
//! coordinators are killed, suspended, cut off and restarted.

use std::{sync::Arc, time::Duration};

use rand::{RngExt as _, rngs::SmallRng, seq::IndexedRandom as _};
use smartscale_coordinator::{
    act::{
        Executor,
        fleet::{Fleet as _, Instance, RefusalCause},
        nodes::Nodes as _,
    },
    serve::admin::{DrainOrder, Orders as _, RecycleOrder},
};
use smartscale_planner::model::NodeName;
use smartscale_proto::{
    time::{Clock as _, within},
    v1,
};
use smartscale_simulator::cloud::Refusal;

use crate::{
    doors::at_once,
    queue::Told,
    scheduler::Owner,
    world::{World, replicas},
};

/// Lets things happen until faults stop; what was refused or cordoned then is free again.
pub(crate) async fn happen(world: Arc<World>) {
    let mut random = world.stream();
    let mut cordoned: Vec<NodeName> = Vec::new();
    let (mut drains, mut outage) = (0, false);
    while world.is_faulty() {
        let pause =
            random.random_range(1..=world.character.pace.as_secs()) * 1_000 - random.random_range(0..1_000);
        world.time.sleep(Duration::from_millis(pause)).await;
        let note = |what: std::fmt::Arguments<'_>| world.trace.note(format_args!("-- {what}"));
        match random.random_range(0..20) {
            0..6 => {
                let (name, wanted) = replicas(random.random_range(0..3), &mut random);
                note(format_args!("{name} is scaled to {wanted}"));
                world.town.cluster.scale(&[(name, wanted)]);
            }
            6 => {
                if let Some(machine) = any(&world, &mut random) {
                    note(format_args!("{} is taken", machine.id));
                    world.ledger.taken(&machine.id);
                    let _ = at_once(world.town.cloud.terminate(std::slice::from_ref(&machine.id)));
                    tell_of(&world, &mut random, &Told::Terminated(machine.id));
                }
            }
            7..9 => {
                if let Some(machine) = any(&world, &mut random) {
                    note(format_args!("{} is announced to be taken", machine.id));
                    world.town.cloud.interrupt(&machine.id);
                    tell_of(&world, &mut random, &Told::Interrupted(machine.id));
                }
            }
            9 => cordon(&world, &mut random, &mut cordoned),
            10 if drains < 3 => {
                drains += 1;
                order(&world, &mut random);
            }
            11 => {
                let refusals = (0..random.random_range(0..3))
                    .map(|_| refusal(&world, &mut random))
                    .collect();
                note(format_args!("offerings refuse: {refusals:?}"));
                world.town.cloud.refuse(refusals);
            }
            12..14 => {
                let seconds = random.random_range(1..30);
                coordinator(&world, &mut random, |number| {
                    world.suspend(number, Duration::from_secs(seconds));
                });
            }
            14..16 => coordinator(&world, &mut random, |number| world.gone(number)),
            16 => coordinator(&world, &mut random, |number| stop(&world, number)),
            17 if !outage && random.random_ratio(1, 3) => {
                outage = true;
                let down = Duration::from_secs(random.random_range(30..100));
                note(format_args!("all coordinators are down for {down:?}"));
                for number in 0..world.character.number {
                    world.gone_for(number, down);
                }
            }
            17..19 => {
                let seconds = random.random_range(2..45);
                coordinator(&world, &mut random, |number| {
                    note(format_args!("c{number} is cut off for {seconds} s"));
                    let until = world.time.elapsed() + Duration::from_secs(seconds);
                    let coordinators = world.coordinators.lock().unwrap();
                    if let Some(running) = coordinators.get(&number) {
                        *running.outside.door.cut_until.lock().unwrap() = until;
                    }
                });
            }
            _ => {
                if let Some(machine) = any(&world, &mut random) {
                    world.agent_gone(machine.id.as_str());
                }
            }
        }
    }
    world.town.cloud.refuse(Vec::new());
}

/// EventBridge sends what happened to the queue: never, once or twice, sooner or later; now and then something else as well.
fn tell_of(world: &World, random: &mut SmallRng, told: &Told) {
    let now = world.time.elapsed();
    let body = told.event(world.time.now());
    for _ in 0..random.random_range(0..3) {
        let delay = Duration::from_millis(random.random_range(0..20_000));
        world.town.queue.send(body.clone(), now + delay);
    }
    if random.random_ratio(1, 4) {
        world.town.queue.send("no event".to_owned(), now);
    }
}

/// One of the machines that are there.
fn any(world: &World, random: &mut SmallRng) -> Option<Instance> {
    let machines = world.machines.lock().unwrap();
    let there: Vec<Instance> = world
        .town
        .cloud
        .instances()
        .into_iter()
        .filter(|(instance, _)| machines.contains_key(&instance.id) && instance.state.is_alive())
        .map(|(instance, _)| instance)
        .collect();
    there.choose(random).cloned()
}

fn coordinator(world: &World, random: &mut SmallRng, act: impl FnOnce(usize)) {
    let numbers: Vec<usize> = world.coordinators.lock().unwrap().keys().copied().collect();
    if let Some(number) = numbers.choose(random) {
        act(*number);
    }
}

/// A rolling restart.
fn stop(world: &Arc<World>, number: usize) {
    let running = world.coordinators.lock().unwrap().get(&number).cloned();
    if let Some(running) = running {
        world
            .trace
            .note(format_args!("-- c{number} is stopped in good order"));
        // As systemd does after its patience: killed if it does not end.
        let world = Arc::clone(world);
        let (clock, handle) = (Arc::clone(&world.time), world.handle.clone());
        handle.spawn(Owner::World, async move {
            let life = running.life;
            if within(&*clock, Duration::from_secs(30), running.stop())
                .await
                .is_some()
            {
                clock.sleep(Duration::from_secs(30)).await;
            }
            let same = world
                .coordinators
                .lock()
                .unwrap()
                .get(&number)
                .is_some_and(|now| now.life == life);
            if same {
                world.gone(number);
            }
        });
    }
}

/// A person cordons a node that takes pods, or takes that back.
fn cordon(world: &World, random: &mut SmallRng, cordoned: &mut Vec<NodeName>) {
    if cordoned.len() >= 2 {
        let node = cordoned.remove(0);
        world.trace.note(format_args!("-- a person uncordons {node}"));
        world.ledger.person(&node, false);
        let _ = at_once(world.town.cluster.uncordon(&node, None));
        return;
    }
    let nodes: Vec<NodeName> = world
        .town
        .cluster
        .model()
        .nodes
        .into_iter()
        .filter(|node| !node.unschedulable)
        .map(|node| node.name)
        .collect();
    if let Some(node) = nodes.choose(random) {
        world.trace.note(format_args!("-- a person cordons {node}"));
        world.ledger.person(node, true);
        let _ = at_once(world.town.cluster.cordon(node, None));
        cordoned.push(node.clone());
    }
}

/// A person orders a drain or a recycle.
fn order(world: &Arc<World>, random: &mut SmallRng) {
    let Some(node) = any(world, random).map(|machine| NodeName::from(machine.id.as_str())) else {
        return;
    };
    let coordinators = world.coordinators.lock().unwrap();
    let Some(leader) = coordinators.values().find(|running| running.term().is_some()) else {
        return;
    };
    let executor: Arc<Executor> = Arc::clone(&leader.executor);
    let owner = Owner::Coordinator(leader.number);
    let (recycle, force) = (random.random_ratio(1, 2), random.random_ratio(1, 2));
    let trace = Arc::clone(&world.trace);
    world.handle.spawn(owner, async move {
        let (reason, by) = (String::new(), "somebody".to_owned());
        let on_timeout = if force {
            v1::OnTimeout::Force
        } else {
            v1::OnTimeout::Abort
        };
        let ordered = if recycle {
            let order = RecycleOrder {
                node: node.clone(),
                reason,
                by,
            };
            executor.recycle(order).await
        } else {
            let order = DrainOrder {
                node: node.clone(),
                timeout: None,
                on_timeout,
                reason,
                by,
            };
            executor.drain(order).await
        };
        trace.note(format_args!(
            "-- ordered for {node}, recycle {recycle}, force {force}: {ordered:?}"
        ));
    });
}

fn refusal(world: &World, random: &mut SmallRng) -> Refusal {
    let pool = &world.town.policy.pools[0];
    let causes = [
        RefusalCause::Capacity,
        RefusalCause::Capacity,
        RefusalCause::Quota,
    ];
    Refusal {
        instance_type: pool.types.choose(random).map(|spec| spec.name.clone()),
        zone: pool.zones.choose(random).cloned(),
        market: None,
        cause: *causes.choose(random).unwrap(),
    }
}
