#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-02T03:04:05Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn event(source: &str, detail_type: &str, time: &str, detail: &Value) -> String {
    json!({
        "version": "0", "id": "12345678-1234-1234-1234-123456789012", "detail-type": detail_type, "source": source,
        "account": "123456789012", "time": time, "region": "us-east-1",
        "resources": ["arn:aws:ec2:us-east-1a:instance/i-0123456789abcdef0"], "detail": detail
    })
    .to_string()
}

fn warning(time: &str) -> String {
    let detail = json!({ "instance-id": "i-0123456789abcdef0", "instance-action": "terminate" });
    event("aws.ec2", "EC2 Spot Instance Interruption Warning", time, &detail)
}

fn health(change: impl FnOnce(&mut Value)) -> String {
    let mut detail = json!({
        "eventArn": "arn:aws:health:us-east-1::event/EC2/AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED/AWS_EC2_1",
        "service": "EC2", "eventTypeCode": "AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED",
        "eventTypeCategory": "scheduledChange", "statusCode": "upcoming",
        "startTime": "Thu, 15 Jan 2026 15:10:09 GMT", "endTime": "Thu, 15 Jan 2026 17:10:09 GMT",
        "eventDescription": [{ "language": "en_US", "latestDescription": "A description" }],
        "affectedEntities": [{ "entityValue": "i-aaaa", "tags": { "a": "b" } }, { "entityValue": "vol-1" },
                             { "entityValue": "i-bbbb" }]
    });
    change(&mut detail);
    event("aws.health", "AWS Health Event", NOW, &detail)
}

fn notices(body: &str) -> Vec<Said> {
    match parse(body, now()).unwrap() {
        Message::Notices(said) => said,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_interruption_is_due_two_minutes_after_its_warning() {
    let said = notices(&warning("2026-01-02T03:04:00Z"));
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].kind, NoticeKind::SpotInterruption);
    assert_eq!(said[0].instance.as_str(), "i-0123456789abcdef0");
    assert_eq!(said[0].at.unwrap().to_string(), "2026-01-02T03:06:00Z");
    assert_eq!(
        (said[0].detail.as_str(), said[0].source),
        ("terminate", NoticeSource::Queue)
    );
}

#[test]
fn an_interruption_that_was_due_long_ago_begins_nothing() {
    let ignored = parse(&warning("2026-01-02T02:52:04Z"), now()).unwrap();
    assert!(matches!(ignored, Message::Ignored(_)), "{ignored:?}");
    assert_eq!(notices(&warning("2026-01-02T02:52:05Z")).len(), 1);
}

#[test]
fn a_recommendation_has_no_time() {
    let detail = json!({ "instance-id": "i-1" });
    let said = notices(&event(
        "aws.ec2",
        "EC2 Instance Rebalance Recommendation",
        NOW,
        &detail,
    ));
    assert_eq!((said[0].kind, said[0].at), (NoticeKind::Rebalance, None));
}

#[test]
fn maintenance_concerns_every_machine_that_the_event_names_and_nothing_else() {
    let said = notices(&health(|_| {}));
    let machines: Vec<_> = said.iter().map(|one| one.instance.as_str()).collect();
    assert_eq!(machines, ["i-aaaa", "i-bbbb"]);
    assert_eq!(said[0].kind, NoticeKind::Maintenance);
    assert_eq!(said[0].at.unwrap().to_string(), "2026-01-15T15:10:09Z");
    assert_eq!(said[0].detail, "AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED");
}

#[test]
fn maintenance_of_any_code_counts_while_it_is_not_over() {
    for code in [
        "AWS_EC2_PERSISTENT_INSTANCE_RETIREMENT_SCHEDULED",
        "AWS_EC2_INSTANCE_STOP_SCHEDULED",
        "AWS_EC2_INSTANCE_REBOOT_MAINTENANCE_SCHEDULED",
        "AWS_EC2_SYSTEM_REBOOT_MAINTENANCE_SCHEDULED",
        "AWS_EC2_INSTANCE_NETWORK_MAINTENANCE_SCHEDULED",
    ] {
        assert_eq!(
            notices(&health(|d| d["eventTypeCode"] = code.into()))[0].detail,
            code
        );
    }
    let over: [fn(&mut Value); 5] = [
        |d| d["statusCode"] = "closed".into(),
        |d| d["endTime"] = "Thu, 01 Jan 2026 15:10:09 GMT".into(),
        |d| d["service"] = "RDS".into(),
        |d| d["eventTypeCategory"] = "accountNotification".into(),
        |d| d["affectedEntities"] = json!([]),
    ];
    for change in over {
        let message = parse(&health(change), now()).unwrap();
        assert!(matches!(message, Message::Ignored(_)), "{message:?}");
    }
}

#[test]
fn a_machine_on_its_way_out_is_looked_at_and_one_that_starts_is_not() {
    let changed = |state: &str| {
        let detail = json!({ "instance-id": "i-1", "state": state });
        parse(
            &event("aws.ec2", "EC2 Instance State-change Notification", NOW, &detail),
            now(),
        )
        .unwrap()
    };
    for state in ["stopping", "stopped", "shutting-down", "terminated"] {
        assert_eq!(changed(state), Message::Stopping("i-1".parse().unwrap()));
    }
    for state in ["pending", "running", "on-fire"] {
        assert!(matches!(changed(state), Message::Ignored(_)), "{state}");
    }
}

