#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::sync::Mutex;

use jiff::SignedDuration;
use sha2::{Digest as _, Sha256};
use smartscale_proto::time::Clock as _;

use super::*;
use crate::serve::testing::{Hand, machine};

const ID: &str = "i-0123456789abcdef0";
const CHALLENGE: [u8; 32] = [7; 32];

/// STS and EC2 as the test has them, and what they were asked.
struct Aws {
    signer: Mutex<Result<Signer, AwsError>>,
    described: Mutex<Result<Option<Described>, AwsError>>,
    asked: Mutex<Vec<SignedRequest>>,
}

#[async_trait]
impl Signatures for Aws {
    async fn whose(&self, request: &SignedRequest) -> Result<Signer, AwsError> {
        self.asked.lock().unwrap().push(request.clone());
        self.signer.lock().unwrap().clone()
    }
}

#[async_trait]
impl Instances for Aws {
    async fn describe(
        &self,
        instance: &InstanceId,
        pool: &PoolName,
        zone: &Zone,
    ) -> Result<Option<Described>, AwsError> {
        assert_eq!(
            (instance.as_str(), pool.as_str(), zone.as_str()),
            (ID, "workers", "us-east-1a")
        );
        self.described.lock().unwrap().clone()
    }
}

struct Site {
    aws: Arc<Aws>,
    attestor: Ec2Attestor,
    record: NodeRecord,
    clock: Arc<Hand>,
}

fn signer(role: &str, id: &str) -> Signer {
    Signer {
        account: "123456789012".into(),
        arn: format!("arn:aws:sts::123456789012:assumed-role/{role}/{id}"),
        user_id: format!("123456789012:{role}:{id}"),
    }
}

fn site(role: Option<&str>) -> Site {
    let clock = Arc::new(Hand::default());
    let making = Making {
        image: Some("ami-1".into()),
        profile: Some("worker".into()),
        vpc: Some("vpc-1".into()),
    };
    let described = Described {
        account: "123456789012".into(),
        state: InstanceState::Running,
        launched_at: clock.now(),
        is: making.clone(),
        meant: making,
    };
    let aws = Arc::new(Aws {
        signer: Mutex::new(Ok(signer(IDENTITY_ROLE, ID))),
        described: Mutex::new(Ok(Some(described))),
        asked: Mutex::default(),
    });
    let settings = Settings {
        region: "us-east-1".into(),
        role: role.map(str::to_owned),
        oldest: Duration::from_secs(3600),
    };
    let coordinator = Expected {
        trust: "smartscale".parse().unwrap(),
        cluster: "demo".parse().unwrap(),
    };
    let attestor = Ec2Attestor::new(settings, coordinator, aws.clone(), aws.clone(), clock.clone()).unwrap();
    let mut record = machine(ID);
    record.launched_at = clock.now();
    Site {
        aws,
        attestor,
        record,
        clock,
    }
}

fn proof(at: Timestamp) -> Ec2Proof {
    let date = at.strftime("%Y%m%dT%H%M%SZ").to_string();
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=ASIAEXAMPLE012345678/{}/us-east-1/sts/aws4_request, SignedHeaders={}, Signature={}",
        &date[..8],
        attestation::SIGNED_HEADERS,
        "0f".repeat(32)
    );
    Ec2Proof {
        host: "sts.us-east-1.amazonaws.com".into(),
        date,
        security_token: "session".into(),
        authorization,
    }
}

impl Site {
    async fn judge(&self, proof: Ec2Proof) -> Result<(), NotAttested> {
        let claim = Claim {
            record: &self.record,
            challenge: &CHALLENGE,
            request: b"csr",
        };
        self.attestor.attest(claim, &Proof::Ec2(proof)).await
    }

    async fn proven(&self) -> Result<(), NotAttested> {
        self.judge(proof(self.clock.now())).await
    }

