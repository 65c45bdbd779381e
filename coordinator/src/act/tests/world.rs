//! A world in memory that can die after every call.

use super::*;

/// Everything outside, with a log of what was done to it.
#[derive(Default)]
pub(super) struct World {
    pub(super) log: Mutex<Vec<String>>,
    pub(super) instances: Mutex<BTreeMap<InstanceId, Instance>>,
    pub(super) tokens: Mutex<BTreeMap<String, Vec<InstanceId>>>,
    pub(super) objects: Mutex<Objects>,
    pub(super) calls: Mutex<usize>,
    pub(super) lists: Mutex<usize>,
    pub(super) crash_at: Mutex<Option<usize>>,
    pub(super) crashed: Notify,
    pub(super) elapsed: Mutex<Duration>,
    pub(super) ids: Mutex<u64>,
    pub(super) silent: Mutex<bool>,
    pub(super) closed_budget: Mutex<bool>,
    pub(super) pods: Mutex<Vec<PodOnNode>>,
    /// Why each next call of a launch is refused.
    pub(super) refuses: Mutex<Vec<RefusalCause>>,
    /// Until when a volume is attached to every node.
    pub(super) attached_until: Mutex<Duration>,
    /// So many next calls of a launch are not answered, and nothing comes of them.
    pub(super) fails: Mutex<usize>,
    /// Machines do not become nodes.
    pub(super) never_boots: Mutex<bool>,
    /// The next commit takes place, and its answer is lost.
    pub(super) unanswered: Mutex<bool>,
    /// The cloud's list lacks it.
    pub(super) unlisted: Mutex<Option<InstanceId>>,
    /// Agents that speak though the cloud knows nothing of their machines.
    pub(super) speaks: Mutex<BTreeSet<InstanceId>>,
    /// What the cloud says of drift; nothing: it does not answer.
    pub(super) drift: Mutex<Option<Drift>>,
    /// Machines whose agents say that their name is taken.
    pub(super) taken: Mutex<BTreeSet<InstanceId>>,
    /// Right after the next look at a node record its agent's key is another.
    pub(super) renews: Mutex<bool>,
    /// The watch of the cluster has only begun.
    pub(super) blind: Mutex<bool>,
    /// So many next looks at a hand-over find it under way.
    pub(super) handing: Mutex<usize>,
    /// Nobody may hand pods over.
    pub(super) keeps_pods: Mutex<bool>,
    /// What each next patch of a pod comes to; written without one.
    pub(super) priced: Mutex<Vec<Result<Priced, NodesError>>>,
    /// Nonces that agents wrote, by the UID of the node.
    pub(super) nonces: Mutex<BTreeMap<String, String>>,
}

impl World {
    /// Notes a call that took effect; the process may die before it hears of it.
    pub(super) async fn done(&self, what: String) {
        self.log.lock().unwrap().push(what);
        let dies = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            self.crash_at
                .lock()
                .unwrap()
                .take_if(|at| *calls >= *at)
                .is_some()
        };
        if dies {
            self.crashed.notify_one();
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn count(&self, what: &str) -> usize {
        self.log
            .lock()
            .unwrap()
            .iter()
            .filter(|line| line.starts_with(what))
            .count()
    }

    pub(super) fn place(&self, what: &str) -> usize {
        self.log
            .lock()
            .unwrap()
            .iter()
            .position(|line| line.starts_with(what))
            .unwrap()
    }

    /// Registers a Ready node for each machine that has none.
    pub(super) fn boot(&self) {
        if *self.never_boots.lock().unwrap() {
            return;
        }
        for id in self.instances.lock().unwrap().keys() {
            self.register(id.as_str());
        }
    }

    pub(super) fn fall_ill(&self, name: &str) {
        let node = json!({
            "metadata": { "name": name, "labels": { "smartscale.io/pool": "workers" } },
            "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] }
        });
        let node: Node = serde_json::from_value(node).unwrap();
        self.objects.lock().unwrap().apply(node);
    }

    pub(super) fn register(&self, name: &str) {
        self.register_with(name, &[]);
    }

    /// With these labels beside the pool's.
    pub(super) fn register_with(&self, name: &str, more: &[(&str, &str)]) {
        let labels: BTreeMap<&str, &str> = [("smartscale.io/pool", "workers")]
            .iter()
            .chain(more)
            .copied()
            .collect();
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }],
                        "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "110" },
                        "capacity": { "cpu": "2", "memory": "4Gi", "pods": "110" } }
        }))
        .unwrap();
        self.objects.lock().unwrap().apply(node);
    }
}

