//! The steps of a launch: call, then wait until every machine is a Ready node. An attempt of which nothing came is planned
//! anew at once, without what refused it ([`refusal`](super::refusal)).
//!
//! The call's outcome may stay unknown (no answer, or a leader that died between call and journal). Then the
//! machines are looked up by the operation's tag, and the same request is sent again under the same token: the
//! cloud answers a repetition with the first answer.

#[cfg(test)]
mod model;
mod rule;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use smartscale_proto::time::age;

use self::rule::{Joined, Next, Outcome};
use super::{
    binding::{Binding, Verified},
    executor::Executor,
    fleet::{FleetError, Instance, Launched, RefusedOffering},
    journal::{replace, scaled},
    nodes::NodesError,
    operation::{Launch, Operation, Phase},
};
use crate::{
    ids::{Epoch, InstanceId},
    serve::attest,
    state::{
        Attributes, Condition, Item, StoreError, Write,
        records::{NodeRecord, Record as _},
    },
    tell::{ErrorType, Event, Severity},
};

/// So many machines are looked at together.
const LOOKS: usize = 16;

/// How a machine stands that was launched.
enum Look {
    /// It is not a Ready node yet.
    Joining,
    /// The store did not answer.
    Unknown,
    /// It is one; its record.
    Joined(Box<NodeRecord>, Item),
}

impl Executor {
    pub(super) async fn step_launch(&self, operation: Operation, epoch: Epoch) {
        match rule::next(operation.phase) {
            Next::Request => self.request(operation, epoch).await,
            Next::Find => self.request_again(operation, epoch).await,
            Next::Watch => self.join(operation, epoch).await,
            Next::AwaitPlan => self.wait_for_a_plan(operation, epoch).await,
            Next::Nothing => {}
        }
    }

    /// The next plan says what the next attempt asks for. Without any plan it ends: its pods are planned for like others.
    async fn wait_for_a_plan(&self, operation: Operation, epoch: Epoch) {
        if age(operation.updated_at, self.parts.clock.now()) >= self.parts.settings.replan {
            let error = operation.error.clone().unwrap_or_default();
            self.fail(operation, epoch, error, None, Vec::new()).await;
        }
    }

    /// Journals that the call is made, then makes it.
    async fn request(&self, mut operation: Operation, epoch: Epoch) {
        let now = self.parts.clock.now();
        let secret = attest::mint_secret();
        let Some(launch) = operation.launch_mut() else {
            return;
        };
        launch.secret_hash = Some(secret.hash.clone());
        launch.requested_at.get_or_insert(now);
        let mut request = launch.request.clone();
        request.enrolment_secret = Some(secret.text.to_string());
        let note = format!(
            "launching {} in {} ({})",
            request.count, request.zone, request.market
        );
        if operation.advance(Phase::Requesting, now, note).is_err()
            || !self
                .write(epoch, &mut operation, Vec::new(), Attributes::new())
                .await
            || self.term() != Some(epoch)
        {
            return;
        }
        let outcome = self.parts.fleet.launch(&request).await;
        self.launched(operation, epoch, outcome).await;
    }

    /// The call's outcome is not known: looks for what it brought, else makes it again.
    async fn request_again(&self, operation: Operation, epoch: Epoch) {
        // The call is under way in this very process as long as its term lasts; `sent` holds calls that are not.
        let now = self.parts.clock.elapsed();
        let due = {
            let mut sent = self
                .sent
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let wait = std::time::Duration::from_secs(3);
            let due = sent
                .get(&operation.id)
                .is_none_or(|last| now.saturating_sub(*last) >= wait);
            if due {
                sent.insert(operation.id.clone(), now);
            }
            due
        };
        if !due {
            return;
        }
        match self.parts.fleet.find(&operation.id).await {
            Ok(instances) => match rule::found(instances) {
                Some(found) => self.launched(operation, epoch, Ok(found)).await,
                None => self.request(operation, epoch).await,
            },
            Err(error) => tracing::warn!(op = %operation.id, %error, "the launch's outcome is still unknown"),
        }
    }

