//! The fleet: whether its machines can be listed, and whether what pools are launched from is sound.

use std::sync::Arc;

use async_trait::async_trait;
use smartscale_proto::check::Finding;

use super::Check;
use crate::act::fleet::Fleet;

const AREA: &str = "fleet";

/// Lists machines and looks at templates. Nothing is launched.
pub struct FleetCheck {
    /// The fleet.
    pub fleet: Arc<dyn Fleet>,
    /// Whether it is EC2. Any other launches from no template.
    pub is_ec2: bool,
}

#[async_trait]
impl Check for FleetCheck {
    fn area(&self) -> &'static str {
        AREA
    }

    async fn run(&self) -> Vec<Finding> {
        let mut findings = vec![self.listed().await];
        if self.is_ec2 {
            findings.extend(self.templates().await);
        }
        findings
    }
}

impl FleetCheck {
    async fn listed(&self) -> Finding {
        let tried = "listed the machines of the cluster";
        match self.fleet.list().await {
            Ok(instances) => {
                let alive = instances
                    .iter()
                    .filter(|instance| instance.state.is_alive())
                    .count();
                Finding::passed(AREA, tried, format!("{alive} are there"))
            }
            Err(error) => {
                let remedy = if self.is_ec2 {
                    "look at aws.region and at the credentials of this machine's role (aws sts get-caller-identity), which \
                     need ec2:DescribeInstances"
                } else {
                    "run the program of fleet.command with `list` as the coordinator's user; what it wrote to standard error \
                     is in the log"
                };
                Finding::failed(AREA, tried, error.to_string(), remedy)
            }
        }
    }

    async fn templates(&self) -> Vec<Finding> {
        let tried = "looked at what the pools are launched from";
        match self.fleet.drift().await {
            Ok(drift) if drift.unsound.is_empty() => vec![Finding::passed(AREA, tried, "it is sound")],
            Ok(drift) => drift
                .unsound
                .into_iter()
                .map(|what| {
                    let remedy = "mend the launch template of the pool, or [fleet.pool] of coordinator.toml";
                    Finding::failed(AREA, tried, what, remedy)
                })
                .collect(),
            Err(error) => {
                let remedy = "look at [fleet.pool] of coordinator.toml; the role needs ec2:DescribeLaunchTemplateVersions and \
                              ec2:DescribeImages";
                vec![Finding::failed(AREA, tried, error.to_string(), remedy)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use smartscale_proto::check::Outcome;

    use super::{
        super::testing::{outcomes, says_what_to_do},
        *,
    };
    use crate::{
        act::fleet::{Drift, FleetError, Instance, LaunchRequest, Launched},
        ids::{InstanceId, OperationId},
    };

    struct Has(Result<Drift, FleetError>);

    #[async_trait]
    impl Fleet for Has {
        async fn launch(&self, _: &LaunchRequest) -> Result<Launched, FleetError> {
            unreachable!("a check launches nothing")
        }
        async fn find(&self, _: &OperationId) -> Result<Vec<Instance>, FleetError> {
            unreachable!("a check knows no operation")
        }
        async fn list(&self) -> Result<Vec<Instance>, FleetError> {
            self.0.clone().map(|_| Vec::new())
        }
        async fn look(&self, _: &InstanceId) -> Result<Option<Instance>, FleetError> {
            unreachable!("a check looks at no machine")
        }
        async fn drift(&self) -> Result<Drift, FleetError> {
            self.0.clone()
        }
        async fn terminate(&self, _: &[InstanceId]) -> Result<(), FleetError> {
            unreachable!("a check terminates nothing")
        }
    }

    #[tokio::test]
    async fn a_fleet_is_listed_and_its_templates_are_judged() {
        let unsound = Drift {
            unsound: vec!["pool workers: there is no launch template lt-0".to_owned()],
            ..Drift::default()
        };
        let refused = FleetError::Refused("UnauthorizedOperation".to_owned());
        for (has, expected) in [
            (Ok(Drift::default()), [Outcome::Passed, Outcome::Passed]),
            (Ok(unsound), [Outcome::Passed, Outcome::Failed]),
            (Err(refused), [Outcome::Failed, Outcome::Failed]),
        ] {
            for (is_ec2, expected) in [(true, &expected[..]), (false, &expected[..1])] {
                let fleet = Arc::new(Has(has.clone()));
                let findings = FleetCheck { fleet, is_ec2 }.run().await;
                assert_eq!(outcomes(&findings), expected);
                says_what_to_do(&findings);
            }
        }
    }
}
