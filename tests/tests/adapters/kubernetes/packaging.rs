//! What people apply from the packages: kustomize builds it, the API server takes it by the strictest of its rules, and Prometheus
//! finds by it what the coordinator asks for.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};
use smartscale_coordinator::policy::{CONFIG_MAP_KEY, Offer};
use smartscale_tests::rig::kubernetes::node;
use smartscale_tests::rig::process::{Process, Program};
use smartscale_tests::rig::{cache, wait};

use super::{DEADLINE, World, create, shared};

const MONITORING: &str = "smartscale-monitoring";
/// Addresses of a K3s server and of a worker.
const SERVER: &str = "10.0.0.10";
const WORKER: &str = "10.0.1.17";

fn packaged(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(path)
}

fn read(file: &Path) -> Vec<DynamicObject> {
    serde_saphyr::from_multiple(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// What kustomize makes of a folder.
fn built(folder: &str) -> Vec<DynamicObject> {
    let program = cache::installed("bin/kustomize").unwrap();
    let output = Command::new(program)
        .arg("build")
        .arg(packaged(folder))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{folder}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

fn described(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("", |types| &types.kind);
    let meta = &object.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    format!("{kind} {namespace}/{}", meta.name.as_deref().unwrap_or_default())
}

/// Applies an object, or only has it judged.
async fn apply(world: &World, object: &DynamicObject, params: &PatchParams) -> anyhow::Result<()> {
    let gvk = GroupVersionKind::try_from(object.types.as_ref().context("a kind")?)?;
    let resource = ApiResource::from_gvk(&gvk);
    let client = world.cluster.client();
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let name = object.metadata.name.as_deref().context("a name")?;
    api.patch(name, params, &Patch::Apply(object))
        .await
        .with_context(|| described(object))?;
    Ok(())
}

/// Server-side dry-run, in which an unknown or repeated field is an error.
async fn judged(world: &World, object: &DynamicObject) {
    let strict = PatchParams::apply("rig").force().dry_run().validation_strict();
    if let Err(error) = apply(world, object, &strict).await {
        panic!("{error:#}");
    }
}

async fn namespace(world: &World, name: &str) {
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let object: Namespace = serde_json::from_value(object).unwrap();
    let params = PatchParams::apply("rig").force();
    let all = world.admin::<Namespace>();
    all.patch(name, &params, &Patch::Apply(&object)).await.unwrap();
}

/// Other people's kinds, as their own schemas describe them.
async fn schemas(world: &World) {
    let folder = cache::installed("crds").unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        for crd in read(&file.unwrap().path()) {
            let params = PatchParams::apply("rig").force();
            apply(world, &crd, &params).await.unwrap();
        }
    }
}

#[test]
fn every_kustomization_builds_and_the_api_server_takes_each_object_by_its_strictest_rules() {
    shared(async |world| {
        for name in [MONITORING, "flux-system", "argocd"] {
            namespace(&world, name).await;
        }
        schemas(&world).await;
        let folders = [
            ("kubernetes", "ClusterRole /smartscale-coordinator"),
            ("kubernetes/hand-over", "ClusterRole /smartscale-hand-over"),
            (
                "kubernetes/join-tokens",
                "Role kube-system/smartscale-join-tokens",
            ),
            (
                "kubernetes/monitoring",
                "DaemonSet smartscale-monitoring/node-exporter",
            ),
            ("kubernetes/policy", "Role kube-system/smartscale-policy"),
            (
                "kubernetes/service-monitor",
                "ServiceMonitor kube-system/smartscale-coordinator",
            ),
            ("kubernetes/steer", "ClusterRole /smartscale-steer"),
            ("gitops/cluster", "ConfigMap kube-system/smartscale-policy"),
        ];
        let kustomizations = kustomizations(&packaged(""));
        assert_eq!(kustomizations.len(), folders.len(), "{kustomizations:?}");
        for (folder, wanted) in folders {
            let objects = built(folder);
            let all: Vec<_> = objects.iter().map(described).collect();
            assert!(all.iter().any(|object| object == wanted), "{folder}: {all:?}");
            for object in objects {
                served(&world, &object).await;
                judged(&world, &object).await;
            }
        }
        for file in ["gitops/flux/smartscale.yaml", "gitops/argo-cd/smartscale.yaml"] {
            for object in read(&packaged(file)) {
                served(&world, &object).await;
                judged(&world, &object).await;
            }
        }
        // That the rules are strict: one letter too many.
        let mut wrong = read(&packaged("gitops/flux/smartscale.yaml")).remove(0);
        wrong.data["spec"]["intervall"] = json!("1m");
        let strict = PatchParams::apply("rig").force().dry_run().validation_strict();
        let refused = apply(&world, &wrong, &strict).await.unwrap_err();
        assert!(format!("{refused:#}").contains("intervall"), "{refused:#}");
    });
}

/// Waits until a kind is served: those of a schema are a moment after it was applied.
async fn served(world: &World, object: &DynamicObject) {
    let version = &object.types.as_ref().unwrap().api_version;
    let kind = &object.types.as_ref().unwrap().kind;
    wait::until_true(&format!("{version} {kind}"), DEADLINE, || async {
        let client = world.cluster.client();
        let resources = if version.contains('/') {
            client.list_api_group_resources(version).await
        } else {
            client.list_core_api_resources(version).await
        };
        Ok(resources?.resources.iter().any(|resource| &resource.kind == kind))
    })
    .await
    .unwrap();
}

fn kustomizations(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(kustomizations(&path));
        } else if path.file_name().is_some_and(|name| name == "kustomization.yaml") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_policy_of_the_examples_holds_and_keeps_its_name_whatever_it_says() {
    let objects = built("gitops/cluster");
    let map = objects
        .iter()
        .find(|object| described(object) == "ConfigMap kube-system/smartscale-policy");
    let text = map.unwrap().data["data"][CONFIG_MAP_KEY].as_str().unwrap();
    let offer = Offer {
        text: Ok(text.to_owned()),
        uid: None,
    };
    let (_, warnings) = offer.judge(None).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// Prometheus' configuration in the ConfigMap.
fn configuration(objects: &[DynamicObject]) -> &str {
    let name = format!("ConfigMap {MONITORING}/prometheus-");
    let map = objects.iter().find(|object| described(object).starts_with(&name));
    map.unwrap().data["data"]["prometheus.yml"].as_str().unwrap()
}

#[test]
fn prometheus_finds_node_exporter_on_every_node_under_the_nodes_name_and_the_coordinators_with_its_own_rights()
 {
    shared(async |world| {
        namespace(&world, MONITORING).await;
        let objects = built("kubernetes/monitoring");
        let is_right = |object: &&DynamicObject| {
            let kind = described(object);
            kind.contains("Role") || kind.starts_with("ServiceAccount")
        };
        for object in objects.iter().filter(is_right) {
            apply(&world, object, &PatchParams::apply("rig").force())
                .await
                .unwrap();
        }
        let control_plane = node("monitoring-server").label("node-role.kubernetes.io/control-plane", "true");
        world.node(control_plane).await;
        world.node(node("monitoring-worker")).await;
        let address = json!({ "status": { "addresses": [{ "type": "InternalIP", "address": SERVER }] } });
        world
            .admin::<Node>()
            .patch_status(
                "monitoring-server",
                &PatchParams::default(),
                &Patch::Merge(&address),
            )
            .await
            .unwrap();
        exporter(&world, &objects).await;

        let kubeconfig = world
            .cluster
            .account_kubeconfig(MONITORING, "prometheus")
            .await
            .unwrap();
        let config = world
            .folder
            .write("prometheus-packaged.yaml", configuration(&objects))
            .unwrap();
        let program = Program::new(
            "prometheus-targets",
            cache::installed("bin/prometheus-targets").unwrap(),
        )
        .arg(config)
        .arg(kubeconfig);
        let targets = Process::spawn(program, &world.folder).unwrap();
        let target = async |job: &str| -> anyhow::Result<Option<Value>> {
            let said = std::fs::read_to_string(targets.log())?;
            // Its own log is among what it says.
            let mut said = said
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            Ok(said.rfind(|target| target["job"] == job))
        };
        let what = "node-exporter to be found";
        let found = wait::until(what, DEADLINE, || target("node-exporter"))
            .await
            .unwrap();
        assert_eq!(found["labels"]["node"], "monitoring-worker");
        assert_eq!(found["labels"]["instance"], "monitoring-worker");
        assert_eq!(found["url"], format!("http://{WORKER}:9100/metrics"));
        let what = "the coordinator to be found";
        let found = wait::until(what, DEADLINE, || target("smartscale-coordinator"))
            .await
            .unwrap();
        assert_eq!(found["url"], format!("http://{SERVER}:9810/metrics"));
    });
}

/// A pod as the DaemonSet of the packages would make it, on the worker, once it runs. Nobody listens there.
async fn exporter(world: &World, objects: &[DynamicObject]) {
    let daemon_set = format!("DaemonSet {MONITORING}/node-exporter");
    let daemon_set = objects
        .iter()
        .find(|object| described(object) == daemon_set)
        .unwrap();
    let template = &daemon_set.data["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "node-exporter", "labels": template["metadata"]["labels"] },
        "spec": template["spec"],
    });
    pod["spec"]["nodeName"] = json!("monitoring-worker");
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), MONITORING);
    create(&pods, &serde_json::from_value(pod).unwrap()).await;
    wait::until_true("node-exporter to run", DEADLINE, || async {
        let status = pods.get("node-exporter").await?.status.unwrap_or_default();
        Ok(status.phase.as_deref() == Some("Running"))
    })
    .await
    .unwrap();
    // On the host's network it has the node's address, which KWOK's nodes do not have.
    let address = json!({ "status": { "podIP": WORKER, "podIPs": [{ "ip": WORKER }] } });
    pods.patch_status("node-exporter", &PatchParams::default(), &Patch::Merge(&address))
        .await
        .unwrap();
}
