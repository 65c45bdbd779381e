//! Certificates that end, and authorities that follow on each other, under open sessions.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::PrivateKeyDer;
use smartscale_proto::{
    identity::Role,
    time::from_wire,
    tls::{
        Anchors, Credential, Rotating,
        client::{Dialer, Expected},
        keys,
    },
    v1::{
        self, StatusRequest, admin_client::AdminClient, agent_client::AgentClient, session_request::Report,
        session_response::Command,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};

use crate::serve::{
    authority::{Authority, CertificateLife, Held},
    csr::RequestedKey,
    testing::{World, key, machine, names, person, until},
};

/// An agent in session, as the wire sees it.
struct Agent {
    client: AgentClient<Channel>,
    commands: Streaming<v1::SessionResponse>,
    _reports: mpsc::Sender<v1::SessionRequest>,
}

impl Agent {
    async fn connect(world: &World, credential: Credential) -> Self {
        let mut client = AgentClient::new(world.channel(credential).await);
        let (reports, stream) = mpsc::channel(4);
        let hello = v1::SessionRequest {
            time: None,
            report: Some(Report::Hello(v1::Hello::default())),
        };
        reports.send(hello).await.unwrap();
        let commands = client
            .session(ReceiverStream::new(stream))
            .await
            .unwrap()
            .into_inner();
        let mut agent = Self {
            client,
            commands,
            _reports: reports,
        };
        assert!(matches!(agent.command().await, Ok(Command::Welcome(_))));
        agent
    }

    async fn command(&mut self) -> Result<Command, tonic::Status> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.commands.message());
        let message = next.await.expect("a command within 20 s")?;
        Ok(message.expect("the stream goes on").command.unwrap())
    }

    async fn renew(&mut self, csr: &[u8]) -> v1::Certificate {
        let request = v1::RenewRequest {
            csr_der: csr.to_vec(),
        };
        self.client
            .renew(request)
            .await
            .unwrap()
            .into_inner()
            .certificate
            .unwrap()
    }
}

fn credential(key: &PrivateKeyDer<'static>, certificate: &v1::Certificate) -> Credential {
    let ders = |list: &[Vec<u8>]| list.iter().map(|der| der.clone().into()).collect::<Vec<_>>();
    Credential {
        chain: ders(&certificate.chain_der),
        key: Some(key.clone_key()),
        anchors: Anchors::Certificates(ders(&certificate.trust_anchors_der)),
    }
}

/// One call with this credential; with TLS 1.3 a refused client may learn of it only then.
async fn call(world: &World, credential: Credential) -> Result<(), String> {
    let expected = Expected {
        trust: "smartscale".parse().unwrap(),
        cluster: "demo".parse().unwrap(),
    };
    let dialer = Dialer::new(Rotating::new(credential), expected);
    let channel = dialer
        .connect(&world.address)
        .await
        .map_err(|error| error.to_string())?;
    let answer = AdminClient::new(channel).status(StatusRequest {}).await;
    match answer.map_err(|status| status.code()) {
        // An agent that came in may not ask.
        Ok(_) | Err(Code::PermissionDenied) => Ok(()),
        Err(code) => Err(code.to_string()),
    }
}

/// A machine whose first certificate was signed by the world's authority.
async fn enrolled(world: &World, instance: &str) -> Credential {
    let (key, csr) = key();
    let requested = RequestedKey::from_request(&csr).unwrap();
    let issued = world
        .authority
        .agent(instance.parse().unwrap(), &requested)
        .unwrap();
    let mut record = machine(instance);
    record.enrol(&requested.fingerprint(), Timestamp::now());
    record.certify(&requested.fingerprint(), issued.signed());
    world.put(&record).await;
    credential(&key, &issued.into())
}

