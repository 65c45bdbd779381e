//! The fleet on EC2: what is launched is there once, bears our tags, and is found again whatever was said about it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use aws_sdk_ec2::types::{RequestLaunchTemplateData, ResourceType, Tag, TagSpecification};
use smartscale_coordinator::act::fleet::{
    Drift, Fleet as _, FleetError, Instance, LaunchRequest, Launched, RefusalCause,
};
use smartscale_coordinator::aws::fleet::{Ec2Fleet, PoolSettings, Settings, tag};
use smartscale_coordinator::ids::InstanceId;
use smartscale_planner::model::Market;
use smartscale_tests::rig::ec2::{Fault, Offering, When, World};
use smartscale_tests::rig::{Ec2, Folder, aws};

/// An EC2 with a world, and what fleets of clusters need there.
struct Account {
    folder: Folder,
    ec2: Ec2,
    world: World,
}

impl Account {
    async fn new(name: &str) -> Self {
        let folder = Folder::new(name).unwrap();
        let ec2 = Ec2::start(&folder).await.unwrap();
        let world = ec2
            .create_world("workers", "worker", "#!/bin/sh\n")
            .await
            .unwrap();
        Self { folder, ec2, world }
    }

    fn secrets(&self) -> PathBuf {
        self.folder.path().join("secrets")
    }

    async fn fleet(&self, cluster: &str) -> Ec2Fleet {
        self.fleet_of_template(cluster, &self.world.launch_template_name)
            .await
    }

    async fn fleet_of_template(&self, cluster: &str, template: &str) -> Ec2Fleet {
        let config = aws::config(&self.ec2.url(), &aws::Key::root()).await;
        let subnets = self.world.subnets.iter();
        let pool = PoolSettings {
            launch_template: template.to_owned(),
            version: "$Default".into(),
            subnets: subnets
                .map(|(zone, subnet)| (zone.as_str().into(), subnet.clone()))
                .collect(),
        };
        let settings = Settings {
            cluster_id: cluster.to_owned(),
            pools: [("workers".into(), pool)].into(),
            secret_dir: Some(self.secrets()),
        };
        Ec2Fleet::new(&config, settings)
    }

    async fn client(&self) -> aws_sdk_ec2::Client {
        aws_sdk_ec2::Client::new(&aws::config(&self.ec2.url(), &aws::Key::root()).await)
    }

    /// How often an action was called.
    async fn called(&self, action: &str) -> usize {
        let calls = self.ec2.calls().await.unwrap();
        calls.iter().filter(|call| call.action == action).count()
    }
}

fn request(operation: &str, count: u32) -> LaunchRequest {
    LaunchRequest {
        operation: operation.parse().unwrap(),
        attempt: 1,
        pool: "workers".into(),
        zone: "us-east-1b".into(),
        market: Market::Spot,
        instance_types: vec!["m5.large".into(), "m5.xlarge".into()],
        count,
        enrolment_secret: Some(format!("secret of {operation}")),
    }
}

fn ids(instances: &[Instance]) -> BTreeSet<InstanceId> {
    instances.iter().map(|instance| instance.id.clone()).collect()
}

fn fault(action: &str, code: &str, status: u16) -> Fault {
    Fault {
        action: action.into(),
        code: Some(code.into()),
        status: Some(status),
        ..Fault::default()
    }
}

