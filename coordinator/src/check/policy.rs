//! The policy: whether there is one, and whether its pools and the configuration's agree.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use smartscale_planner::{model::PoolName, policy::Warning};
use smartscale_proto::check::Finding;

use super::Check;
use crate::{
    decide::PolicyInForce,
    policy::{Judged, Origin, Policies},
};

const AREA: &str = "policy";

/// Judges the policy.
pub struct PolicyCheck {
    /// Where it lies.
    pub origin: Origin,
    /// Who looks there.
    pub policies: Arc<dyn Policies>,
    /// The pools that the configuration can launch; `None`: any.
    pub launchable: Option<BTreeSet<PoolName>>,
}

#[async_trait]
impl Check for PolicyCheck {
    fn area(&self) -> &'static str {
        AREA
    }

    async fn run(&self) -> Vec<Finding> {
        let tried = format!("read {}", self.origin);
        let judged = match self.policies.look().await {
            Ok(offer) => offer.judge(None).map_err(|refusal| refusal.to_string()),
            Err(error) => Err(error),
        };
        match judged {
            Ok(judged) => self.of(&tried, &judged),
            Err(error) => vec![Finding::failed(AREA, tried, error, self.remedy())],
        }
    }
}

impl PolicyCheck {
    fn of(&self, tried: &str, (in_force, warnings): &Judged) -> Vec<Finding> {
        let policy = &in_force.policy;
        let limits = &policy.limits;
        let found = format!(
            "cluster {}, {} pools, {} to {} nodes",
            policy.cluster_id,
            policy.pools.len(),
            limits.min_nodes,
            limits.max_nodes
        );
        let mut findings = vec![Finding::passed(AREA, tried, found)];
        findings.extend(warnings.iter().map(|warning| warned(tried, warning)));
        findings.extend(self.unmatched(in_force));
        findings
    }

    /// Pools that only one of policy and configuration has.
    fn unmatched(&self, in_force: &PolicyInForce) -> Vec<Finding> {
        let Some(launchable) = &self.launchable else {
            return Vec::new();
        };
        let tried = "compared the pools of the policy with [fleet.pool]";
        let pools: BTreeSet<PoolName> = in_force
            .policy
            .pools
            .iter()
            .map(|pool| pool.name.clone())
            .collect();
        let no_template = pools.difference(launchable).map(|pool| {
            Finding::failed(
                AREA,
                tried,
                format!("nothing can be launched for pool {pool}"),
                format!("add [fleet.pool.{pool}] to coordinator.toml"),
            )
        });
        let no_pool = launchable.difference(&pools).map(|pool| {
            Finding::warning(
                AREA,
                tried,
                format!("the policy has no pool {pool}"),
                format!("add it to the policy, or take [fleet.pool.{pool}] out of coordinator.toml"),
            )
        });
        no_template.chain(no_pool).collect()
    }

    fn remedy(&self) -> String {
        match &self.origin {
            Origin::File(path) => format!(
                "mend {}; `smartscale plan --policy` tries it offline",
                path.display()
            ),
            Origin::ConfigMap(name) => format!(
                "kubectl -n {} create configmap {} --from-file policy.toml, with the rights of packaging/kubernetes/policy",
                name.namespace, name.name
            ),
        }
    }
}

fn warned(tried: &str, warning: &Warning) -> Finding {
    let remedy = "look whether that is meant";
    Finding::warning(AREA, tried, warning.to_string(), remedy)
}

#[cfg(test)]
mod tests {
    use smartscale_proto::check::Outcome;

    use super::{
        super::testing::{outcomes, says_what_to_do},
        *,
    };
    use crate::policy::Offer;

    struct Has(Result<Offer, String>);

    #[async_trait]
    impl Policies for Has {
        async fn look(&self) -> Result<Offer, String> {
            self.0.clone()
        }
    }

    const SOUND: &str = "[cluster]\nid = \"k3s\"\n[[pool]]\nname = \"workers\"\nzones = [\"us-east-1a\"]\n\
                         instance_types = [\"t3.small\"]\n";

    async fn run(has: Result<Result<&str, &str>, &str>, launchable: &[&str]) -> Vec<Finding> {
        let has = has.map_err(str::to_owned).map(|text| Offer {
            text: text.map(str::to_owned).map_err(str::to_owned),
            uid: None,
        });
        let check = PolicyCheck {
            origin: Origin::File("/etc/smartscale/policy.toml".into()),
            policies: Arc::new(Has(has)),
            launchable: Some(launchable.iter().map(|name| PoolName::from(*name)).collect()),
        };
        let findings = check.run().await;
        says_what_to_do(&findings);
        findings
    }

    #[tokio::test]
    async fn a_policy_whose_pools_can_be_launched_passes() {
        assert_eq!(
            outcomes(&run(Ok(Ok(SOUND)), &["workers"]).await),
            [Outcome::Passed]
        );
    }

    #[tokio::test]
    async fn a_pool_that_cannot_be_launched_fails_and_one_too_many_is_to_be_looked_at() {
        let findings = run(Ok(Ok(SOUND)), &["other"]).await;
        assert_eq!(
            outcomes(&findings),
            [Outcome::Passed, Outcome::Failed, Outcome::Warning]
        );
        assert!(findings[1].found.contains("workers") && findings[2].found.contains("other"));
    }

    #[tokio::test]
    async fn a_policy_that_is_unsound_missing_or_out_of_reach_fails_with_the_reason() {
        let typo = SOUND.replace("zones", "zone");
        for (has, says) in [
            (Ok(Ok(&*typo)), "zone"),
            (Ok(Err("there is no ConfigMap kube-system/x")), "there is no"),
            (Err("connection refused"), "refused"),
        ] {
            let findings = run(has, &[]).await;
            assert_eq!(outcomes(&findings), [Outcome::Failed]);
            assert!(findings[0].found.contains(says), "{findings:?}");
        }
    }
}
