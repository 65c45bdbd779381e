//! As much of D-Bus as a delay lock of logind needs: a connection to the system's bus, method calls with texts, answers with
//! a number, a truth or a file descriptor, and signals (<https://dbus.freedesktop.org/doc/dbus-specification.html>).
//!
//! A library would be larger than the rest of the agent's talk with systemd. What comes from the bus is bounded and checked
//! as anything else from outside.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::UnixStream,
};

/// Bytes of a message at most. What logind says is some hundred bytes long.
const MOST: usize = 64 * 1024;
/// File descriptors that are kept until somebody asks for them.
const MOST_FDS: usize = 8;
/// Signals that wait while an answer is awaited.
const MOST_SIGNALS: usize = 64;
/// Messages that are looked at for one answer.
const MOST_MESSAGES: usize = 256;

/// The kinds of messages.
const CALL: u8 = 1;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Why the bus did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The bus cannot be reached, or the connection broke off.
    #[error("the system's message bus cannot be asked")]
    Io(#[from] io::Error),
    /// It does not let us in.
    #[error("the system's message bus says `{0}`")]
    Refused(String),
    /// The service answered with an error.
    #[error("{0}")]
    Failed(String),
    /// What came is no D-Bus.
    #[error("the system's message bus says what makes no sense: {0}")]
    Nonsense(&'static str),
}

impl From<rustix::io::Errno> for BusError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

/// A message that came.
#[derive(Debug, Default)]
pub struct Message {
    kind: u8,
    reply_to: Option<u32>,
    /// Who sent it.
    pub sender: String,
    /// The method or signal.
    pub member: String,
    interface: String,
    error: String,
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Message {
    /// A reader of its arguments.
    #[must_use]
    pub fn arguments(&self) -> Reader<'_> {
        Reader {
            bytes: &self.body,
            at: 0,
        }
    }

    /// The file descriptor that it brought.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop()
    }
}

/// A connection to a bus.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    inbox: Vec<u8>,
    fds: Vec<OwnedFd>,
    signals: VecDeque<Message>,
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its name on the bus.
    pub service: &'a str,
    /// The object.
    pub object: &'a str,
    /// The interface.
    pub interface: &'a str,
}

/// The bus itself.
const DRIVER: Target<'static> = Target {
    service: "org.freedesktop.DBus",
    object: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

impl Bus {
    /// Connects to the bus at `socket` as this process' user.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn connect(socket: &Path) -> Result<Self, BusError> {
        let mut bus = Self {
            stream: UnixStream::connect(socket).await?,
            serial: 0,
            inbox: Vec::new(),
            fds: Vec::new(),
            signals: VecDeque::new(),
        };
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        bus.send(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes()).await?;
        bus.agreed("OK ").await?;
        bus.send(b"NEGOTIATE_UNIX_FD\r\n").await?;
        bus.agreed("AGREE_UNIX_FD").await?;
        bus.send(b"BEGIN\r\n").await?;
        bus.call(DRIVER, "Hello", &[]).await?;
        Ok(bus)
    }

    /// Asks for the signals that `rule` matches.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn subscribe(&mut self, rule: &str) -> Result<(), BusError> {
        self.call(DRIVER, "AddMatch", &[rule]).await.map(drop)
    }

    /// Calls `method` with these texts and waits for its answer.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn call(
        &mut self,
        target: Target<'_>,
        method: &str,
        arguments: &[&str],
    ) -> Result<Message, BusError> {
        self.serial += 1;
        let serial = self.serial;
        let mut body = Writer::default();
        for argument in arguments {
            body.text(argument);
        }
        let fields = [
            (1, 'o', target.object),
            (2, 's', target.interface),
            (3, 's', method),
            (6, 's', target.service),
        ];
        let signature = "s".repeat(arguments.len());
        let message = compose(CALL, serial, &fields, &signature, &body.0);
        self.send(&message).await?;
        for _ in 0..MOST_MESSAGES {
            let message = self.receive().await?;
            if message.reply_to == Some(serial) {
                return match message.kind {
                    ERROR => {
                        let said = message.arguments().text().unwrap_or_default().to_owned();
                        Err(BusError::Failed(format!("{method}: {} ({said})", message.error)))
                    }
                    _ => Ok(message),
                };
            }
            if message.kind == SIGNAL && self.signals.len() < MOST_SIGNALS {
                self.signals.push_back(message);
            }
        }
        Err(BusError::Nonsense("no answer among many messages"))
    }

    /// The next signal `member` of `interface`.
    ///
    /// # Errors
    /// [`BusError`] when the connection ends.
    pub async fn signal(&mut self, interface: &str, member: &str) -> Result<Message, BusError> {
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive().await?,
            };
            if message.kind == SIGNAL && message.interface == interface && message.member == member {
                return Ok(message);
            }
        }
    }

    /// The next message.
    async fn receive(&mut self) -> Result<Message, BusError> {
        loop {
            if let Some(length) = whole(&self.inbox)?
                && self.inbox.len() >= length
            {
                let bytes: Vec<u8> = self.inbox.drain(..length).collect();
                let (mut message, fds) = parse(&bytes)?;
                // They come with the first bytes of their message, so that they are here by now.
                let fds = fds.min(self.fds.len());
                message.fds = self.fds.drain(..fds).collect();
                return Ok(message);
            }
            self.more().await?;
        }
    }

    /// One line of the conversation before the messages.
    async fn agreed(&mut self, wanted: &str) -> Result<(), BusError> {
        loop {
            if let Some(end) = self.inbox.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.inbox.drain(..end + 2).collect();
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                return if line.starts_with(wanted) {
                    Ok(())
                } else {
                    Err(BusError::Refused(line.chars().take(200).collect()))
                };
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), BusError> {
        if self.inbox.len() > MOST {
            return Err(BusError::Nonsense("a message is too long"));
        }
        let mut chunk = [0_u8; 2048];
        let stream = &self.stream;
        let (count, fds) = stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let received = recvmsg(
                    stream.as_fd(),
                    &mut [IoSliceMut::new(&mut chunk)],
                    &mut control,
                    RecvFlags::CMSG_CLOEXEC,
                )?;
                let mut fds = Vec::new();
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        fds.extend(rights);
                    }
                }
                Ok((received.bytes, fds))
            })
            .await?;
        if count == 0 {
            return Err(BusError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        self.inbox
            .extend_from_slice(chunk.get(..count).unwrap_or_default());
        self.fds.extend(fds);
        self.fds.truncate(MOST_FDS);
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), BusError> {
        Ok(self.stream.write_all(bytes).await?)
    }
}