fn causes(launched: &Launched) -> Vec<(Option<String>, RefusalCause)> {
    let each = launched.refused.iter();
    each.map(|refused| {
        (
            refused.instance_type.as_ref().map(ToString::to_string),
            refused.cause,
        )
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_brings_tagged_instances_once_and_leaves_its_secret_for_them() {
    let account = Account::new("fleet-launch").await;
    let fleet = account.fleet("demo").await;
    let spot = request("op-spot", 2);
    let launched = fleet.launch(&spot).await.unwrap();
    assert_eq!((launched.instances.len(), launched.refused.len()), (2, 0));
    let again = fleet.launch(&spot).await.unwrap();
    assert_eq!(ids(&again.instances), ids(&launched.instances));

    let file = account.secrets().join("op-spot-1");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "secret of op-spot");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    // Another request under the same token is refused, and nothing comes of it; the secret stays the launch's.
    let other = LaunchRequest {
        count: 3,
        ..spot.clone()
    };
    let refused = fleet.launch(&other).await;
    assert!(
        matches!(&refused, Err(FleetError::Refused(words)) if words.contains("IdempotentParameterMismatch")),
        "{refused:?}"
    );
    assert!(file.exists(), "the secret of a launch that took place is gone");

    let on_demand = LaunchRequest {
        market: Market::OnDemand,
        zone: "us-east-1c".into(),
        instance_types: vec!["t3.small".into()],
        ..request("op-on-demand", 1)
    };
    let dear = fleet.launch(&on_demand).await.unwrap();
    let stranger = account.fleet("other").await;
    let theirs = stranger.launch(&request("op-other", 1)).await.unwrap();

    // What is found is what was launched, in all its fields.
    let found = fleet.find(&spot.operation).await.unwrap();
    assert_eq!(ids(&found), ids(&launched.instances));
    for instance in &found {
        let told = launched
            .instances
            .iter()
            .find(|told| told.id == instance.id)
            .unwrap();
        let of = |instance: &Instance| {
            let Instance {
                instance_type,
                zone,
                market,
                pool,
                operation,
                ..
            } = instance.clone();
            (instance_type, zone, market, pool, operation)
        };
        assert_eq!(of(instance), of(told));
        assert_eq!(instance.market, Market::Spot);
        assert!(instance.state.is_alive());
    }
    let listed = fleet.list().await.unwrap();
    let ours: BTreeSet<_> = ids(&launched.instances)
        .union(&ids(&dear.instances))
        .cloned()
        .collect();
    assert_eq!(ids(&listed), ours);
    let dear = listed
        .iter()
        .find(|instance| instance.market == Market::OnDemand)
        .unwrap();
    assert_eq!(
        (dear.instance_type.as_str(), dear.zone.as_str()),
        ("t3.small", "us-east-1c")
    );
    assert_eq!(ids(&stranger.list().await.unwrap()), ids(&theirs.instances));
    // An id with a wildcard in it is an id.
    assert_eq!(account.fleet("d*").await.list().await.unwrap(), []);
    assert_eq!(
        account.fleet("dem?").await.find(&spot.operation).await.unwrap(),
        []
    );

    // For people in the console.
    let client = account.ec2.client().await;
    let described = client
        .describe_instances()
        .instance_ids(dear.id.to_string())
        .send()
        .await
        .unwrap();
    let tags = described.reservations()[0].instances()[0].tags();
    let tag_of = |key: &str| {
        tags.iter()
            .find(|tag| tag.key() == Some(key))
            .and_then(|tag| tag.value())
    };
    assert_eq!(tag_of(tag::NAME), Some("demo-workers"));
    assert_eq!(tag_of(tag::CLUSTER), Some("demo"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_whose_answer_is_lost_is_found_and_repeated_without_a_second_instance() {
    let account = Account::new("fleet-lost").await;
    let fleet = account.fleet("demo").await;
    let lost = |times| Fault {
        action: "CreateFleet".into(),
        when: When::After,
        drop: true,
        times,
        ..Fault::default()
    };
    // Once: the SDK's own repetition gets the first answer.
    account.ec2.set_faults(&[lost(Some(1))]).await.unwrap();
    let first = fleet.launch(&request("op-1", 2)).await.unwrap();
    assert_eq!(first.instances.len(), 2);
    // Every time: nobody knows.
    account.ec2.set_faults(&[lost(None)]).await.unwrap();
    let second = request("op-2", 2);
    let unknown = fleet.launch(&second).await;
    assert!(matches!(&unknown, Err(FleetError::Unknown(_))), "{unknown:?}");
    assert!(
        account.secrets().join("op-2-1").exists(),
        "the machines will ask for it"
    );
    let found = fleet.find(&second.operation).await.unwrap();
    assert_eq!(found.len(), 2);
    account.ec2.set_faults(&[]).await.unwrap();
    let repeated = fleet.launch(&second).await.unwrap();
    assert_eq!(ids(&repeated.instances), ids(&found));
    assert_eq!(fleet.list().await.unwrap().len(), 4);

    // A failure of EC2's own before anything happened looks the same; the repetition launches.
    account
        .ec2
        .set_faults(&[fault("CreateFleet", "InternalError", 500)])
        .await
        .unwrap();
    let third = request("op-3", 1);
    let unknown = fleet.launch(&third).await;
    assert!(matches!(&unknown, Err(FleetError::Unknown(_))), "{unknown:?}");
    assert_eq!(fleet.find(&third.operation).await.unwrap(), []);
    account.ec2.set_faults(&[]).await.unwrap();
    assert_eq!(fleet.launch(&third).await.unwrap().instances.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_ec2_refuses_says_which_offerings_and_why() {
    let account = Account::new("fleet-refused").await;
    let fleet = account.fleet("demo").await;
    let of = |name: &str, available, code: Option<&str>| Offering {
        instance_type: Some(name.into()),
        market: Some("spot".into()),
        available,
        code: code.map(Into::into),
        ..Offering::default()
    };
    let offer = async |first: Offering, second: Offering| {
        account.ec2.set_offerings(&[first, second]).await.unwrap();
    };
    let large = Some("m5.large".to_owned());
    let xlarge = Some("m5.xlarge".to_owned());

    // Partly.
    offer(of("m5.large", 1, None), of("m5.xlarge", 9, None)).await;
    let partial = fleet.launch(&request("op-partial", 3)).await.unwrap();
    assert_eq!(partial.instances.len(), 3);
    let mut types: Vec<_> = partial
        .instances
        .iter()
        .map(|instance| instance.instance_type.as_str())
        .collect();
    types.sort_unstable();
    assert_eq!(types, ["m5.large", "m5.xlarge", "m5.xlarge"]);
    assert_eq!(causes(&partial), [(large.clone(), RefusalCause::Capacity)]);
    assert_eq!(partial.refused[0].zone.as_str(), "us-east-1b");
    assert_eq!(partial.refused[0].market, Market::Spot);

    // Not at all: nobody will ask for the secret.
    offer(
        of("m5.large", 0, None),
        of("m5.xlarge", 0, Some("VcpuLimitExceeded")),
    )
    .await;
    let none = fleet.launch(&request("op-none", 1)).await.unwrap();
    assert_eq!(none.instances, []);
    assert_eq!(
        causes(&none),
        [
            (large.clone(), RefusalCause::Capacity),
            (xlarge.clone(), RefusalCause::Quota)
        ]
    );
    assert!(!account.secrets().join("op-none-1").exists());
    assert!(account.secrets().join("op-partial-1").exists());
    offer(
        of("m5.large", 0, Some("Unsupported")),
        of("m5.xlarge", 0, Some("InvalidFleetConfiguration")),
    )
    .await;
    let wrong = fleet.launch(&request("op-wrong", 1)).await.unwrap();
    assert_eq!(
        causes(&wrong),
        [
            (large, RefusalCause::Capacity),
            (xlarge, RefusalCause::Configuration)
        ]
    );
    account.ec2.set_offerings(&[]).await.unwrap();

    // The call as a whole.
    for (code, cause) in [
        ("MaxSpotInstanceCountExceeded", RefusalCause::Quota),
        ("InsufficientFreeAddressesInSubnet", RefusalCause::Capacity),
    ] {
        account
            .ec2
            .set_faults(&[fault("CreateFleet", code, 400)])
            .await
            .unwrap();
        let launched = fleet.launch(&request("op-whole", 1)).await.unwrap();
        assert_eq!(causes(&launched), [(None, cause)], "{code}");
    }
    for (code, status) in [
        ("InvalidLaunchTemplateId.NotFound", 400),
        ("UnauthorizedOperation", 403),
    ] {
        account
            .ec2
            .set_faults(&[fault("CreateFleet", code, status)])
            .await
            .unwrap();
        let refused = fleet.launch(&request("op-refused", 1)).await;
        assert!(
            matches!(&refused, Err(FleetError::Refused(words)) if words.contains(code)),
            "{refused:?}"
        );
        assert!(!account.secrets().join("op-refused-1").exists());
    }
    account
        .ec2
        .set_faults(&[fault("*", "RequestLimitExceeded", 503)])
        .await
        .unwrap();
    let (launch, list, terminate) = tokio::join!(
        async { fleet.launch(&request("op-throttled", 1)).await.map(drop) },
        async { fleet.list().await.map(drop) },
        async { fleet.terminate(&["i-0123456789abcdef0".parse().unwrap()]).await },
    );
    for result in [launch, list, terminate] {
        assert!(matches!(&result, Err(FleetError::Throttled(_))), "{result:?}");
    }
    account.ec2.set_faults(&[]).await.unwrap();

    // What no call can be made of is refused without one.
    let before = account.called("CreateFleet").await;
    for request in [
        LaunchRequest {
            zone: "us-east-1f".into(),
            ..request("op-zone", 1)
        },
        LaunchRequest {
            pool: "unknown".into(),
            ..request("op-pool", 1)
        },
    ] {
        let refused = fleet.launch(&request).await;
        assert!(
            matches!(&refused, Err(FleetError::Refused(words)) if words.contains("fleet.pool.")),
            "{refused:?}"
        );
    }
    assert_eq!(account.called("CreateFleet").await, before);

    // A template that is not there, as EC2 itself says it.
    let wrong = account.fleet_of_template("demo", "no-such-template").await;
    match wrong.launch(&request("op-template", 1)).await {
        Ok(launched) => {
            assert_eq!(launched.instances, []);
            assert!(
                !launched.refused.is_empty()
                    && causes(&launched)
                        .iter()
                        .all(|(_, cause)| *cause == RefusalCause::Configuration),
                "{launched:?}"
            );
        }
        Err(error) => assert!(matches!(&error, FleetError::Refused(_)), "{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn terminating_may_be_repeated_and_none_holds_up_the_others() {
    let account = Account::new("fleet-terminate").await;
    let fleet = account.fleet("demo").await;
    let launched = fleet.launch(&request("op-1", 4)).await.unwrap();
    let ids: Vec<_> = launched
        .instances
        .iter()
        .map(|instance| instance.id.clone())
        .collect();
    let unknown: InstanceId = "i-0123456789abcdef0".parse().unwrap();
    let states = async || {
        let found = fleet.find(&"op-1".parse().unwrap()).await.unwrap();
        let gone = |id: &InstanceId| {
            let instance = found.iter().find(|instance| instance.id == *id).unwrap();
            !instance.state.is_alive()
        };
        ids.iter().map(gone).collect::<Vec<_>>()
    };
    fleet.terminate(&[]).await.unwrap();
    assert_eq!(
        account.called("TerminateInstances").await,
        0,
        "a call about nothing is an error at EC2"
    );
    fleet.terminate(&ids[..1]).await.unwrap();
    fleet.terminate(&ids[..1]).await.unwrap();
    fleet.terminate(std::slice::from_ref(&unknown)).await.unwrap();
    assert_eq!(states().await, [true, false, false, false]);
    fleet
        .terminate(&[ids[0].clone(), unknown.clone(), ids[1].clone()])
        .await
        .unwrap();
    assert_eq!(states().await, [true, true, false, false]);

    account.ec2.protect(ids[2].as_str()).await.unwrap();
    let protected = fleet.terminate(&[ids[2].clone(), unknown, ids[3].clone()]).await;
    assert!(
        matches!(&protected, Err(FleetError::Refused(words)) if words.contains(ids[2].as_str())),
        "{protected:?}"
    );
    assert_eq!(states().await, [true, true, false, true]);
    let looked = fleet.look(&ids[0]).await.unwrap().unwrap();
    assert!(!looked.state.is_alive());
    assert_eq!(
        fleet.look(&"i-0123456789abcdef0".parse().unwrap()).await.unwrap(),
        None
    );
    let listed = fleet.list().await.unwrap();
    let alive: Vec<_> = listed
        .iter()
        .filter(|instance| instance.state.is_alive())
        .collect();
    assert_eq!(alive.len(), 1);
    assert_eq!(alive[0].id, ids[2]);

    // The answer is lost: the same again is no error.
    let lost = Fault {
        action: "TerminateInstances".into(),
        when: When::After,
        drop: true,
        ..Fault::default()
    };
    let another = fleet.launch(&request("op-2", 1)).await.unwrap();
    let another = [another.instances[0].id.clone()];
    account.ec2.set_faults(&[lost]).await.unwrap();
    let unknown = fleet.terminate(&another).await;
    assert!(matches!(&unknown, Err(FleetError::Unknown(_))), "{unknown:?}");
    account.ec2.set_faults(&[]).await.unwrap();
    fleet.terminate(&another).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_an_older_template_version_has_drifted_and_a_template_without_use_is_named() {
    let account = Account::new("fleet-drift").await;
    let fleet = account.fleet("demo").await;
    let before = fleet.launch(&request("op-before", 1)).await.unwrap();
    let of_another_cluster = account.fleet("other").await;
    let other = LaunchRequest {
        attempt: 2,
        ..request("op-before", 1)
    };
    of_another_cluster.launch(&other).await.unwrap();
    assert_eq!(fleet.drift().await.unwrap(), Drift::default());

    let ec2 = account.client().await;
    let name = &account.world.launch_template_name;
    let image = RequestLaunchTemplateData::builder()
        .image_id("ami-12c6146b")
        .build();
    let version = ec2
        .create_launch_template_version()
        .launch_template_name(name)
        .launch_template_data(image)
        .send();
    version.await.unwrap();
    // The pool launches the default version: nothing has changed yet.
    assert_eq!(fleet.drift().await.unwrap(), Drift::default());
    let default = ec2.modify_launch_template().launch_template_name(name);
    default.default_version("2").send().await.unwrap();
    let tag = Tag::builder().key(tag::CLUSTER).value("demo").build();
    let tags = TagSpecification::builder()
        .resource_type(ResourceType::LaunchTemplate)
        .tags(tag)
        .build();
    let left_behind = ec2
        .create_launch_template()
        .launch_template_name("left-behind")
        .launch_template_data(RequestLaunchTemplateData::builder().build())
        .tag_specifications(tags);
    left_behind.send().await.unwrap();

    let after = fleet.launch(&request("op-after", 1)).await.unwrap();
    let drift = fleet.drift().await.unwrap();
    let drifted: BTreeSet<_> = drift.machines.keys().cloned().collect();
    assert_eq!(drifted, ids(&before.instances));
    assert!(drifted.is_disjoint(&ids(&after.instances)));
    let how = drift.machines.values().next().unwrap();
    assert!(
        how.starts_with("it was launched from version 1 of template lt-"),
        "{how}"
    );
    assert!(how.ends_with("launches use version 2"), "{how}");
    assert_eq!(drift.unused.len(), 1);
    assert!(drift.unused[0].starts_with("left-behind (lt-"), "{drift:?}");
    // The new version says nothing of its own of metadata and volumes.
    assert_eq!(drift.unsound.len(), 2, "{drift:?}");
    assert!(
        drift.unsound[0].starts_with("pool workers, version 2 of template lt-"),
        "{drift:?}"
    );
    assert!(drift.unsound[0].contains("IMDSv1"), "{drift:?}");
}
