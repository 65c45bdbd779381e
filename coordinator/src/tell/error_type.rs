//! What went wrong, in a word.

use serde::Serialize;

/// The class of a trouble or of an operation's failure: the label `error_type` of metrics, the dimension `ErrorType` in
/// CloudWatch, the field of that name in messages. `docs/reference/errors.md` is made from this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorType {
    /// A launch ended without machines: the fleet has none of the types that were asked for.
    Capacity,
    /// A launch was refused for a quota of the account.
    Quota,
    /// A launch was refused since the fleet gets too many calls.
    Throttled,
    /// A launch was refused for what it asked for: a template, an image, a right.
    Configuration,
    /// A launch ended without machines for another reason.
    Launch,
    /// A machine was not a Ready node within `timing.ready`.
    JoinTimeout,
    /// A drain did not end within its time and was given up.
    DrainTimeout,
    /// Somebody took a drain or removal back.
    Cancelled,
    /// A node's name is not that of a machine of the fleet.
    NotOurs,
    /// A removal that waits for its replacement was given up with it.
    Replacement,
    /// Volumes were still attached to a drained node after `timing.detach`; its machine is ended all the same.
    VolumesAttached,
    /// A launch template or image is unsound; nothing is said to have drifted by it.
    LaunchTemplate,
    /// A pool launches nothing for an hour, since what it asks for is wrong.
    PoolStopped,
    /// A machine whose agent is silent and whose node is not Ready for `timing.sick` is replaced.
    NodeSick,
    /// So many machines are sick that the cause is elsewhere: none is replaced.
    ManySick,
    /// A machine wants to join under the name of another one.
    DuplicateHostname,
    /// A machine bears the cluster's tag, and no launch explains it.
    UnknownInstance,
    /// A machine of a node is gone without having been removed.
    InstanceLost,
    /// An operation cannot be read or written.
    Journal,
    /// The state store does not answer.
    Store,
    /// The policy or the cluster's objects cannot be planned with.
    Planner,
    /// The forecast turned itself off, being worse than none, or on again.
    Forecast,
    /// Deletion costs of pods cannot be written.
    Steering,
    /// An object of the cluster cannot be read and is left as it is.
    BadObject,
    /// An agent reports a figure that cannot be true; it is passed over.
    BadFigure,
}

impl ErrorType {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Quota => "quota",
            Self::Throttled => "throttled",
            Self::Configuration => "configuration",
            Self::Launch => "launch",
            Self::JoinTimeout => "join_timeout",
            Self::DrainTimeout => "drain_timeout",
            Self::Cancelled => "cancelled",
            Self::NotOurs => "not_ours",
            Self::Replacement => "replacement",
            Self::VolumesAttached => "volumes_attached",
            Self::LaunchTemplate => "launch_template",
            Self::PoolStopped => "pool_stopped",
            Self::NodeSick => "node_sick",
            Self::ManySick => "many_sick",
            Self::DuplicateHostname => "duplicate_hostname",
            Self::UnknownInstance => "unknown_instance",
            Self::InstanceLost => "instance_lost",
            Self::Journal => "journal",
            Self::Store => "store",
            Self::Planner => "planner",
            Self::Forecast => "forecast",
            Self::Steering => "steering",
            Self::BadObject => "bad_object",
            Self::BadFigure => "bad_figure",
        }
    }
}

impl From<ErrorType> for String {
    fn from(error_type: ErrorType) -> Self {
        error_type.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use smartscale_reference::{Source, agree, meanings, words};

    const ABOUT: &str = "\
# Classes of errors

The label `error_type` of `smartscale_scaling_failures_total` and `smartscale_troubles_total` ([metrics](metrics.md)), the dimension
`ErrorType` of [CloudWatch's metrics](metrics-cloudwatch.md), the field `error_type` of operations and of what is told. `other` is an
operation that failed without one. Made from the coordinator (`make reference`).

";

    #[test]
    fn the_reference_of_errors_is_what_there_is() {
        let text = include_str!("error_type.rs");
        let source = Source::new(&[text], &[]);
        for (word, _) in meanings(&source, "ErrorType") {
            assert!(
                text.contains(&format!("=> \"{word}\",")),
                "{word} is said otherwise"
            );
        }
        agree(
            "errors.md",
            &format!("{ABOUT}{}", words(&source, "ErrorType", "error_type")),
        );
    }
}
