//! Eight processes contend for one lease: they lead, count under the fence, hand over, are stopped for a while, are
//! killed. What each did is in its own journal, by the clock that all processes of a machine share (the leases'
//! own, `CLOCK_BOOTTIME`), and read together at the end.
//!
//! ```text
//!  test ──starts, stops, kills──▶ eight times this test program, with WORKER set ──▶ store (SQLite, DynamoDB)
//!    └──────reads──────────────── journals: act EPOCH FROM UNTIL · counted EPOCH · left EPOCH AT
//! ```
//!
//! `SMARTSCALE_CONTEND_SECONDS` sets how long (10).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use serde_json::json;
use smartscale_coordinator::aws::{self, dynamodb::DynamoStore};
use smartscale_coordinator::ids::Epoch;
use smartscale_coordinator::state::lease::{Leadership, Lease, Settings, random_rvn};
use smartscale_coordinator::state::sqlite::SqliteStore;
use smartscale_coordinator::state::{Attributes, Condition, SharedStore, StoreError, Write};
use smartscale_coordinator::tell::Silent;
use smartscale_proto::time::{Clock as _, SharedClock, SystemClock};
use smartscale_tests::rig::process::{Process, Program};
use smartscale_tests::rig::{DynamoDb, Folder, aws as rig_aws, wait};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const PROCESSES: usize = 8;
const CLUSTER: &str = "contended";
const TABLE: &str = "smartscale";
const COUNTER: &str = "op#counter";
const TERMS: &str = "op#term-";

const WORKER: &str = "SMARTSCALE_CONTEND_WORKER";
const STORE: &str = "SMARTSCALE_CONTEND_STORE";
const JOURNAL: &str = "SMARTSCALE_CONTEND_JOURNAL";
const SECONDS: &str = "SMARTSCALE_CONTEND_SECONDS";

