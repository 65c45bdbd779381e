//! The fleet on EC2: instant fleets from a pool's launch template.
//!
//! Everything launched bears the tags of [`tag`], so that whatever an answer did not say is found by them. The
//! client token makes a repetition harmless: EC2 answers it with the first answer.

#[path = "fleet_answer.rs"]
mod answer;
#[path = "fleet_drift.rs"]
mod drift;
#[path = "fleet_making.rs"]
mod making;
#[path = "fleet_template.rs"]
mod template;

use std::{collections::BTreeMap, fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::PathBuf};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_ec2::{
    Client,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::create_fleet::builders::CreateFleetFluentBuilder,
    types::{
        self, DefaultTargetCapacityType, Filter, FleetLaunchTemplateConfigRequest,
        FleetLaunchTemplateOverridesRequest, FleetLaunchTemplateSpecificationRequest,
        FleetOnDemandAllocationStrategy, FleetType, OnDemandOptionsRequest, Reservation, ResourceType,
        SpotAllocationStrategy, SpotOptionsRequest, Tag, TagSpecification,
        TargetCapacitySpecificationRequest,
    },
};
use jiff::Timestamp;
use smartscale_planner::model::{Market, PoolName, Zone};
use smartscale_proto::files::write_private;

use super::failure::{Failure, words};
use crate::{
    act::fleet::{Drift, Fleet, FleetError, Instance, LaunchRequest, Launched},
    ids::{InstanceId, OperationId},
};

/// Tags on instances and volumes.
pub mod tag {
    /// The cluster: what bears it is ours.
    pub const CLUSTER: &str = "smartscale.io/cluster";
    /// The pool.
    pub const POOL: &str = "smartscale.io/pool";
    /// The operation that launched it.
    pub const OPERATION: &str = "smartscale.io/operation";
    /// What the console shows.
    pub const NAME: &str = "Name";
}

/// Instances of one page of a listing.
const PAGE: i32 = 500;
/// The most instances of one call that terminates.
const MOST_TERMINATED: usize = 500;

/// What the fleet needs to know.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The cluster, put on everything as a tag.
    pub cluster_id: String,
    /// How each pool is launched.
    pub pools: BTreeMap<PoolName, PoolSettings>,
    /// Where the secret of each launch is put, as a file named for its client token, for whatever hands it to the
    /// machine; `None` where machines prove themselves otherwise.
    pub secret_dir: Option<PathBuf>,
}

/// How a pool is launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Launch template, by id (`lt-…`) or name.
    pub launch_template: String,
    /// Its version: a number, `$Default` or `$Latest`.
    pub version: String,
    /// A subnet for each zone.
    pub subnets: BTreeMap<Zone, String>,
}

impl PoolSettings {
    fn is_by_id(&self) -> bool {
        self.launch_template.starts_with("lt-")
    }
}

/// EC2 as a fleet.
#[derive(Debug, Clone)]
pub struct Ec2Fleet {
    client: Client,
    settings: Settings,
}

impl Ec2Fleet {
    /// The fleet of a cluster. Sends nothing yet.
    #[must_use]
    pub fn new(config: &SdkConfig, settings: Settings) -> Self {
        Self {
            client: Client::new(config),
            settings,
        }
    }

