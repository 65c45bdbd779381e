#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use super::*;
use crate::tell::{Severity, post::SlackDoor};

const LEAST: &str = r#"
name = "a"
mode = "act"
policy = "policy.toml"
[serve]
listen = "127.0.0.1:0"
advertise = "127.0.0.1:7443"
[fleet]
"#;

fn of(text: &str) -> Result<Config, ConfigError> {
    parse(Path::new("/etc/smartscale/coordinator.toml"), text)
}

fn path_of(text: &str) -> String {
    of(text).unwrap_err().path
}

#[test]
fn the_least_configuration_takes_the_printed_defaults() {
    let config = of(LEAST).unwrap();
    assert_eq!(config.policy, Origin::File("/etc/smartscale/policy.toml".into()));
    assert_eq!(config.store, Store::Sqlite("/var/lib/smartscale/state.db".into()));
    let elsewhere = parse(Path::new("/home/me/try/coordinator.toml"), LEAST).unwrap();
    assert_eq!(elsewhere.store, Store::Sqlite("/home/me/try/state.db".into()));
    assert_eq!(config.lease, LeaseTimes::default());
    assert_eq!(config.timing, Timing::default());
    assert_eq!(config.market, Some(market::Settings::default()));
    assert_eq!(config.certificate_life, Duration::from_secs(12 * 3600));
}

#[test]
fn the_template_is_sound_with_and_without_its_comments_taken_away() {
    let filled = TEMPLATE
        .replace("@LISTEN@", "0.0.0.0:7443")
        .replace("@ADVERTISE@", "10.0.0.10:7443")
        .replace("@TRUST@", "smartscale");
    let plain = of(&filled).unwrap();
    let keys_uncommented: String = filled
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest)
                if rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| is_key(key)) =>
            {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        // Of two kinds of store, of fleets, of attestors, of join tokens and of ways to Slack, one can be chosen; pods are not handed
        // over by default.
        .filter(|line| {
            let others = [
                "table = ",
                "command = ",
                "role = ",
                "oldest = ",
                "server = ",
                "hand_over = ",
                "token_file = ",
                "channel = ",
                "api_url = ",
            ];
            !others.iter().any(|key| line.starts_with(key))
        })
        .collect();
    let whole = of(&keys_uncommented).unwrap();
    assert_eq!(plain.timing, whole.timing);
    assert_eq!(plain.lease, whole.lease);
    assert_eq!(plain.market, whole.market);
    assert_eq!(plain.store, whole.store);
    assert_eq!(plain.http, whole.http);
    assert_eq!(plain.certificate_life, whole.certificate_life);
    let notify = &whole.notify;
    assert!(whole.prometheus.is_some() && notify.sns.is_some());
    assert!(notify.slack.is_some() && notify.webhook.is_some() && notify.quiet.len() == 1);
    assert_eq!(plain.notify, Notify::default());
}

