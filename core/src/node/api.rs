//! A node's inputs and outputs: the control plane's vocabulary.

mod command;
mod status;
mod store;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

pub use command::{Answer, Command, Draft, PublishError, Refusal, Takers};
pub use status::{BanStatus, BlobCell, NodeStatus, PeerSource, PeerStatus, TargetStatus};
pub use store::{Claim, Held, Stand, StoreNews, Written};

use super::channels::contents::Target;
use crate::addr::PeerAddr;
use crate::bep44::SignedItem;
use crate::blob::BlobRef;
use crate::buffer::Buffer;
use crate::error::{CloseReason, Violation};
use crate::identity::PublicKey;
use crate::ids::{BlobId, BlobName, CommandId, ConnId, InfoHash, JobId, Root};
use crate::manifest::{HeadError, Manifest};
use crate::parts::Values;
use crate::time::UnixTime;

/// A node's settings. Each takes effect on what stands at once where it is changed ([`Command::Configure`]).
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The port on which peers reach the node; `None`: no peer can, and nothing is announced. The peers that the node has dialled
    /// are told of another one; without one, they find the earlier one closed.
    pub listen_port: Option<u16>,
    /// The onion or I2P name and port under which peers reach the node, if it has one: it is announced to peers.
    pub own_address: Option<PeerAddr>,
    /// Whether the DHT is that of this machine or of a private network, not the public one: only there may private addresses
    /// be peers.
    pub private_dht: bool,
    /// Whether the node puts and looks up heads on the DHT for peers that have no DHT.
    pub gateway: bool,
    /// Whether blobs are taken whole from peers, so that these learn nothing of the lengths of what is in them
    /// (`docs/threat-model.md`); otherwise the parts that hold content.
    pub takes_all: bool,
    /// Most bytes sent each second, over all connections; `None`: no limit. Less than
    /// [`crate::limits::RATE_LIMIT_MIN`] counts as that.
    pub upload_bytes_per_sec: Option<u64>,
    /// Most bytes received each second, likewise: the sockets are not read faster.
    pub download_bytes_per_sec: Option<u64>,
}

/// An input from the driver. Any number of inputs may come in any order before the actions are drained.
#[derive(Debug)]
pub enum Input {
    /// A user's command; [`Action::Answer`] follows, once.
    Command(CommandId, Command),
    /// The only answer to a job.
    Done(JobId, JobResult),
    /// An item that a [`DhtOp::Get`] found, once for each DHT node that gave it; any number of them before the job's
    /// answer, in any order, including stale or forged ones.
    DhtItem(JobId, SignedItem),
    /// Peers that a [`DhtOp::Lookup`] found; any number of times before the job's answer, with repetitions.
    DhtPeers(JobId, Vec<PeerAddr>),
    /// A channel's signed document from another source than the DHT and peers, such as a tracker; it may be longer than a
    /// BEP 44 value. It is verified like any other, and has no effect where the channel is not followed.
    Head(PublicKey, Vec<u8>),
    /// News of the store that no job asked for.
    Store(StoreNews),
    /// [`super::Node::deadline`] has passed.
    Wake,
}

/// A request of the node to its driver.
#[derive(Debug)]
pub enum Action {
    /// Connect to `PeerAddr`; answer with [`super::Node::dialed`].
    Dial(JobId, PeerAddr),
    /// Drop the connection's socket now. The id is dead already.
    Close(ConnId, CloseReason),
    /// [`super::Node::recv_space`] may be non-empty again: read the socket.
    Readable(ConnId),
    /// [`super::Node::send_chunk`] may be non-empty again: write the socket.
    Writable(ConnId),
    /// Do work and answer with [`Input::Done`].
    Job(JobId, Job),
    /// Give the user the only answer to a command.
    Answer(CommandId, Result<Answer, Refusal>),
    /// Report an event to the user.
    Event(Event),
}