    /// The call of a request. The same request gives the same call, or EC2 would refuse the repetition.
    fn call(&self, request: &LaunchRequest) -> Result<CreateFleetFluentBuilder, FleetError> {
        let (pool, subnet) = self.place(request)?;
        let count = i32::try_from(request.count)
            .map_err(|_| FleetError::Refused(format!("{} instances are too many", request.count)))?;
        let template = FleetLaunchTemplateSpecificationRequest::builder().version(&pool.version);
        let template = if pool.is_by_id() {
            template.launch_template_id(&pool.launch_template)
        } else {
            template.launch_template_name(&pool.launch_template)
        };
        let overrides = request.instance_types.iter().map(|instance_type| {
            FleetLaunchTemplateOverridesRequest::builder()
                .instance_type(instance_type.as_str().into())
                .subnet_id(subnet)
                .build()
        });
        let config = FleetLaunchTemplateConfigRequest::builder()
            .launch_template_specification(template.build())
            .set_overrides(Some(overrides.collect()))
            .build();
        let capacity = TargetCapacitySpecificationRequest::builder().total_target_capacity(count);
        let call = self
            .client
            .create_fleet()
            .r#type(FleetType::Instant)
            .client_token(request.client_token())
            .launch_template_configs(config)
            .tag_specifications(self.tags(ResourceType::Instance, request))
            .tag_specifications(self.tags(ResourceType::Volume, request));
        Ok(match request.market {
            Market::Spot => call
                .spot_options(
                    SpotOptionsRequest::builder()
                        .allocation_strategy(SpotAllocationStrategy::PriceCapacityOptimized)
                        .build(),
                )
                .target_capacity_specification(
                    capacity
                        .default_target_capacity_type(DefaultTargetCapacityType::Spot)
                        .build(),
                ),
            Market::OnDemand => call
                .on_demand_options(
                    OnDemandOptionsRequest::builder()
                        .allocation_strategy(FleetOnDemandAllocationStrategy::LowestPrice)
                        .build(),
                )
                .target_capacity_specification(
                    capacity
                        .default_target_capacity_type(DefaultTargetCapacityType::OnDemand)
                        .build(),
                ),
        })
    }

    fn place(&self, request: &LaunchRequest) -> Result<(&PoolSettings, &str), FleetError> {
        let name = &request.pool;
        let pool = self.settings.pools.get(name).ok_or_else(|| {
            FleetError::Refused(format!(
                "pool `{name}` cannot be launched: `fleet.pool.{name}` is not configured"
            ))
        })?;
        let subnet = pool.subnets.get(&request.zone).ok_or_else(|| {
            FleetError::Refused(format!(
                "pool `{name}` has no subnet in {zone}: `fleet.pool.{name}.subnets.{zone}` is not configured",
                zone = request.zone
            ))
        })?;
        Ok((pool, subnet))
    }

    fn tags(&self, resource: ResourceType, request: &LaunchRequest) -> TagSpecification {
        let name = format!("{}-{}", self.settings.cluster_id, request.pool);
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        TagSpecification::builder()
            .resource_type(resource)
            .tags(tag(tag::CLUSTER, &self.settings.cluster_id))
            .tags(tag(tag::POOL, request.pool.as_str()))
            .tags(tag(tag::OPERATION, request.operation.as_str()))
            .tags(tag(tag::NAME, &name))
            .build()
    }

    /// Puts the launch's secret where the machine's script gets it from, before there is a machine. Whether it was
    /// not there before.
    async fn hand_over(&self, request: &LaunchRequest) -> Result<bool, FleetError> {
        let (Some(folder), Some(secret)) = (&self.settings.secret_dir, &request.enrolment_secret) else {
            return Ok(false);
        };
        let (folder, path, secret) = (
            folder.clone(),
            folder.join(request.client_token()),
            secret.clone(),
        );
        let written = tokio::task::spawn_blocking(move || {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let new = !path.try_exists()?;
            write_private(&path, secret.as_bytes()).map_err(io::Error::other)?;
            Ok::<_, io::Error>(new)
        });
        let refused =
            |error: String| FleetError::Refused(format!("the enrolment secret cannot be kept: {error}"));
        match written.await {
            Ok(Ok(new)) => Ok(new),
            Ok(Err(error)) => Err(refused(error.to_string())),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// Nobody will ask for the secret of a launch that brought nothing.
    async fn take_back(&self, request: &LaunchRequest) {
        let Some(folder) = &self.settings.secret_dir else {
            return;
        };
        let path = folder.join(request.client_token());
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "an unused enrolment secret stays");
            }
            _ => {}
        }
    }

    /// What bears our tag.
    fn ours(&self) -> Filter {
        tagged(tag::CLUSTER, &self.settings.cluster_id)
    }

    async fn described(&self, filters: Vec<Filter>) -> Result<Vec<types::Instance>, FleetError> {
        let describe = self
            .client
            .describe_instances()
            .set_filters(Some(filters))
            .max_results(PAGE);
        let mut pages = describe.into_paginator().send();
        let mut instances = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(&error))?;
            let reservations = page.reservations.unwrap_or_default().into_iter();
            instances.extend(reservations.flat_map(|one| one.instances.unwrap_or_default()));
        }
        Ok(instances)
    }

    async fn terminate_at_once(&self, instances: &[InstanceId]) -> Result<(), FleetError> {
        let ids = instances.iter().map(ToString::to_string).collect();
        match self
            .client
            .terminate_instances()
            .set_instance_ids(Some(ids))
            .send()
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if instances.len() == 1 && error.code().is_some_and(answer::is_unknown_instance) => {
                Ok(())
            }
            Err(error) => Err(failed(&error)),
        }
    }
}

