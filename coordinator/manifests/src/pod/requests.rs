//! What a pod requests, as `k8s.io/component-helpers/resource.PodRequests` counts it.
//!
//! ```text
//! running  = Σ containers + Σ sidecars
//! starting = max over init containers of (its own + Σ sidecars before it)
//! requests = max(running, starting), each resource by itself; the pod's own figure replaces it; + overhead
//! ```

use std::collections::BTreeMap;

use smartscale_planner::model::{self, Bytes, MilliCpu};

use super::{Container, PodSpec, Resources};
use crate::{
    convert::{self, Field},
    meta::Quantity,
};

/// An init container that runs as long as the pod does (KEP-753).
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The requests of a whole pod; it takes one slot.
pub(super) fn of(at: &str, spec: &PodSpec) -> Result<model::Resources, Field> {
    let mut running = model::Resources::default();
    for (index, container) in spec.containers.iter().enumerate() {
        running.add(&requested(
            &format!("{at}.containers[{index}].resources"),
            &container.resources,
        )?);
    }
    let mut sidecars = model::Resources::default();
    let mut starting = model::Resources::default();
    for (index, container) in spec.init_containers.iter().enumerate() {
        let own = requested(
            &format!("{at}.initContainers[{index}].resources"),
            &container.resources,
        )?;
        if is_sidecar(container) {
            sidecars.add(&own);
            starting = starting.max(&sidecars);
        } else {
            let mut both = sidecars.clone();
            both.add(&own);
            starting = starting.max(&both);
        }
    }
    running.add(&sidecars);
    let mut total = running.max(&starting);
    if let Some(whole) = &spec.resources {
        replace_by_pod_level(&mut total, &format!("{at}.resources"), whole)?;
    }
    total.add(&convert::resources(&format!("{at}.overhead"), &spec.overhead)?);
    total.pods = 1;
    Ok(total)
}

/// Requests, and limits where no request is given (the API server's defaulting).
fn requested(path: &str, resources: &Resources) -> Result<model::Resources, Field> {
    let mut limits: BTreeMap<String, Quantity> = resources.limits.clone();
    limits.retain(|name, _| !resources.requests.contains_key(name));
    let mut sum = convert::resources(&format!("{path}.requests"), &resources.requests)?;
    sum.add(&convert::resources(&format!("{path}.limits"), &limits)?);
    sum.pods = 0;
    Ok(sum)
}

/// Pod-level requests replace the containers' sums of CPU, memory and huge pages (KEP-2837); a pod-level limit does so
/// only where nothing else is requested.
fn replace_by_pod_level(total: &mut model::Resources, path: &str, whole: &Resources) -> Result<(), Field> {
    let requests = convert::resources(&format!("{path}.requests"), &whole.requests)?;
    let limits = convert::resources(&format!("{path}.limits"), &whole.limits)?;
    if whole.requests.contains_key("cpu") || total.cpu == MilliCpu::ZERO {
        total.cpu = if whole.requests.contains_key("cpu") {
            requests.cpu
        } else {
            limits.cpu
        };
    }
    if whole.requests.contains_key("memory") || total.memory == Bytes::ZERO {
        total.memory = if whole.requests.contains_key("memory") {
            requests.memory
        } else {
            limits.memory
        };
    }
    for (name, amount) in requests
        .extended
        .iter()
        .filter(|(name, _)| name.starts_with("hugepages-"))
    {
        total.extended.insert(name.clone(), *amount);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    fn container(cpu: &str, sidecar: bool) -> Container {
        Container {
            resources: Resources {
                requests: [("cpu".to_owned(), Quantity(cpu.to_owned()))].into(),
                ..Default::default()
            },
            restart_policy: sidecar.then(|| "Always".to_owned()),
            ..Container::default()
        }
    }

    fn cpu(spec: &PodSpec) -> i64 {
        of("spec", spec).unwrap().cpu.0
    }

    #[test]
    fn containers_add_up_and_init_containers_count_only_where_they_ask_for_more() {
        let mut spec = PodSpec {
            containers: vec![container("100m", false), container("200m", false)],
            ..PodSpec::default()
        };
        assert_eq!(cpu(&spec), 300);
        spec.init_containers = vec![container("250m", false)];
        assert_eq!(cpu(&spec), 300);
        spec.init_containers.push(container("1", false));
        assert_eq!(cpu(&spec), 1000);
    }

    #[test]
    fn a_sidecar_counts_beside_the_containers_and_beside_later_init_containers() {
        let mut spec = PodSpec {
            containers: vec![container("100m", false)],
            init_containers: vec![
                container("300m", false),
                container("50m", true),
                container("300m", false),
            ],
            ..PodSpec::default()
        };
        assert_eq!(cpu(&spec), 350);
        spec.containers.push(container("400m", false));
        assert_eq!(cpu(&spec), 550);
    }

    #[test]
    fn a_pod_level_request_replaces_the_sum_and_overhead_comes_on_top() {
        let mut spec = PodSpec {
            containers: vec![container("100m", false)],
            ..PodSpec::default()
        };
        spec.resources = Some(container("700m", false).resources);
        spec.overhead = [("cpu".to_owned(), Quantity("10m".to_owned()))].into();
        assert_eq!(cpu(&spec), 710);
    }

    #[test]
    fn a_limit_without_a_request_is_requested() {
        let mut only_limit = container("0", false);
        only_limit.resources = Resources {
            limits: [("cpu".to_owned(), Quantity("2".to_owned()))].into(),
            ..Default::default()
        };
        assert_eq!(
            cpu(&PodSpec {
                containers: vec![only_limit],
                ..PodSpec::default()
            }),
            2000
        );
    }

    #[test]
    fn a_pod_takes_one_slot_and_a_bad_quantity_is_named() {
        let spec = PodSpec {
            containers: vec![container("1x", false)],
            ..PodSpec::default()
        };
        let error = of("spec", &spec)
            .unwrap_err()
            .of(crate::Kind::Pod, &crate::ObjectMeta::default());
        assert_eq!(error.path, "spec.containers[0].resources.requests.cpu");
        assert_eq!(of("spec", &PodSpec::default()).unwrap().pods, 1);
    }
}
