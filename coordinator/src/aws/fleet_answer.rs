//! What EC2 answers, in the fleet's terms.

use aws_sdk_ec2::{
    operation::create_fleet::CreateFleetOutput,
    types::{
        self, InstanceLifecycle, InstanceLifecycleType, InstanceStateName, LaunchTemplateAndOverridesResponse,
    },
};
use jiff::Timestamp;
use smartscale_planner::model::{InstanceType, Market, Zone};

use super::{super::failure::is_throttling, tag};
use crate::act::fleet::{
    FleetError, Instance, InstanceState, LaunchRequest, Launched, RefusalCause, RefusedOffering,
};

/// Why an offering refused, by EC2's code:
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>.
pub(super) fn cause(code: &str) -> RefusalCause {
    match code {
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientReservedInstanceCapacity"
        | "InsufficientCapacity"
        | "InsufficientFreeAddressesInSubnet"
        | "UnfulfillableCapacity"
        | "SpotMaxPriceTooLow"
        // The type is not to be had in that zone: no fault of the pool, and only a back-off keeps it from being
        // chosen again at once.
        | "Unsupported" => RefusalCause::Capacity,
        "VcpuLimitExceeded"
        | "InstanceLimitExceeded"
        | "MaxSpotInstanceCountExceeded"
        | "MaxFleetCountExceeded"
        | "VolumeLimitExceeded"
        | "MaxIOPSLimitExceeded" => RefusalCause::Quota,
        "UnauthorizedOperation"
        | "AuthFailure"
        | "AccessDenied"
        | "OptInRequired"
        | "PendingVerification"
        | "UnsupportedOperation"
        | "InvalidParameter"
        | "InvalidParameterValue"
        | "InvalidParameterCombination"
        | "MissingParameter"
        | "InvalidFleetConfiguration"
        | "InvalidFleetConfig"
        | "AuthFailure.ServiceLinkedRoleCreationNotPermitted" => RefusalCause::Configuration,
        code if code.starts_with("Invalid") => RefusalCause::Configuration,
        code if is_throttling(code) => RefusalCause::Throttled,
        _ => RefusalCause::Other,
    }
}

/// Whether a code says that there is no such instance.
pub(super) fn is_unknown_instance(code: &str) -> bool {
    code == "InvalidInstanceID.NotFound"
}

/// A call refused as a whole for what concerns its offerings: they back off like any other.
pub(super) fn refused_as_a_whole(
    code: Option<&str>,
    message: Option<&str>,
    request: &LaunchRequest,
) -> Option<Launched> {
    let code = code?;
    let cause = cause(code);
    matches!(cause, RefusalCause::Capacity | RefusalCause::Quota).then(|| Launched {
        instances: Vec::new(),
        refused: vec![RefusedOffering {
            instance_type: None,
            zone: request.zone.clone(),
            market: request.market,
            cause,
            message: format!("{code}: {}", message.unwrap_or_default()),
        }],
    })
}

/// What a fleet brought. Its instances are as young as the answer.
pub(super) fn launched(
    answer: &CreateFleetOutput,
    request: &LaunchRequest,
    now: Timestamp,
) -> Result<Launched, FleetError> {
    let mut launched = Launched::default();
    for group in answer.instances() {
        let (of_override, zone) = offering(group.launch_template_and_overrides());
        let instance_type = group.instance_type().map(|t| t.as_str().into()).or(of_override);
        let instance_type = instance_type.or_else(|| request.instance_types.first().cloned());
        for id in group.instance_ids() {
            let (Ok(id), Some(instance_type)) = (id.parse(), instance_type.clone()) else {
                return Err(FleetError::Unknown(format!(
                    "an instance without id or type: `{id}`"
                )));
            };
            launched.instances.push(Instance {
                id,
                instance_type,
                zone: group
                    .availability_zone()
                    .map(Zone::from)
                    .or(zone.clone())
                    .unwrap_or(request.zone.clone()),
                market: market(group.lifecycle(), request.market),
                pool: Some(request.pool.clone()),
                operation: Some(request.operation.clone()),
                state: InstanceState::Pending,
                launched_at: now,
                ended_at: None,
            });
        }
    }
    for error in answer.errors() {
        let (instance_type, zone) = offering(error.launch_template_and_overrides());
        let code = error.error_code().unwrap_or("Unknown");
        let refused = RefusedOffering {
            instance_type,
            zone: zone.unwrap_or(request.zone.clone()),
            market: market(error.lifecycle(), request.market),
            cause: cause(code),
            message: format!("{code}: {}", error.error_message().unwrap_or_default()),
        };
        // EC2 repeats an error for each attempt at the offering.
        if !launched.refused.contains(&refused) {
            launched.refused.push(refused);
        }
    }
    Ok(launched)
}

