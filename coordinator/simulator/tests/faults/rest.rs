//! The end of a world: when faults have stopped, it must come to rest.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use smartscale_coordinator::{
    act::{fleet::InstanceState, operation::Operation},
    state::records::NodeRecord,
};
use smartscale_planner::model::NodeName;
use smartscale_proto::time::Clock as _;

use crate::world::World;

/// After the last fault the world has so long to come to rest.
const REST: Duration = Duration::from_secs(900);

/// Waits for the world to come to rest once faults have stopped.
pub(crate) async fn come(world: Arc<World>) {
    world.time.sleep(world.character.until).await;
    world.trace.note(format_args!("no fault any more"));
    let end = world.time.elapsed() + REST;
    loop {
        world.time.sleep(Duration::from_secs(5)).await;
        let wrong = world.restless();
        if wrong.is_empty() {
            world.at_rest.store(true, Ordering::Relaxed);
        } else if world.time.elapsed() >= end {
            world.ledger.violated(format!(
                "not at rest {REST:?} after the last fault: {}",
                wrong.join("; ")
            ));
        }
    }
}

impl World {
    /// What is not as it should be when nothing happens any more.
    fn restless(&self) -> Vec<String> {
        let town = &self.town;
        let mut wrong = Vec::new();
        let records: BTreeMap<NodeName, NodeRecord> = town
            .records::<NodeRecord>()
            .into_iter()
            .map(|record| (NodeName::from(record.instance.as_str()), record))
            .collect();
        let alive: BTreeMap<NodeName, InstanceState> = town
            .cloud
            .instances()
            .into_iter()
            .filter(|(instance, _)| instance.state.is_alive())
            .map(|(instance, _)| (NodeName::from(instance.id.as_str()), instance.state))
            .collect();
        let nodes: BTreeMap<NodeName, bool> = town
            .cluster
            .model()
            .nodes
            .into_iter()
            .map(|node| (node.name, node.ready))
            .collect();
        for operation in town.records::<Operation>() {
            if !operation.phase.is_end() {
                let what = (operation.what.as_str(), operation.phase.as_str());
                wrong.push(format!("operation {} is open: {what:?}", operation.id));
            }
        }
        for (name, state) in &alive {
            if !records.contains_key(name) {
                wrong.push(format!("machine {name} ({state:?}) has no record"));
            }
            match nodes.get(name) {
                None => wrong.push(format!("machine {name} ({state:?}) has no Node")),
                Some(false) => wrong.push(format!("the Node of machine {name} is not Ready")),
                Some(true) => {}
            }
        }
        for name in records
            .keys()
            .chain(nodes.keys())
            .filter(|name| !alive.contains_key(*name))
        {
            wrong.push(format!("{name} has a record or a Node and no machine"));
        }
        let messages = town.queue.left();
        if messages > 0 {
            wrong.push(format!("{messages} messages are in the queue"));
        }
        let pending = town.cluster.pending();
        if pending > 0 {
            wrong.push(format!("{pending} pods are pending"));
        }
        wrong
    }
}
