//! Connections that mean no good: slow, too many, too large, or of an older protocol. What they cost is bounded, and
//! others are served meanwhile.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, getrlimit, setrlimit};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use smartscale_proto::{
    identity::Role,
    tls::{Credential, provider},
    v1::{self, admin_client::AdminClient, enrolment_client::EnrolmentClient},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::Code;

use crate::serve::testing::{World, person, until};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LIMIT: Duration = Duration::from_secs(60);

/// Believes every server: it is the client that is up to no good.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn connector(
    credential: Option<&Credential>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsConnector {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = match credential {
        Some(credential) => builder
            .with_client_auth_cert(
                credential.chain.clone(),
                credential.key.as_ref().unwrap().clone_key(),
            )
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn connect(world: &World, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(&world.address).await?;
    connector
        .connect(ServerName::try_from("any").unwrap(), socket)
        .await
}

/// A raw HTTP/2 connection after its preface and an empty SETTINGS frame.
async fn raw(world: &World, credential: Option<&Credential>) -> TlsStream<TcpStream> {
    let connector = connector(credential, &[&rustls::version::TLS13]);
    let mut stream = connect(world, &connector).await.unwrap();
    // The server may end it at once, where there is no room.
    let _ = stream.write_all(PREFACE).await;
    let _ = stream.write_all(&frame(4, 0, 0, &[])).await;
    stream
}

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header without indexing, name and value as they are (RFC 7541, section 6.2.2).
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend(text.as_bytes());
    }
    bytes
}

fn request(path: &str) -> Vec<u8> {
    [
        header(":method", "POST"),
        header(":scheme", "https"),
        header(":path", path),
        header(":authority", "coordinator"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ]
    .concat()
}

/// Whether the server ends the connection; with the codes of GOAWAY frames it sent before.
async fn ended(mut stream: TlsStream<TcpStream>) -> Vec<u32> {
    let mut bytes = Vec::new();
    let read = async {
        let mut buffer = [0; 16 * 1024];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    };
    tokio::time::timeout(LIMIT, read)
        .await
        .expect("the server ends the connection");
    let mut codes = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, after)) = after.split_at_checked(length) else {
            break;
        };
        if head[3] == 7 {
            codes.push(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        rest = after;
    }
    codes
}

async fn is_served(world: &World) {
    let mut client = world.people(Role::Viewer).await;
    client.status(v1::StatusRequest {}).await.unwrap();
}

/// As real clients do, it calls again where the machine had no time for it.
async fn is_served_at_last(world: &World) {
    loop {
        if let Some(channel) = world.try_channel(world.credential(person(Role::Viewer))).await
            && let Ok(_) = AdminClient::new(channel).status(v1::StatusRequest {}).await
        {
            return;
        }
    }
}

