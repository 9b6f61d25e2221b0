//! Somebody who is no node: core's client over a real socket, with which tests and benchmarks stand opposite a real one.
#![allow(dead_code, reason = "each of them uses its own part")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use megatorrent_core::client::{Client, Heard};
use megatorrent_core::codec::{Have, Message, Tag, VERSION};
use megatorrent_core::ids::Topic;
use megatorrent_core::limits::PIECE_LEN_MAX;
use megatorrent_core::parts::{VALUES_LEN, Values};
use megatorrent_core::rng::Rng;
use megatorrent_core::transport::Role;

/// Handshakes so far: two ends in one process have keys of their own.
static HANDSHAKES: AtomicUsize = AtomicUsize::new(0);

/// A keyed connection.
pub(crate) struct Line {
    stream: TcpStream,
    client: Client,
}

impl Line {
    /// Connects to a node and introduces itself as a v6 peer that listens nowhere; the node has answered.
    #[expect(clippy::disallowed_methods, reason = "the stranger's own socket")]
    pub(crate) fn dial(addr: SocketAddr) -> io::Result<Self> {
        let mut line = Self::shake(TcpStream::connect(addr)?, Role::Dialler)?;
        line.send(&hello())?;
        while !matches!(line.receive()?, Message::Hello { .. }) {}
        Ok(line)
    }

    /// Makes a connection keyed.
    fn shake(stream: TcpStream, role: Role) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let label = format!("{} {}", std::process::id(), HANDSHAKES.fetch_add(1, Ordering::Relaxed));
        let client = Client::new(role, &mut Rng::new([1; 32]).fork(&label));
        let mut line = Self { stream, client };
        line.flush()?;
        match line.hear()? {
            Heard::Open => Ok(line),
            _ => Err(refused()),
        }
    }

    /// What a channel is called on this connection.
    fn tag(&self, topic: &Topic) -> Tag {
        self.client.tag(topic).expect("a line is open")
    }

    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        self.client.send(message);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.client.take_output())
    }

    /// How long [`Self::receive`] waits at most; then it is an error.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(patience))
    }

    /// Follows a channel of which it says that it has every blob.
    pub(crate) fn follow(&mut self, topic: &Topic) -> io::Result<()> {
        let ours = self.tag(topic);
        self.send(&Message::Watch(vec![ours]))?;
        loop {
            match self.receive()? {
                Message::GetHead { tag, .. } => self.send(&Message::Head(tag, None))?,
                Message::Have(tag, sequence, have) if tag == ours && have.all => {
                    return self.send(&Message::Have(tag, sequence, have));
                }
                _ => {}
            }
        }
    }

    /// Whether the other end has not closed it, as far as is known here.
    pub(crate) fn is_open(&mut self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(1..) => {}
                Ok(0) => return false,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    pub(crate) fn keep_alive(&mut self) -> io::Result<()> {
        self.send(&Message::Empty)
    }

    pub(crate) fn receive(&mut self) -> io::Result<Message> {
        match self.hear()? {
            Heard::Message(message) => Ok(message),
            Heard::Open | Heard::Malformed(_) => Err(refused()),
        }
    }

    fn hear(&mut self) -> io::Result<Heard> {
        let mut piece = [0; 16 * 1024];
        loop {
            if let Some(heard) = self.client.hear().map_err(|_| refused())? {
                return Ok(heard);
            }
            match self.stream.read(&mut piece)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => self.client.feed(&piece[..n]),
            }
        }
    }
}

fn hello() -> Message {
    Message::Hello { version: Some(VERSION), sequences: [].into(), port: None, features: 0 }
}

fn refused() -> io::Error {
    ErrorKind::InvalidData.into()
}

/// What a liar does when it is asked for parts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// It sends other values and bytes.
    Garbage,
    /// It sends nothing, ever.
    Silence,
}

/// A listener that says of a channel's every version that it has all of it, and has nothing.
pub(crate) struct Liar {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Liar {
    /// Listens on loopback for as long as the process lives.
    #[expect(clippy::disallowed_methods, reason = "the liar's own socket")]
    pub(crate) fn start(topic: Topic, lie: Lie) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let liar = Self { address: listener.local_addr()?, asked: Arc::default() };
        let asked = Arc::clone(&liar.asked);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let asked = Arc::clone(&asked);
                // It ends with the connection.
                thread::spawn(move || drop(lie_to(stream, &topic, lie, &asked)));
            }
        });
        Ok(liar)
    }

    /// WANTs that it got so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn lie_to(stream: TcpStream, topic: &Topic, kind: Lie, asked: &AtomicUsize) -> io::Result<()> {
    let mut line = Line::shake(stream, Role::Listener)?;
    let ours = line.tag(topic);
    loop {
        match line.receive()? {
            Message::Hello { .. } => {
                line.send(&hello())?;
                line.send(&Message::Watch(vec![ours]))?;
            }
            Message::GetHead { tag, .. } => line.send(&Message::Head(tag, None))?,
            Message::AskHave(tag, sequence) => {
                let all = Have { all: true, ..Have::default() };
                line.send(&Message::Have(tag, sequence, all))?;
            }
            Message::Want(want) => {
                asked.fetch_add(1, Ordering::Relaxed);
                if kind == Lie::Silence {
                    continue;
                }
                let number = want.number;
                if want.values {
                    let values = Box::new(Values::from_bytes([0x5a; VALUES_LEN]));
                    line.send(&Message::Parts { number, values })?;
                }
                for part in want.mask.iter().filter_map(|part| u8::try_from(part).ok()) {
                    for half in 0..2 {
                        let bytes = vec![0x5a; PIECE_LEN_MAX];
                        line.send(&Message::Piece { number, part, half, bytes })?;
                    }
                }
            }
            _ => {}
        }
    }
}
