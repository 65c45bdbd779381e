//! What an instance is, held against what its launch made of it: for whoever wants to know whether a machine that proves
//! itself is still the one that was launched.
//!
//! EC2 says by tags of its own, which nobody can set, from which version of which launch template an instance came. That
//! version never changes, so image and profile are compared with it and not with what launches use now.

use async_trait::async_trait;
use aws_sdk_ec2::{
    error::ProvideErrorMetadata as _,
    operation::describe_instances::DescribeInstancesOutput,
    types::{self, LaunchTemplateIamInstanceProfileSpecification},
};
use smartscale_planner::model::{PoolName, Zone};

use super::{Ec2Fleet, answer, drift, failed};
use crate::{
    act::fleet::FleetError,
    ids::InstanceId,
    serve::attest::ec2::{AwsError, Described, Instances, Making},
};

impl From<FleetError> for AwsError {
    fn from(error: FleetError) -> Self {
        match error {
            FleetError::Refused(why) => Self::Refused(why),
            FleetError::Throttled(why) | FleetError::Unknown(why) => Self::Unavailable(why),
        }
    }
}

impl Ec2Fleet {
    /// Image and profile by the template that the instance came from.
    async fn made_by_template(&self, instance: &types::Instance) -> Result<Making, AwsError> {
        let untold = || AwsError::Refused("the instance does not come from a launch template".to_owned());
        let template = answer::tag_of(instance, drift::TEMPLATE).ok_or_else(untold)?;
        let version = answer::tag_of(instance, drift::VERSION).ok_or_else(untold)?;
        let versions = self
            .client
            .describe_launch_template_versions()
            .launch_template_id(template)
            .versions(version);
        let answer = versions.send().await.map_err(|error| failed(&error))?;
        let data = answer
            .launch_template_versions()
            .first()
            .and_then(|version| version.launch_template_data())
            .ok_or_else(|| AwsError::Refused(format!("there is no version {version} of {template}")))?;
        // An alias (`resolve:ssm:…`) stood for some image then, and may stand for another now.
        let image = data.image_id().filter(|image| image.starts_with("ami-"));
        Ok(Making {
            image: image.map(str::to_owned),
            profile: data.iam_instance_profile().and_then(profile_meant),
            vpc: None,
        })
    }

    /// The network of the subnet in which machines of a pool are launched in a zone.
    async fn vpc(&self, pool: &PoolName, zone: &Zone) -> Result<Option<String>, AwsError> {
        let subnet = self
            .settings
            .pools
            .get(pool)
            .and_then(|settings| settings.subnets.get(zone))
            .ok_or_else(|| AwsError::Refused(format!("pool {pool} has no subnet in {zone}")))?;
        let subnets = self.client.describe_subnets().subnet_ids(subnet);
        let answer = subnets.send().await.map_err(|error| failed(&error))?;
        let vpc = answer.subnets().first().and_then(|subnet| subnet.vpc_id());
        Ok(vpc.map(str::to_owned))
    }
}

#[async_trait]
impl Instances for Ec2Fleet {
    async fn describe(
        &self,
        instance: &InstanceId,
        pool: &PoolName,
        zone: &Zone,
    ) -> Result<Option<Described>, AwsError> {
        let describe = self.client.describe_instances().instance_ids(instance.as_str());
        let found = match describe.send().await {
            Ok(found) => found,
            Err(error) if error.code().is_some_and(answer::is_unknown_instance) => return Ok(None),
            Err(error) => return Err(failed(&error).into()),
        };
        let Some((account, found)) = with_account(&found, instance) else {
            return Ok(None);
        };
        let known = answer::instance(found)
            .ok_or_else(|| AwsError::Unavailable("EC2 leaves out what makes an instance one".to_owned()))?;
        let profile = found.iam_instance_profile().and_then(|profile| profile.arn());
        Ok(Some(Described {
            account,
            state: known.state,
            launched_at: known.launched_at,
            is: Making {
                image: found.image_id().map(str::to_owned),
                profile: profile.map(profile_name),
                vpc: found.vpc_id().map(str::to_owned),
            },
            meant: Making {
                vpc: self.vpc(pool, zone).await?,
                ..self.made_by_template(found).await?
            },
        }))
    }
}

/// The instance with the account that it belongs to.
fn with_account<'a>(
    found: &'a DescribeInstancesOutput,
    instance: &InstanceId,
) -> Option<(String, &'a types::Instance)> {
    found.reservations().iter().find_map(|reservation| {
        let mut instances = reservation.instances().iter();
        let one = instances.find(|one| one.instance_id() == Some(instance.as_str()))?;
        Some((reservation.owner_id().unwrap_or_default().to_owned(), one))
    })
}

/// The name of the profile that a template names, by name or by ARN.
fn profile_meant(profile: &LaunchTemplateIamInstanceProfileSpecification) -> Option<String> {
    let name = profile.name().filter(|name| !name.is_empty());
    name.or(profile.arn()).map(profile_name)
}

/// `arn:aws:iam::ACCOUNT:instance-profile/PATH/NAME`: names are unique in an account, whatever their paths.
fn profile_name(arn: &str) -> String {
    arn.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_the_same_by_name_and_by_arn() {
        let by = LaunchTemplateIamInstanceProfileSpecification::builder;
        for profile in [
            by().name("worker").build(),
            by().arn("arn:aws:iam::123456789012:instance-profile/k3s/worker")
                .build(),
        ] {
            assert_eq!(profile_meant(&profile).as_deref(), Some("worker"));
        }
        assert_eq!(profile_meant(&by().build()), None);
    }
}
