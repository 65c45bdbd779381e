//! Join tokens that the coordinator mints: what the API server makes of them.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::client::Body;
use smartscale_coordinator::kubernetes::join_tokens::BootstrapTokens;
use smartscale_coordinator::serve::join_tokens::{JoinTokens as _, TOKEN_LIFE};
use smartscale_planner::model::NodeName;
use smartscale_tests::rig::kubernetes::client_of;
use smartscale_tests::rig::wait;

use super::{DEADLINE, api, coordinator, shared};

/// What K3s serves beside the API.
fn with_ca_bundle(client: Client, bundle: &str) -> Client {
    let bundle = bundle.to_owned();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, bundle) = (client.clone(), bundle.clone());
        let answer: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
            match request.uri().path() {
                "/cacerts" => Ok(http::Response::new(Body::from(bundle.into_bytes()))),
                _ => client.send(request).await,
            }
        });
        answer
    });
    Client::new(service, "default")
}

#[test]
fn a_minted_token_is_a_joining_nodes_until_it_expires_and_then_goes_away() {
    shared(async |world| {
        let manifest =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/kubernetes/join-tokens/rbac.yaml");
        world.cluster.apply(&manifest).await.unwrap();
        let bundle = world.cluster.authority().certificate().to_owned();
        let client = with_ca_bundle(coordinator(&world.kubeconfig).await, &bundle);
        let tokens = BootstrapTokens::new(api(client));
        let node = NodeName::new("i-joins");

        let token = tokens.mint(&node, TOKEN_LIFE).await.unwrap();
        let hash = smartscale_proto::k3s::ca_hash(bundle.as_bytes()).unwrap();
        let bearer = token.strip_prefix(&format!("K10{hash}::")).unwrap();
        let kubeconfig = world
            .cluster
            .access()
            .token_kubeconfig("joining", bearer)
            .unwrap();
        let reviews = Api::<SelfSubjectReview>::all(client_of(&kubeconfig).await.unwrap());
        let groups = wait::until("the token to be known", DEADLINE, || async {
            let review = reviews
                .create(&PostParams::default(), &SelfSubjectReview::default())
                .await?;
            Ok(review.status.and_then(|status| status.user_info?.groups))
        })
        .await
        .unwrap();
        let group = "system:bootstrappers:k3s:default-node-token".to_owned();
        assert!(groups.contains(&group), "{groups:?}");

        let secrets = Api::<Secret>::namespaced(world.cluster.client(), "kube-system");
        let lapsed = tokens.mint(&node, Duration::ZERO).await.unwrap();
        let (id, _) = lapsed.rsplit_once("::").unwrap().1.split_once('.').unwrap();
        let name = format!("bootstrap-token-{id}");
        wait::until_true("the expired token to go", DEADLINE, || async {
            Ok(secrets.get_opt(&name).await?.is_none())
        })
        .await
        .unwrap();
    });
}

#[test]
fn a_coordinator_without_the_right_or_without_a_ca_bundle_says_so() {
    shared(async |world| {
        let nobody = smartscale_tests::rig::kubernetes::Identity::new("nobody", None);
        let nobody = world.cluster.client_of(&nobody).await.unwrap();
        let bundle = world.cluster.authority().certificate();
        let tokens = BootstrapTokens::new(api(with_ca_bundle(nobody.clone(), bundle)));
        let node = NodeName::new("i-joins");
        let refused = tokens.mint(&node, TOKEN_LIFE).await.unwrap_err().to_string();
        assert!(refused.contains("secrets is forbidden"), "{refused}");

        let without = BootstrapTokens::new(api(nobody));
        let refused = without.mint(&node, TOKEN_LIFE).await.unwrap_err().to_string();
        assert!(refused.contains("the cluster's CA bundle"), "{refused}");
    });
}
