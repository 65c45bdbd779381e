#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
//! The delay lock on a real message bus (`dbus-daemon`), behind which the test stands in for logind: it knows the few
//! methods and properties that the agent asks for, and sees when the lock is given back.

use std::{
    io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use smartscale_agent::shutdown::{Shutdowns as _, logind::Logind};

const LIMIT: Duration = Duration::from_secs(20);
const OBJECT: &str = "/org/freedesktop/login1";
const INTERFACE: &str = "org.freedesktop.login1.Manager";

/// A message bus of the test's own. Dropped, it ends.
struct Bus {
    daemon: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Bus {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bus");
        let config = folder.path().join("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\
             <busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon is needed (Debian: dbus-daemon)");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        assert!(address.starts_with("unix:"), "{address}");
        Self {
            daemon,
            socket,
            _folder: folder,
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// What the test has logind do.
enum Order {
    Prepare(bool),
    /// A signal without the fact behind it, as anybody may send it.
    Lie,
}

/// The stand-in for logind.
struct Login {
    stream: UnixStream,
    serial: u32,
    preparing: bool,
    locks: mpsc::Sender<UnixStream>,
    /// Told whenever somebody asks whether a shutdown is being prepared.
    asked: mpsc::Sender<()>,
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    pad(bytes, 4);
    bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// A message with these header fields (code, type, value).
fn message(kind: u8, serial: u32, fields: &[(u8, &str, Vec<u8>)], body: &[u8]) -> Vec<u8> {
    let mut list = Vec::new();
    for (code, signature, value) in fields {
        pad(&mut list, 8);
        list.extend([*code, u8::try_from(signature.len()).unwrap()]);
        list.extend(signature.as_bytes());
        list.push(0);
        if *signature != "g" {
            pad(&mut list, 4);
        }
        list.extend(value);
    }
    let mut bytes = vec![b'l', kind, 0, 1];
    bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    bytes.extend(serial.to_le_bytes());
    bytes.extend(u32::try_from(list.len()).unwrap().to_le_bytes());
    bytes.extend(list);
    pad(&mut bytes, 8);
    bytes.extend(body);
    bytes
}

fn string(value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    text(&mut bytes, value);
    bytes
}

fn signature(value: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(value.len()).unwrap()];
    bytes.extend(value.as_bytes());
    bytes.push(0);
    bytes
}

impl Login {
    fn start(
        socket: &Path,
    ) -> (
        mpsc::Sender<Order>,
        mpsc::Receiver<UnixStream>,
        mpsc::Receiver<()>,
    ) {
        let mut stream = UnixStream::connect(socket).unwrap();
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        write!(stream, "\0AUTH EXTERNAL {user}\r\nNEGOTIATE_UNIX_FD\r\n").unwrap();
        // Two lines, byte by byte: nothing else comes before BEGIN.
        let mut lines = 0;
        let mut byte = [0];
        while lines < 2 {
            stream.read_exact(&mut byte).unwrap();
            lines += usize::from(byte[0] == b'\n');
        }
        write!(stream, "BEGIN\r\n").unwrap();
        let (locks, taken) = mpsc::channel();
        let (asked, questions) = mpsc::channel();
        let mut login = Self {
            stream,
            serial: 0,
            preparing: false,
            locks,
            asked,
        };
        login.call("Hello", &[], &[]);
        let mut name = string("org.freedesktop.login1");
        pad(&mut name, 4);
        name.extend(0_u32.to_le_bytes());
        login.call("RequestName", &name, &[(8, "g", signature("su"))]);
        let (orders, ordered) = mpsc::channel();
        let ready = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&ready);
        thread::spawn(move || login.run(&ordered, &begun));
        while !ready.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        (orders, taken, questions)
    }

    fn send(&mut self, kind: u8, fields: &[(u8, &str, Vec<u8>)], body: &[u8]) {
        self.serial += 1;
        let bytes = message(kind, self.serial, fields, body);
        self.stream.write_all(&bytes).unwrap();
    }

    /// Calls the bus itself.
    fn call(&mut self, method: &str, body: &[u8], more: &[(u8, &'static str, Vec<u8>)]) {
        let mut fields = vec![
            (1, "o", string("/org/freedesktop/DBus")),
            (2, "s", string("org.freedesktop.DBus")),
            (3, "s", string(method)),
            (6, "s", string("org.freedesktop.DBus")),
        ];
        fields.extend(more.iter().cloned());
        self.send(1, &fields, body);
    }

    fn run(mut self, orders: &mpsc::Receiver<Order>, begun: &AtomicBool) {
        self.stream
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let mut inbox = Vec::new();
        loop {
            match orders.try_recv() {
                Ok(order) => self.obey(&order),
                Err(mpsc::TryRecvError::Empty) => {}
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => inbox.extend(&chunk[..count]),
                Err(_) => {}
            }
            while let Some((kind, serial, fields, body)) = take(&mut inbox) {
                // The name was acquired.
                begun.fetch_or(
                    fields
                        .iter()
                        .any(|(code, value)| *code == 3 && value == "NameAcquired"),
                    Ordering::SeqCst,
                );
                if kind == 1 {
                    self.answer(serial, &fields, &body);
                }
            }
        }
    }

    fn obey(&mut self, order: &Order) {
        let said = match order {
            Order::Prepare(now) => {
                self.preparing = *now;
                *now
            }
            Order::Lie => true,
        };
        let fields = [
            (1, "o", string(OBJECT)),
            (2, "s", string(INTERFACE)),
            (3, "s", string("PrepareForShutdown")),
            (8, "g", signature("b")),
        ];
        self.send(4, &fields, &u32::from(said).to_le_bytes());
    }

    fn answer(&mut self, serial: u32, fields: &[(u8, String)], body: &[u8]) {
        let field = |code| {
            let mut found = fields.iter().filter(|(own, _)| *own == code);
            found.next().map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let back = |more: &str| {
            vec![
                (5, "u", serial.to_le_bytes().to_vec()),
                (6, "s", string(&field(7))),
                (8, "g", signature(more)),
            ]
        };
        match field(3).as_str() {
            "Inhibit" => {
                assert!(
                    String::from_utf8_lossy(body).contains("shutdown")
                        && String::from_utf8_lossy(body).contains("delay")
                );
                let (mine, theirs) = UnixStream::pair().unwrap();
                self.serial += 1;
                let mut fields = back("h");
                fields.push((9, "u", 1_u32.to_le_bytes().to_vec()));
                let bytes = message(2, self.serial, &fields, &0_u32.to_le_bytes());
                let theirs = OwnedFd::from(theirs);
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let rights = [theirs.as_fd()];
                assert!(control.push(SendAncillaryMessage::ScmRights(&rights)));
                let sent = sendmsg(
                    &self.stream,
                    &[IoSlice::new(&bytes)],
                    &mut control,
                    SendFlags::empty(),
                );
                assert_eq!(sent.unwrap(), bytes.len());
                self.locks.send(mine).unwrap();
            }
            "Get" if String::from_utf8_lossy(body).contains("InhibitDelayMaxUSec") => {
                let mut value = signature("t");
                pad(&mut value, 8);
                value.extend(340_000_000_u64.to_le_bytes());
                self.send(2, &back("v"), &value);
            }
            "Get" => {
                let mut value = signature("b");
                pad(&mut value, 4);
                value.extend(u32::from(self.preparing).to_le_bytes());
                self.send(2, &back("v"), &value);
                let _ = self.asked.send(());
            }
            other => panic!("logind is asked for {other}"),
        }
    }
}

/// A message: kind, serial, header fields that are texts, body.
type Message = (u8, u32, Vec<(u8, String)>, Vec<u8>);

/// The first whole message: kind, serial, header fields that are texts, body.
fn take(inbox: &mut Vec<u8>) -> Option<Message> {
    let number = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    if inbox.len() < 16 {
        return None;
    }
    let (length, fields) = (number(inbox, 4), number(inbox, 12));
    let body = (16 + fields).next_multiple_of(8);
    if inbox.len() < body + length {
        return None;
    }
    let bytes: Vec<u8> = inbox.drain(..body + length).collect();
    let mut found = Vec::new();
    let mut at = 16;
    while at < 16 + fields {
        at = at.next_multiple_of(8);
        let (code, kind) = (bytes[at], bytes[at + 2]);
        at += 4;
        match kind {
            b's' | b'o' => {
                let length = number(&bytes, at);
                let value = String::from_utf8_lossy(&bytes[at + 4..at + 4 + length]).into_owned();
                found.push((code, value));
                at += 4 + length + 1;
            }
            b'g' => at += usize::from(bytes[at]) + 2,
            _ => at += 4,
        }
    }
    let serial = u32::try_from(number(&bytes, 8)).unwrap();
    Some((bytes[1], serial, found, bytes[body..].to_vec()))
}

/// Whether the other end of the lock was closed.
fn is_given_back(lock: &mut UnixStream) -> bool {
    lock.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    matches!(lock.read(&mut [0]), Ok(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_held_until_the_shutdown_may_go_on() {
    let bus = Bus::start();
    let (orders, locks, asked) = Login::start(&bus.socket);
    let logind = Logind::new(&bus.socket);
    let waiting = tokio::spawn(async move { logind.announced().await });
    let lie = orders.clone();
    let mut lock = tokio::task::spawn_blocking(move || {
        let lock = locks.recv_timeout(LIMIT).unwrap();
        asked.recv_timeout(LIMIT).unwrap();
        lie.send(Order::Lie).unwrap();
        asked.recv_timeout(LIMIT).unwrap();
        lock
    })
    .await
    .unwrap();
    assert!(!waiting.is_finished(), "a signal alone proves nothing");
    assert!(!is_given_back(&mut lock));
    orders.send(Order::Prepare(true)).unwrap();
    let delay = tokio::time::timeout(LIMIT, waiting)
        .await
        .expect("nothing was announced")
        .unwrap()
        .unwrap();
    assert_eq!(delay.most, Duration::from_secs(340));
    assert!(!is_given_back(&mut lock), "the machine waits");
    let mut called_off = delay.called_off;
    assert!(called_off.try_recv().is_err());
    orders.send(Order::Prepare(false)).unwrap();
    tokio::time::timeout(LIMIT, &mut called_off)
        .await
        .expect("nobody said that it was called off")
        .unwrap();
    drop(delay.lock);
    assert!(is_given_back(&mut lock));
}

#[tokio::test]
async fn a_machine_without_a_message_bus_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let logind = Logind::new(folder.path().join("no-bus"));
    let error = logind.announced().await.err().unwrap().to_string();
    assert!(error.contains("message bus"), "{error}");
}
