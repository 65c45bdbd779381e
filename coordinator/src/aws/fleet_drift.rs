//! Drift: a machine says by its tags which version of which launch template it was made from (EC2 puts them on every
//! instance: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/launch-instances-from-launch-template.html>), a launch of
//! its pool which it would be made from now. The image is asked too, since an alias in a template may name another meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types;
use smartscale_planner::model::PoolName;

use super::{Ec2Fleet, PoolSettings, answer, failed, tag, template};
use crate::{
    act::fleet::{Drift, FleetError},
    ids::InstanceId,
};

/// EC2's own tags.
pub(super) const TEMPLATE: &str = "aws:ec2launchtemplate:id";
pub(super) const VERSION: &str = "aws:ec2launchtemplate:version";

/// What a machine was made from, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) template: String,
    pub(super) version: String,
    /// `None`: nobody says.
    pub(super) image: Option<String>,
}

impl Made {
    /// How this differs from what a launch would be made from now.
    pub(super) fn differs(&self, now: &Self) -> Option<String> {
        if self.template != now.template {
            return Some(format!(
                "it was launched from template {}, and launches use {}",
                self.template, now.template
            ));
        }
        if self.version != now.version {
            return Some(format!(
                "it was launched from version {} of template {}, and launches use version {}",
                self.version, self.template, now.version
            ));
        }
        match (&self.image, &now.image) {
            (Some(image), Some(now)) if image != now => {
                Some(format!("its image is {image}, and launches use {now}"))
            }
            _ => None,
        }
    }
}

impl Ec2Fleet {
    pub(super) async fn all_drift(&self) -> Result<Drift, FleetError> {
        let mut drift = Drift::default();
        let mut now: BTreeMap<&PoolName, Made> = BTreeMap::new();
        for (pool, settings) in &self.settings.pools {
            let Some((made, faults)) = self.made_now(settings).await? else {
                continue;
            };
            drift.unsound.extend(faults.iter().map(|fault| {
                let Made {
                    template, version, ..
                } = &made;
                format!("pool {pool}, version {version} of template {template}: {fault}")
            }));
            now.insert(pool, made);
        }
        let mut used: BTreeSet<String> = now.values().map(|made| made.template.clone()).collect();
        for machine in self.described(vec![self.ours()]).await? {
            let is_alive = answer::instance(&machine).is_some_and(|instance| instance.state.is_alive());
            let Some((id, pool, made)) = made(&machine).filter(|_| is_alive) else {
                continue;
            };
            used.insert(made.template.clone());
            if let Some(how) = now.get(&pool).and_then(|now| made.differs(now)) {
                drift.machines.insert(id, how);
            }
        }
        let templates = self.client.describe_launch_templates().filters(self.ours());
        let mut pages = templates.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(&error))?;
            for template in page.launch_templates() {
                let id = template.launch_template_id().unwrap_or_default();
                if !used.contains(id) {
                    let name = template.launch_template_name().unwrap_or_default();
                    drift.unused.push(format!("{name} ({id})"));
                }
            }
        }
        Ok(drift)
    }

    /// What a launch of a pool would be made from now, and what is wrong with that; `None` if EC2 leaves out what makes it
    /// one.
    async fn made_now(&self, pool: &PoolSettings) -> Result<Option<(Made, Vec<&'static str>)>, FleetError> {
        let versions = self
            .client
            .describe_launch_template_versions()
            .versions(&pool.version)
            .resolve_alias(true);
        let versions = if pool.is_by_id() {
            versions.launch_template_id(&pool.launch_template)
        } else {
            versions.launch_template_name(&pool.launch_template)
        };
        let answer = versions.send().await.map_err(|error| failed(&error))?;
        let version = answer.launch_template_versions().first();
        Ok(version.and_then(|version| {
            let data = version.launch_template_data();
            let made = Made {
                template: version.launch_template_id()?.to_owned(),
                version: version.version_number()?.to_string(),
                image: data.and_then(|data| data.image_id()).map(str::to_owned),
            };
            Some((made, data.map(template::faults).unwrap_or_default()))
        }))
    }
}

/// Which machine it is and what it was made from; `None` for one that was not launched from a template.
fn made(machine: &types::Instance) -> Option<(InstanceId, PoolName, Made)> {
    let tag = |key: &str| answer::tag_of(machine, key);
    let made = Made {
        template: tag(TEMPLATE)?.to_owned(),
        version: tag(VERSION)?.to_owned(),
        image: machine.image_id().map(str::to_owned),
    };
    let id = machine.instance_id()?.parse().ok()?;
    Some((id, tag(tag::POOL)?.into(), made))
}
