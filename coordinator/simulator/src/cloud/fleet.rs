//! The cloud as the coordinator calls it. As on EC2 a client token gives the same answer for the same request and is
//! refused for another one.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use async_trait::async_trait;
use smartscale_coordinator::{
    act::fleet::{Fleet, FleetError, Instance, InstanceState, LaunchRequest, Launched, RefusedOffering},
    ids::{InstanceId, OperationId},
};

use super::{Cloud, offered};
use crate::log::Source;

/// What a client token stands for. The enrolment secret is not part of it.
fn fingerprint(request: &LaunchRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    (
        request.pool.as_str(),
        request.zone.as_str(),
        request.market.as_str(),
        request.count,
    )
        .hash(&mut hasher);
    for name in &request.instance_types {
        name.as_str().hash(&mut hasher);
    }
    hasher.finish()
}

#[async_trait]
impl Fleet for Cloud {
    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, FleetError> {
        let mut state = self.state();
        state.calls += 1;
        let (token, print) = (request.client_token(), fingerprint(request));
        if let Some((known, answer)) = state.tokens.get(&token) {
            if *known != print {
                let refused = "IdempotentParameterMismatch: the client token belongs to another request";
                return Err(FleetError::Refused(refused.to_owned()));
            }
            let mut answer = answer.clone();
            for instance in &mut answer.instances {
                if let Some(entry) = state.instances.get(&instance.id) {
                    instance.state = entry.instance.state;
                }
            }
            return Ok(answer);
        }
        let mut launched = Launched::default();
        for _ in 0..request.count {
            let (chosen, refused) = offered(
                &state.refusals,
                &request.instance_types,
                &request.zone,
                request.market,
            );
            for (instance_type, number) in refused {
                let Some(cause) = state.refusals.get(number).map(|refusal| refusal.cause) else {
                    continue;
                };
                let refusal = RefusedOffering {
                    instance_type: Some(instance_type.clone()),
                    zone: request.zone.clone(),
                    market: request.market,
                    cause,
                    message: "InsufficientInstanceCapacity: refused by the script".to_owned(),
                };
                if !launched.refused.contains(&refusal) {
                    launched.refused.push(refusal);
                }
            }
            let Some(instance_type) = chosen else { break };
            let mut entry = self.machine(
                &mut state,
                &request.pool,
                instance_type,
                &request.zone,
                request.market,
            );
            entry.instance.operation = Some(request.operation.clone());
            entry.secret.clone_from(&request.enrolment_secret);
            self.log.write(
                Source::Cloud,
                "machine_launched",
                entry.instance.id.as_str(),
                format!(
                    "{instance_type} launched in {} ({}, ${:.4}/h)",
                    request.zone, request.market, entry.price
                ),
            );
            launched.instances.push(entry.instance.clone());
            state.instances.insert(entry.instance.id.clone(), entry);
        }
        state.tokens.insert(token, (print, launched.clone()));
        Ok(launched)
    }

    async fn find(&self, operation: &OperationId) -> Result<Vec<Instance>, FleetError> {
        let state = self.state();
        let ours = state
            .instances
            .values()
            .filter(|entry| entry.instance.operation.as_ref() == Some(operation));
        Ok(ours.map(|entry| entry.instance.clone()).collect())
    }

    async fn list(&self) -> Result<Vec<Instance>, FleetError> {
        let state = self.state();
        let all = state.instances.values();
        Ok(all.map(|entry| entry.instance.clone()).collect())
    }

    async fn look(&self, instance: &InstanceId) -> Result<Option<Instance>, FleetError> {
        let state = self.state();
        Ok(state.instances.get(instance).map(|entry| entry.instance.clone()))
    }

    async fn terminate(&self, instances: &[InstanceId]) -> Result<(), FleetError> {
        let now = self.clock.now();
        let mut state = self.state();
        for id in instances {
            let Some(entry) = state
                .instances
                .get_mut(id)
                .filter(|entry| entry.instance.state.is_alive())
            else {
                continue;
            };
            entry.instance.state = InstanceState::ShuttingDown;
            (entry.ended_at, entry.instance.ended_at) = (Some(now), Some(now));
            self.log.write(
                Source::Cloud,
                "machine_terminating",
                id.as_str(),
                "termination ordered",
            );
        }
        Ok(())
    }
}