    /// Refused, and STS never heard of it.
    async fn refused_unasked(&self, change: impl FnOnce(&mut Ec2Proof)) -> String {
        let mut proof = proof(self.clock.now());
        change(&mut proof);
        let refused = self.judge(proof).await.unwrap_err();
        assert!(matches!(refused, NotAttested::NotProven { .. }), "{refused:?}");
        assert!(self.aws.asked.lock().unwrap().is_empty());
        refused.why().to_owned()
    }

    async fn refused_as(&self, change: impl FnOnce(&mut Described)) -> String {
        let before = self.aws.described.lock().unwrap().clone();
        let mut described = before.clone().unwrap().unwrap();
        change(&mut described);
        *self.aws.described.lock().unwrap() = Ok(Some(described));
        let refused = self.proven().await.unwrap_err();
        assert!(matches!(refused, NotAttested::NotProven { .. }), "{refused:?}");
        *self.aws.described.lock().unwrap() = before;
        refused.why().to_owned()
    }
}

#[tokio::test]
async fn sts_is_asked_with_what_was_built_here_and_an_instance_as_launched_is_believed() {
    let site = site(None);
    site.proven().await.unwrap();
    let asked = site.aws.asked.lock().unwrap()[0].clone();
    let header = |wanted: &str| {
        let mut values = asked.headers.iter().filter(|(name, _)| *name == wanted);
        let value = values.next().map(|(_, value)| value.clone());
        assert!(values.next().is_none(), "{wanted} once");
        value.unwrap_or_default()
    };
    assert_eq!(asked.headers.len(), 8);
    assert_eq!(header("host"), "sts.us-east-1.amazonaws.com");
    assert_eq!(header("x-smartscale-challenge"), hex::encode(CHALLENGE));
    assert_eq!(
        header("x-smartscale-request"),
        hex::encode(Sha256::digest(b"csr"))
    );
    assert_eq!(
        header("x-smartscale-coordinator"),
        "spiffe://smartscale/cluster/demo/coordinator"
    );
}

#[tokio::test]
async fn a_host_off_the_list_is_never_asked() {
    for host in [
        "sts.evil.example",
        "sts.amazonaws.com",
        "sts.eu-west-1.amazonaws.com",
        "sts.us-east-1.amazonaws.com:8443",
        "sts.us-east-1.amazonaws.com.evil.example",
        "sts.us-east-1.amazonaws.com@evil.example",
        "STS.us-east-1.amazonaws.com",
        "",
    ] {
        let why = site(None).refused_unasked(|proof| proof.host = host.into()).await;
        assert!(why.contains("is not sts.us-east-1.amazonaws.com"), "{why}");
    }
}

#[tokio::test]
async fn a_request_that_was_signed_more_than_five_minutes_ago_or_hence_is_refused() {
    for (seconds, good) in [(-301, false), (-299, true), (0, true), (299, true), (301, false)] {
        let site = site(None);
        let at = site.clock.now() + SignedDuration::from_secs(seconds);
        assert_eq!(site.judge(proof(at)).await.is_ok(), good, "{seconds}");
        assert_eq!(site.aws.asked.lock().unwrap().len(), usize::from(good));
    }
    for date in [
        "",
        "20260102T031924",
        "2026-01-02T03:19:24Z",
        "20261302T031924Z",
        "+0260102T031924Z",
    ] {
        site(None).refused_unasked(|proof| proof.date = date.into()).await;
    }
    // The day of the signature's scope is that of the date.
    let why = site(None)
        .refused_unasked(|proof| proof.authorization = proof.authorization.replace("20260102", "20260101"))
        .await;
    assert!(why.contains("scope"), "{why}");
}

#[tokio::test]
async fn a_header_that_is_not_signed_binds_nothing() {
    for header in ["x-smartscale-challenge;", "x-smartscale-coordinator;", "host;"] {
        let why = site(None)
            .refused_unasked(|proof| proof.authorization = proof.authorization.replace(header, ""))
            .await;
        assert!(why.contains("it signs"), "{why}");
    }
    let why = site(None)
        .refused_unasked(|proof| proof.authorization = proof.authorization.replace("host;", "host;x-extra;"))
        .await;
    assert!(why.contains("it signs"), "{why}");
}

