//! What `smartscale snapshot` exports of the cluster's objects, for `smartscale plan` to decide about offline. Metrics
//! and state serialize by themselves ([`smartscale_planner::snapshot`]).

use smartscale_manifests::Objects;

/// Whoever watches the cluster does not keep objects as they came ([`Objects::exportable`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cluster's objects are not kept as they came")]
pub struct NotKept;

/// The objects as a `List` in JSON, with the fields that decisions read and no others: without the environments and
/// commands of pods.
///
/// # Errors
/// [`NotKept`].
pub fn objects_json(objects: &Objects) -> Result<String, NotKept> {
    objects.to_list_json().ok_or(NotKept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_that_were_not_kept_are_not_exported_as_an_empty_cluster() {
        assert_eq!(objects_json(&Objects::default()), Err(NotKept));
        assert!(objects_json(&Objects::exportable()).is_ok_and(|text| text.contains("\"List\"")));
    }
}