/// The length of the message that `bytes` begin with, once its head is there.
fn whole(bytes: &[u8]) -> Result<Option<usize>, BusError> {
    let Some(head) = bytes.get(..16) else {
        return Ok(None);
    };
    let head = Reader { bytes: head, at: 0 };
    if head.bytes.first() != Some(&b'l') {
        return Err(BusError::Nonsense("a message in the other byte order"));
    }
    let length = |at| Reader { at, ..head }.number().map(|length| length as usize);
    let nonsense = || BusError::Nonsense("a message has no head");
    let (body, fields) = (length(4).ok_or_else(nonsense)?, length(12).ok_or_else(nonsense)?);
    if body > MOST || fields > MOST {
        return Err(BusError::Nonsense("a message is too long"));
    }
    Ok(Some((16 + fields).next_multiple_of(8) + body))
}

/// A message, and how many file descriptors belong to it.
fn parse(bytes: &[u8]) -> Result<(Message, usize), BusError> {
    let broken = || BusError::Nonsense("a message breaks off");
    let mut reader = Reader { bytes, at: 4 };
    let body = reader.number().ok_or_else(broken)? as usize;
    let mut message = Message {
        kind: bytes.get(1).copied().unwrap_or_default(),
        ..Message::default()
    };
    // Its serial number, which only an answer to it would need.
    reader.number().ok_or_else(broken)?;
    let fields = reader.number().ok_or_else(broken)? as usize;
    let end = 16 + fields;
    let mut fds = 0;
    while reader.at < end {
        reader.align(8);
        let (Some(code), Some(kind)) = (reader.byte(), reader.signature()) else {
            break;
        };
        match kind {
            "s" | "o" => {
                let text = reader.text().ok_or_else(broken)?.to_owned();
                match code {
                    2 => message.interface = text,
                    3 => message.member = text,
                    4 => message.error = text,
                    7 => message.sender = text,
                    _ => {}
                }
            }
            "u" => {
                let number = reader.number().ok_or_else(broken)?;
                match code {
                    5 => message.reply_to = Some(number),
                    9 => fds = number as usize,
                    _ => {}
                }
            }
            "g" => {
                // The body's own; what is asked for is read by its place.
                let _ = reader.signature();
            }
            _ => {
                return Err(BusError::Nonsense(
                    "a field of a message has a type that none has",
                ));
            }
        }
    }
    let from = end.next_multiple_of(8);
    message.body = bytes.get(from..from + body).ok_or_else(broken)?.to_vec();
    Ok((message, fds))
}

/// A message in bytes.
fn compose(kind: u8, serial: u32, fields: &[(u8, char, &str)], signature: &str, body: &[u8]) -> Vec<u8> {
    let mut list = Writer::default();
    for (code, kind, text) in fields {
        list.align(8);
        list.0.push(*code);
        list.signature(&kind.to_string());
        list.text(text);
    }
    if !signature.is_empty() {
        list.align(8);
        list.0.push(8);
        list.signature("g");
        list.signature(signature);
    }
    let mut message = Writer(vec![b'l', kind, 0, 1]);
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    message.number(size(body));
    message.number(serial);
    message.number(size(&list.0));
    message.0.extend_from_slice(&list.0);
    message.align(8);
    message.0.extend_from_slice(body);
    message.0
}

/// Writes values as D-Bus lays them out.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }
}

/// Reads values as D-Bus lays them out; `None` where they break off.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.align(N);
        let taken = self.bytes.get(self.at..self.at.checked_add(N)?)?;
        self.at += N;
        taken.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn slice(&mut self, length: usize) -> Option<&'a str> {
        let end = self.at.checked_add(length)?;
        let text = std::str::from_utf8(self.bytes.get(self.at..end)?).ok()?;
        // The zero after it.
        self.at = end + 1;
        Some(text)
    }

    /// A text.
    pub fn text(&mut self) -> Option<&'a str> {
        let length = self.number()? as usize;
        self.slice(length)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?;
        self.slice(length.into())
    }

    /// A truth.
    pub fn truth(&mut self) -> Option<bool> {
        self.number().map(|number| number != 0)
    }

    /// The truth in a variant.
    pub fn variant_truth(&mut self) -> Option<bool> {
        (self.signature()? == "b").then(|| self.truth())?
    }

    /// The 64-bit number in a variant.
    pub fn variant_u64(&mut self) -> Option<u64> {
        (self.signature()? == "t").then(|| self.take().map(u64::from_le_bytes))?
    }
}

#[cfg(test)]
mod tests;