#[test]
fn what_is_no_event_of_ec2_is_told_apart_from_what_is_no_event() {
    let other = event("aws.s3", "Object Created", NOW, &json!({ "bucket": 1 }));
    assert!(matches!(parse(&other, now()).unwrap(), Message::Ignored(_)));
    let forged = event(
        "example.com",
        "EC2 Spot Instance Interruption Warning",
        NOW,
        &json!({ "instance-id": "i-1", "instance-action": "terminate" }),
    );
    assert!(matches!(parse(&forged, now()).unwrap(), Message::Ignored(_)));
    for body in ["", "{}", "[]", "null", "\u{0}", "{\"detail\": {}}"] {
        assert!(matches!(parse(body, now()), Err(Unreadable::Json(_))), "{body}");
    }
}

#[test]
fn hostile_events_are_refused_with_what_is_wrong_with_them() {
    let of = |instance: &str| {
        event(
            "aws.ec2",
            "EC2 Instance Rebalance Recommendation",
            NOW,
            &json!({ "instance-id": instance }),
        )
    };
    let long = "i-".repeat(40);
    for instance in ["", "../../etc", "i-1 or 1=1", "i-1\n", &long] {
        let refused = parse(&of(instance), now());
        assert!(matches!(refused, Err(Unreadable::Instance(_))), "{refused:?}");
    }
    let refused = parse(&warning("2026-01-02T03:09:06Z"), now());
    assert!(matches!(refused, Err(Unreadable::Future(_))), "{refused:?}");
    let refused = parse(&warning("tomorrow"), now());
    assert!(matches!(refused, Err(Unreadable::Time(_))), "{refused:?}");
    let huge = health(|d| d["eventDescription"] = "x".repeat(LONGEST).into());
    assert!(matches!(parse(&huge, now()), Err(Unreadable::TooLong(_))));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(parse(&deep, now()), Err(Unreadable::Json(_))));
}

#[test]
fn of_an_event_with_very_many_machines_a_bounded_number_is_read() {
    let many: Vec<Value> = (0..2 * MOST_ENTITIES)
        .map(|n| json!({ "entityValue": format!("i-{n:x}") }))
        .collect();
    assert_eq!(
        notices(&health(|d| d["affectedEntities"] = many.into())).len(),
        MOST_ENTITIES
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text: String) {
        let _ = parse(&text, now());
    }

    #[test]
    fn no_field_makes_the_reader_panic_or_say_more_than_it_may(
        instance: String, action: String, id: String, time: String, state: String, code: String,
    ) {
        let detail = json!({
            "instance-id": instance, "instance-action": action, "state": state, "service": "EC2",
            "eventTypeCode": code, "eventTypeCategory": "scheduledChange", "startTime": time,
            "affectedEntities": [{ "entityValue": format!("i-{instance}") }]
        });
        for (source, kind) in [
            ("aws.ec2", "EC2 Spot Instance Interruption Warning"),
            ("aws.ec2", "EC2 Instance Rebalance Recommendation"),
            ("aws.ec2", "EC2 Instance State-change Notification"),
            ("aws.health", "AWS Health Event"),
        ] {
            for sent in [time.as_str(), NOW] {
                let mut body: Value = serde_json::from_str(&event(source, kind, sent, &detail)).unwrap();
                body["id"] = id.clone().into();
                if let Ok(Message::Notices(said)) = parse(&body.to_string(), now()) {
                    for one in said {
                        prop_assert!(one.id.len() <= LONGEST_ID && one.detail.chars().count() <= 80);
                        prop_assert!(!one.detail.chars().any(char::is_control));
                    }
                }
            }
        }
    }
}

mod fuzz {
    use smartscale_fuzz::{Target, fuzz};

    use super::*;

    #[test]
    fn events_of_the_queue() {
        let seeds = [warning(NOW), health(|_| {})];
        let state = json!({ "instance-id": "i-0123456789abcdef0", "state": "stopping" });
        let change = event("aws.ec2", "EC2 Instance State-change Notification", NOW, &state);
        let rebalance = json!({ "instance-id": "i-0123456789abcdef0" });
        let rebalance = event(
            "aws.ec2",
            "EC2 Instance Rebalance Recommendation",
            NOW,
            &rebalance,
        );
        let target = Target {
            name: "coordinator/events",
            seeds: &[
                seeds[0].as_bytes(),
                seeds[1].as_bytes(),
                change.as_bytes(),
                rebalance.as_bytes(),
            ],
            words: &[
                "\"time\":",
                "\"detail\":",
                "\"startTime\":",
                "GMT",
                "+9999",
                "2026-01-02T03:04:05Z",
                "{",
                "}",
                "[",
                "]",
                ",",
                "i-0123456789abcdef0",
            ],
            kept: None,
        };
        fuzz(target, |input| {
            match parse(&String::from_utf8_lossy(input), now()) {
                Ok(Message::Notices(said)) => {
                    assert!(said.len() <= MOST_ENTITIES);
                    for one in &said {
                        assert!(
                            one.id.len() <= 4 * LONGEST_ID + 80,
                            "an id stays short: {}",
                            one.id.len()
                        );
                        assert!(one.at.is_none_or(|at| is_near(at, now())));
                    }
                    format!(
                        "notices {}",
                        said.iter()
                            .map(|one| format!("{:?}", one.kind))
                            .collect::<String>()
                    )
                }
                Ok(Message::Stopping(_)) => "stopping".to_owned(),
                Ok(Message::Ignored(why)) => why.to_owned(),
                Err(error) => error.to_string(),
            }
        });
    }
}