    async fn launched(&self, operation: Operation, epoch: Epoch, outcome: Result<Launched, FleetError>) {
        let Some(launch) = operation.launch() else {
            return;
        };
        match rule::answered(launch, outcome) {
            Outcome::Exist(launched) => {
                let now = self.parts.clock.now();
                self.record(operation, epoch, launched, now).await;
            }
            Outcome::Refused {
                refused,
                error,
                error_type,
            } => self.refuse(operation, epoch, &refused, error, error_type).await,
            Outcome::Open(error) => tracing::warn!(op = %operation.id, %error, "launch not answered"),
        }
    }

    /// The machines exist: their records are written together with the operation, so that whoever enrols is known.
    async fn record(&self, mut operation: Operation, epoch: Epoch, launched: Launched, now: Timestamp) {
        let Some(request) = operation.launch().map(|launch| launch.request.clone()) else {
            return;
        };
        if let Err(error) = self.refused(epoch, &request, &launched.refused).await {
            tracing::warn!(op = %operation.id, %error, "back-offs were not written");
            return;
        }
        let mut writes = Vec::new();
        let life = self.parts.settings.secret_life;
        let Some(launch) = operation.launch_mut() else {
            return;
        };
        launch.launched_at = Some(now);
        launch.instances.clone_from(&launched.instances);
        for instance in &launched.instances {
            let record = node_record(launch, instance, now.saturating_add(life).ok());
            // A record that is there already is of a machine that has enrolled meanwhile: it stays.
            match self.parts.store.get(&record.key()).await {
                Ok(Some(_)) => {}
                Ok(None) => match record.body() {
                    Ok(body) => writes.push(Write::Put {
                        key: record.key(),
                        body,
                        expires_at: None,
                        condition: Condition::Absent,
                    }),
                    Err(error) => tracing::error!(%error, "a node record has no form"),
                },
                Err(error) => {
                    tracing::warn!(%error, "a node record could not be read");
                    return;
                }
            }
        }
        let names: Vec<&str> = launched
            .instances
            .iter()
            .map(|instance| instance.id.as_str())
            .collect();
        let note = format!("launched {}", names.join(", "));
        if operation.advance(Phase::Joining, now, note).is_ok() {
            self.write(epoch, &mut operation, writes, scaled("scale_up", now))
                .await;
        }
    }

    /// Nothing came of the attempt: what refused it backs off, then the operation waits for the plan that is made now.
    async fn refuse(
        &self,
        mut operation: Operation,
        epoch: Epoch,
        refused: &[RefusedOffering],
        error: String,
        error_type: ErrorType,
    ) {
        let Some(request) = operation.launch().map(|launch| launch.request.clone()) else {
            return;
        };
        if let Err(error) = self.refused(epoch, &request, refused).await {
            tracing::warn!(op = %operation.id, %error, "back-offs were not written");
            return;
        }
        let now = self.parts.clock.now();
        operation.error_type = Some(error_type.into());
        operation.error = Some(error.clone());
        let note = format!("attempt {} was refused: {error}", request.attempt);
        if operation.advance(Phase::Refused, now, note).is_ok()
            && self
                .write(epoch, &mut operation, Vec::new(), Attributes::new())
                .await
        {
            self.ask_for_a_plan();
        }
    }

    async fn fail(
        &self,
        mut operation: Operation,
        epoch: Epoch,
        error: String,
        error_type: Option<ErrorType>,
        writes: Vec<Write>,
    ) {
        let now = self.parts.clock.now();
        // One that was refused before has its class already.
        operation.error_type = error_type.map(Into::into).or_else(|| operation.error_type.take());
        operation.error = Some(error.clone());
        if operation
            .advance(Phase::Failed, now, format!("launch failed: {error}"))
            .is_ok()
        {
            self.write(epoch, &mut operation, writes, Attributes::new()).await;
        }
    }