pub(super) struct Hand(pub(super) Arc<World>);

#[async_trait]
impl Clock for Hand {
    fn now(&self) -> Timestamp {
        fixtures::now() + SignedDuration::try_from(self.elapsed()).unwrap()
    }
    fn elapsed(&self) -> Duration {
        *self.0.elapsed.lock().unwrap()
    }
    async fn sleep(&self, _: Duration) {
        std::future::pending::<()>().await;
    }
}

/// A store that is elsewhere: whatever else is under way goes on while a commit travels, and an answer may get lost.
pub(super) struct Remote(pub(super) SqliteStore, pub(super) Arc<World>);

#[async_trait]
impl StateStore for Remote {
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        self.0.lease().await
    }
    async fn replace_lease(&self, expected: Option<&str>, next: &LeaseRow) -> Result<bool, StoreError> {
        self.0.replace_lease(expected, next).await
    }
    async fn commit(
        &self,
        epoch: Epoch,
        writes: &[Write],
        attributes: &Attributes,
    ) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        self.0.commit(epoch, writes, attributes).await?;
        self.1.done("commit".to_owned()).await;
        if std::mem::take(&mut *self.1.unanswered.lock().unwrap()) {
            return Err(StoreError::Unknown("no answer".to_owned()));
        }
        Ok(())
    }
    async fn append(&self, write: &Write) -> Result<(), StoreError> {
        self.0.append(write).await
    }
    async fn get(&self, key: &str) -> Result<Option<Item>, StoreError> {
        let item = self.0.get(key).await?;
        let record = item.as_ref().filter(|_| key.starts_with(NodeRecord::PREFIX));
        let record = record.map(|item| NodeRecord::from_item(item).unwrap());
        if let Some(mut record) = record.filter(|record| record.enrolled_at.is_some())
            && std::mem::take(&mut *self.1.renews.lock().unwrap())
        {
            record.enrolled_key = Some("renewed".to_owned());
            let write = super::super::journal::put(&record, None).unwrap();
            self.0.append(&write).await.unwrap();
        }
        Ok(item)
    }
    async fn list(&self, prefix: &str, newest_first: bool, limit: usize) -> Result<Vec<Item>, StoreError> {
        self.0.list(prefix, newest_first, limit).await
    }
    async fn attributes(&self) -> Result<Attributes, StoreError> {
        self.0.attributes().await
    }
}

pub(super) struct Counted(pub(super) Arc<World>);

impl IdSource for Counted {
    fn decision(&self, _: Timestamp) -> DecisionId {
        "d-1".parse().unwrap()
    }
    fn operation(&self, _: Timestamp) -> OperationId {
        let mut ids = self.0.ids.lock().unwrap();
        *ids += 1;
        format!("op-{ids}").parse().unwrap()
    }
}

pub(super) struct Quiet;

impl Tell for Quiet {
    fn tell(&self, _: Happening) {}
}

#[async_trait]
impl Fleet for World {
    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, FleetError> {
        let token = request.client_token();
        {
            let mut fails = self.fails.lock().unwrap();
            if *fails > 0 {
                *fails -= 1;
                return Err(FleetError::Unknown("no answer".to_owned()));
            }
        }
        if let Some(cause) = self.refuses.lock().unwrap().pop() {
            let refused = RefusedOffering {
                instance_type: None,
                zone: request.zone.clone(),
                market: request.market,
                cause,
                message: "NoMore: of these".to_owned(),
            };
            self.log.lock().unwrap().push(format!("refuse {token}"));
            return Ok(Launched {
                instances: Vec::new(),
                refused: vec![refused],
            });
        }
        let known = self.tokens.lock().unwrap().get(&token).cloned();
        let ids = known.unwrap_or_else(|| {
            (0..request.count)
                .map(|n| format!("i-{token}-{n}").parse().unwrap())
                .collect::<Vec<InstanceId>>()
        });
        self.tokens.lock().unwrap().insert(token, ids.clone());
        let mut instances = Vec::new();
        for id in ids {
            let instance = Instance {
                id: id.clone(),
                instance_type: request.instance_types[0].clone(),
                zone: request.zone.clone(),
                market: request.market,
                pool: Some(request.pool.clone()),
                operation: Some(request.operation.clone()),
                state: InstanceState::Running,
                launched_at: fixtures::now(),
                ended_at: None,
            };
            self.instances
                .lock()
                .unwrap()
                .entry(id)
                .or_insert_with(|| instance.clone());
            instances.push(instance);
        }
        self.done("launch".to_owned()).await;
        Ok(Launched {
            instances,
            refused: Vec::new(),
        })
    }

