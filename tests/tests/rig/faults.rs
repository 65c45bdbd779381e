//! What the rig does to programs from outside: calls that a gate keeps, a wall clock that is wrong.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use smartscale_tests::rig::gate::{Gate, When};
use smartscale_tests::rig::process::{Process, Program};
use smartscale_tests::rig::skew::skewed;
use smartscale_tests::rig::{Folder, http};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(10);

/// A server that counts what reaches it; its URL.
async fn counter() -> (String, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let router = Router::new().fallback(move || {
        let count = counted.fetch_add(1, Ordering::Relaxed) + 1;
        std::future::ready(count.to_string())
    });
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, count)
}

#[tokio::test]
async fn a_gate_keeps_the_one_call_that_is_awaited_before_it_arrives_or_with_its_answer() {
    let (upstream, count) = counter().await;
    let gate = Gate::start(&upstream).await.unwrap();
    let send = async |body: &'static str| http::send("POST", &gate.url(), &[], body).await;
    for (when, arrived) in [(When::Before, 1), (When::After, 3)] {
        let reached = gate.hold("Action=B&", when);
        assert_eq!(send("Action=A&").await.unwrap().status, 200);
        let kept = tokio::select! {
            answer = send("Action=B&") => panic!("it was let through: {answer:?}"),
            reached = timeout(LONG, reached) => reached,
        };
        kept.unwrap().unwrap();
        assert_eq!(count.load(Ordering::Relaxed), arrived, "{when:?}");
    }
    // Only the one.
    assert_eq!(send("Action=B&").await.unwrap().body, "4");
}

#[tokio::test]
async fn a_program_with_a_wrong_wall_clock_has_the_right_other_clocks() {
    let folder = Folder::new("skew").unwrap();
    let now = || jiff::Timestamp::now().as_second();
    let script = "import time; print(int(time.time()), int(time.clock_gettime(time.CLOCK_BOOTTIME)))";
    let program = Program::new("python", "python3").arg("-c").arg(script);
    let mut process = Process::spawn(skewed(program, &folder, -600).unwrap(), &folder).unwrap();
    let boot = || rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    let before = (now(), boot());
    assert!(
        process.ended(LONG).await.unwrap().success(),
        "{}",
        process.tail(5)
    );
    let said = process.tail(1);
    let (wall, since_boot) = said.split_once(' ').unwrap();
    let off = [wall, since_boot].map(|clock| clock.parse::<i64>().unwrap());
    let off = (off[0] - before.0, off[1] - before.1);
    assert!((-600..-585).contains(&off.0), "{off:?} s");
    assert!((0..15).contains(&off.1), "{off:?} s");
}
