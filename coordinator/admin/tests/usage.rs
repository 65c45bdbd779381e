//! The program as people meet it: what it says when it cannot go on, and its exit codes.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{
    path::Path,
    process::{Command, Output},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use smartscale_proto::credentials::Credentials;

fn smartscale(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_smartscale"))
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Credentials that end in `year`, with an endpoint at which nobody listens.
fn credentials(year: i32) -> Credentials {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(
        "spiffe://smartscale/cluster/demo/admin/viewer/jo"
            .try_into()
            .unwrap(),
    )];
    params.not_after = date_time_ymd(year, 1, 1);
    Credentials {
        cluster: "demo".parse().unwrap(),
        trust: "smartscale".parse().unwrap(),
        endpoints: vec!["127.0.0.1:1".to_owned()],
        ca,
        certificate: params.signed_by(&key, &issuer).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

#[test]
fn without_credentials_it_says_where_they_belong_and_who_writes_them() {
    let home = tempfile::tempdir().unwrap();
    let output = smartscale(home.path(), &["status"]);
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    assert!(
        said.contains(".config/smartscale/credentials.toml") && said.contains("smartscale-coordinator init"),
        "{said}"
    );
}

#[test]
fn credentials_that_others_could_read_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mine.toml");
    credentials(4000).write(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = smartscale(home.path(), &["status", "--credentials", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("chmod 600"), "{}", said(&output));
}

#[test]
fn credentials_that_have_ended_are_named_with_their_owner() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/smartscale");
    std::fs::create_dir_all(&folder).unwrap();
    credentials(2020).write(&folder.join("credentials.toml")).unwrap();
    let output = smartscale(home.path(), &["nodes"]);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(
        said.contains("ended") && said.contains("admin/viewer/jo"),
        "{said}"
    );
}

#[test]
fn a_coordinator_that_does_not_answer_is_named_with_its_address() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mine.toml");
    credentials(4000).write(&path).unwrap();
    let output = smartscale(home.path(), &["nodes", "--credentials", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("127.0.0.1:1") && said(&output).contains("--endpoint"),
        "{}",
        said(&output)
    );
}

#[test]
fn bad_usage_is_exit_code_two_and_help_is_zero() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(smartscale(home.path(), &["unheard"]).status.code(), Some(2));
    assert_eq!(
        smartscale(home.path(), &["pause", "--for", "soon"]).status.code(),
        Some(2)
    );
    let help = smartscale(home.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("Exit codes"));
}

#[test]
fn questions_about_a_plan_are_answered_or_refused_with_exit_code_two() {
    let home = tempfile::tempdir().unwrap();
    let cases =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../planner/tests/cases/the_cluster_is_at_its_maximum");
    let (cluster, policy) = (cases.join("cluster.yaml"), cases.join("policy.toml"));
    let plan = |more: &[&str]| {
        let files = [
            "plan",
            "-f",
            cluster.to_str().unwrap(),
            "--policy",
            policy.to_str().unwrap(),
        ];
        smartscale(home.path(), &[&files, more].concat())
    };
    let answer = plan(&["--why", "web-3", "--why", "default/web-2"]);
    assert_eq!(answer.status.code(), Some(0));
    let text = String::from_utf8_lossy(&answer.stdout);
    assert!(
        text.starts_with("default/web-3 is pending: AtMaxNodes\n"),
        "{text}"
    );
    assert!(
        text.contains("\ndefault/web-2 has a place: launch[0]\n"),
        "{text}"
    );
    for wrong in [
        ["--why", "web-9"],
        ["--why", "a/b/c"],
        ["--why-node", "node-9"],
        ["--against", "nowhere.json"],
    ] {
        let output = plan(&wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(
            output.stdout.is_empty() && said(&output).starts_with("error: "),
            "{wrong:?}"
        );
    }
    assert_eq!(
        plan(&["--why", "web-3", "--against", "old.json"]).status.code(),
        Some(2)
    );
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    let home = tempfile::tempdir().unwrap();
    let bash = smartscale(home.path(), &["completions", "bash"]);
    assert!(String::from_utf8_lossy(&bash.stdout).contains("complete"));
    let man = smartscale(home.path(), &["man"]);
    assert!(String::from_utf8_lossy(&man.stdout).contains(".TH smartscale"));
}
