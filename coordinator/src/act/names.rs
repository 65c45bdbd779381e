//! A name that is taken. K3s keeps the password of the first kubelet of a name as long as its Node is there, so a machine that
//! comes back with a new disk is refused for ever ("Node password rejected"). Its agent, whose identity is its own, says
//! so; the Node of the old disk is deleted, and K3s forgets the password with it.
//!
//! A Node that is Ready, or younger than the complaint, is somebody's: it is left alone, and people are told.

use std::{collections::BTreeMap, sync::PoisonError};

use jiff::Timestamp;
use smartscale_planner::model::NodeName;

use super::{executor::Executor, nodes::Name};
use crate::{
    ids::InstanceId,
    state::records::NodeRecord,
    tell::{ErrorType, Severity},
};

impl Executor {
    /// Frees the names of machines that complain. `records` are those of machines that are there.
    pub(super) async fn free_names(&self, records: impl Iterator<Item = &NodeRecord>) {
        let now = self.parts.clock.now();
        let complain: Vec<&InstanceId> = records
            .filter(|record| record.enrolled_at.is_some() && record.revoked_at.is_none())
            .map(|record| &record.instance)
            .filter(|instance| self.parts.agents.name_is_taken(instance))
            .collect();
        let since: BTreeMap<InstanceId, Timestamp> = {
            let mut known = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let first = |instance: &InstanceId| known.get(instance).copied().unwrap_or(now);
            let since = complain
                .iter()
                .map(|instance| ((*instance).clone(), first(instance)));
            let since: BTreeMap<_, _> = since.collect();
            known.clone_from(&since);
            since
        };
        for (instance, since) in since {
            if self.term().is_none() {
                return;
            }
            let node = NodeName::from(instance.as_str());
            match self.parts.nodes.free_name(&node, since).await {
                Ok(Name::Free) => {}
                Ok(Name::Freed) => {
                    let message = format!(
                        "{instance} came back with a new disk: its old Node was deleted, so that K3s lets it register"
                    );
                    self.trouble(Severity::Warning, message, ErrorType::DuplicateHostname);
                }
                Ok(Name::InUse) => {
                    let message = format!(
                        "{instance} cannot register: a Ready node has its name. Whichever machine is the wrong one is to be ended by hand"
                    );
                    self.trouble(Severity::Failure, message, ErrorType::DuplicateHostname);
                }
                Err(error) => tracing::warn!(%node, %error, "the name of a machine was not freed yet"),
            }
        }
    }
}