/// Work that needs a disk, a network or another processor.
#[derive(Debug)]
pub enum Job {
    /// Read into [`Buffer::blob_mut`] the v5 blob with this id, or the native one whose bytes have it ([`Job::NoteIds`]); answered
    /// by [`JobResult::BlobRead`].
    ReadBlob(BlobId, Buffer),
    /// Check [`Buffer::blob`] with [`crate::blob::verify`] and store it if it matches; answered by
    /// [`JobResult::BlobWritten`]. Of a native blob that was asked for by an id, whether its bytes have the id is said too.
    WriteBlob(BlobName, BlobId, Buffer),
    /// Read a part of a blob, whole or under way, into [`Buffer::blob_mut`], and check it; answered by [`JobResult::PartRead`].
    ReadPart(Root, usize, Buffer),
    /// Check [`Buffer::blob`] with the values ([`Values::check`]) and store it if it is this part; answered by
    /// [`JobResult::PartWritten`]. Where the blob's content is a file's, it is said where, so that it can be opened into its place.
    WritePart(Root, usize, Arc<Values>, Buffer, Option<Box<Stand>>),
    /// Make a blob whole of the parts that are stored, where it is not, and say what its content is; answered by
    /// [`JobResult::BlobFinished`].
    FinishBlob(Root, Vec<Claim>),
    /// Say which of these blobs are stored; answered by [`JobResult::Have`]. Of some it is known where their content is to stand: what
    /// stands there already, and comes out as the blob, need not be fetched.
    Have(Vec<BlobName>, BTreeMap<Root, Stand>),
    /// Note which native blobs have these ids, as their author says; answered by [`JobResult::IdsNoted`]. It is only believed
    /// once the bytes were hashed.
    NoteIds(Vec<(BlobId, Root)>),
    /// Read a native blob from the store, with content of this many bytes, and open it; answered by [`JobResult::Opened`].
    OpenBlob(BlobRef, u32),
    /// Store a record durably (`None`: delete it), after all earlier ones of the same key; answered by
    /// [`JobResult::Persisted`].
    Persist(RecordKey, Option<Vec<u8>>),
    /// A DHT operation.
    Dht(DhtOp),
}

/// An operation on the Mainline DHT. At most [`crate::limits::DHT_JOBS_MAX`] are in flight.
#[derive(Debug, Clone)]
pub enum DhtOp {
    /// BEP 44 get of a mutable item, without salt: [`Input::DhtItem`]s, then [`JobResult::DhtDone`].
    Get(PublicKey),
    /// BEP 44 put with an optional compare-and-swap sequence: [`JobResult::DhtPut`].
    Put(SignedItem, Option<i64>),
    /// BEP 5 `get_peers`: [`Input::DhtPeers`], then [`JobResult::DhtDone`].
    Lookup(InfoHash),
    /// BEP 5 `announce_peer` with the node's listening port: [`JobResult::DhtDone`].
    Announce(InfoHash, u16),
}

/// The answer to a [`Job`].
#[derive(Debug)]
pub enum JobResult {
    /// The buffer, and whether it holds the blob; if not, the blob is not stored or unreadable.
    BlobRead(Buffer, bool),
    /// The buffer, and what became of its blob.
    BlobWritten(Buffer, Written),
    /// The buffer, and the blob's values if it holds the part; if not, the part is not stored or unreadable.
    PartRead(Buffer, Option<Box<Values>>),
    /// The buffer, and what became of its part.
    PartWritten(Buffer, Written),
    /// Whether each claim is right, in the job's order. An error: the blob is not whole. [`Written::Mismatch`]: parts
    /// that were stored are not there any more.
    BlobFinished(Result<Vec<bool>, Written>),
    /// What of each blob is stored, in the job's order.
    Have(Vec<Held>),
    /// They are noted.
    IdsNoted,
    /// The blob's content; `None` where it is not stored or is not canonical (`docs/protocol.md` §2).
    Opened(Option<Vec<u8>>),
    /// The blob that was to be opened is stored and cannot be read at present; [`StoreNews::Back`] follows.
    OutOfReach,
    /// Whether the record is durable.
    Persisted(bool),
    /// How many remote nodes hold the item (our own DHT node does not count).
    DhtPut(Result<u32, DhtError>),
    /// The operation has ended.
    DhtDone(Result<(), DhtError>),
}

/// Why a DHT operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhtError {
    /// There is no DHT here (`--dht off`, or a proxy).
    Disabled,
    /// No DHT node answered.
    NoNodes,
    /// A newer item is stored (BEP 44 error 302).
    Stale,
    /// The stored sequence is not the expected one (BEP 44 error 301).
    CasMismatch,
    /// The item breaks BEP 44's limits.
    TooLarge,
    /// It took too long or the DHT client failed.
    Failed,
}

impl core::fmt::Display for DhtError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Disabled => "there is no DHT here",
            Self::NoNodes => "no DHT node answered",
            Self::Stale => "the DHT holds a newer item",
            Self::CasMismatch => "the DHT holds another sequence than expected",
            Self::TooLarge => "the item is too large for BEP 44",
            Self::Failed => "the DHT operation failed or took too long",
        })
    }
}

