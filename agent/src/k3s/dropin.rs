//! The drop-in of K3s' configuration that makes this machine the node it was launched to be.
//!
//! Lists are written with a `+` after the key, which adds to what the machine's own configuration lists there instead of
//! replacing it (<https://docs.k3s.io/installation/configuration#value-merge-behavior>). Labels and taints act at the node's
//! registration alone.

use std::fmt;

use smartscale_planner::model::{Zone, keys};

use crate::machine::Machine;

/// What K3s is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropIn {
    /// URL of the K3s server.
    pub server: String,
    /// Where the token lies.
    pub token_file: String,
    /// Name of the node.
    pub node_name: String,
    /// Arguments of the kubelet, `name=value`.
    pub kubelet_args: Vec<String>,
    /// Labels of the node, `key=value`.
    pub labels: Vec<String>,
    /// Taints of the node, `key=value:effect`.
    pub taints: Vec<String>,
}

impl DropIn {
    /// The drop-in for `machine`. K3s keeps the labels of type, zone and region only if the kubelet sets them; those of
    /// `node-role.kubernetes.io` a kubelet may not set at all.
    #[must_use]
    pub fn new(
        machine: &Machine,
        node_name: &str,
        pool: &str,
        market: &str,
        server: String,
        token_file: String,
    ) -> Self {
        let zone = Zone::from(machine.zone.as_str());
        let labels = [
            (keys::POOL, pool),
            (keys::MARKET, market),
            (keys::INSTANCE_TYPE, machine.instance_type.as_str()),
            (keys::ZONE, machine.zone.as_str()),
            (keys::REGION, zone.region()),
        ];
        Self {
            server,
            token_file,
            node_name: node_name.to_owned(),
            kubelet_args: machine
                .provider_id
                .iter()
                .map(|id| format!("provider-id={id}"))
                .collect(),
            labels: labels
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
            // Lifted by the coordinator once it has verified who registered.
            taints: vec![format!("{}=true:NoSchedule", keys::UNVERIFIED)],
        }
    }

    /// Adds further labels, `key=value`.
    #[must_use]
    pub fn with_labels(mut self, labels: &[String]) -> Self {
        self.labels.extend_from_slice(labels);
        self
    }
}

impl fmt::Display for DropIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Written by smartscale-agent at every boot; changes are lost."
        )?;
        writeln!(f, "server: {}", quoted(&self.server))?;
        writeln!(f, "token-file: {}", quoted(&self.token_file))?;
        writeln!(f, "node-name: {}", quoted(&self.node_name))?;
        for (key, values) in [
            ("kubelet-arg", &self.kubelet_args),
            ("node-label", &self.labels),
            ("node-taint", &self.taints),
        ] {
            if !values.is_empty() {
                writeln!(f, "{key}+:")?;
                values
                    .iter()
                    .try_for_each(|value| writeln!(f, "  - {}", quoted(value)))?;
            }
        }
        Ok(())
    }
}

/// A YAML double-quoted scalar: a JSON string is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use smartscale_planner::model::Market;

    use super::*;

    #[test]
    fn the_drop_in_says_what_the_node_is() {
        let machine = Machine {
            id: "i-0123456789abcdef0".parse().unwrap(),
            instance_type: "t3.small".into(),
            zone: "us-east-1a".into(),
            market: Market::Spot,
            private_ip: "10.0.1.17".parse().unwrap(),
            provider_id: Some("aws:///us-east-1a/i-0123456789abcdef0".into()),
        };
        let drop_in = DropIn::new(
            &machine,
            "i-0123456789abcdef0",
            "general",
            "spot",
            "https://10.0.0.10:6443".into(),
            "/run/smartscale/k3s-token".into(),
        );
        assert_eq!(
            drop_in.to_string(),
            r#"# Written by smartscale-agent at every boot; changes are lost.
server: "https://10.0.0.10:6443"
token-file: "/run/smartscale/k3s-token"
node-name: "i-0123456789abcdef0"
kubelet-arg+:
  - "provider-id=aws:///us-east-1a/i-0123456789abcdef0"
node-label+:
  - "smartscale.io/pool=general"
  - "smartscale.io/market=spot"
  - "node.kubernetes.io/instance-type=t3.small"
  - "topology.kubernetes.io/zone=us-east-1a"
  - "topology.kubernetes.io/region=us-east-1"
node-taint+:
  - "smartscale.io/unverified=true:NoSchedule"
"#
        );
    }

    #[test]
    fn no_value_can_break_out_of_its_line() {
        assert_eq!(quoted("a\"b\nserver: evil"), r#""a\"b\nserver: evil""#);
    }
}