fn is_key(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[test]
fn the_policy_is_a_file_or_a_config_map() {
    let with = |policy: &str| of(&LEAST.replace("\"policy.toml\"", policy));
    let config = with(r#"{ config_map = "kube-system/smartscale-policy" }"#).unwrap();
    let name = "kube-system/smartscale-policy".parse().unwrap();
    assert_eq!(config.policy, Origin::ConfigMap(name));

    let error = with(r#"{ config_map = "smartscale-policy" }"#).unwrap_err();
    assert_eq!(error.path, "policy.config_map");
    assert!(
        error.message.contains("kube-system/smartscale-policy"),
        "{}",
        error.message
    );
    let error = with(r#"{ configmap = "kube-system/smartscale-policy" }"#).unwrap_err();
    assert!(error.message.contains("config_map"), "{error}");
    let error = with("7").unwrap_err();
    assert_eq!(error.path, "policy");
    assert!(error.message.contains("config_map"), "{error}");
}

#[test]
fn an_unknown_key_is_named_by_its_path_and_the_known_ones_are_listed() {
    let error = of(&LEAST.replace("[fleet]", "[fleet]\nkin = \"ec2\"")).unwrap_err();
    assert_eq!(error.path, "fleet.kin");
    assert!(error.message.contains("kind"), "{}", error.message);
}

#[test]
fn a_value_out_of_bounds_is_named_by_its_path() {
    assert_eq!(path_of(&LEAST.replace("act", "dry-run")), "mode");
    assert_eq!(
        path_of(&format!("{LEAST}[lease]\nrenewal = \"13s\"")),
        "lease.renewal"
    );
    assert_eq!(
        path_of(&format!("{LEAST}[lease]\nlength = \"fifteen\"")),
        "lease.length"
    );
    assert_eq!(
        path_of(&format!("{LEAST}[trust]\ncertificate_life = \"48h\"")),
        "trust.certificate_life"
    );
    assert_eq!(path_of(&format!("{LEAST}[store]\nkind = \"etcd\"")), "store.kind");
    assert_eq!(
        path_of(&format!("{LEAST}[join]\ntokens = \"minted\"")),
        "join.server"
    );
    assert_eq!(
        path_of(&format!("{LEAST}[join]\nserver = \"https://10.0.0.10:6443\"")),
        "join.server"
    );
    assert_eq!(path_of(&format!("{LEAST}[store]\ntable = \"t\"")), "store.table");
    assert_eq!(
        path_of(&LEAST.replace("127.0.0.1:7443", "here")),
        "serve.advertise"
    );
    assert_eq!(path_of(&LEAST.replace("127.0.0.1:0", "here")), "serve.listen");
    assert_eq!(
        path_of(&format!("{LEAST}[prometheus]\nurl = \"localhost:9090\"")),
        "prometheus.url"
    );
    assert_eq!(
        path_of(&format!(
            "{LEAST}[notices]\nqueue_url = \"arn:aws:sqs:us-east-1:1:q\""
        )),
        "notices.queue_url"
    );
    assert_eq!(
        path_of(&format!("{LEAST}[timing]\nbatch_idle = \"10s\"")),
        "timing.batch_idle"
    );
    assert_eq!(
        path_of(&format!("{LEAST}[market]\nspot = \"2h\"")),
        "market.stale"
    );
    assert_eq!(
        of(&format!("{LEAST}[market]\nkind = \"none\"")).unwrap().market,
        None
    );
    assert_eq!(
        path_of(&format!("{LEAST}[timing]\nready = \"0s\"")),
        "timing.ready"
    );
    assert_eq!(path_of(&LEAST.replace("name = \"a\"", "name = \"a b\"")), "name");
    assert_eq!(path_of(&LEAST.replace("[fleet]", "")), ".");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load(Path::new("/nonexistent/coordinator.toml")).unwrap_err();
    assert!(
        error.to_string().starts_with("/nonexistent/coordinator.toml: ."),
        "{error}"
    );
}

#[test]
fn machines_prove_themselves_by_a_secret_unless_another_way_is_named() {
    assert_eq!(of(LEAST).unwrap().attestor, Attestor::Token);
    let ec2 = |aws: &str, more: &str| {
        of(&format!(
            "{LEAST}[aws]\n{aws}\n[enrolment]\nattestor = \"ec2\"\n{more}"
        ))
    };
    let region = "region = \"us-east-1\"";
    assert_eq!(
        ec2(region, "role = \"k3s-worker\"").unwrap().attestor,
        Attestor::Ec2 {
            role: Some("k3s-worker".into()),
            oldest: Duration::from_secs(3600),
        }
    );
    assert_eq!(ec2("", "").unwrap_err().path, "aws.region");
    for role in ["", "arn:aws:iam::123456789012:role/worker", "aws:ec2-instance"] {
        assert_eq!(
            ec2(region, &format!("role = \"{role}\"")).unwrap_err().path,
            "enrolment.role"
        );
    }
    assert_eq!(
        path_of(&format!("{LEAST}[enrolment]\nrole = \"worker\"")),
        "enrolment.role"
    );
    assert_eq!(
        path_of(&format!("{LEAST}[enrolment]\nattestor = \"tpm\"")),
        "enrolment.attestor"
    );
}

/// The least configuration with a fleet that is a program, and more.
fn with_command(fleet: &str, more: &str) -> Result<Config, ConfigError> {
    let fleet = format!("[fleet]\nkind = \"command\"\n{fleet}\n{more}");
    of(&LEAST.replace("[fleet]\n", &fleet))
}

const PROGRAM: &str = "command = { program = [\"/opt/fleet\", \"--site\", \"a b\"] }";

#[test]
fn a_program_may_be_the_fleet_and_what_only_ec2_has_is_off() {
    let config = with_command(PROGRAM, "").unwrap();
    let Fleet::Command(settings) = &config.fleet else {
        panic!("{:?}", config.fleet);
    };
    assert_eq!(settings.program, Path::new("/opt/fleet"));
    assert_eq!(settings.arguments, ["--site", "a b"]);
    assert_eq!(settings.timeout, Duration::from_secs(20));
    assert_eq!((config.market, config.notices_queue.clone()), (None, None));
    assert!(!config.needs_aws() && of(LEAST).unwrap().needs_aws());
    let kept = "[store]\nkind = \"dynamodb\"";
    assert!(with_command(PROGRAM, kept).unwrap().needs_aws());
}

#[test]
fn a_fleets_program_is_an_absolute_path_with_a_bounded_time_and_nothing_of_ec2_beside_it() {
    for (fleet, more, path) in [
        ("", "", "fleet.command.program"),
        ("command = { program = [] }", "", "fleet.command.program"),
        ("command = { program = [\"fleet\"] }", "", "fleet.command.program"),
        (
            "command = { program = [\"/x\\u0000\"] }",
            "",
            "fleet.command.program",
        ),
        (
            "command = { program = [\"/x\"], timeout = \"10m\" }",
            "",
            "fleet.command.timeout",
        ),
        (
            "command = { program = [\"/x\"], environment = { \"A=B\" = \"\" } }",
            "",
            "fleet.command.environment.A=B",
        ),
        (
            PROGRAM,
            "[fleet.pool.workers]\nlaunch_template = \"lt-1\"",
            "fleet.pool",
        ),
        (PROGRAM, "[enrolment]\nattestor = \"ec2\"", "enrolment.attestor"),
        (
            PROGRAM,
            "[enrolment]\nsecret_dir = \"/run\"",
            "enrolment.secret_dir",
        ),
        (PROGRAM, "[market]\nkind = \"aws\"", "market.kind"),
        (
            PROGRAM,
            "[notices]\nqueue_url = \"https://sqs\"",
            "notices.queue_url",
        ),
    ] {
        assert_eq!(
            with_command(fleet, more).unwrap_err().path,
            path,
            "{fleet} {more}"
        );
    }
    let stray = LEAST.replace("[fleet]\n", &format!("[fleet]\n{PROGRAM}\n"));
    assert_eq!(path_of(&stray), "fleet.command");
}

#[test]
fn who_is_told_and_how_much_is_said_for_each_channel() {
    let notify = |text: &str| of(&format!("{LEAST}[notify]\n{text}")).unwrap().notify;
    let arn = "arn:aws:sns:us-east-1:123456789012:smartscale";
    let old = notify(&format!("sns_topic = \"{arn}\"\nleast = \"warning\""));
    let sns = old.sns.unwrap();
    assert_eq!((sns.topic.as_str(), sns.format), (arn, SnsFormat::Json));
    assert_eq!(
        (sns.bounds.least, sns.bounds.most_per_minute),
        (Severity::Warning, None)
    );

    let new = notify(&format!(
        "[notify.sns]\ntopic = \"{arn}\"\nformat = \"chatbot\"\nleast = \"failure\"\n\
         [notify.slack]\nwebhook_url_file = \"hook\"\nmost_per_minute = 0\n\
         [[notify.quiet]]\ncron = \"0 22 * * *\"\nduration = \"9h\"\ntime_zone = \"Europe/Berlin\"\n"
    ));
    let sns = new.sns.unwrap();
    assert_eq!(sns.format, SnsFormat::Chatbot);
    assert_eq!(
        (sns.bounds.least, sns.bounds.most_per_minute),
        (Severity::Failure, Some(20))
    );
    let slack = new.slack.unwrap();
    assert_eq!(slack.door, SlackDoor::Webhook("/etc/smartscale/hook".into()));
    assert_eq!(
        (slack.bounds.least, slack.bounds.most_per_minute),
        (Severity::Info, None)
    );
    let within = "2026-01-09T21:00:00Z".parse().unwrap();
    assert_eq!(
        new.quiet[0].until(within),
        Some("2026-01-10T06:00:00Z".parse().unwrap())
    );
}

#[test]
fn a_channel_that_cannot_be_is_named_by_its_key_and_a_secret_is_not_shown() {
    for (text, path) in [
        ("least = \"loud\"", "notify.least"),
        (
            "sns_topic = \"a\"\n[notify.sns]\ntopic = \"b\"",
            "notify.sns.topic",
        ),
        ("[notify.sns]\nformat = \"text\"", "notify.sns.topic"),
        (
            "sns_topic = \"a\"\n[notify.sns]\nformat = \"xml\"",
            "notify.sns.format",
        ),
        ("[notify.slack]", "notify.slack"),
        ("[notify.slack]\nurl = \"x\"", "notify.slack.url"),
        ("[notify.slack]\ntoken_file = \"t\"", "notify.slack.channel"),
        (
            "[notify.slack]\ntoken_file = \"t\"\nwebhook_url_file = \"w\"",
            "notify.slack.token_file",
        ),
        (
            "[notify.slack]\nwebhook_url_file = \"w\"\nchannel = \"c\"",
            "notify.slack.channel",
        ),
        ("[notify.webhook]", "notify.webhook"),
        (
            "[notify.webhook]\nurl = \"http://hooks.example/hunter2\"",
            "notify.webhook.url",
        ),
        (
            "[[notify.quiet]]\ncron = \"0 22 * *\"\nduration = \"9h\"\ntime_zone = \"UTC\"",
            "notify.quiet[0].cron",
        ),
        (
            "[[notify.quiet]]\ncron = \"0 22 * * *\"\nduration = \"9h\"\ntime_zone = \"Mars\"",
            "notify.quiet[0].time_zone",
        ),
        (
            "[[notify.quiet]]\ncron = \"0 22 * * *\"\nduration = \"8d\"\ntime_zone = \"UTC\"",
            "notify.quiet[0].duration",
        ),
    ] {
        let error = of(&format!("{LEAST}[notify]\n{text}")).unwrap_err();
        assert_eq!(error.path, path, "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