/// The name of a durable record. Only the node reads the values; the driver keeps them and hands them to
/// [`super::Node::restore`] at the next start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    /// A channel's state.
    Channel(PublicKey),
    /// A ban.
    Ban(PeerAddr),
    /// A peer worth trying again.
    Peer(PeerAddr),
}

/// An event for the node's user.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A newer head of a channel was verified and is durable.
    Head {
        /// The channel.
        channel: PublicKey,
        /// Its sequence.
        sequence: u64,
    },
    /// A head that cannot be used.
    HeadRefused {
        /// The channel.
        channel: PublicKey,
        /// Why.
        error: HeadError,
    },
    /// Two different heads have one sequence and good signatures: two programs use the author's key, or the author lies.
    Fork {
        /// The channel.
        channel: PublicKey,
        /// The sequence they share.
        sequence: u64,
    },
    /// The look-up of a channel's head ended without one.
    HeadNotFound {
        /// The channel.
        channel: PublicKey,
        /// Why the DHT did not answer; `None`: it answered and has no head.
        error: Option<DhtError>,
    },
    /// The channel's content is known.
    Manifest {
        /// The channel.
        channel: PublicKey,
        /// The head's sequence.
        sequence: u64,
        /// The content.
        manifest: Arc<Manifest>,
    },
    /// The channel's body is stored but is no manifest.
    BodyRefused {
        /// The channel.
        channel: PublicKey,
        /// The head's sequence.
        sequence: u64,
        /// Why.
        error: crate::manifest::BodyError,
    },
    /// Some of the channel's files cannot be had: a page of the body is stored but is no page. The other files arrive.
    PageRefused {
        /// The channel.
        channel: PublicKey,
        /// The head's sequence.
        sequence: u64,
        /// Why.
        error: crate::manifest::BodyError,
    },
    /// All blobs of one file are stored. Repeated for complete files when more is selected later.
    FileComplete {
        /// What it is of.
        target: Target,
        /// The version's sequence.
        sequence: u64,
        /// Index of the file among the manifest's files, in order ([`Manifest::files`]).
        file: usize,
    },
    /// A file's index blob does not match its reference.
    FileRefused {
        /// What it is of.
        target: Target,
        /// The version's sequence.
        sequence: u64,
        /// Index of the file among the manifest's files.
        file: usize,
    },
    /// All blobs of the newest version are stored.
    Complete {
        /// What it is of.
        target: Target,
        /// The version's sequence.
        sequence: u64,
    },
    /// All selected blobs of the newest version are stored, but not all that it names.
    SelectionComplete {
        /// What it is of.
        target: Target,
        /// The version's sequence.
        sequence: u64,
    },
    /// The store has lost blobs that were selected and stored. They are fetched again; [`Event::Complete`] or
    /// [`Event::SelectionComplete`] follows. Events about the manifest and its files are not repeated.
    BlobsLost {
        /// What they are of.
        target: Target,
        /// The version's sequence.
        sequence: u64,
    },
    /// The draft takes the sequence after the newest one, which lies ahead of our clock: our clock is behind, or the author's
    /// was ahead. Emitted once for a draft.
    ClockBehind {
        /// The command that publishes it.
        command: CommandId,
        /// The channel.
        channel: PublicKey,
        /// The draft's sequence: read as milliseconds since 1970, the time that the channel has reached.
        sequence: u64,
        /// The time on our clock.
        unix: UnixTime,
    },
    /// A connection is open and keyed.
    Connected {
        /// The connection.
        conn: ConnId,
        /// The peer: the address dialled, or that of the socket.
        peer: PeerAddr,
        /// Whether we dialled.
        outbound: bool,
    },
    /// A connection ended.
    Disconnected {
        /// The connection.
        conn: ConnId,
        /// The peer.
        peer: PeerAddr,
        /// Why.
        reason: CloseReason,
    },
    /// A dial failed.
    DialFailed {
        /// The peer.
        peer: PeerAddr,
    },
    /// A peer is banned for a proven lie or a flood; the ban outlives the process.
    Banned {
        /// The peer.
        peer: PeerAddr,
        /// The rule that it broke.
        violation: Violation,
        /// When the ban ends.
        until: UnixTime,
    },
    /// The store has no room or fails; fetching pauses until it takes a blob again.
    StoreFull {
        /// Whether space or quota ran out; otherwise the disk failed.
        no_space: bool,
    },
}
