#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use super::*;
use crate::drain::OnTimeout;

const LEAST: &str = r#"
coordinators = ["10.0.0.10:7443"]
trust_domain = "smartscale"
cluster = "demo"
ca_fingerprint = "sha256:abababababababababababababababababababababababababababababababab"
"#;

fn refused(more: &str) -> ConfigError {
    Config::parse(&format!("{LEAST}{more}")).unwrap_err()
}

#[test]
fn the_least_configuration_takes_every_default() {
    let config = Config::parse(LEAST).unwrap();
    assert_eq!(config.state_dir, Path::new("/var/lib/smartscale"));
    assert_eq!(config.imds.endpoint, "http://169.254.169.254");
    assert_eq!(
        config.k3s.kubeconfig,
        Path::new("/var/lib/rancher/k3s/agent/kubelet.kubeconfig")
    );
    assert_eq!(config.drain.terms.timeout, Duration::from_secs(300));
    assert_eq!(config.drain.terms.on_timeout, OnTimeout::Abort);
    assert_eq!(config.drain.terms.spot_on_timeout, OnTimeout::Force);
    assert_eq!(config.secrets.join_token, "k3s/join-token");
}

#[test]
fn a_machine_without_imds_is_described() {
    let config = Config::parse(&format!(
        "{LEAST}[machine]\nid = \"rack-1\"\ntype = \"metal\"\nzone = \"hall-2\"\nip = \"10.1.0.5\"\n"
    ))
    .unwrap();
    let machine = config.machine.unwrap();
    assert_eq!(machine.id.as_str(), "rack-1");
    assert_eq!(machine.provider_id, None);
}

#[test]
fn every_mistake_is_named_with_its_key() {
    for (more, path, message) in [
        (
            "stat_dir = \"/x\"",
            "stat_dir",
            "unknown field `stat_dir`, expected one of",
        ),
        (
            "[drain.spot]\ndeadlin = \"90s\"",
            "drain.spot.deadlin",
            "unknown field `deadlin`",
        ),
        (
            "[drain.spot]\ndeadline = \"90\"",
            "drain.spot.deadline",
            "is not a duration: expected for example",
        ),
        (
            "[drain.spot]\ndeadline = \"5m\"",
            "drain.spot.deadline",
            "is out of bounds",
        ),
        (
            "[drain]\non_timeout = \"wait\"",
            "drain.on_timeout",
            "expected `abort` or `force`",
        ),
        (
            "[health]\nquiet_interval = \"500ms\"",
            "health.quiet_interval",
            "shorter than health.changing_interval",
        ),
        (
            "[imds]\nendpoint = \"169.254.169.254\"",
            "imds.endpoint",
            "http://host[:port] is",
        ),
        ("[imds]\nhops = 0", "imds.hops", "1 to 64"),
        (
            "[metrics]\nlisten = \"0.0.0.0:9109\"",
            "metrics.listen",
            "no address of loopback",
        ),
        (
            "[secrets]\nfrom = \"vault\"",
            "secrets.from",
            "expected `store` or `coordinator`",
        ),
        ("state_dir = \"state\"", "state_dir", "not an absolute path"),
        ("ca_file = \"/x\"", "ca_fingerprint", "only one of them"),
        (
            "[k3s.labels]\n\"node-role.kubernetes.io/worker\" = \"true\"",
            "k3s.labels.node-role.kubernetes.io/worker",
            "may not",
        ),
        (
            "[secrets]\njoin_token = \"../x\"",
            "secrets.join_token",
            "not the name of a secret",
        ),
        (
            "[machine]\nid = \"a b\"\ntype = \"t\"\nzone = \"z\"\nip = \"10.0.0.1\"",
            "machine.id",
            "is not a name",
        ),
    ] {
        let error = refused(more);
        assert_eq!(error.path, path, "{more}: {error}");
        assert!(error.message.contains(message), "{more}: {error}");
    }
}

#[test]
fn a_coordinator_needs_a_port() {
    let text = LEAST.replace("10.0.0.10:7443", "10.0.0.10");
    let error = Config::parse(&text).unwrap_err();
    assert_eq!(error.path, "coordinators[0]");
}

#[test]
fn a_missing_key_is_named() {
    let error = Config::parse("trust_domain = \"a\"").unwrap_err();
    assert!(error.message.contains("missing field `coordinators`"), "{error}");
}

#[test]
fn a_missing_authority_is_named_with_the_way_out() {
    let text = LEAST.replace("ca_fingerprint", "# ");
    let error = Config::parse(&text).unwrap_err();
    assert_eq!(error.path, "ca_file");
    assert!(error.message.contains("ca_fingerprint"));
}

#[test]
fn an_instance_proves_itself_by_either_of_its_roles_and_a_described_machine_by_neither() {
    let attestor = |more: &str| Config::parse(&format!("{LEAST}{more}")).map(|config| config.attestor);
    assert_eq!(
        attestor("").unwrap(),
        Attestor::Token("/etc/smartscale/enrolment-token".into())
    );
    assert_eq!(
        attestor("[attestor]\nkind = \"ec2\"").unwrap(),
        Attestor::Ec2Identity
    );
    assert_eq!(
        attestor("[attestor]\nkind = \"ec2\"\ncredentials = \"profile\"").unwrap(),
        Attestor::Ec2Profile
    );
    let refused = refused(
        "[attestor]\nkind = \"ec2\"\n[machine]\nid = \"rack-1\"\ntype = \"metal\"\nzone = \"hall-2\"\nip = \"10.1.0.5\"\n",
    );
    assert_eq!(refused.path, "attestor.kind");
}

#[test]
fn two_authorities_are_known_while_one_follows_on_the_other() {
    let (old, new) = ("ab".repeat(32), "cd".repeat(32));
    let text = LEAST.replace(&old, &format!("{old}, sha256:{new}"));
    let config = Config::parse(&text).unwrap();
    assert_eq!(
        config.anchors,
        Anchors::Fingerprints(vec![[0xab; 32], [0xcd; 32]])
    );
}
