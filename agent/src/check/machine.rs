//! Which machine this is: IMDS, version 2 alone.

use smartscale_proto::check::Finding;

use super::failed;
use crate::machine::{Machine, MachineIdentity};

/// Asks who it is.
pub(super) async fn finding(identity: &dyn MachineIdentity) -> (Option<Machine>, Finding) {
    const AREA: &str = "machine";
    const TRIED: &str = "asked which machine this is";
    match identity.identity().await {
        Ok(machine) => {
            let Machine {
                id,
                instance_type,
                zone,
                market,
                private_ip,
                ..
            } = &machine;
            let found = format!("{id}, {instance_type} in {zone} ({market}), {private_ip}");
            (Some(machine.clone()), Finding::passed(AREA, TRIED, found))
        }
        Err(failure) => {
            let remedy = "enable IMDSv2 in the launch template (HttpEndpoint enabled, HttpTokens required), or describe the machine in \
                          [machine] of the agent's configuration";
            (None, failed(AREA, TRIED, &failure, remedy))
        }
    }
}
