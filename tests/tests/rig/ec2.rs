//! EC2: moto and what the rig's wrapper adds to it.

use std::time::Duration;

use aws_sdk_ec2::client::Waiters as _;
use aws_sdk_ec2::error::ProvideErrorMetadata as _;
use aws_sdk_ec2::operation::create_fleet::CreateFleetOutput;
use aws_sdk_ec2::types::{
    DefaultTargetCapacityType, FleetLaunchTemplateConfigRequest, FleetLaunchTemplateOverridesRequest,
    FleetLaunchTemplateSpecificationRequest, FleetType, InstanceType, ResourceType, Tag, TagSpecification,
    TargetCapacitySpecificationRequest,
};
use smartscale_tests::rig::ec2::{Fault, Offering, When, World};
use smartscale_tests::rig::{Ec2, Folder, wait};

/// One instant fleet of spot instances with a launch token; overrides in the order of `types`, all in zone a.
async fn create_fleet(
    ec2: &Ec2,
    world: &World,
    token: &str,
    types: &[&str],
    count: i32,
) -> Result<CreateFleetOutput, String> {
    let template = FleetLaunchTemplateSpecificationRequest::builder()
        .launch_template_id(&world.launch_template)
        .version("$Latest")
        .build();
    let mut config = FleetLaunchTemplateConfigRequest::builder().launch_template_specification(template);
    for &name in types {
        config = config.overrides(
            FleetLaunchTemplateOverridesRequest::builder()
                .instance_type(InstanceType::from(name))
                .subnet_id(&world.subnets[0].1)
                .build(),
        );
    }
    let capacity = TargetCapacitySpecificationRequest::builder()
        .total_target_capacity(count)
        .default_target_capacity_type(DefaultTargetCapacityType::Spot)
        .build();
    let tag = Tag::builder().key("smartscale.io/operation").value(token).build();
    let tags = TagSpecification::builder()
        .resource_type(ResourceType::Instance)
        .tags(tag)
        .build();
    let client = ec2.client().await;
    let sent = client
        .create_fleet()
        .r#type(FleetType::Instant)
        .client_token(token)
        .launch_template_configs(config.build())
        .target_capacity_specification(capacity)
        .tag_specifications(tags)
        .send()
        .await;
    sent.map_err(|error| error.code().map_or_else(|| format!("{error:?}"), str::to_owned))
}

fn ids(fleet: &CreateFleetOutput) -> Vec<String> {
    fleet
        .instances()
        .iter()
        .flat_map(aws_sdk_ec2::types::CreateFleetInstance::instance_ids)
        .cloned()
        .collect()
}