#[tokio::test]
async fn a_session_outlives_its_certificates_and_an_ended_one_opens_no_other() {
    let life = CertificateLife::of_a_test(Duration::from_secs(3));
    let authority = Authority::create(names("demo")).unwrap().0.with_life(life);
    let world = World::of(Arc::new(authority)).await;
    let first = enrolled(&world, "i-1").await;
    let mut agent = Agent::connect(&world, first.clone()).await;
    let (second_key, csr) = key();
    let second = agent.renew(&csr).await;
    // That is after the end of the first one too.
    let ends = from_wire(&second.not_after.unwrap()).unwrap();
    // Certificates end with whole seconds.
    let over = ends + SignedDuration::from_secs(1);
    until(async || (Timestamp::now() >= over).then_some(())).await;
    // On the same connection, whose own certificate has ended.
    let (third_key, csr) = key();
    let third = agent.renew(&csr).await;
    assert!(from_wire(&third.not_after.unwrap()).unwrap() > from_wire(&second.not_after.unwrap()).unwrap());
    assert_eq!(world.sessions.connected().len(), 1);
    // Ended ones are not let in; the present one is.
    for ended in [first, credential(&second_key, &second)] {
        call(&world, ended).await.unwrap_err();
    }
    let _again = Agent::connect(&world, credential(&third_key, &third)).await;
}

#[tokio::test]
async fn one_authority_follows_on_another_under_an_open_session() {
    let (old, old_key) = Authority::create(names("demo")).unwrap();
    let (new, new_key) = Authority::create(names("demo")).unwrap();
    let (old_anchor, new_anchor) = (old.anchors()[0].clone(), new.anchors()[0].clone());
    let both = vec![old_anchor.clone(), new_anchor.clone()];
    let world = World::of(Arc::new(old)).await;
    let old_person = world.credential(person(Role::Viewer));
    let mut agent = Agent::connect(&world, enrolled(&world, "i-1").await).await;

    // The new one is trusted too: the agent is told at once.
    assert!(world.authority.replace(Held::new(old_key, both.clone()).unwrap()));
    assert!(matches!(agent.command().await, Ok(Command::Renew(_))));
    let told = agent.renew(&key().1).await;
    assert_eq!(told.trust_anchors_der, [old_anchor.to_vec(), new_anchor.to_vec()]);
    assert_eq!(told.chain_der[1], old_anchor.to_vec());

    // The new one signs: the coordinator's own certificate first, then whoever renews.
    let new_pem = new_key.serialize_pem();
    assert!(world.authority.replace(Held::new(new_key, both).unwrap()));
    assert!(matches!(agent.command().await, Ok(Command::Renew(_))));
    let (fresh, csr) = key();
    let moved = agent.renew(&csr).await;
    assert_eq!(moved.chain_der[1], new_anchor.to_vec());
    let mut strict = credential(&fresh, &moved);
    strict.anchors = Anchors::Certificates(vec![new_anchor.clone()]);
    // Papers of both are good, and whoever trusts the new one alone finds the coordinator.
    let mut old_person_now = old_person;
    old_person_now.anchors = Anchors::Certificates(vec![new_anchor.clone()]);
    call(&world, old_person_now.clone()).await.unwrap();
    assert_eq!(world.sessions.connected().len(), 1, "the session lives on");

    // The old one is dropped: a connection that began under it ends, and begins anew by the new certificate.
    let new_key = rcgen::KeyPair::from_pem(&new_pem).unwrap();
    assert!(
        world
            .authority
            .replace(Held::new(new_key, vec![new_anchor.clone()]).unwrap())
    );
    let end = loop {
        match agent.command().await {
            Ok(Command::Renew(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable);
    assert!(end.message().contains("not trusted any more"), "{end}");
    call(&world, old_person_now).await.unwrap_err();
    let _again = Agent::connect(&world, strict).await;
    assert_eq!(keys::fingerprint(&new_anchor), world.authority.fingerprint());
}

#[tokio::test]
async fn an_agent_that_was_away_during_the_change_is_told_when_it_is_back() {
    let (old, old_key) = Authority::create(names("demo")).unwrap();
    let (new, _) = Authority::create(names("demo")).unwrap();
    let both = [old.anchors(), new.anchors()].concat();
    let world = World::of(Arc::new(old)).await;
    let credential = enrolled(&world, "i-1").await;
    world.authority.replace(Held::new(old_key, both).unwrap());
    let mut agent = Agent::connect(&world, credential.clone()).await;
    assert!(matches!(agent.command().await, Ok(Command::Renew(_))));
    agent.renew(&key().1).await;
    // Once it knows, it is not told again.
    let mut again = Agent::connect(&world, credential).await;
    let quiet = tokio::time::timeout(Duration::from_millis(300), again.command()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}
