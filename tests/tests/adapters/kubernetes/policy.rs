//! The policy in a ConfigMap, watched by the coordinator's service account, and what is told of it there.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use smartscale_coordinator::check::rights::Concern;
use smartscale_coordinator::kubernetes::events::Events;
use smartscale_coordinator::kubernetes::policy::PolicyMap;
use smartscale_coordinator::policy::{self, ConfigMapName, Offer, Origin, Policies as _, Refusal};
use smartscale_coordinator::tell::Notifier as _;
use smartscale_tests::rig::kubernetes::Identity;
use smartscale_tests::rig::wait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::rbac::may;
use super::{DEADLINE, World, api, shared};

const NAME: &str = "smartscale-policy";

fn policy(most: u32) -> String {
    format!(
        "[cluster]\nid = \"k3s\"\n[limits]\nmax_nodes = {most}\n[[pool]]\nname = \"workers\"\nzones = [\"us-east-1a\"]\n\
         instance_types = [\"t3.small\"]\n"
    )
}

fn map(text: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": NAME }, "data": { "policy.toml": text } })).unwrap()
}

async fn policy_map(world: &World) -> PolicyMap {
    PolicyMap::new(api(world.coordinator().await), name())
}

fn name() -> ConfigMapName {
    format!("kube-system/{NAME}").parse().unwrap()
}

/// Waits until an offer is as it should be.
async fn until(
    offers: &mut watch::Receiver<Option<Offer>>,
    what: &str,
    holds: impl Fn(&Offer) -> bool,
) -> Offer {
    let seen = offers.wait_for(|offer| offer.as_ref().is_some_and(&holds));
    let seen = tokio::time::timeout(DEADLINE, seen).await;
    seen.unwrap_or_else(|_| panic!("waited for {what}"))
        .unwrap()
        .clone()
        .unwrap()
}

#[test]
fn a_policy_is_offered_as_it_is_written_changed_and_deleted_and_told_at_its_config_map() {
    shared(async |world| {
        let maps: Api<ConfigMap> = Api::namespaced(world.cluster.client(), "kube-system");
        let nobody = world
            .cluster
            .client_of(&Identity::new("nobody", None))
            .await
            .unwrap();
        let without = PolicyMap::new(api(nobody), name()).look().await;
        assert!(without.unwrap_err().contains("forbidden"));
        world.cluster.apply_packaged("policy/rbac.yaml").await.unwrap();
        // Not asked as the coordinator: a call of its account that is refused is a right that is missing (`rights`).
        let reviews = world.admin::<SubjectAccessReview>();
        let account = "system:serviceaccount:kube-system:smartscale-coordinator";
        for right in Concern::Policy(name()).rights() {
            let what = right.to_string();
            wait::until_true(&what, DEADLINE, || may(&reviews, account, &right))
                .await
                .unwrap();
        }

        let (sender, mut offers) = watch::channel(None);
        let stop = CancellationToken::new();
        let running = tokio::spawn(policy_map(&world).await.run(sender, stop.clone()));
        let missing = until(&mut offers, "nothing", |offer| offer.text.is_err()).await;
        assert_eq!(
            missing.text,
            Err("there is no ConfigMap kube-system/smartscale-policy".to_owned())
        );

        let created = maps
            .create(&PostParams::default(), &map(&policy(10)))
            .await
            .unwrap();
        let first = until(&mut offers, "the policy", |offer| offer.text.is_ok()).await;
        assert_eq!(first.uid, created.metadata.uid);
        assert_eq!(first.judge(None).unwrap().0.policy.limits.max_nodes, 10);

        let typo = policy(20).replace("max_nodes", "max_node");
        let patch = Patch::Merge(json!({ "data": { "policy.toml": typo } }));
        maps.patch(NAME, &PatchParams::default(), &patch).await.unwrap();
        let changed = until(&mut offers, "the change", |offer| offer != &first).await;
        let refusal = changed.judge(None).unwrap_err();
        assert!(matches!(refusal, Refusal::Unsound(_)), "{refusal}");

        // As a keeper tells it.
        let origin = Origin::ConfigMap(name());
        let told = policy::happening(
            &origin,
            changed.uid,
            Some((&refusal, "the last good one goes on")),
            jiff::Timestamp::now(),
        );
        let events = Events::new(world.coordinator().await, "coordinator-a");
        events.notify(&told).await.unwrap();
        let described: Api<core::Event> = Api::namespaced(world.cluster.client(), "kube-system");
        let uid = created.metadata.uid.unwrap();
        // `kubectl describe configmap` asks by the UID.
        let by_uid = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
        let said = described.list(&by_uid).await.unwrap().items;
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].reason.as_deref(), Some("PolicyRefused"));
        assert_eq!(said[0].type_.as_deref(), Some("Warning"));
        let message = said[0].message.as_deref().unwrap();
        assert!(message.contains("limits.max_node"), "{message}");

        maps.delete(NAME, &DeleteParams::default()).await.unwrap();
        until(&mut offers, "the deletion", |offer| offer.text == missing.text).await;
        stop.cancel();
        running.await.unwrap();
    });
}