    /// Waits until every machine is a Ready node; one that is not in time is terminated.
    async fn join(&self, mut operation: Operation, epoch: Epoch) {
        let now = self.parts.clock.now();
        let Some(launch) = operation.launch().cloned() else {
            return;
        };
        let since = launch.requested_at.unwrap_or(operation.created_at);
        let mut ready = launch.ready.clone();
        let mut writes = Vec::new();
        // Who has just begun to lead, or cannot reach the store, must not take what it does not see for missing: the
        // node may be Ready and full of pods by now.
        let mut unknown = self.parts.cluster.latest().value.is_none();
        let mut looks = Vec::new();
        for instance in &launch.instances {
            if !launch.given_up && !launch.ready.contains(&instance.id) {
                looks.push(self.look(instance.id.clone()));
            }
        }
        let looks: Vec<Look> = stream::iter(looks).buffered(LOOKS).collect().await;
        for look in looks {
            match look {
                Look::Joining => {}
                Look::Unknown => unknown = true,
                Look::Joined(record, item) => {
                    ready.push(record.instance.clone());
                    let record = NodeRecord {
                        ready_at: Some(now),
                        boot: self.parts.agents.boot_times(&record.instance),
                        ..*record
                    };
                    // Its agent may renew in this very moment, and what was signed for it stands there.
                    writes.extend(replace(&record, &item));
                }
            }
        }
        // While nobody led no machine could enrol: its time begins anew with the leader's. While its call was not answered
        // there was none.
        let there = launch.launched_at.unwrap_or(since);
        let waited = age(self.leads_since().map_or(there, |leads| leads.max(there)), now);
        let late = waited >= self.parts.settings.ready;
        let to = match rule::joined(&launch, &ready, late && !unknown) {
            Joined::Wait => return,
            Joined::News(to) => to,
            Joined::Over => {
                if let Some(launch) = operation.launch_mut() {
                    launch.ready = ready;
                    launch.given_up = true;
                }
                let note = "not Ready in time: what is missing is terminated";
                if operation.advance(Phase::Joining, now, note).is_ok() {
                    self.write(epoch, &mut operation, writes, Attributes::new()).await;
                }
                return;
            }
            Joined::GiveUp(missing, to) => {
                self.give_up(operation, epoch, &missing, to).await;
                return;
            }
        };
        let joined: Vec<InstanceId> = ready
            .iter()
            .filter(|id| !launch.ready.contains(id))
            .cloned()
            .collect();
        if let Some(launch) = operation.launch_mut() {
            launch.ready = ready;
        }
        writes.extend(self.has_joined(&launch.request.pool).await);
        let names: Vec<&str> = joined.iter().map(InstanceId::as_str).collect();
        let note = format!("{} Ready after {} s", names.join(", "), age(since, now).as_secs());
        if operation.advance(to, now, note).is_ok()
            && self.write(epoch, &mut operation, writes, Attributes::new()).await
        {
            for instance in joined {
                let seconds = age(since, now).as_secs_f64();
                let message = format!("{instance} is a Ready node");
                self.say(Severity::Detail, message, Event::Joined { instance, seconds });
            }
        }
    }

    /// Looks at a machine that has been launched.
    async fn look(&self, instance: InstanceId) -> Look {
        // Most looks are at machines that still boot: the store is asked for none of them.
        let Some(seen) = self.seen(instance.as_str()) else {
            return Look::Joining;
        };
        match self.read_record(&instance).await {
            Err(_) => Look::Unknown,
            Ok(Some((record, _))) if seen.unverified => {
                self.verify(&record).await;
                Look::Joining
            }
            Ok(Some((record, item))) if seen.ready && record.enrolled_at.is_some() => {
                Look::Joined(Box::new(record), item)
            }
            Ok(_) => Look::Joining,
        }
    }

    /// Lifts the startup taint of a node whose machine has enrolled and is trusted, once the node is bound to it
    /// ([`binding`](super::binding)).
    pub(super) async fn verify(&self, record: &NodeRecord) {
        let Some(epoch) = self.term() else { return };
        if record.enrolled_at.is_none() || record.revoked_at.is_some() {
            return;
        }
        let Some(binding) = self.binding_of(record, epoch).await else {
            return;
        };
        let node = record.instance.as_str().into();
        match self.parts.nodes.verify(&node, &binding).await {
            Ok(Verified::Lifted) | Err(NodesError::NoNode(_)) => {}
            Ok(Verified::Unproven { uid }) => {
                let nonce = binding.nonce(&uid);
                if let Err(error) = self.parts.agents.bind_node(&record.instance, &uid, &nonce).await {
                    tracing::debug!(%node, uid, %error, "a node is not bound to its machine yet");
                }
            }
            Err(error) => tracing::warn!(%node, %error, "the startup taint was not lifted"),
        }
    }

