//! The events of EventBridge that concern machines, as EC2 and AWS Health send them: what of each is read, and what of it
//! cannot be believed.
//!
//! Shapes: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/rebalance-recommendations.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instance-state-changes.html>,
//! <https://docs.aws.amazon.com/health/latest/ug/aws-health-events-eventbridge-schema.html>.

use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use serde::Deserialize;
use serde_json::Value;

use super::{NoticeKind, NoticeSource, Said, bounded, is_near};
use crate::ids::{BadId, InstanceId};

/// The longest event that EventBridge delivers, in bytes.
const LONGEST: usize = 256 * 1024;
/// Machines of one event of AWS Health that are read.
const MOST_ENTITIES: usize = 1_000;
/// Longest id of an event that is kept, in characters.
const LONGEST_ID: usize = 80;
/// From the warning to the interruption.
const WARNING: SignedDuration = SignedDuration::from_secs(120);
/// A warning whose interruption was due so long ago has come to nothing, or the machine is gone: nothing is begun by it.
const STALE: SignedDuration = SignedDuration::from_mins(10);
/// Clocks may differ by so much.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// EC2 gives notice.
    Notices(Vec<Said>),
    /// A machine's state changed, by EC2's word.
    Stopping(InstanceId),
    /// Nothing that is acted on.
    Ignored(&'static str),
}

/// Why an event is not understood.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// More than EventBridge delivers.
    #[error("it has {0} bytes where an event has {LONGEST} at most")]
    TooLong(usize),
    /// No JSON, or a field is missing or of another kind.
    #[error("it is no event of EventBridge")]
    Json(#[from] serde_json::Error),
    /// A name that no machine has.
    #[error("it names no machine")]
    Instance(#[from] BadId),
    /// A time that is none.
    #[error("`{0}` is no time")]
    Time(String),
    /// A time at which EC2 cannot have said it.
    #[error("it claims to be of {0}")]
    Future(Timestamp),
}

#[derive(Deserialize)]
struct Envelope {
    id: String,
    #[serde(rename = "detail-type")]
    detail_type: String,
    source: String,
    time: String,
    detail: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Warning {
    instance_id: String,
    instance_action: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Recommendation {
    instance_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StateChange {
    instance_id: String,
    state: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    service: String,
    event_type_code: String,
    event_type_category: String,
    start_time: Option<String>,
    end_time: Option<String>,
    #[serde(default)]
    status_code: String,
    #[serde(default)]
    affected_entities: Vec<Entity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entity {
    #[serde(default)]
    entity_value: String,
}

/// Reads an event at `now`.
///
/// # Errors
/// [`Unreadable`]; such a message is of no use to anybody, however often it is read.
pub fn parse(body: &str, now: Timestamp) -> Result<Message, Unreadable> {
    if body.len() > LONGEST {
        return Err(Unreadable::TooLong(body.len()));
    }
    let envelope: Envelope = serde_json::from_str(body)?;
    let sent = time(&envelope.time)?;
    if sent.duration_since(now) > SKEW {
        return Err(Unreadable::Future(sent));
    }
    let detail = &envelope.detail;
    match (envelope.source.as_str(), envelope.detail_type.as_str()) {
        ("aws.ec2", "EC2 Spot Instance Interruption Warning") => {
            let warning = Warning::deserialize(detail)?;
            let at = sent.checked_add(WARNING).unwrap_or(sent);
            if now.duration_since(at) > STALE {
                return Ok(Message::Ignored("an interruption that is long over"));
            }
            let said = of_machine(&envelope, &warning.instance_id, NoticeKind::SpotInterruption)?;
            Ok(Message::Notices(vec![Said {
                at: Some(at),
                detail: bounded(&warning.instance_action),
                ..said
            }]))
        }
        ("aws.ec2", "EC2 Instance Rebalance Recommendation") => {
            let recommendation = Recommendation::deserialize(detail)?;
            let said = of_machine(&envelope, &recommendation.instance_id, NoticeKind::Rebalance)?;
            Ok(Message::Notices(vec![said]))
        }
        ("aws.ec2", "EC2 Instance State-change Notification") => {
            let change = StateChange::deserialize(detail)?;
            let instance = change.instance_id.parse()?;
            Ok(match change.state.as_str() {
                "stopping" | "stopped" | "shutting-down" | "terminated" => Message::Stopping(instance),
                _ => Message::Ignored("a machine that starts"),
            })
        }
        ("aws.health", "AWS Health Event") => scheduled(&envelope, &Health::deserialize(detail)?, now),
        _ => Ok(Message::Ignored("an event of another kind")),
    }
}

/// Maintenance of machines, of an event of AWS Health. Whatever its code (retirement, reboot, stop, network, power): the
/// machine does not do its work meanwhile.
fn scheduled(envelope: &Envelope, health: &Health, now: Timestamp) -> Result<Message, Unreadable> {
    if health.service != "EC2" || health.event_type_category != "scheduledChange" {
        return Ok(Message::Ignored("an event of AWS Health that schedules nothing"));
    }
    if health.status_code == "closed" {
        return Ok(Message::Ignored("maintenance that is over"));
    }
    let moment = |text: &Option<String>| text.as_deref().map(time).transpose();
    let (start, end) = (moment(&health.start_time)?, moment(&health.end_time)?);
    if end.or(start).is_some_and(|over| over < now) {
        return Ok(Message::Ignored("maintenance that is over"));
    }
    // Hosts, volumes and reservations are entities as well.
    let machines = health
        .affected_entities
        .iter()
        .map(|entity| entity.entity_value.as_str())
        .filter(|entity| entity.starts_with("i-"))
        .take(MOST_ENTITIES);
    let said = machines.map(|machine| {
        Ok(Said {
            at: start.filter(|at| is_near(*at, now)),
            detail: bounded(&health.event_type_code),
            ..of_machine(envelope, machine, NoticeKind::Maintenance)?
        })
    });
    let said: Vec<Said> = said.collect::<Result<_, Unreadable>>()?;
    if said.is_empty() {
        return Ok(Message::Ignored("maintenance of no machine"));
    }
    Ok(Message::Notices(said))
}

fn of_machine(envelope: &Envelope, instance: &str, kind: NoticeKind) -> Result<Said, Unreadable> {
    Ok(Said {
        instance: instance.parse()?,
        kind,
        at: None,
        detail: String::new(),
        source: NoticeSource::Queue,
        id: envelope
            .id
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .take(LONGEST_ID)
            .collect(),
    })
}

/// RFC 3339, as in the envelope; or `Sat, 05 Jun 2021 15:10:09 GMT`, as in events of AWS Health.
fn time(text: &str) -> Result<Timestamp, Unreadable> {
    let rfc3339 = text.parse().ok();
    let http = || {
        let zoned = rfc2822::DateTimeParser::new().parse_zoned(text).ok()?;
        Some(zoned.timestamp())
    };
    rfc3339
        .or_else(http)
        .ok_or_else(|| Unreadable::Time(bounded(text)))
}

#[cfg(test)]
mod tests;