#[tokio::test]
async fn nothing_is_smuggled_in_by_a_token() {
    for token in ["", "a b", "a\r\nhost: evil", "\u{e9}", &"x".repeat(9000)] {
        let why = site(None)
            .refused_unasked(|proof| proof.security_token = token.to_owned())
            .await;
        assert!(why.contains("token"), "{why}");
    }
}

#[tokio::test]
async fn another_instance_and_another_role_prove_nothing() {
    let site = site(Some("worker"));
    site.proven().await.unwrap();
    *site.aws.signer.lock().unwrap() = Ok(signer("worker", ID));
    site.proven().await.unwrap();
    for (role, id, why) in [
        (IDENTITY_ROLE, "i-0fedcba9876543210", "is claimed"),
        ("worker", "i-0fedcba9876543210", "is claimed"),
        ("admin", ID, "session of role admin"),
    ] {
        *site.aws.signer.lock().unwrap() = Ok(signer(role, id));
        let refused = site.proven().await.unwrap_err();
        assert!(refused.why().contains(why), "{refused:?}");
    }
    // Without a configured role sessions of it count for nothing.
    let strict = self::site(None);
    *strict.aws.signer.lock().unwrap() = Ok(signer("worker", ID));
    assert!(
        strict
            .proven()
            .await
            .unwrap_err()
            .why()
            .contains("session of role worker")
    );
}

#[tokio::test]
async fn an_instance_that_is_not_as_it_was_launched_is_refused() {
    let site = site(None);
    type Change = fn(&mut Described);
    let changes: [(Change, &str); 9] = [
        (|it| it.account = "210987654321".into(), "account"),
        (|it| it.state = InstanceState::Stopped, "Stopped"),
        (|it| it.state = InstanceState::ShuttingDown, "ShuttingDown"),
        (|it| it.is.vpc = Some("vpc-2".into()), "VPC"),
        (|it| it.meant.vpc = None, "VPC"),
        (|it| it.is.image = Some("ami-2".into()), "image"),
        (|it| it.is.profile = Some("admin".into()), "profile"),
        (|it| it.is.profile = None, "profile"),
        (
            |it| it.launched_at -= SignedDuration::from_secs(601),
            "before its launch",
        ),
    ];
    for (change, wanted) in changes {
        let why = site.refused_as(change).await;
        assert!(why.contains(wanted), "{wanted}: {why}");
    }
    site.proven().await.unwrap();
}

#[tokio::test]
async fn an_old_machine_enrols_no_first_key_but_comes_back_with_another() {
    let mut site = site(None);
    site.clock.advance(Duration::from_secs(3601));
    let refused = site.proven().await.unwrap_err();
    assert!(refused.why().contains("too long ago"), "{refused:?}");
    site.record.enrolled_key = Some("key".into());
    site.proven().await.unwrap();
}

#[tokio::test]
async fn trouble_at_aws_is_no_refusal() {
    let site = site(None);
    *site.aws.described.lock().unwrap() = Ok(None);
    assert!(matches!(
        site.proven().await,
        Err(NotAttested::Unavailable { .. })
    ));
    *site.aws.signer.lock().unwrap() = Err(AwsError::Unavailable("503".into()));
    assert!(matches!(
        site.proven().await,
        Err(NotAttested::Unavailable { .. })
    ));
    *site.aws.signer.lock().unwrap() = Err(AwsError::Refused("SignatureDoesNotMatch".into()));
    assert!(matches!(site.proven().await, Err(NotAttested::NotProven { .. })));
}

#[tokio::test]
async fn a_secret_is_no_proof_here() {
    let site = site(None);
    let claim = Claim {
        record: &site.record,
        challenge: &CHALLENGE,
        request: b"csr",
    };
    let token = Proof::Token(smartscale_proto::v1::TokenProof::default());
    let refused = site.attestor.attest(claim, &token).await.unwrap_err();
    assert!(refused.why().contains("ec2"), "{refused:?}");
}