    /// What the machine's nonces are made from; minted now for a record of an older version.
    async fn binding_of(&self, record: &NodeRecord, epoch: Epoch) -> Option<Binding> {
        if let Some(secret) = &record.binding_secret {
            return Binding::new(&record.instance, secret);
        }
        let minted = Binding::mint();
        let with_it = async {
            let Some(item) = self.parts.store.get(&record.key()).await? else {
                return Ok(false);
            };
            let mut record = NodeRecord::from_item(&item)?;
            record.binding_secret.get_or_insert_with(|| minted.clone());
            let write = replace(&record, &item)?;
            self.parts
                .store
                .commit(epoch, &[write], &Attributes::new())
                .await
                .map(|()| record.binding_secret.as_ref() == Some(&minted))
        };
        match with_it.await {
            Ok(true) => Binding::new(&record.instance, &minted),
            Ok(false) => None,
            Err(error) => {
                let error: StoreError = error;
                tracing::warn!(%error, instance = %record.instance, "a node's binding was not written: the next look does");
                None
            }
        }
    }

    /// Terminates what is journaled as given up.
    async fn give_up(&self, mut operation: Operation, epoch: Epoch, ids: &[InstanceId], to: Phase) {
        if self.term() != Some(epoch) {
            return;
        }
        if let Err(error) = self.parts.fleet.terminate(ids).await {
            tracing::warn!(op = %operation.id, %error, "machines that did not join were not terminated yet");
            return;
        }
        let mut writes = Vec::new();
        let mut where_it_stopped = Vec::new();
        for id in ids {
            if let Err(error) = self.parts.nodes.delete(&id.as_str().into()).await {
                tracing::warn!(node = %id, %error, "the Node of a machine that did not join stays");
            }
            let step = self
                .parts
                .agents
                .boot_step(id)
                .unwrap_or_else(|| "no word from its agent".to_owned());
            where_it_stopped.push(format!("{id} ({step})"));
            writes.push(Write::Delete {
                key: format!("{}{id}", NodeRecord::PREFIX),
            });
        }
        let Some(launch) = operation.launch() else {
            return;
        };
        let error = format!("not Ready in time, terminated: {}", where_it_stopped.join(", "));
        let missing = launch
            .instances
            .iter()
            .filter(|instance| ids.contains(&instance.id));
        let offerings = missing
            .map(|instance| {
                let Instance {
                    instance_type,
                    zone,
                    market,
                    ..
                } = instance;
                (instance_type.clone(), zone.clone(), *market)
            })
            .collect();
        let pool = &launch.request.pool;
        if let Err(error) = self.did_not_join(epoch, pool, offerings, &error).await {
            tracing::warn!(op = %operation.id, %error, "back-offs were not written");
            return;
        }
        if to == Phase::Failed {
            self.fail(operation, epoch, error, Some(ErrorType::JoinTimeout), writes)
                .await;
            self.ask_for_a_plan();
            return;
        }
        operation.error_type = Some(ErrorType::JoinTimeout.into());
        operation.error = Some(error.clone());
        if operation.advance(to, self.parts.clock.now(), error).is_ok()
            && self.write(epoch, &mut operation, writes, Attributes::new()).await
        {
            self.ask_for_a_plan();
        }
    }

    /// The record of a machine, with the item that holds it. One that makes no sense counts as none.
    pub(super) async fn read_record(
        &self,
        instance: &InstanceId,
    ) -> Result<Option<(NodeRecord, Item)>, StoreError> {
        let key = format!("{}{instance}", NodeRecord::PREFIX);
        let item = self
            .parts
            .store
            .get(&key)
            .await
            .inspect_err(|error| tracing::warn!(%error, "a node record could not be read"))?;
        let read = item
            .map(|item| Ok((NodeRecord::from_item(&item)?, item)))
            .transpose();
        Ok(read.unwrap_or_else(|error: StoreError| {
            tracing::warn!(%error, "a node record cannot be read");
            None
        }))
    }
}

fn node_record(launch: &Launch, instance: &Instance, secret_expires_at: Option<Timestamp>) -> NodeRecord {
    NodeRecord {
        instance: instance.id.clone(),
        pool: launch.request.pool.clone(),
        instance_type: instance.instance_type.clone(),
        zone: instance.zone.clone(),
        market: instance.market,
        operation: launch.request.operation.clone(),
        launched_at: instance.launched_at,
        secret_hash: launch.secret_hash.clone(),
        secret_expires_at,
        enrolled_key: None,
        enrolled_at: None,
        ready_at: None,
        binding_secret: Some(Binding::mint()),
        certified: None,
        revoked_at: None,
        boot: Vec::new(),
    }
}
