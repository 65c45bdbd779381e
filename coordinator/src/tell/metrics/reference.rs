//! `docs/reference/metrics.md`, made from the registry: a family without a sample here fails the test.

use smartscale_reference::{agree, samples};

use super::*;

const ABOUT: &str = "\
# Metrics of a coordinator

What `/metrics` answers (`[http]` of [`coordinator.toml`](coordinator.md)), in the text format of OpenMetrics. Counters and gauges are of
the coordinator that is asked; a standby's counters stand still, and `smartscale_leader` says which one leads. What to be woken for is in
[alerts-and-dashboard](../alerts-and-dashboard.md), what the codes mean in [codes](codes.md), what each agent serves for itself in
[metrics of an agent](metrics-agent.md). This page is made from the registry (`make reference`); a test holds it against that.

";

#[test]
fn the_reference_of_metrics_is_what_the_registry_has() {
    let metrics = Metrics::new("1");
    let inner = &metrics.inner;
    let any = || "any".to_owned();
    drop(inner.decisions.get_or_create(&ByAction { action: any() }));
    drop(inner.scale_up.get_or_create(&ByReason { reason: any() }));
    drop(inner.join_steps.get_or_create(&ByStep { step: any() }));
    drop(inner.notices.get_or_create(&ByNotice {
        kind: any(),
        source: any(),
    }));
    drop(inner.queue_messages.get_or_create(&ByOutcome { outcome: any() }));
    drop(inner.drained_pods.get_or_create(&ByState { state: any() }));
    drop(inner.troubles.get_or_create(&ByErrorType { error_type: any() }));
    drop(inner.forecast.get_or_create(&ByQuantile { quantile: any() }));
    drop(inner.forecast_loss.get_or_create(&ByFloor { floor: any() }));
    metrics.begin_sink("any");
    metrics.set_nodes(1, 1);
    metrics.set_unplaced(std::iter::once(any()));
    metrics.set_held(std::iter::once(any()));
    metrics.set_source("any", true, Some(1.0));
    agree("metrics.md", &format!("{ABOUT}{}", samples(&metrics.encode())));
}