    async fn find(&self, operation: &OperationId) -> Result<Vec<Instance>, FleetError> {
        let ours = |instance: &&Instance| instance.operation.as_ref() == Some(operation);
        Ok(self
            .instances
            .lock()
            .unwrap()
            .values()
            .filter(ours)
            .cloned()
            .collect())
    }

    async fn list(&self) -> Result<Vec<Instance>, FleetError> {
        *self.lists.lock().unwrap() += 1;
        let unlisted = self.unlisted.lock().unwrap().clone();
        let listed = |instance: &&Instance| unlisted.as_ref() != Some(&instance.id);
        Ok(self
            .instances
            .lock()
            .unwrap()
            .values()
            .filter(listed)
            .cloned()
            .collect())
    }

    async fn look(&self, instance: &InstanceId) -> Result<Option<Instance>, FleetError> {
        self.log.lock().unwrap().push(format!("look {instance}"));
        Ok(self.instances.lock().unwrap().get(instance).cloned())
    }

    async fn drift(&self) -> Result<Drift, FleetError> {
        self.log.lock().unwrap().push("drift".to_owned());
        let answer = self.drift.lock().unwrap().clone();
        answer.ok_or_else(|| FleetError::Unknown("no answer".to_owned()))
    }

    async fn terminate(&self, instances: &[InstanceId]) -> Result<(), FleetError> {
        for id in instances {
            if let Some(instance) = self.instances.lock().unwrap().get_mut(id) {
                instance.state = InstanceState::Terminated;
            }
            self.done(format!("terminate {id}")).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Nodes for World {
    async fn cordon(&self, node: &NodeName, _: Option<&OperationId>) -> Result<bool, NodesError> {
        self.done(format!("cordon {node}")).await;
        Ok(false)
    }
    async fn uncordon(&self, node: &NodeName, _: Option<&OperationId>) -> Result<(), NodesError> {
        self.done(format!("uncordon {node}")).await;
        Ok(())
    }
    async fn hand_over(&self, node: &NodeName, _: &OperationId) -> Result<HandOver, NodesError> {
        self.done(format!("hand over {node}")).await;
        if *self.keeps_pods.lock().unwrap() {
            return Err(NodesError::Refused("403 forbidden".to_owned()));
        }
        let mut left = self.handing.lock().unwrap();
        Ok(match left.checked_sub(1) {
            None => HandOver::Over,
            Some(fewer) => {
                *left = fewer;
                HandOver::UnderWay(vec!["default/web".to_owned()])
            }
        })
    }
    async fn end_hand_over(&self, node: &NodeName, _: &OperationId) -> Result<(), NodesError> {
        self.done(format!("hand back {node}")).await;
        Ok(())
    }
    async fn pods(&self, _: &NodeName) -> Result<Vec<PodOnNode>, NodesError> {
        // What was evicted before is gone by the next look.
        let mut pods = self.pods.lock().unwrap();
        let seen = pods.clone();
        pods.retain(|pod| !pod.terminating);
        Ok(seen)
    }
    async fn evict(&self, pod: &PodOnNode) -> Result<Eviction, NodesError> {
        if *self.closed_budget.lock().unwrap() {
            return Ok(Eviction::Budget);
        }
        for known in self
            .pods
            .lock()
            .unwrap()
            .iter_mut()
            .filter(|known| known.uid == pod.uid)
        {
            known.terminating = true;
        }
        self.done(format!("evict {}", pod.key)).await;
        Ok(Eviction::Accepted)
    }
    async fn delete_pod(&self, pod: &PodOnNode, _: u32) -> Result<(), NodesError> {
        self.pods.lock().unwrap().retain(|known| known.uid != pod.uid);
        self.done(format!("force {}", pod.key)).await;
        Ok(())
    }
    async fn verify(&self, node: &NodeName, binding: &Binding) -> Result<Verified, NodesError> {
        let uid = format!("uid of {node}");
        let carried = self.nonces.lock().unwrap().get(&uid).cloned();
        if !binding.is_proven(&uid, carried.as_deref()) {
            self.done(format!("look at {node}")).await;
            return Ok(Verified::Unproven { uid });
        }
        self.done(format!("verify {node}")).await;
        Ok(Verified::Lifted)
    }
    async fn leave_balancers(&self, node: &NodeName, _: &OperationId) -> Result<(), NodesError> {
        self.done(format!("leave {node}")).await;
        Ok(())
    }
    async fn rejoin_balancers(&self, node: &NodeName, _: &OperationId) -> Result<(), NodesError> {
        self.done(format!("rejoin {node}")).await;
        Ok(())
    }
    async fn attached(&self, _: &NodeName) -> Result<Vec<String>, NodesError> {
        let until = *self.attached_until.lock().unwrap();
        let attached = *self.elapsed.lock().unwrap() < until;
        Ok(attached.then(|| "pv-1".to_owned()).into_iter().collect())
    }
    async fn out_of_service(&self, node: &NodeName) -> Result<(), NodesError> {
        self.done(format!("taint {node}")).await;
        Ok(())
    }
    async fn free_name(&self, node: &NodeName, since: Timestamp) -> Result<Name, NodesError> {
        self.done(format!("free {node} of before {since}")).await;
        Ok(Name::Freed)
    }
    async fn price(&self, pod: &PodKey, _: &str, cost: Option<i32>) -> Result<Priced, NodesError> {
        self.done(format!("price {pod} {cost:?}")).await;
        self.priced.lock().unwrap().pop().unwrap_or(Ok(Priced::Written))
    }
    async fn delete(&self, node: &NodeName) -> Result<(), NodesError> {
        self.objects
            .lock()
            .unwrap()
            .remove(smartscale_manifests::Kind::Node, "", node.as_str());
        self.done(format!("forget {node}")).await;
        Ok(())
    }
}

#[async_trait]
impl Agents for World {
    fn is_connected(&self, instance: &InstanceId) -> bool {
        !*self.silent.lock().unwrap()
            && (self.instances.lock().unwrap().contains_key(instance)
                || self.speaks.lock().unwrap().contains(instance))
    }
    fn silent_for(&self, _: &InstanceId) -> Option<Duration> {
        None
    }
    async fn drain(
        &self,
        instance: &InstanceId,
        operation: &OperationId,
        _: DrainTerms<'_>,
    ) -> Result<(), NotConnected> {
        self.done(format!("drain {instance} {operation}")).await;
        Ok(())
    }
    async fn abort_drain(&self, _: &InstanceId, _: &OperationId) -> Result<(), NotConnected> {
        Ok(())
    }
    async fn stop_kubelet(&self, instance: &InstanceId, operation: &OperationId) -> Result<(), NotConnected> {
        self.done(format!("stop {instance} {operation}")).await;
        Ok(())
    }
    async fn bind_node(&self, instance: &InstanceId, uid: &str, nonce: &str) -> Result<(), NotConnected> {
        self.nonces
            .lock()
            .unwrap()
            .insert(uid.to_owned(), nonce.to_owned());
        self.done(format!("bind {instance} {uid}")).await;
        Ok(())
    }
    fn drain_report(&self, instance: &InstanceId, operation: &str) -> Option<DrainReport> {
        (self.count(&format!("drain {instance} {operation}")) > 0).then(|| DrainReport {
            phase: DrainPhase::Drained.into(),
            ..Default::default()
        })
    }
    fn kubelet_stopped(&self, instance: &InstanceId, operation: &OperationId) -> bool {
        self.count(&format!("stop {instance} {operation}")) > 0
    }
    fn name_is_taken(&self, instance: &InstanceId) -> bool {
        self.taken.lock().unwrap().contains(instance)
    }
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl ClusterView for World {
    fn latest(&self) -> Observed<Objects> {
        if *self.blind.lock().unwrap() {
            return Observed::default();
        }
        let objects = self.objects.lock().unwrap().clone();
        Observed {
            value: Some(Arc::new(objects)),
            at: Some(fixtures::now() + *self.elapsed.lock().unwrap()),
            error: None,
        }
    }
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}
