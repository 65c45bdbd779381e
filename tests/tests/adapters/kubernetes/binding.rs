//! Whose a node is: what a kubelet's credential can do to its Node, and what the API server demands of one that registers.

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use smartscale_coordinator::act::binding::{Binding, Verified};
use smartscale_coordinator::act::nodes::Nodes as _;
use smartscale_planner::model::{NodeName, keys};
use smartscale_tests::rig::kubernetes::{Identity, NodeBuilder, node, pod};
use smartscale_tests::rig::wait;

use super::{DEADLINE, World, shared};

/// The API with the credential of this node's kubelet.
async fn kubelet(world: &World, name: &str) -> Api<Node> {
    let client: Client = world.cluster.client_of(&Identity::kubelet(name)).await.unwrap();
    Api::all(client)
}

/// What KWOK keeps Ready, as a kubelet would register it.
fn registering(name: &str) -> NodeBuilder {
    node(name).annotation("kwok.x-k8s.io/node", "fake")
}

fn tainted(name: &str) -> NodeBuilder {
    registering(name).taint(keys::UNVERIFIED, Some("true"), "NoSchedule")
}

async fn register(api: &Api<Node>, node: NodeBuilder) -> Result<Node, (u16, String)> {
    match api.create(&PostParams::default(), &node.build()).await {
        Ok(node) => Ok(node),
        Err(kube::Error::Api(status)) => Err((status.code, status.message.clone())),
        Err(error) => panic!("{error}"),
    }
}

async fn patch(api: &Api<Node>, name: &str, patch: Value) -> Result<(), u16> {
    match api
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(error) => panic!("{error}"),
    }
}

/// What the agent writes.
fn proof(uid: &str, nonce: &str) -> Value {
    json!({ "metadata": { "uid": uid, "annotations": { keys::NONCE: nonce } } })
}

fn is_tainted(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.is_some_and(|taints| taints.iter().any(|taint| taint.key == keys::UNVERIFIED))
}

/// The policy is in force a moment after it is there.
async fn guarded(world: &World) {
    let api = kubelet(world, "probe").await;
    wait::until_true("the policy to be in force", DEADLINE, || async {
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let created = api.create(&dry, &registering("probe").build()).await;
        Ok(matches!(created, Err(kube::Error::Api(status)) if status.code == 403))
    })
    .await
    .unwrap();
}

#[test]
fn a_node_that_registers_itself_without_the_taint_is_refused_and_others_are_not() {
    shared(async |world| {
        guarded(&world).await;
        let api = kubelet(&world, "bare").await;
        let (code, message) = register(&api, registering("bare")).await.unwrap_err();
        assert_eq!(code, 403);
        assert!(message.contains("smartscale.io/unverified"), "{message}");
        // Another effect keeps nobody away.
        let weak = registering("bare").taint(keys::UNVERIFIED, Some("true"), "PreferNoSchedule");
        assert_eq!(register(&api, weak).await.unwrap_err().0, 403);
        assert!(register(&api, tainted("bare")).await.is_ok());

        // One that is named may; an administrator may anyhow.
        let named = json!({ "data": { "named": "a server" } });
        Api::<ConfigMap>::namespaced(world.cluster.client(), "kube-system")
            .patch(
                "smartscale-other-nodes",
                &PatchParams::default(),
                &Patch::Merge(named),
            )
            .await
            .unwrap();
        let api = kubelet(&world, "named").await;
        wait::until_true("the list to be read", DEADLINE, || async {
            Ok(register(&api, registering("named")).await.is_ok())
        })
        .await
        .unwrap();
        assert!(register(&world.admin(), registering("by-admin")).await.is_ok());
        for name in ["bare", "named", "by-admin"] {
            world
                .admin::<Node>()
                .delete(name, &DeleteParams::default())
                .await
                .unwrap();
        }
    });
}

#[test]
fn an_impostor_keeps_its_taint_and_the_real_node_becomes_usable() {
    shared(async |world| {
        guarded(&world).await;
        let place = world.place("binding").await;
        let (own, other) = (kubelet(&world, "i-real").await, kubelet(&world, "i-other").await);
        let registered = register(&own, tainted("i-real")).await.unwrap();
        let uid = registered.metadata.uid.unwrap();
        place
            .pod(
                pod("waits")
                    .node_selector(keys::HOSTNAME, "i-real")
                    .requests("100m", "64Mi"),
            )
            .await;
        let binding = Binding::new(&"i-real".parse().unwrap(), &Binding::mint()).unwrap();
        let nodes = world.nodes().await;
        let name = NodeName::new("i-real");
        let look = || nodes.verify(&name, &binding);
        let unproven = Ok(Verified::Unproven { uid: uid.clone() });

        // Without a nonce, with one it made up, and by its own hand.
        assert_eq!(look().await, unproven);
        patch(&own, "i-real", proof(&uid, &"0".repeat(64))).await.unwrap();
        assert_eq!(look().await, unproven);
        let untaint = json!({ "spec": { "taints": null } });
        assert_eq!(patch(&own, "i-real", untaint).await, Err(403));
        assert!(is_tainted(&world.read_node("i-real").await));
        // Another node's kubelet knows the nonce and cannot write it; nor can anybody to another UID.
        let nonce = binding.nonce(&uid);
        assert_eq!(patch(&other, "i-real", proof(&uid, &nonce)).await, Err(403));
        let stale = proof("00000000-0000-0000-0000-000000000000", &nonce);
        assert_eq!(patch(&own, "i-real", stale).await, Err(422));
        assert_eq!(look().await, unproven);
        let waiting = place.all::<Pod>().get("waits").await.unwrap();
        assert_eq!(waiting.spec.unwrap().node_name, None);

        patch(&own, "i-real", proof(&uid, &nonce)).await.unwrap();
        assert_eq!(look().await, Ok(Verified::Lifted));
        wait::until_true("the pod on the node", DEADLINE, || async {
            let pod = place.all::<Pod>().get("waits").await?;
            Ok(pod.spec.and_then(|spec| spec.node_name).as_deref() == Some("i-real"))
        })
        .await
        .unwrap();

        // Whoever registers the name again is another Node, for which the nonce that everybody could read is none.
        world
            .admin::<Node>()
            .delete("i-real", &DeleteParams::default())
            .await
            .unwrap();
        assert_eq!(register(&own, registering("i-real")).await.unwrap_err().0, 403);
        let again = tainted("i-real").annotation(keys::NONCE, &nonce);
        let again = register(&own, again).await.unwrap().metadata.uid.unwrap();
        assert_ne!(again, uid);
        assert_eq!(look().await, Ok(Verified::Unproven { uid: again }));
        assert!(is_tainted(&world.read_node("i-real").await));
        world
            .admin::<Node>()
            .delete("i-real", &DeleteParams::default())
            .await
            .unwrap();
    });
}
