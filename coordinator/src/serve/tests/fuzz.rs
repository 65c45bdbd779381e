//! What strangers and agents may send, tried with what is almost right.

use std::sync::{Arc, Mutex};

use prost::Message as _;
use smartscale_fuzz::{Target, fuzz};
use smartscale_proto::{
    time::{SharedClock, SystemClock},
    tls::keys::key_and_request,
    v1::{self, SessionRequest, session_request::Report},
};
use tokio::sync::broadcast;

use crate::{
    observe::{agents::HealthReport, notices::board::NoticeBoard},
    serve::{
        csr::RequestedKey,
        sessions::{SessionSettings, Sessions},
        testing::{Told, store},
    },
};

#[test]
fn certificate_requests() {
    let (_, request) = key_and_request().unwrap();
    let key = RequestedKey::from_request(&request).unwrap();
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let other = rcgen::CertificateParams::default()
        .serialize_request(&ed25519)
        .unwrap();
    let target = Target {
        name: "coordinator/csr",
        seeds: &[&request, other.der()],
        words: &["\u{30}\u{3}", "\u{6}\u{1}", "\u{3}\u{42}"],
        kept: None,
    };
    let both = [
        key.fingerprint(),
        RequestedKey::from_request(other.der()).unwrap().fingerprint(),
    ];
    fuzz(target, |input| match RequestedKey::from_request(input) {
        Ok(read) => {
            // Nobody else's key can have signed it.
            assert!(both.contains(&read.fingerprint()), "another key came in");
            "taken".to_owned()
        }
        Err(error) => format!("{error:?}"),
    });
}

fn requests() -> Vec<Vec<u8>> {
    let health = v1::Health {
        cpu_percent: Some(50.0),
        memory_total_bytes: Some(8 << 30),
        pressure: Some(v1::Pressure::default()),
        pods: Some(v1::PodCounts::default()),
        units: vec![v1::UnitState {
            unit: "k3s-agent.service".to_owned(),
            active_state: "active".to_owned(),
        }],
        ..v1::Health::default()
    };
    let notice = v1::Notice {
        kind: v1::NoticeKind::SpotInterruption.into(),
        id: "spot-terminate-1".to_owned(),
        at: Some(prost_types::Timestamp {
            seconds: 1_767_323_045,
            nanos: 0,
        }),
        detail: "terminate".to_owned(),
        seen_at: None,
    };
    let drain = v1::DrainReport {
        operation_id: "op-1".to_owned(),
        phase: v1::DrainPhase::Drained.into(),
        pods: vec![v1::PodOutcome {
            namespace: "default".to_owned(),
            name: "web-1".to_owned(),
            ..v1::PodOutcome::default()
        }],
        ..v1::DrainReport::default()
    };
    let boot = v1::BootReport {
        step: v1::BootStep::Kubelet.into(),
        outcome: v1::Outcome::Retrying.into(),
        attempts: 2,
        error: "no".to_owned(),
        ..v1::BootReport::default()
    };
    let result = v1::CommandResult {
        operation_id: "op-1".to_owned(),
        command: "stop_kubelet".to_owned(),
        outcome: v1::Outcome::Done.into(),
        error: String::new(),
    };
    [
        Report::Hello(v1::Hello::default()),
        Report::Health(health),
        Report::Notice(notice),
        Report::Drain(drain),
        Report::Boot(boot),
        Report::Result(result),
    ]
    .into_iter()
    .map(|report| {
        let request = SessionRequest {
            time: None,
            report: Some(report),
        };
        request.encode_to_vec()
    })
    .collect()
}

#[test]
fn what_agents_report() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let clock: SharedClock = Arc::new(SystemClock);
    let store = runtime.block_on(store(Arc::clone(&clock)));
    let told = Arc::new(Told(Mutex::default(), broadcast::channel(1).0));
    let sessions = Sessions::new(
        SessionSettings::default(),
        NoticeBoard::new(Arc::clone(&store), told.clone(), Arc::clone(&clock)),
        store,
        told.clone(),
        clock,
    );
    let instance = "i-1".parse().unwrap();
    let _ticket = sessions.begin(&instance, v1::Hello::default());
    let seeds = requests();
    let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
    let target = Target {
        name: "coordinator/reports",
        seeds: &seeds,
        words: &["op-1", "\u{0}", "notice/spot-terminate-1"],
        kept: None,
    };
    fuzz(target, |input| {
        let request = match SessionRequest::decode(input) {
            Ok(request) => request,
            Err(error) => return error.to_string(),
        };
        if let Some(Report::Health(health)) = &request.report {
            let report = HealthReport::receive(health, jiff::Timestamp::UNIX_EPOCH);
            for percent in [report.health.cpu_percent, report.health.disk_percent] {
                assert!(percent.is_none_or(|percent| (0.0..=100.0).contains(&percent)));
            }
        }
        told.0.lock().unwrap().clear();
        match runtime.block_on(sessions.take(&instance, request)) {
            Ok(acknowledged) => {
                assert!(acknowledged.as_ref().is_none_or(|id| id.len() <= 200));
                format!("taken {}", acknowledged.is_some())
            }
            Err(status) => format!("{:?} {}", status.code(), status.message()),
        }
    });
    assert!(sessions.drains(&instance).len() <= 64);
}