/// Short, so that many terms fit; the proportions are those of the defaults.
const TIMES: Settings = Settings {
    lease: Duration::from_millis(400),
    renew: Duration::from_millis(130),
    margin: Duration::from_millis(80),
    watch: Duration::from_millis(60),
    call: Duration::from_millis(200),
};

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_share_a_sqlite_file_lead_one_after_another_and_lose_no_update() {
    let folder = Folder::new("contention-sqlite").unwrap();
    let path = folder.path().join("state.db");
    let store: SharedStore = Arc::new(SqliteStore::open(&path, CLUSTER.into(), clock()).unwrap());
    contend(&folder, &store, &format!("sqlite:{}", path.display()), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_share_a_dynamodb_table_lead_one_after_another_and_lose_no_update() {
    let folder = Folder::new("contention-dynamodb").unwrap();
    let server = DynamoDb::start(&folder).await.unwrap();
    server.create_table(TABLE).await.unwrap();
    let config = rig_aws::config(&server.url(), &rig_aws::Key::root()).await;
    let store: SharedStore = Arc::new(DynamoStore::new(&config, TABLE, CLUSTER.into(), clock()));
    let mut environment = rig_aws::Key::root().environment();
    environment.push(("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), server.url()));
    contend(&folder, &store, "dynamodb", &environment).await;
}

/// One of the eight. It runs until it is killed.
#[tokio::test]
#[ignore = "a process that the tests above start"]
async fn a_contender() {
    let Ok(name) = std::env::var(WORKER) else { return };
    Worker::of_environment(&name).await.unwrap().run().await.unwrap();
}

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

/// A process that contends.
struct Worker {
    name: String,
    store: SharedStore,
    journal: std::fs::File,
    random: SmallRng,
}

impl Worker {
    async fn of_environment(name: &str) -> anyhow::Result<Self> {
        let store = std::env::var(STORE)?;
        let store: SharedStore = match store.strip_prefix("sqlite:") {
            Some(path) => Arc::new(SqliteStore::open(Path::new(path), CLUSTER.into(), clock())?),
            None => {
                let config = aws::sdk_config(None).await;
                Arc::new(DynamoStore::new(&config, TABLE, CLUSTER.into(), clock()))
            }
        };
        let journal = std::fs::File::options()
            .append(true)
            .create(true)
            .open(std::env::var(JOURNAL)?)?;
        Ok(Self {
            name: name.to_owned(),
            store,
            journal,
            random: SmallRng::seed_from_u64(u64::from(std::process::id())),
        })
    }

    /// One line, one write: a kill leaves whole lines.
    fn note(&mut self, line: &str) -> anyhow::Result<()> {
        self.journal.write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }

    /// Contends, leads for some units of work, hands over, again and again.
    async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let (lease, leadership) = Lease::new(
                self.name.parse()?,
                TIMES.check()?,
                Arc::clone(&self.store),
                clock(),
                Arc::new(Silent),
                random_rvn(),
            );
            let shutdown = CancellationToken::new();
            let task = tokio::spawn(lease.run(shutdown.clone()));
            let units = self.random.random_range(5..60);
            let (epoch, at) = self.lead(leadership, units).await?;
            self.note(&format!("left {epoch} {at}"))?;
            shutdown.cancel();
            task.await?;
        }
    }

    /// Works until `units` are done; the term that it led at last and when it stopped.
    async fn lead(
        &mut self,
        mut leadership: watch::Receiver<Leadership>,
        units: u32,
    ) -> anyhow::Result<(Epoch, u128)> {
        let mut done = 0;
        loop {
            let seen = leadership.borrow_and_update().clone();
            let from = now();
            let (Some(epoch), Leadership::Leader { until, .. }) = (seen.may_act(&SystemClock), seen) else {
                leadership.changed().await?;
                continue;
            };
            if done == units {
                return Ok((epoch, from));
            }
            // Noted before the side effect that it allows.
            self.note(&format!("act {epoch} {from} {}", until.as_nanos()))?;
            match self.count(epoch).await? {
                Ok(()) => {
                    self.note(&format!("counted {epoch}"))?;
                    done += 1;
                }
                Err(StoreError::Fenced) => self.note(&format!("fenced {epoch}"))?,
                // Whoever led before may have had the last word between our read and our write.
                Err(StoreError::Conflict(_) | StoreError::Unavailable(_)) => {}
                Err(StoreError::Unknown(_)) => self.note(&format!("unknown {epoch}"))?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads, adds one, writes: a record of the whole and one of the term, in one commit.
    async fn count(&self, epoch: Epoch) -> anyhow::Result<Result<(), StoreError>> {
        let term = format!("{TERMS}{:08}", epoch.0);
        let (whole, of_term) = match tokio::try_join!(self.store.get(COUNTER), self.store.get(&term)) {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        let mut writes = Vec::new();
        for (key, item) in [(COUNTER, whole), (&term, of_term)] {
            let (count, last, condition) = match item {
                Some(item) => (
                    item.body["count"].as_u64().context("a count")?,
                    item.body["epoch"].as_u64().context("an epoch")?,
                    Condition::Version(item.version),
                ),
                None => (0, 0, Condition::Absent),
            };
            writes.push(Write::Put {
                key: key.to_owned(),
                // The greatest epoch so far: were an older one ever to write after it, the sums would show it.
                body: json!({"count": count + 1, "epoch": last.max(epoch.0)}),
                expires_at: None,
                condition,
            });
        }
        let attributes = Attributes::from([("last_scale_action".to_owned(), json!(self.name))]);
        Ok(self.store.commit(epoch, &writes, &attributes).await)
    }
}

/// The shared clock, in nanoseconds.
fn now() -> u128 {
    SystemClock.elapsed().as_nanos()
}

/// Lets eight processes contend, with kills and pauses of whoever leads, then judges their journals.
async fn contend(folder: &Folder, store: &SharedStore, place: &str, environment: &[(String, String)]) {
    let mut workers: Vec<_> = (0..PROCESSES)
        .map(|number| start(folder, number, place, environment).unwrap())
        .collect();
    let journals: Vec<PathBuf> = (0..PROCESSES).map(|number| journal(folder, number)).collect();
    let length = std::env::var(SECONDS).map_or(10, |seconds| seconds.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(length);
    let mut random = SmallRng::seed_from_u64(7);
    let (mut kills, mut pauses, mut last) = (0_u32, 0_u32, 0);
    while Instant::now() < end {
        // A leader that leads since a little while.
        let leader = wait::until("another leader at work", Duration::from_secs(60), || {
            let led = latest(&journals);
            async move { Ok(led.filter(|(epoch, _)| *epoch > last)) }
        });
        let (epoch, number) = leader.await.unwrap();
        last = epoch;
        let worker = &mut workers[number];
        match random.random_range(0..4) {
            0 => {
                worker.kill();
                worker.start().unwrap();
                kills += 1;
            }
            1 => {
                worker.pause().unwrap();
                // Until another leads: this one wakes up in the middle of what it was about to do. Stopped within
                // a transaction of SQLite it holds up all the others; no successor then before it goes on.
                let successor = wait::until_true("a successor", Duration::from_millis(1_500), || {
                    let succeeded = latest(&journals).is_some_and(|(led, _)| led > epoch);
                    async move { Ok(succeeded) }
                });
                pauses += u32::from(successor.await.is_ok());
                worker.resume().unwrap();
            }
            _ => {}
        }
    }
    for worker in &mut workers {
        assert_eq!(worker.exited().unwrap(), None, "{}", worker.tail(20));
        worker.kill();
    }
    let terms = judge(&journals);
    let counted = sums(store, &terms).await;
    let handed_over = terms.values().filter(|term| term.left.is_some()).count();
    let fenced: u64 = terms.values().map(|term| term.fenced).sum();
    eprintln!(
        "{place}: {} terms, {handed_over} handed over, {kills} killed, {pauses} stopped until another led; {counted} \
         counted, {fenced} refused by the fence",
        terms.len(),
    );
    assert!(terms.len() >= 3 && counted >= 20, "too little happened");
}

fn journal(folder: &Folder, number: usize) -> PathBuf {
    folder.path().join(format!("journal-{number}"))
}

fn start(
    folder: &Folder,
    number: usize,
    place: &str,
    environment: &[(String, String)],
) -> anyhow::Result<Process> {
    let name = format!("contender-{number}");
    let mut program = Program::new(name.clone(), std::env::current_exe()?)
        .arg("contention::a_contender")
        .arg("--exact")
        .arg("--ignored")
        .arg("--nocapture")
        .env(WORKER, name)
        .env(STORE, place)
        .env(JOURNAL, journal(folder, number));
    for (name, value) in environment {
        program = program.env(name, value);
    }
    Process::spawn(program, folder)
}

/// The greatest epoch that somebody acts under, and who.
fn latest(journals: &[PathBuf]) -> Option<(u64, usize)> {
    let last = |path: &PathBuf| -> Option<u64> {
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().rev().find(|line| line.starts_with("act "))?;
        line.split(' ').nth(1)?.parse().ok()
    };
    let each = journals.iter().enumerate();
    each.filter_map(|(number, path)| Some((last(path)?, number)))
        .max()
}

/// A term, by its holder's own account.
#[derive(Debug, Default)]
struct Term {
    /// Which journal.
    holder: usize,
    /// Its first act.
    from: u128,
    /// Its last act.
    last: u128,
    /// Until when it was allowed to act, at last.
    until: u128,
    /// When it stopped of itself, to hand over.
    left: Option<u128>,
    /// Commits that were answered.
    counted: u64,
    /// Commits whose answer nobody knows, the one that a kill may have cut off included.
    doubtful: u64,
    /// Commits that the store refused, since another led by then.
    fenced: u64,
}

/// Reads the journals; panics where two terms overlap or have one epoch.
fn judge(journals: &[PathBuf]) -> BTreeMap<u64, Term> {
    let mut terms = BTreeMap::<u64, Term>::new();
    for (holder, path) in journals.iter().enumerate() {
        let text = std::fs::read_to_string(path).unwrap();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let epoch = words[1].parse().unwrap();
            let time = |index: usize| words[index].parse::<u128>().unwrap();
            let term = terms.entry(epoch).or_insert_with(|| Term {
                holder,
                from: time(2),
                // What a kill cuts off is in doubt.
                doubtful: 1,
                ..Term::default()
            });
            assert_eq!(term.holder, holder, "epoch {epoch} had two holders");
            match words[0] {
                "act" => {
                    assert!(time(2) < time(3), "{line}: acted after its time");
                    assert_eq!(term.left, None, "{line}: acted after it had left");
                    (term.last, term.until) = (time(2), time(3).max(term.until));
                }
                "left" => term.left = Some(time(2)),
                "counted" => term.counted += 1,
                "unknown" => term.doubtful += 1,
                "fenced" => term.fenced += 1,
                _ => panic!("{line}"),
            }
        }
    }
    let each: Vec<_> = terms.iter().collect();
    for pair in each.windows(2) {
        let [(epoch, term), (_, next)] = pair else {
            unreachable!()
        };
        assert!(
            term.last < next.from,
            "term {epoch} acted in its successor's time: {term:?} {next:?}"
        );
        // A successor waits for the whole lease, the margin included, unless it was handed over.
        let over = term.left.unwrap_or(term.until + TIMES.margin.as_nanos());
        assert!(over <= next.from, "term {epoch} was not over: {term:?} {next:?}");
    }
    terms
}

/// Compares what the store counted with what the holders know they did; the whole sum.
async fn sums(store: &SharedStore, terms: &BTreeMap<u64, Term>) -> u64 {
    // The last commits of the killed may be on their way still: what is read belongs together when the counter
    // stood still meanwhile.
    let (counter, of_terms) = wait::until("the counter to stand still", Duration::from_secs(10), || async {
        let before = store.get(COUNTER).await?;
        let of_terms = store.list(TERMS, false, 100_000).await?;
        let after = store.get(COUNTER).await?.context("no counter")?;
        Ok((before.as_ref() == Some(&after)).then_some((after, of_terms)))
    })
    .await
    .unwrap();
    let whole = counter.body["count"].as_u64().unwrap();
    assert_eq!(counter.version, whole, "one write, one count");
    let mut sum = 0;
    for item in of_terms {
        let epoch: u64 = item.key.trim_start_matches(TERMS).parse().unwrap();
        let (count, term) = (item.body["count"].as_u64().unwrap(), &terms[&epoch]);
        assert!(
            term.counted <= count && count <= term.counted + term.doubtful,
            "term {epoch}: {count} in the store, {term:?}"
        );
        sum += count;
    }
    assert_eq!(sum, whole, "updates were lost");
    let known: u64 = terms.values().map(|term| term.counted).sum();
    assert!(known <= whole, "{known} were confirmed, {whole} are there");
    whole
}