fn offering(chosen: Option<&LaunchTemplateAndOverridesResponse>) -> (Option<InstanceType>, Option<Zone>) {
    let Some(overrides) = chosen.and_then(LaunchTemplateAndOverridesResponse::overrides) else {
        return (None, None);
    };
    (
        overrides.instance_type().map(|t| t.as_str().into()),
        overrides.availability_zone().map(Zone::from),
    )
}

fn market(lifecycle: Option<&InstanceLifecycle>, asked: Market) -> Market {
    match lifecycle {
        Some(InstanceLifecycle::Spot) => Market::Spot,
        Some(InstanceLifecycle::OnDemand) => Market::OnDemand,
        _ => asked,
    }
}

/// An instance of a listing; `None`, with a line in the log, when EC2 leaves out what makes it one.
pub(super) fn instance(described: &types::Instance) -> Option<Instance> {
    let found = convert(described);
    if found.is_none() {
        tracing::warn!(
            instance = described.instance_id(),
            "described without id, type, zone, state or launch time"
        );
    }
    found
}

/// The value of one of its tags.
pub(super) fn tag_of<'i>(described: &'i types::Instance, key: &str) -> Option<&'i str> {
    let mut tags = described.tags().iter();
    tags.find(|tag| tag.key() == Some(key))?.value()
}

fn convert(described: &types::Instance) -> Option<Instance> {
    let tag = |key: &str| tag_of(described, key);
    let spot = described.instance_lifecycle() == Some(&InstanceLifecycleType::Spot);
    Some(Instance {
        id: described.instance_id()?.parse().ok()?,
        instance_type: described.instance_type()?.as_str().into(),
        zone: described.placement()?.availability_zone()?.into(),
        market: if spot { Market::Spot } else { Market::OnDemand },
        pool: tag(tag::POOL).map(Into::into),
        operation: tag(tag::OPERATION).and_then(|id| id.parse().ok()),
        state: state(described.state()?.name()?)?,
        launched_at: Timestamp::from_second(described.launch_time()?.secs()).ok()?,
        ended_at: described.state_transition_reason().and_then(ended_at),
    })
}

/// When a machine was told to end: `User initiated (2026-11-30 12:34:56 GMT)`. Of one that EC2 took back there is no time.
fn ended_at(reason: &str) -> Option<Timestamp> {
    let (_, time) = reason.split_once('(')?;
    let time = time.strip_suffix(')')?;
    let time = time.strip_suffix(" GMT").or_else(|| time.strip_suffix(" UTC"))?;
    let time = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", time).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

fn state(name: &InstanceStateName) -> Option<InstanceState> {
    Some(match name {
        InstanceStateName::Pending => InstanceState::Pending,
        InstanceStateName::Running => InstanceState::Running,
        InstanceStateName::ShuttingDown => InstanceState::ShuttingDown,
        InstanceStateName::Terminated => InstanceState::Terminated,
        InstanceStateName::Stopping => InstanceState::Stopping,
        InstanceStateName::Stopped => InstanceState::Stopped,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