#[tokio::test]
async fn an_older_protocol_is_not_spoken() {
    let world = World::new().await;
    let old = connector(None, &[&rustls::version::TLS12]);
    let error = connect(&world, &old).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    let record = world.audited("handshake", "unauthenticated").await;
    assert!(record.arguments.contains("incompatible"), "{}", record.arguments);
    is_served(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_never_end_do_not_keep_others_out() {
    let world = World::new().await;
    // More than there are places, from one address; each says a little and no more.
    let address: SocketAddr = world.address.parse().unwrap();
    let mut slow = Vec::new();
    for _ in 0..1_500 {
        let mut socket = from_elsewhere(address).await.unwrap();
        socket.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
        slow.push(socket);
    }
    for _ in 0..5 {
        let began = std::time::Instant::now();
        is_served(&world).await;
        assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    }
    drop(slow);
}

/// A connection from another address than others call from: whoever shares an attacker's address shares his bounds.
async fn from_elsewhere(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into())?;
    socket.connect(address).await
}

/// How many files this process may have open, after it asked for all that it may.
fn more_files() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    limit
        .current
        .map_or(usize::MAX, |files| usize::try_from(files).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_handshakes_at_once_are_bounded_and_others_are_served() {
    let world = World::new().await;
    let files = more_files();
    let (tasks, each) = (files.min(10_000) / 4, 4);
    let mut fast = Vec::new();
    let address: SocketAddr = world.address.parse().unwrap();
    // Each task opens one after the other, so that as many are under way at any moment as there are tasks: more than there are
    // places, and more than the kernel has waiting.
    let done = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let connector = connector(None, &[&rustls::version::TLS13]);
    for _ in 0..tasks {
        let (connector, done) = (connector.clone(), Arc::clone(&done));
        fast.push(tokio::spawn(async move {
            for _ in 0..each {
                let Ok(socket) = from_elsewhere(address).await else {
                    continue;
                };
                let name = ServerName::try_from("any").unwrap();
                if connector.connect(name, socket).await.is_ok() {
                    done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
        }));
    }
    for _ in 0..3 {
        tokio::time::timeout(LIMIT, is_served_at_last(&world))
            .await
            .unwrap();
    }
    for task in fast {
        task.await.unwrap();
    }
    let done = done.load(std::sync::atomic::Ordering::Relaxed);
    assert!(
        done > tasks * each / 2,
        "most of them are finished all the same: {done}"
    );
    is_served(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_stay_make_room_and_never_take_the_places_of_others() {
    let world = World::new().await;
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(raw(&world, None).await);
    }
    is_served(&world).await;
    // From the same address: it comes in once the oldest of them has had time for an enrolment. As agents do, it calls again
    // where it was not answered for a while.
    until(async || {
        let call = async {
            let channel = world.try_channel(world.nobody()).await?;
            let mut client = EnrolmentClient::new(channel);
            client.challenge(v1::ChallengeRequest {}).await.ok()
        };
        tokio::time::timeout(Duration::from_secs(5), call).await.ok()?
    })
    .await;
    drop(held);
}

#[tokio::test]
async fn a_connection_that_says_nothing_more_is_ended() {
    let world = World::new().await;
    let credential = world.credential(person(Role::Viewer));
    // A preface that is never finished; with a certificate.
    let connector = connector(Some(&credential), &[&rustls::version::TLS13]);
    let mut stream = connect(&world, &connector).await.unwrap();
    stream.write_all(&PREFACE[..10]).await.unwrap();
    stream.flush().await.unwrap();
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let mut buffer = [0; 1024];
    while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
    let took = began.elapsed();
    assert!(
        (Duration::from_secs(55)..Duration::from_secs(120)).contains(&took),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_frame_larger_than_agreed_ends_its_connection_alone() {
    let world = World::new().await;
    let credential = world.credential(person(Role::Operator));
    let mut stream = raw(&world, Some(&credential)).await;
    stream
        .write_all(&frame(1, 4, 1, &request("/smartscale.v1.Admin/Status")))
        .await
        .unwrap();
    // DATA of 64 KiB where 16 KiB were agreed.
    let _ = stream.write_all(&frame(0, 1, 1, &[0; 64 * 1024])).await;
    let _ = stream.flush().await;
    // FRAME_SIZE_ERROR
    let codes = ended(stream).await;
    assert!(codes.iter().all(|code| *code == 6), "{codes:?}");
    is_served(&world).await;
}

#[tokio::test]
async fn headers_without_end_are_not_taken_in() {
    let world = World::new().await;
    let mut stream = raw(&world, None).await;
    // HEADERS without END_HEADERS, then CONTINUATION frames for as long as the server takes them (CVE-2024-27316).
    let _ = stream.write_all(&frame(1, 0, 1, &request("/x"))).await;
    let more: Vec<u8> = (0..100)
        .flat_map(|n| header(&format!("x-{n}"), &"v".repeat(100)))
        .collect();
    let mut taken = 0;
    while taken < 64 << 20 {
        match tokio::time::timeout(Duration::from_secs(5), stream.write_all(&frame(9, 0, 1, &more))).await {
            Ok(Ok(())) => taken += more.len(),
            _ => break,
        }
    }
    assert!(taken < 16 << 20, "the server ends it: {taken} bytes were taken");
    is_served(&world).await;
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_their_connection() {
    let world = World::new().await;
    let credential = world.credential(person(Role::Viewer));
    let mut stream = raw(&world, Some(&credential)).await;
    let mut flood = Vec::new();
    for n in 0..20_000_u32 {
        let id = 2 * n + 1;
        flood.extend(frame(1, 5, id, &request("/smartscale.v1.Admin/Status")));
        flood.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
    }
    let _ = stream.write_all(&flood).await;
    let _ = stream.flush().await;
    let codes = ended(stream).await;
    // ENHANCE_YOUR_CALM, where the last word still arrives.
    assert!(codes.iter().all(|code| *code == 11), "{codes:?}");
    is_served(&world).await;
}

#[tokio::test]
async fn a_message_beyond_the_bound_is_refused_and_the_connection_goes_on() {
    let world = World::new().await;
    let mut client = world.people(Role::Operator).await;
    let request = v1::PauseRequest {
        duration: None,
        reason: "x".repeat(1 << 20),
    };
    let refusal = client.pause(request).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
    client.status(v1::StatusRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identity_has_a_bounded_number_of_connections() {
    let world = World::new().await;
    let credential = world.credential(person(Role::Viewer));
    let first = raw(&world, Some(&credential)).await;
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(raw(&world, Some(&credential)).await);
    }
    // The oldest made room; whoever comes is served.
    ended(first).await;
    let mut again = AdminClient::new(world.channel(credential).await);
    again.status(v1::StatusRequest {}).await.unwrap();
    drop(held);
}
