//! Agents that are killed, and machines that boot again, in the middle of a drain.

use super::*;

/// A folder that dies with the agent: at the write of this number, before or after it reaches the disk.
struct Deadly {
    inner: Arc<MemoryFolder>,
    writes: AtomicUsize,
    fatal: usize,
    after: bool,
    died: Arc<tokio::sync::Notify>,
}

impl StateFolder for Deadly {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.inner.read(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        if number < self.fatal || (number == self.fatal && self.after) {
            self.inner.write(name, content)?;
        }
        if number == self.fatal {
            self.died.notify_one();
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
}

/// Kills the agent at its `fatal`-th write and starts another one; whether the write was ever reached.
async fn killed_at(fatal: usize, after: bool, on_timeout: OnTimeout, blocked: bool) -> bool {
    let world = World::new();
    world.pod("default/a", 0);
    world.pod_that_ends("default/b", 0, None);
    world.pod("kube-system/dns", 2_000_000_000);
    if blocked {
        world.kubelet.budget("web", &["default/a"], 0);
    }
    let died = Arc::new(tokio::sync::Notify::new());
    let deadly = Deadly {
        inner: Arc::<MemoryFolder>::clone(&world.folder),
        writes: AtomicUsize::new(0),
        fatal,
        after,
        died: Arc::clone(&died),
    };
    let reached = {
        let (drainer, engine) = engine(world.tools(Arc::new(deadly)));
        drainer.order(world.order("op-1", 120, on_timeout)).await;
        tokio::select! {
            biased;
            () = died.notified() => true,
            _ = finish(&drainer, engine, "") => false,
        }
    };
    tokio::time::sleep(seconds(3)).await;
    let (drainer, engine) = engine(world.tools(Arc::<MemoryFolder>::clone(&world.folder)));
    // The coordinator asks again, as it does at each session.
    drainer.order(world.order("op-1", 120, on_timeout)).await;
    let done = finish(&drainer, engine, "op-1").await;
    let expected = if blocked && on_timeout == OnTimeout::Abort {
        Stage::Aborted
    } else {
        Stage::Drained
    };
    assert_eq!(done.stage, expected, "killed at write {fatal}: {}", done.error);
    for key in ["default/a", "default/b", "kube-system/dns"] {
        let (accepted, _) = world.evictions(key);
        assert!(
            accepted <= 1,
            "killed at write {fatal}: {key} was evicted {accepted} times"
        );
    }
    let began = done.started_at;
    let took = age(began, world.clock.now());
    assert!(
        took <= seconds(120 + 46),
        "killed at write {fatal}: the deadline moved, {took:?}"
    );
    let node = world.kubelet.present_node().unwrap();
    assert_eq!(
        node.unschedulable,
        expected == Stage::Drained,
        "killed at write {fatal}"
    );
    reached
}

use smartscale_proto::time::age;

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_killed_at_any_step_goes_on_where_it_was() {
    for (on_timeout, blocked) in [
        (OnTimeout::Abort, false),
        (OnTimeout::Abort, true),
        (OnTimeout::Force, true),
    ] {
        for after in [false, true] {
            let mut write = 0;
            while killed_at(write, after, on_timeout, blocked).await {
                write += 1;
            }
            assert!(write >= 5, "{write} writes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_reboot_the_deadline_is_the_one_of_the_wall_clock() {
    let world = World::new();
    world.pod("default/a", 0);
    world.kubelet.budget("web", &["default/a"], 0);
    {
        let (drainer, engine) = engine(world.tools(Arc::<MemoryFolder>::clone(&world.folder)));
        drainer.order(world.order("op-1", 100, OnTimeout::Abort)).await;
        tokio::select! {
            () = engine.run() => {}
            () = tokio::time::sleep(seconds(30)) => {}
        }
    }
    tokio::time::sleep(seconds(20)).await;
    // Another boot counts from zero.
    struct Rebooted(Arc<dyn Clock>, Duration);
    #[async_trait]
    impl Clock for Rebooted {
        fn now(&self) -> Timestamp {
            self.0.now()
        }
        fn elapsed(&self) -> Duration {
            self.0.elapsed() - self.1
        }
        async fn sleep(&self, duration: Duration) {
            self.0.sleep(duration).await;
        }
    }
    let clock: SharedClock = Arc::new(Rebooted(Arc::clone(&world.clock), world.clock.elapsed()));
    let mut tools = world.tools(Arc::<MemoryFolder>::clone(&world.folder));
    (tools.clock, tools.boot_id) = (clock, "boot-2".into());
    let (drainer, engine) = engine(tools);
    let done = finish(&drainer, engine, "").await;
    assert_eq!(done.stage, Stage::Aborted);
    assert_eq!(world.clock.elapsed(), seconds(1100));
}
