//! Links: two byte pipes between two sockets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use megatorrent_core::ids::{ConnId, JobId};
use megatorrent_core::time::Instant;

use crate::host::HostId;
use crate::sparse::Sparse;
use crate::traffic::Meter;

/// A link, for the world's methods on links; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub(crate) u64);

/// One of a link's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Dialer = 0,
    Listener = 1,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Listener,
            Self::Listener => Self::Dialer,
        }
    }
}

/// An end of a link.
pub(crate) enum End {
    /// The listener's end before the dial has reached it.
    Unreached,
    /// A node that waits for its dial's outcome.
    Dialing { host: HostId, epoch: u32, job: JobId },
    /// A node's socket.
    Node { host: HostId, conn: ConnId },
    /// A socket that the world's caller holds, with its address and the bytes left to send.
    Raw { from: SocketAddr, unsent: VecDeque<u8> },
    /// The socket is closed.
    Closed,
}

/// A TCP connection, as its users see it.
pub(crate) struct Link {
    /// The host at each end, by [`Side`], even after its socket has closed; `None`: a stranger, or not yet reached.
    pub(crate) hosts: [Option<HostId>; 2],
    /// The ends, by [`Side`].
    pub(crate) ends: [End; 2],
    /// The bytes in flight to each end, by [`Side`].
    pub(crate) pipes: [Pipe; 2],
    /// The IP address that a node dialled; `None`: a name, or the dialler is a stranger.
    pub(crate) dialled: Option<SocketAddr>,
    /// One-way latency.
    pub(crate) latency: Duration,
    /// Nothing crosses the link, and neither end is told.
    pub(crate) is_half_open: bool,
    /// Whether the end, by [`Side`], waits for its host's uplink.
    pub(crate) waits_for_uplink: [bool; 2],
}

impl Link {
    pub(crate) fn new(dialer: End, latency: Duration) -> Self {
        let host = if let End::Dialing { host, .. } = dialer { Some(host) } else { None };
        Self {
            hosts: [host, None],
            ends: [dialer, End::Unreached],
            pipes: [Pipe::default(), Pipe::default()],
            dialled: None,
            latency,
            is_half_open: false,
            waits_for_uplink: [false; 2],
        }
    }

    /// The node at `side`, where its connection is open.
    pub(crate) fn node_at(&self, side: Side) -> Option<(HostId, ConnId)> {
        match self.ends[side as usize] {
            End::Node { host, conn } => Some((host, conn)),
            _ => None,
        }
    }

    /// The host at `side`, even while it dials.
    pub(crate) fn host_at(&self, side: Side) -> Option<HostId> {
        match self.ends[side as usize] {
            End::Node { host, .. } | End::Dialing { host, .. } => Some(host),
            _ => None,
        }
    }

    pub(crate) fn is_closed(&self, side: Side) -> bool {
        matches!(self.ends[side as usize], End::Closed)
    }
}

/// One direction of a link.
#[derive(Default)]
pub(crate) struct Pipe {
    /// The pieces sent and not yet read; their first [`Self::arrived`] bytes can be read. So a pipe takes no more memory
    /// than its content.
    pieces: VecDeque<Sparse>,
    /// Bytes read of the first piece.
    begun: usize,
    /// The counter of sent bytes.
    pub(crate) meter: Meter,
    /// Bytes of content among what a node sent.
    pub(crate) content: u64,
    /// Bytes that can be read.
    pub(crate) arrived: usize,
    /// Bytes of which the sender does not know yet that they were read.
    pub(crate) in_use: usize,
    /// Bytes that were read, of which the sender is not told yet.
    pub(crate) untold: usize,
    /// When the last byte sent arrives; later bytes arrive no sooner.
    pub(crate) last_arrival: Instant,
    /// The sender has closed, and all its bytes have arrived.
    pub(crate) is_ended: bool,
}

impl Pipe {
    /// Adds a sent piece.
    pub(crate) fn put(&mut self, piece: Sparse) {
        self.pieces.push_back(piece);
    }

    /// Moves up to `space.len()` of the arrived bytes into `space`; returns how many.
    pub(crate) fn read(&mut self, space: &mut [u8]) -> usize {
        let (wanted, mut done) = (space.len().min(self.arrived), 0);
        while let Some(piece) = self.pieces.front().filter(|_| done < wanted) {
            let n = (piece.len() - self.begun).min(wanted - done);
            piece.copy_to(self.begun, &mut space[done..done + n]);
            done += n;
            self.begun += n;
            if self.begun == piece.len() {
                self.pieces.pop_front();
                self.begun = 0;
            }
        }
        self.arrived -= done;
        done
    }

    /// Loses all its bytes.
    pub(crate) fn lose(&mut self) {
        self.arrived = 0;
        self.begun = 0;
        self.pieces.clear();
    }

    /// Whether no more bytes will come out of it.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_ended && self.arrived == 0
    }
}
