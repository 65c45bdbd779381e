//! Calls as they are built and answers as they are read, without a cloud.

#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
use std::os::unix::fs::PermissionsExt as _;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_ec2::{
    primitives::DateTime,
    types::{
        CreateFleetError, CreateFleetInstance, FleetLaunchTemplateOverrides, InstanceState as State,
        Placement, Tag,
    },
};

use super::{
    super::{Ec2Fleet, PoolSettings, Settings, tagged},
    *,
};
use crate::act::fleet::Fleet as _;

fn request(market: Market) -> LaunchRequest {
    LaunchRequest {
        operation: "op-1".parse().unwrap(),
        attempt: 2,
        pool: "workers".into(),
        zone: "us-east-1a".into(),
        market,
        instance_types: vec!["t3.small".into(), "t3a.small".into()],
        count: 3,
        enrolment_secret: Some("secret".into()),
    }
}

fn fleet(change: impl FnOnce(&mut Settings)) -> Ec2Fleet {
    let pool = PoolSettings {
        launch_template: "lt-1".into(),
        version: "7".into(),
        subnets: [("us-east-1a".into(), "subnet-a".to_owned())].into(),
    };
    let mut settings = Settings {
        cluster_id: "demo".into(),
        pools: [("workers".into(), pool)].into(),
        secret_dir: None,
    };
    change(&mut settings);
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .build();
    Ec2Fleet::new(&config, settings)
}

fn overrides(instance_type: &str) -> LaunchTemplateAndOverridesResponse {
    let overrides = FleetLaunchTemplateOverrides::builder()
        .instance_type(instance_type.into())
        .availability_zone("us-east-1b")
        .build();
    LaunchTemplateAndOverridesResponse::builder()
        .overrides(overrides)
        .build()
}

