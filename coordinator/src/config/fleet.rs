//! `[fleet]`: where machines come from, and what does not go with that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use smartscale_planner::model::{PoolName, Zone};

use super::{ConfigError, Reader, raw};
use crate::command;

/// A call of a fleet's program is bounded by this unless the configuration says otherwise: less than `check` waits.
const CALL: Duration = Duration::from_secs(20);
/// The longest bound: a launch that takes longer holds up all others.
const LONGEST_CALL: Duration = Duration::from_secs(300);

/// Where machines come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fleet {
    /// EC2, and how each pool is launched there.
    Ec2(BTreeMap<PoolName, FleetPool>),
    /// A program of the user's, which knows pools by their names alone.
    Command(command::Settings),
}

impl Fleet {
    /// The pools that can be launched; `None`: any.
    #[must_use]
    pub fn launchable(&self) -> Option<BTreeSet<PoolName>> {
        match self {
            Self::Ec2(pools) => Some(pools.keys().cloned().collect()),
            Self::Command(_) => None,
        }
    }

    /// Whether it is EC2.
    #[must_use]
    pub fn is_ec2(&self) -> bool {
        matches!(self, Self::Ec2(_))
    }
}

/// How a pool is launched on EC2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetPool {
    /// Launch template, by id (`lt-…`) or name.
    pub launch_template: String,
    /// Its version: a number, `$Default` or `$Latest`.
    pub version: String,
    /// A subnet for each zone.
    pub subnets: BTreeMap<Zone, String>,
}

impl Reader<'_> {
    pub(super) fn fleet(&self, raw: &raw::Raw) -> Result<Fleet, ConfigError> {
        let fleet = &raw.fleet;
        let kind = fleet.kind.as_deref().unwrap_or("ec2");
        if self.one_of("fleet.kind", kind, &[("ec2", true), ("command", false)])? {
            if fleet.command.is_some() {
                return Err(self.error("fleet.command", "is only for kind = \"command\""));
            }
            let pools = fleet.pool.iter();
            let pools = pools.map(|(name, pool)| (PoolName::from(name.as_str()), of_ec2(pool)));
            return Ok(Fleet::Ec2(pools.collect()));
        }
        // What only EC2 has is an error where somebody has set it, and off where nobody has.
        for (path, set, instead) in [
            (
                "fleet.pool",
                !fleet.pool.is_empty(),
                "the program is told the pool's name",
            ),
            (
                "enrolment.attestor",
                raw.enrolment.attestor.as_deref() == Some("ec2"),
                "other machines prove themselves by `token`",
            ),
            (
                "enrolment.secret_dir",
                raw.enrolment.secret_dir.is_some(),
                "the program reads the secret from its standard input",
            ),
            (
                "market.kind",
                raw.market.kind.as_deref() == Some("aws"),
                "types and prices of other machines stand in the policy, as [[instance_type]]",
            ),
            (
                "notices.queue_url",
                raw.notices.queue_url.is_some(),
                "nobody else announces the end of a machine",
            ),
        ] {
            if set {
                return Err(self.error(path, format!("is only for fleet.kind = \"ec2\": {instead}")));
            }
        }
        self.command(fleet.command.as_ref()).map(Fleet::Command)
    }

    fn command(&self, raw: Option<&raw::RawFleetCommand>) -> Result<command::Settings, ConfigError> {
        let example = "for example [\"/usr/local/lib/smartscale/fleet\"]";
        let path = "fleet.command.program";
        let words = raw.map(|raw| raw.program.as_slice()).unwrap_or_default();
        let Some((program, arguments)) = words.split_first() else {
            let message = format!("kind = \"command\" needs a program and its arguments, {example}");
            return Err(self.error(path, message));
        };
        if !program.starts_with('/') {
            let message = format!("`{program}` is not an absolute path: {example}");
            return Err(self.error(path, message));
        }
        if words.iter().any(|word| word.contains('\0')) {
            return Err(self.error(path, "no word of it may have a NUL in it"));
        }
        let environment = raw.map(|raw| raw.environment.clone()).unwrap_or_default();
        for (name, value) in &environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                let path = format!("fleet.command.environment.{name}");
                return Err(self.error(&path, "is no variable of an environment"));
            }
        }
        let timeout = raw.and_then(|raw| raw.timeout.as_ref());
        let timeout = self.duration("fleet.command.timeout", timeout, CALL)?;
        if !(Duration::from_secs(1)..=LONGEST_CALL).contains(&timeout) {
            return Err(self.error("fleet.command.timeout", "must lie between 1s and 5m"));
        }
        Ok(command::Settings {
            program: program.into(),
            arguments: arguments.to_vec(),
            environment,
            timeout,
        })
    }
}

fn of_ec2(raw: &raw::RawFleetPool) -> FleetPool {
    let subnets = raw.subnets.iter();
    FleetPool {
        launch_template: raw.launch_template.clone(),
        version: raw.version.clone().unwrap_or_else(|| "$Default".to_owned()),
        subnets: subnets
            .map(|(zone, subnet)| (Zone::from(zone.as_str()), subnet.clone()))
            .collect(),
    }
}
