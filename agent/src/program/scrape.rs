//! `/metrics` on loopback, where it is wanted: one small answer a connection, a few connections at a time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use smartscale_agent::health::{exposition, observe::Sample};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

/// Connections at a time.
const CONNECTIONS: usize = 4;
/// Bytes of a request.
const HEAD: usize = 4096;
/// Time for one.
const TIME: Duration = Duration::from_secs(5);

/// Serves the latest health at `address` for ever; without an address, it does nothing for ever.
pub(crate) async fn serve(address: Option<SocketAddr>, health: watch::Receiver<Sample>) {
    let Some(address) = address else {
        return std::future::pending().await;
    };
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            // The node's work does not depend on it.
            tracing::error!(%address, %error, "no metrics are served");
            return std::future::pending().await;
        }
    };
    let turns = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let sample = health.borrow().clone();
                tokio::spawn(async move {
                    // A client that breaks off is its own affair.
                    let _ = tokio::time::timeout(TIME, answer(stream, sample)).await;
                    drop(turn);
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, sample: Sample) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut chunk = [0_u8; 512];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut chunk).await?;
        head.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if count == 0 || head.len() > HEAD {
            return Ok(());
        }
    }
    let (status, body) = if head.starts_with(b"GET /metrics ") {
        let body = sample.map(|(_, health)| exposition::text(&health));
        ("200 OK", body.unwrap_or_default())
    } else {
        ("404 Not Found", "see /metrics\n".to_owned())
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