#[test]
fn a_call_lists_each_type_in_the_zones_subnet_under_the_requests_token() {
    let call = fleet(|_| {}).call(&request(Market::Spot)).unwrap();
    let call = call.as_input().clone().build().unwrap();
    assert_eq!(call.client_token(), Some("op-1-2"));
    assert_eq!(call.r#type().unwrap().as_str(), "instant");
    let [config] = call.launch_template_configs() else {
        panic!("one config")
    };
    let template = config.launch_template_specification().unwrap();
    assert_eq!(template.launch_template_id(), Some("lt-1"));
    assert_eq!(template.version(), Some("7"));
    let offerings: Vec<_> = config
        .overrides()
        .iter()
        .map(|o| (o.instance_type().unwrap().as_str(), o.subnet_id().unwrap()))
        .collect();
    assert_eq!(offerings, [("t3.small", "subnet-a"), ("t3a.small", "subnet-a")]);
    let capacity = call.target_capacity_specification().unwrap();
    assert_eq!(capacity.total_target_capacity(), Some(3));
    assert_eq!(capacity.default_target_capacity_type().unwrap().as_str(), "spot");
    let strategy = call.spot_options().unwrap().allocation_strategy().unwrap();
    assert_eq!(strategy.as_str(), "price-capacity-optimized");
    assert!(call.on_demand_options().is_none());
}

#[test]
fn machines_at_the_full_price_are_the_cheapest() {
    let call = fleet(|_| {}).call(&request(Market::OnDemand)).unwrap();
    let call = call.as_input().clone().build().unwrap();
    let capacity = call.target_capacity_specification().unwrap();
    assert_eq!(
        capacity.default_target_capacity_type().unwrap().as_str(),
        "on-demand"
    );
    let strategy = call.on_demand_options().unwrap().allocation_strategy().unwrap();
    assert_eq!(strategy.as_str(), "lowest-price");
    assert!(call.spot_options().is_none());
}

#[test]
fn instances_and_volumes_bear_the_tags() {
    let call = fleet(|_| {}).call(&request(Market::Spot)).unwrap();
    let call = call.as_input().clone().build().unwrap();
    let resources: Vec<_> = call
        .tag_specifications()
        .iter()
        .map(|tags| tags.resource_type().unwrap().as_str())
        .collect();
    assert_eq!(resources, ["instance", "volume"]);
    for specification in call.tag_specifications() {
        let tags: Vec<_> = specification
            .tags()
            .iter()
            .map(|tag| (tag.key().unwrap(), tag.value().unwrap()))
            .collect();
        assert_eq!(
            tags,
            [
                ("smartscale.io/cluster", "demo"),
                ("smartscale.io/pool", "workers"),
                ("smartscale.io/operation", "op-1"),
                ("Name", "demo-workers"),
            ]
        );
    }
}

#[test]
fn what_is_not_configured_is_named() {
    for (change, key) in [
        (
            (|settings| settings.pools.clear()) as fn(&mut Settings),
            "`fleet.pool.workers`",
        ),
        (
            |settings| settings.pools.values_mut().for_each(|pool| pool.subnets.clear()),
            "`fleet.pool.workers.subnets.us-east-1a`",
        ),
    ] {
        match fleet(change).call(&request(Market::Spot)) {
            Err(FleetError::Refused(message)) => assert!(message.contains(key), "{message}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn each_code_has_its_cause() {
    for (code, expected) in [
        ("InsufficientInstanceCapacity", RefusalCause::Capacity),
        ("UnfulfillableCapacity", RefusalCause::Capacity),
        ("VcpuLimitExceeded", RefusalCause::Quota),
        ("MaxSpotInstanceCountExceeded", RefusalCause::Quota),
        ("InvalidSubnetID.NotFound", RefusalCause::Configuration),
        ("UnauthorizedOperation", RefusalCause::Configuration),
        ("Unsupported", RefusalCause::Capacity),
        ("RequestLimitExceeded", RefusalCause::Throttled),
        ("InternalError", RefusalCause::Other),
    ] {
        assert_eq!(cause(code), expected, "{code}");
    }
}

#[test]
fn an_answer_says_what_came_and_what_refused() {
    let group = CreateFleetInstance::builder()
        .instance_ids("i-1")
        .instance_ids("i-2")
        .instance_type("t3a.small".into())
        .lifecycle(InstanceLifecycle::Spot)
        .launch_template_and_overrides(overrides("t3a.small"))
        .build();
    let error = CreateFleetError::builder()
        .error_code("InsufficientInstanceCapacity")
        .error_message("none left")
        .lifecycle(InstanceLifecycle::Spot)
        .launch_template_and_overrides(overrides("t3.small"))
        .build();
    let answer = CreateFleetOutput::builder()
        .instances(group)
        .errors(error.clone())
        .errors(error)
        .build();
    let launched = launched(&answer, &request(Market::Spot), Timestamp::UNIX_EPOCH).unwrap();
    let ids: Vec<_> = launched
        .instances
        .iter()
        .map(|instance| instance.id.as_str())
        .collect();
    assert_eq!(ids, ["i-1", "i-2"]);
    let first = launched.instances.first().unwrap();
    assert_eq!(
        *first,
        Instance {
            id: "i-1".parse().unwrap(),
            instance_type: "t3a.small".into(),
            zone: "us-east-1b".into(),
            market: Market::Spot,
            pool: Some("workers".into()),
            operation: Some("op-1".parse().unwrap()),
            state: InstanceState::Pending,
            launched_at: Timestamp::UNIX_EPOCH,
            ended_at: None,
        }
    );
    assert_eq!(
        launched.refused,
        [RefusedOffering {
            instance_type: Some("t3.small".into()),
            zone: "us-east-1b".into(),
            market: Market::Spot,
            cause: RefusalCause::Capacity,
            message: "InsufficientInstanceCapacity: none left".into(),
        }]
    );
}

#[test]
fn a_call_without_capacity_refuses_its_offerings_and_any_other_fails() {
    let request = request(Market::Spot);
    let refused = refused_as_a_whole(Some("InsufficientInstanceCapacity"), None, &request).unwrap();
    assert_eq!(refused.refused.first().unwrap().cause, RefusalCause::Capacity);
    assert_eq!(
        refused_as_a_whole(Some("UnauthorizedOperation"), None, &request),
        None
    );
    assert_eq!(refused_as_a_whole(None, None, &request), None);
}

fn described() -> aws_sdk_ec2::types::builders::InstanceBuilder {
    types::Instance::builder()
        .instance_id("i-1")
        .instance_type("t3.small".into())
        .placement(Placement::builder().availability_zone("us-east-1a").build())
        .instance_lifecycle(InstanceLifecycleType::Spot)
        .state(State::builder().name(InstanceStateName::ShuttingDown).build())
        .launch_time(DateTime::from_secs(60))
}

#[test]
fn a_listed_instance_tells_its_pool_and_operation_by_its_tags() {
    let tags = [(tag::POOL, "workers"), (tag::OPERATION, "op-1"), ("other", "x")];
    let tags = tags.map(|(key, value)| Tag::builder().key(key).value(value).build());
    let instance = instance(&described().set_tags(Some(tags.into())).build()).unwrap();
    assert_eq!(instance.pool, Some("workers".into()));
    assert_eq!(instance.operation, Some("op-1".parse().unwrap()));
    assert_eq!(instance.market, Market::Spot);
    assert_eq!(instance.state, InstanceState::ShuttingDown);
    assert_eq!(instance.launched_at, Timestamp::from_second(60).unwrap());
}

#[test]
fn a_listed_instance_without_its_particulars_is_left_out() {
    assert_eq!(instance(&described().set_launch_time(None).build()), None);
    assert_eq!(instance(&described().build()).unwrap().pool, None);
}

#[test]
fn a_tags_value_is_no_pattern() {
    let filter = tagged(tag::CLUSTER, r"a*b?c\");
    assert_eq!(filter.name(), Some("tag:smartscale.io/cluster"));
    assert_eq!(filter.values(), [r"a\*b\?c\\"]);
}

#[tokio::test]
async fn the_secret_lies_ready_under_the_token_and_goes_when_nothing_came() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("run/secrets");
    let fleet = fleet(|settings| settings.secret_dir = Some(secrets.clone()));
    fleet.hand_over(&request(Market::Spot)).await.unwrap();
    let path = secrets.join("op-1-2");
    assert_eq!(std::fs::read(&path).unwrap(), b"secret");
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        std::fs::metadata(&secrets).unwrap().permissions().mode() & 0o777,
        0o700
    );
    fleet.take_back(&request(Market::Spot)).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn no_instances_to_terminate_need_no_call() {
    assert_eq!(fleet(|_| {}).terminate(&[]).await, Ok(()));
}

#[test]
fn when_a_machine_was_told_to_end_is_read_where_ec2_says_it() {
    let at = |reason| super::ended_at(reason);
    let told = Some("2026-11-30T12:34:56Z".parse().unwrap());
    assert_eq!(at("User initiated (2026-11-30 12:34:56 GMT)"), told);
    assert_eq!(at("User initiated (2026-11-30 12:34:56 UTC)"), told);
    for reason in [
        "",
        "User initiated",
        "Server.SpotInstanceTermination: Spot instance termination",
        "User initiated (yesterday GMT)",
    ] {
        assert_eq!(at(reason), None, "{reason}");
    }
}
