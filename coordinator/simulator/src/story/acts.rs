//! The acts.

use std::{collections::BTreeSet, time::Duration};

use smartscale_coordinator::{
    act::operation::{Operation, Phase},
    ids::{InstanceId, OperationId},
    state::records::DecisionRecord,
};
use smartscale_planner::{
    Action, RuleName,
    model::{Market, NodeName},
};

use super::{Story, StoryError, workers};
use crate::{
    load::Demand,
    world::{World, records},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn demand(service: &'static str, full_pods: f64, max: Option<u32>) -> Demand {
    Demand {
        service,
        full_pods,
        max,
    }
}

impl Story {
    /// Two workers with their agents, a leader, and its first decision: nothing.
    pub(super) async fn quiet(&self) -> Result<(), StoryError> {
        let leader = self
            .until("a leader", MINUTE, async |world| {
                Ok(records::leader(&world.store).await?)
            })
            .await?;
        self.say(leader.as_str(), "leads; the other coordinator stands by");
        self.until("two enrolled agents", 2 * MINUTE, async |world| {
            let mut enrolled = 0;
            for node in workers(world) {
                if let Ok(instance) = node.name.as_str().parse()
                    && let Some(record) = records::node(&world.store, &instance).await?
                {
                    enrolled += usize::from(record.enrolled_at.is_some());
                }
            }
            Ok((enrolled == 2).then_some(()))
        })
        .await?;
        self.settled(2 * MINUTE).await?;
        self.until("a reading of the cluster's averages", 4 * MINUTE, async |world| {
            let attributes = world.store.attributes().await?;
            Ok(attributes
                .get("last_cpu_avg")
                .is_some_and(serde_json::Value::is_number)
                .then_some(()))
        })
        .await
    }

    /// Load rises: pods stay pending until nodes come for them.
    pub(super) async fn load(&self) -> Result<(), StoryError> {
        let before = self.operation_ids().await?;
        self.world
            .load
            .set("load", &[demand("web", 9.6, None), demand("api", 2.4, None)]);
        self.until("pending pods", 10 * SECOND, async |world| {
            Ok((world.cluster.pending() > 0).then_some(()))
        })
        .await?;
        let waiting = self.world.cluster.pending();
        self.say("", format!("{waiting} pods find no node"));
        let decision = self
            .decision(
                "a decision to launch for pending pods",
                MINUTE,
                &before,
                |record| {
                    record.plan.action == Action::ScaleUp
                        && record.plan.launch.iter().any(|launch| !launch.pods.is_empty())
                },
            )
            .await?;
        self.finished(&decision.operations, 5 * MINUTE).await?;
        self.settled(2 * MINUTE).await
    }

    /// The workloads are at their maximum and run hot; nothing is pending.
    pub(super) async fn heat(&self) -> Result<(), StoryError> {
        let before = self.operation_ids().await?;
        self.world
            .load
            .set("heat", &[demand("web", 18.4, None), demand("api", 3.6, None)]);
        let decision = self
            .decision("a decision to launch for CPU", 12 * MINUTE, &before, |record| {
                record.plan.action == Action::ScaleUp
            })
            .await?;
        let for_cpu = decision
            .plan
            .rules
            .iter()
            .any(|rule| rule.fired && rule.rule == RuleName::CpuAbove);
        if !for_cpu || decision.plan.launch.iter().any(|launch| !launch.pods.is_empty()) {
            return Err(self.wrong(format!(
                "the launch was for something else: {}",
                decision.plan.summary
            )));
        }
        self.finished(&decision.operations, 5 * MINUTE).await?;
        self.say("", "the new room is used: api may have more pods");
        self.world.load.set("room", &[demand("api", 3.6, Some(7))]);
        self.settled(2 * MINUTE).await
    }

    /// Load falls: one node is emptied, pod after pod as its budgets allow, and goes.
    pub(super) async fn calm(&self) -> Result<(), StoryError> {
        let before = self.operation_ids().await?;
        self.world
            .load
            .set("calm", &[demand("web", 6.0, None), demand("api", 3.6, Some(7))]);
        let decision = self
            .decision("a decision to remove a node", 25 * MINUTE, &before, |record| {
                record.plan.action == Action::ScaleDown
            })
            .await?;
        let Some(removal) = decision.plan.remove.first() else {
            return Err(self.wrong("the decision to scale down names no node"));
        };
        let node = removal.node.clone();
        self.until("the node's cordon", 2 * MINUTE, async |world| {
            let cordoned = workers(world)
                .iter()
                .any(|one| one.name == node && one.unschedulable);
            Ok(cordoned.then_some(()))
        })
        .await?;
        self.until("the end of the removal", 10 * MINUTE, async |world| {
            self.budgets_kept(world)?;
            ended(world, &decision.operations).await
        })
        .await?
        .into_iter()
        .find(|operation| operation.phase != Phase::Done)
        .map_or(Ok(()), |operation| Err(self.wrong(super::line(&operation))))?;
        self.gone(&node).await?;
        self.settled(3 * MINUTE).await
    }

    /// EC2 takes a spot machine back.
    pub(super) async fn spot(&self) -> Result<(), StoryError> {
        let mut spot: Vec<NodeName> = workers(&self.world)
            .into_iter()
            .filter(|node| node.market() == Some(Market::Spot) && node.ready)
            .map(|node| node.name)
            .collect();
        spot.sort();
        let Some(node) = spot.into_iter().next() else {
            return Err(self.wrong("there is no spot machine"));
        };
        let instance: InstanceId = node
            .as_str()
            .parse()
            .map_err(|_| self.wrong(format!("{node} is no instance")))?;
        if !self.world.cloud.interrupt(&instance) {
            return Err(self.wrong(format!("there is no machine {instance}")));
        }
        self.until("the drain by its own agent", 2 * MINUTE, async |world| {
            let model = world.cluster.model();
            let cordoned = model
                .nodes
                .iter()
                .find(|one| one.name == node)
                .is_none_or(|one| one.unschedulable);
            let left = model
                .pods
                .iter()
                .any(|pod| pod.node.as_ref() == Some(&node) && !pod.is_owned_by("DaemonSet"));
            Ok((cordoned && !left).then_some(()))
        })
        .await?;
        self.say(node.as_str(), "is empty before it is taken");
        self.gone(&node).await?;
        self.settled(8 * MINUTE).await
    }

    /// The leader is killed while the machines of its launch boot.
    pub(super) async fn takeover(&self) -> Result<(), StoryError> {
        let before = self.operation_ids().await?;
        self.world
            .load
            .set("again", &[demand("web", 9.6, None), demand("api", 4.2, Some(7))]);
        let operation = self
            .until("a launch under way", 4 * MINUTE, async |world| {
                let operations = records::operations(&world.store).await?;
                Ok(operations.into_iter().find(|operation| {
                    !before.contains(&operation.id)
                        && operation.phase == Phase::Joining
                        && operation
                            .launch()
                            .is_some_and(|launch| !launch.instances.is_empty())
                }))
            })
            .await?;
        let Some(leader) = records::leader(&self.world.store).await? else {
            return Err(self.wrong("nobody leads"));
        };
        let under_way: Vec<OperationId> = records::operations(&self.world.store)
            .await?
            .into_iter()
            .filter(|one| !before.contains(&one.id) && !one.phase.is_end())
            .map(|one| one.id)
            .collect();
        self.world.kill(&leader);
        let next = self
            .until("the standby's term", 2 * MINUTE, async |world| {
                Ok(records::leader(&world.store)
                    .await?
                    .filter(|name| *name != leader))
            })
            .await?;
        self.say(
            next.as_str(),
            format!("leads now and takes {} over", operation.id),
        );
        let finished = self.finished(&under_way, 6 * MINUTE).await?;
        for operation in &finished {
            if operation.takeovers == 0 {
                return Err(self.wrong(format!("{} was not taken over", operation.id)));
            }
            let Some(launch) = operation.launch() else {
                continue;
            };
            let launched: Vec<_> = self
                .world
                .cloud
                .instances()
                .into_iter()
                .filter(|(instance, _)| instance.operation.as_ref() == Some(&operation.id))
                .collect();
            let wanted = usize::try_from(launch.request.count).unwrap_or(usize::MAX);
            if launched.len() != wanted {
                let found = launched.len();
                return Err(self.wrong(format!(
                    "{} has {found} machines, {wanted} were wanted",
                    operation.id
                )));
            }
        }
        self.settled(6 * MINUTE).await
    }

    async fn operation_ids(&self) -> Result<BTreeSet<OperationId>, StoryError> {
        let operations = records::operations(&self.world.store).await?;
        Ok(operations.into_iter().map(|operation| operation.id).collect())
    }

    /// Waits for a decision that was carried out by operations that were not there before.
    async fn decision(
        &self,
        what: &str,
        limit: Duration,
        before: &BTreeSet<OperationId>,
        is_meant: impl Fn(&DecisionRecord) -> bool,
    ) -> Result<DecisionRecord, StoryError> {
        self.until(what, limit, async |world| {
            let decisions = records::decisions(&world.store).await?;
            Ok(decisions.into_iter().find(|record| {
                !record.operations.is_empty()
                    && record.operations.iter().all(|id| !before.contains(id))
                    && is_meant(record)
            }))
        })
        .await
    }

    /// Waits until these operations are done.
    async fn finished(&self, ids: &[OperationId], limit: Duration) -> Result<Vec<Operation>, StoryError> {
        let operations = self
            .until("the end of its operations", limit, async |world| {
                ended(world, ids).await
            })
            .await?;
        match operations.iter().find(|operation| operation.phase != Phase::Done) {
            Some(failed) => Err(self.wrong(super::line(failed))),
            None => Ok(operations),
        }
    }

    /// Waits until a node, its machine and its record are no more.
    async fn gone(&self, node: &NodeName) -> Result<(), StoryError> {
        let instance: InstanceId = node
            .as_str()
            .parse()
            .map_err(|_| self.wrong(format!("{node} is no instance")))?;
        self.until("the end of node and machine", 6 * MINUTE, async |world| {
            let registered = world.cluster.model().nodes.iter().any(|one| one.name == *node);
            let billed = world
                .cloud
                .instances()
                .iter()
                .any(|(one, _)| one.id == instance && one.state.is_alive());
            let recorded = records::node(&world.store, &instance).await?.is_some();
            Ok((!registered && !billed && !recorded).then_some(()))
        })
        .await?;
        self.say(node.as_str(), "is terminated and forgotten");
        Ok(())
    }

    /// Of no service more than one pod is away: that is what its budget promises.
    fn budgets_kept(&self, world: &World) -> Result<(), StoryError> {
        let pods = world.cluster.model().pods;
        for (app, wanted) in world.cluster.replicas() {
            let ready = pods
                .iter()
                .filter(|pod| pod.labels.get("app").is_some_and(|label| **label == *app))
                .filter(|pod| pod.ready && !pod.is_terminating())
                .count();
            if ready + 1 < wanted {
                return Err(self.wrong(format!(
                    "{app} has {ready} of {wanted} pods: its budget was broken"
                )));
            }
        }
        Ok(())
    }
}

/// These operations, once all of them have ended.
async fn ended(world: &World, ids: &[OperationId]) -> Result<Option<Vec<Operation>>, StoryError> {
    let operations: Vec<Operation> = records::operations(&world.store)
        .await?
        .into_iter()
        .filter(|one| ids.contains(&one.id))
        .collect();
    Ok(
        (operations.len() == ids.len() && operations.iter().all(|one| one.phase.is_end()))
            .then_some(operations),
    )
}