async fn start(name: &str) -> (Folder, Ec2, World) {
    let folder = Folder::new(name).unwrap();
    let ec2 = Ec2::start(&folder).await.unwrap();
    let world = ec2
        .create_world("workers", "worker", "#!/bin/sh\n")
        .await
        .unwrap();
    (folder, ec2, world)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_token_replays_the_same_fleet_and_refuses_another_request() {
    let (_folder, ec2, world) = start("ec2-token").await;
    let first = create_fleet(&ec2, &world, "op-1", &["m5.large"], 2)
        .await
        .unwrap();
    let again = create_fleet(&ec2, &world, "op-1", &["m5.large"], 2)
        .await
        .unwrap();
    assert_eq!(ids(&first).len(), 2);
    assert_eq!(ids(&first), ids(&again));
    let other = create_fleet(&ec2, &world, "op-1", &["m5.large"], 3)
        .await
        .unwrap_err();
    assert_eq!(other, "IdempotentParameterMismatch");

    // The instances: as asked for, with the launch template's user-data and the tags.
    let client = ec2.client().await;
    let id = ids(&first).remove(0);
    client
        .wait_until_instance_running()
        .instance_ids(&id)
        .wait(std::time::Duration::from_secs(20))
        .await
        .unwrap();
    let described = client
        .describe_instances()
        .instance_ids(&id)
        .send()
        .await
        .unwrap();
    let instance = &described.reservations()[0].instances()[0];
    assert_eq!(instance.instance_type(), Some(&InstanceType::M5Large));
    assert_eq!(
        instance
            .instance_lifecycle()
            .map(aws_sdk_ec2::types::InstanceLifecycleType::as_str),
        Some("spot")
    );
    assert_eq!(
        instance.placement().and_then(|place| place.availability_zone()),
        Some("us-east-1a")
    );
    assert!(instance.tags().iter().any(|tag| tag.value() == Some("op-1")));
    assert_eq!(instance.image_id(), Some(&*world.image));

    // A wrong type is refused.
    let wrong = create_fleet(&ec2, &world, "op-2", &["m5.gigantic"], 1)
        .await
        .unwrap();
    assert!(ids(&wrong).is_empty());
    assert_eq!(
        wrong.errors()[0].error_code(),
        Some("InvalidInstanceType.NotFound")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offering_without_capacity_gives_a_partial_fleet_and_its_error() {
    let (_folder, ec2, world) = start("ec2-capacity").await;
    let of = |name: &str, available| Offering {
        instance_type: Some(name.into()),
        market: Some("spot".into()),
        available,
        ..Offering::default()
    };
    ec2.set_offerings(&[of("m5.large", 1), of("m5.xlarge", 1)])
        .await
        .unwrap();
    let fleet = create_fleet(&ec2, &world, "op-1", &["m5.large", "m5.xlarge"], 3)
        .await
        .unwrap();
    assert_eq!(ids(&fleet).len(), 2);
    let errors: Vec<_> = fleet
        .errors()
        .iter()
        .filter_map(|error| error.error_code())
        .collect();
    assert_eq!(
        errors,
        ["InsufficientInstanceCapacity", "InsufficientInstanceCapacity"]
    );
    let none = create_fleet(&ec2, &world, "op-2", &["m5.large"], 1)
        .await
        .unwrap();
    assert!(ids(&none).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_answer_is_lost_took_effect_once() {
    let (_folder, ec2, world) = start("ec2-faults").await;
    let lost = Fault {
        action: "CreateFleet".into(),
        when: When::After,
        drop: true,
        times: Some(1),
        ..Fault::default()
    };
    let throttled = Fault {
        action: "DescribeInstances".into(),
        code: Some("RequestLimitExceeded".into()),
        status: Some(503),
        times: Some(1),
        ..Fault::default()
    };
    ec2.set_faults(&[lost, throttled]).await.unwrap();
    // The SDK tries again by itself, with the same token.
    let fleet = create_fleet(&ec2, &world, "op-1", &["m5.large"], 1)
        .await
        .unwrap();
    let described = ec2.client().await.describe_instances().send().await.unwrap();
    let all: Vec<_> = described
        .reservations()
        .iter()
        .flat_map(aws_sdk_ec2::types::Reservation::instances)
        .filter_map(|instance| instance.instance_id().map(str::to_owned))
        .collect();
    assert_eq!(all, ids(&fleet));
    let calls = ec2.calls().await.unwrap();
    let answers: Vec<_> = calls
        .iter()
        .filter(|call| call.action == "CreateFleet")
        .map(|call| (call.client_token.as_deref(), call.answer.as_deref()))
        .collect();
    assert_eq!(
        answers,
        [
            (Some("op-1"), Some("200 OK, then lost")),
            (Some("op-1"), Some("200 OK"))
        ]
    );
}

#[tokio::test]
async fn a_slow_call_does_not_use_up_the_fault_that_was_set_for_a_later_one() {
    let (_folder, ec2, _) = start("ec2-slow-call").await;
    let fault = |when, delay_ms, code: Option<&str>| Fault {
        action: "DescribeInstances".into(),
        when,
        delay_ms,
        code: code.map(str::to_owned),
        times: Some(1),
        ..Fault::default()
    };
    ec2.set_faults(&[fault(When::Before, 1_000, None)]).await.unwrap();
    let client = ec2.client().await;
    let slow = tokio::spawn(client.describe_instances().send());
    wait::until_true("the slow call to arrive", Duration::from_secs(30), || async {
        let calls = ec2.calls().await?;
        Ok(calls.iter().any(|call| call.action == "DescribeInstances"))
    })
    .await
    .unwrap();
    let refusal = fault(When::After, 0, Some("UnauthorizedOperation"));
    ec2.set_faults(&[refusal]).await.unwrap();
    assert!(slow.await.unwrap().is_ok());
    assert!(client.describe_instances().send().await.is_err());
}
