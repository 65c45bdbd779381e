//! What the program answers, looked at before anything of it is believed.
//!
//! An answer is taken as a whole or not at all: a list of which one machine makes no sense would let the others look right, and
//! that one gone.

use std::{collections::BTreeSet, fmt::Display};

use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use smartscale_planner::model::{InstanceType, Market};

use super::program::clean;
use crate::{
    act::fleet::{Instance, InstanceState, LaunchRequest, Launched, RefusalCause, RefusedOffering},
    ids::{InstanceId, OperationId},
};

/// The longest value of a label, and so the longest name of a node that has its own as one.
const LONGEST_NAME: usize = 63;
/// Refusals of one answer; a request has fewer types.
const MOST_REFUSALS: usize = 1_000;

/// Why an answer is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its answer cannot be used: {0}")]
pub(super) struct Wrong(String);

fn wrong(what: impl Display) -> Wrong {
    Wrong(clean(&what.to_string(), ""))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LaunchAnswer {
    #[serde(default)]
    machines: Vec<RawMachine>,
    #[serde(default)]
    refused: Vec<RawRefusal>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListAnswer {
    machines: Vec<RawMachine>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMachine {
    id: String,
    cluster: String,
    pool: String,
    operation: String,
    #[serde(rename = "type")]
    instance_type: String,
    zone: String,
    market: Market,
    state: InstanceState,
    launched_at: Timestamp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRefusal {
    #[serde(rename = "type")]
    instance_type: Option<String>,
    cause: RefusalCause,
    #[serde(default)]
    message: String,
}

fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Wrong> {
    let mut document = serde_json::Deserializer::from_slice(text);
    let read = serde_path_to_error::deserialize(&mut document).map_err(wrong)?;
    document.end().map_err(wrong)?;
    Ok(read)
}

/// Machines of `list`. Those of other clusters are passed over: one program may keep several.
pub(super) fn listed(text: &[u8], cluster: &str, now: Timestamp) -> Result<Vec<Instance>, Wrong> {
    let answer: ListAnswer = read(text)?;
    let ours = answer
        .machines
        .into_iter()
        .filter(|machine| machine.cluster == cluster);
    machines(ours, now)
}

/// What a launch brought.
pub(super) fn launched(
    text: &[u8],
    request: &LaunchRequest,
    cluster: &str,
    now: Timestamp,
) -> Result<Launched, Wrong> {
    let answer: LaunchAnswer = read(text)?;
    if answer.machines.is_empty() && answer.refused.is_empty() {
        return Err(wrong("it has neither `machines` nor `refused`"));
    }
    if answer.machines.len() > usize::try_from(request.count).unwrap_or(usize::MAX) {
        let (has, asked) = (answer.machines.len(), request.count);
        return Err(wrong(format!(
            "it has {has} machines where {asked} were asked for"
        )));
    }
    if let Some(foreign) = answer.machines.iter().find(|one| one.cluster != cluster) {
        let RawMachine { id, cluster, .. } = foreign;
        return Err(wrong(format!("machine `{id}` is of cluster `{cluster}`")));
    }
    let instances = machines(answer.machines, now)?;
    if let Some(other) = instances.iter().find(|one| !is_asked_for(one, request)) {
        let id = &other.id;
        return Err(wrong(format!(
            "machine `{id}` is of another operation, pool, type, zone or market than was asked for"
        )));
    }
    let refused = answer.refused.into_iter().take(MOST_REFUSALS);
    let refused = refused
        .map(|one| refusal(one, request))
        .collect::<Result<_, _>>()?;
    Ok(Launched { instances, refused })
}

fn is_asked_for(instance: &Instance, request: &LaunchRequest) -> bool {
    instance.operation.as_ref() == Some(&request.operation)
        && instance.pool.as_ref() == Some(&request.pool)
        && instance.zone == request.zone
        && instance.market == request.market
        && request.instance_types.contains(&instance.instance_type)
}

fn refusal(raw: RawRefusal, request: &LaunchRequest) -> Result<RefusedOffering, Wrong> {
    let instance_type = raw.instance_type.map(|name| InstanceType::from(name.as_str()));
    if let Some(other) = instance_type
        .as_ref()
        .filter(|one| !request.instance_types.contains(one))
    {
        return Err(wrong(format!(
            "it refuses type `{other}`, which was not asked for"
        )));
    }
    let secret = request.enrolment_secret.as_deref().unwrap_or_default();
    let message = clean(&raw.message, secret);
    Ok(RefusedOffering {
        instance_type,
        zone: request.zone.clone(),
        market: request.market,
        cause: raw.cause,
        message: if message.is_empty() {
            "the program gave no reason".to_owned()
        } else {
            message
        },
    })
}

fn machines(raw: impl IntoIterator<Item = RawMachine>, now: Timestamp) -> Result<Vec<Instance>, Wrong> {
    let instances = raw.into_iter().map(|one| machine(&one, now));
    let instances: Vec<Instance> = instances.collect::<Result<_, _>>()?;
    let mut seen = BTreeSet::new();
    match instances.iter().find(|one| !seen.insert(&one.id)) {
        Some(twice) => Err(wrong(format!("machine `{}` is there twice", twice.id))),
        None => Ok(instances),
    }
}

fn machine(raw: &RawMachine, now: Timestamp) -> Result<Instance, Wrong> {
    let id = node_name(&raw.id)?;
    let of = |what: &str, error: &dyn Display| wrong(format!("machine `{id}`: {what}: {error}"));
    let operation: OperationId = raw.operation.parse().map_err(|error| of("operation", &error))?;
    for (what, name) in [
        ("pool", &raw.pool),
        ("type", &raw.instance_type),
        ("zone", &raw.zone),
    ] {
        if !is_label(name) {
            return Err(of(
                what,
                &"at most 63 letters, digits, `-`, `_` or `.` are right, as for a label",
            ));
        }
    }
    Ok(Instance {
        instance_type: InstanceType::from(raw.instance_type.as_str()),
        zone: raw.zone.as_str().into(),
        market: raw.market,
        pool: Some(raw.pool.as_str().into()),
        operation: Some(operation),
        state: raw.state,
        // A clock that is ahead makes no machine younger than this moment.
        launched_at: raw.launched_at.min(now),
        // Its bill, if there is one, goes up to the last list that has it.
        ended_at: None,
        id,
    })
}

/// A machine's id is the name of its node: a DNS subdomain (RFC 1123), which is a label's value too.
fn node_name(text: &str) -> Result<InstanceId, Wrong> {
    let is_part = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    let sound = text.len() <= LONGEST_NAME && text.split('.').all(is_part);
    let id = if sound { text.parse().ok() } else { None };
    id.ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        wrong(format!(
            "`{shown}` is no id of a machine: it names the node, so small letters, digits, `-` and `.` are right, at most \
             {LONGEST_NAME}, a letter or digit first and last"
        ))
    })
}

/// The value of a label: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= LONGEST_NAME
        && text.bytes().all(inner)
        && ends(text.chars().next())
        && ends(text.chars().next_back())
}