fn failed<E>(error: &SdkError<E, HttpResponse>) -> FleetError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match Failure::of(error) {
        Failure::Refused => FleetError::Refused(words(error)),
        Failure::Throttled => FleetError::Throttled(words(error)),
        Failure::Unknown => FleetError::Unknown(words(error)),
    }
}

/// A filter for one value of a tag. EC2 reads `*` and `?` in it as wildcards.
fn tagged(key: &str, value: &str) -> Filter {
    let mut literal = String::new();
    for c in value.chars() {
        if matches!(c, '*' | '?' | '\\') {
            literal.push('\\');
        }
        literal.push(c);
    }
    Filter::builder()
        .name(format!("tag:{key}"))
        .values(literal)
        .build()
}

#[async_trait]
impl Fleet for Ec2Fleet {
    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, FleetError> {
        let call = self.call(request)?;
        let new = self.hand_over(request).await?;
        let sent = call.send().await;
        // A refusal says nothing about an earlier call under this token, whose machines may be on their way to the
        // secret; an answer does.
        let says_of_all = sent.is_ok() || new;
        let launched = match sent {
            Ok(answer) => answer::launched(&answer, request, Timestamp::now()),
            Err(error) => match answer::refused_as_a_whole(error.code(), error.message(), request) {
                Some(launched) => Ok(launched),
                None => Err(failed(&error)),
            },
        };
        let nothing = match &launched {
            Ok(launched) => launched.instances.is_empty(),
            Err(error) => matches!(error, FleetError::Refused(_)),
        };
        if nothing && says_of_all {
            self.take_back(request).await;
        }
        launched
    }

    async fn find(&self, operation: &OperationId) -> Result<Vec<Instance>, FleetError> {
        let filters = vec![self.ours(), tagged(tag::OPERATION, operation.as_str())];
        let described = self.described(filters).await?;
        Ok(described.iter().filter_map(answer::instance).collect())
    }

    async fn list(&self) -> Result<Vec<Instance>, FleetError> {
        let described = self.described(vec![self.ours()]).await?;
        Ok(described.iter().filter_map(answer::instance).collect())
    }

    async fn look(&self, instance: &InstanceId) -> Result<Option<Instance>, FleetError> {
        let describe = self.client.describe_instances().instance_ids(instance.as_str());
        match describe.send().await {
            Ok(answer) => {
                let mut described = answer.reservations().iter().flat_map(Reservation::instances);
                Ok(described.find_map(answer::instance))
            }
            Err(error) if error.code().is_some_and(answer::is_unknown_instance) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn drift(&self) -> Result<Drift, FleetError> {
        self.all_drift().await
    }

    async fn terminate(&self, instances: &[InstanceId]) -> Result<(), FleetError> {
        let mut outcome = Ok(());
        for batch in instances.chunks(MOST_TERMINATED) {
            match self.terminate_at_once(batch).await {
                // One that is unknown, or protected, must not hold up the others: each by itself then.
                Err(FleetError::Refused(_)) if batch.len() > 1 => {
                    for instance in batch {
                        let one = self.terminate_at_once(std::slice::from_ref(instance)).await;
                        outcome = outcome.and(one);
                    }
                }
                other => outcome = outcome.and(other),
            }
        }
        outcome
    }
}
