//! Every bound of the protocol and of a node, in one place, each with what happens when it is reached. Which of them bind
//! others `docs/protocol.md` §15 tells, and `docs/policy.md` what chose the rest.

use core::time::Duration;

use crate::blob::BLOB_LEN;
use crate::parts::PART_LEN;
use crate::wire::{HEADER_LEN, PIECE_HEADER_LEN, TAG_LEN};

// --- wire ---------------------------------------------------------------------------------------------------

/// Longest plaintext (type byte and payload) of a frame that is not DATA; a longer one is a violation.
pub const CONTROL_LEN_MAX: usize = 64 * 1024;
/// Longest plaintext of a DATA frame: type byte and blob. Admitted only while a request is outstanding.
pub const DATA_LEN_MAX: usize = 1 + BLOB_LEN;
/// Bytes that a peer may say unasked in a minute, on average: all but requests for blobs, which have bounds of their own, and
/// answers. Unseen positions are not counted (`docs/protocol.md` §14). A peer that says more is banned.
pub const UNASKED_BYTES_PER_MINUTE: u64 = 120 * 1024;
/// The same at once, after a quiet time: enough for a peer with as many channels as can be followed.
pub const UNASKED_BYTES_BURST: u64 = 1 << 20;
/// Each message that was not asked for counts for so many bytes more than its plaintext has.
pub const UNASKED_MESSAGE_BYTES: u64 = 64;
/// Bytes of a HAVE that are not counted for each unseen position: the most that one takes in an array.
pub const HAVE_POSITION_BYTES: u64 = 5;
/// HAVEs of additions sent to one peer in a minute, on average; more wait. What they say beside unseen positions is about half
/// of what we may say unasked.
pub const HAVES_PER_MINUTE: u64 = 480;
/// The same at once, after a quiet time.
pub const HAVES_BURST: u64 = 4096;
/// After a WATCH follows the next not before the time in which so many bytes a second are as long as it is.
pub const WATCH_BYTES_PER_SEC: u32 = 512;
/// Channels listed in one HELLO; more are left out when sending (the newest first) and ignored when received.
pub const GOSSIP_CHANNELS_MAX: usize = 256;
/// Addresses in one PEERS answer; more are left out when sending and ignored when received.
pub const PEERS_MAX: usize = 64;
/// Tags in one WATCH: one for each channel that can be followed, with the padding; more are ignored.
pub const WATCH_TAGS_MAX: usize = CHANNELS_MAX + WATCH_PADDING;
/// A WATCH is padded with random tags to a multiple of this number, so that it does not tell how many channels there are.
pub const WATCH_PADDING: usize = 32;
/// Bytes of a blob in one PIECE: half a part. A longer one is a violation.
pub const PIECE_LEN_MAX: usize = PART_LEN / 2;
/// Positions of a channel's version up to which HAVE tells who has what (256 GiB of content); beyond, a peer that has any
/// blob of it is asked on a guess.
pub const HAVE_BLOBS_MAX: usize = 1 << 18;
/// Bytes that the positions which one connection's peer has take, over all channels; what does not fit is not noted, so
/// the peer is not asked for it.
pub const HAVE_BYTES_MAX: usize = 64 * 1024;
/// Positions, and pairs of a position and a mask, listed in one HAVE; further ones go into the next, and are ignored when received.
pub const HAVE_POSITIONS_MAX: usize = 4096;
/// Pairs of a position and a mask in one HAVE of ours, so that it fits into a frame beside the longest bitmap or array of positions.
pub const HAVE_UNDER_WAY_TOLD_MAX: usize = 2048;
/// Hops that an ANNOUNCE may still make; a higher number is taken as this.
pub const ANNOUNCE_HOPS_MAX: u8 = 6;
/// Longest text of an ERROR or OK that is kept; the rest is cut.
pub const TEXT_LEN_MAX: usize = 256;
/// Depth of nested JSON arrays and objects from a peer; a deeper text is malformed.
pub const JSON_DEPTH_MAX: usize = 32;
/// Longest value of a BEP 44 item, without its bencoding; a longer one is neither sent nor accepted.
pub const ITEM_VALUE_LEN_MAX: usize = 996;

// --- connections --------------------------------------------------------------------------------------------

/// Connections that others opened to us. At the cap the oldest without a request is closed for the newcomer; if all
/// have one, the newcomer is refused.
pub const INBOUND_MAX: usize = 1024;
/// Connections that others opened to us while we lack blobs ourselves, so that a swarm's connections do not crowd at
/// those that came first. At the cap the oldest on which nobody asked for anything is closed for the newcomer; if there
/// is none, the newcomer is refused, and finds others.
pub const INBOUND_FETCHING_MAX: usize = 40;
/// Connections that we opened; no further one is dialled at the cap.
pub const OUTBOUND_MAX: usize = 64;
/// Connections that a node has while blobs are on their way...
pub const FETCH_CONNECTIONS: usize = 56;
/// ...and how many of them at least it opens itself: to whom it is connected is its own choice, whoever else connects. Up to
/// [`OUTBOUND_MAX`] where those that it has bring nothing of what lacks.
pub const FETCH_CONNECTIONS_OWN: usize = 24;
/// A node that fetches and has fewer connections, in either direction, asks peers for others even if they bring it what it lacks.
pub const FETCH_CONNECTIONS_FEW: usize = 12;
/// Connections that a node which lacks nothing opens and keeps, so that news of its channels reach it.
pub const KEPT_CONNECTIONS: usize = 8;
/// Dials under way at once; the rest wait in the address book.
pub const DIALS_MAX: usize = 20;
/// Of which this many at most are of addresses that only a peer told of: made-up ones, each of which takes a dial until it times out,
/// leave some for the others.
pub const HEARSAY_DIALS_MAX: usize = 12;
/// Of these, how many are left for swarms in which nobody is connected.
pub const DIALS_RESERVED: usize = 4;
/// Of the connections that we open, how many are left for such swarms.
pub const OUTBOUND_RESERVED: usize = 4;
/// A handshake that takes longer ends the connection.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a dialled peer may take for its HELLO before it is taken for a v5 peer, many of which send none.
pub const HELLO_WAIT: Duration = Duration::from_secs(2);
/// A connection on which nothing moved for this long is closed; one with a v6 peer from which nothing came.
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
/// On a connection that we opened or that is with a v6 peer, an empty frame is sent after this long without one.
pub const KEEP_ALIVE: Duration = Duration::from_secs(45);
/// Control frames queued for a peer; at the cap its socket is not read until it takes some.
pub const CONTROL_QUEUE_MAX: usize = 16;
/// Requests of a peer that wait for their answer; at the cap its socket is not read until one is answered.
pub const REQUESTS_QUEUED_MAX: usize = 64;
/// Blobs read from the store for one connection and not yet sent.
pub const ANSWERS_LOADED_MAX: usize = 2;
/// WANTs of a v6 peer of which the end has not been sent; more are a violation.
pub const WANTS_MAX: usize = 64;
/// Shortest time between two HAVEs of additions to one peer, or three times what a part takes to come, up to
/// [`HAVE_INTERVAL_MAX`]; what is stored meanwhile goes into one.
pub const HAVE_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The longest time between two such HAVEs.
pub const HAVE_INTERVAL_MAX: Duration = Duration::from_secs(2);
/// The lowest limit on the bytes sent or received each second; a lower one counts as this, so that handshakes and keep-alives
/// pass.
pub const RATE_LIMIT_MIN: u64 = 1024;
/// Time a closing connection gets to take the ERROR that says why.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

// --- blobs in memory ----------------------------------------------------------------------------------------

/// Blob buffers for receiving whole blobs. When none is free, sockets that could bring one are not read.
pub const RECV_BUFFERS_MAX: usize = 14;
/// Blob buffers for sending whole blobs. When none is free, requests wait.
pub const SEND_BUFFERS_MAX: usize = 4;
/// Parts that are asked for or being written at once, of all peers: each may hold a buffer. The rest waits.
pub const PARTS_UNDER_WAY_MAX: usize = 384;
/// Buffers for sending parts. When none is free, WANTs wait.
pub const PART_SEND_BUFFERS_MAX: usize = 64;
/// Parts read from the store for one connection and not yet sent.
pub const PARTS_LOADED_MAX: usize = 4;
/// Parts asked for at once on one connection.
pub const PART_WINDOW_MAX: usize = 256;
/// Parts asked for at once on a connection that has not brought any yet.
pub const PART_WINDOW_START: usize = 2;
/// Connections that may be asked, up to which the window of each grows by one for each part that comes in time, until its rate is
/// known. Where there are more, they bring enough together, and what few have is better not waited for at one.
pub const PART_WINDOW_GROWS_FOR: usize = 3;
/// Parts asked for at once of one of few seeds, at least: the more it may choose from, the fewer it sends twice.
pub const PART_WINDOW_SEED: usize = 8;
/// Peers that one part is asked of at once.
pub const ASKED_AT_ONCE_MAX: usize = 3;
/// The same of an index blob or a document: while those that were asked are silent, another is at each review, as all else waits for it.
pub const INDEX_ASKED_MAX: usize = 16;
/// Connections over which whole blobs may be asked for at once; each holds a receive buffer.
pub const DOWNLOAD_CONNECTIONS_MAX: usize = 12;
/// Whole blobs asked for at once on one connection.
pub const WINDOW_MAX: usize = 16;
/// Whole blobs asked for at once on a connection that has not brought one yet.
pub const WINDOW_START: usize = 1;
/// A v5 connection with requests outstanding that brings less than [`STALL_BYTES_MIN`] in this time is closed; its
/// requests go elsewhere. A v6 connection that brings nothing of its WANTs for this long is not asked for more.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// What a v5 connection with requests outstanding must bring within [`STALL_TIMEOUT`], so that a peer that trickles
/// bytes does not hold a blob for ever. It is far below what Tor carries.
pub const STALL_BYTES_MIN: u64 = 16 * 1024;
/// A v6 connection on which parts were asked for and that brings nothing for this long is closed. A peer that serves many
/// may take long to come to us.
pub const SILENCE_MAX: Duration = Duration::from_mins(2);
/// Parts, or whole blobs, that are read or sent at once for peers that take them readily; one that takes much longer than
/// usual does not count. Few at a time, so that each is soon whole at somebody who serves it on.
pub const UPLOAD_SLOTS: usize = 2;
/// The same where parts are sent as quickly as they are read: a worker that has several at hand need not be woken for each.
pub const UPLOAD_SLOTS_QUICK: usize = 4;
/// Slots beside these for index blobs and documents of which only a beginning is wanted: all else waits for them.
pub const UPLOAD_SLOTS_SHORT: usize = 4;
/// How long an upload slot counts before any has ended.
pub const SLOT_TIME_START: Duration = Duration::from_secs(2);
/// Up to this median time, a node's slots are quick.
pub const SLOT_TIME_QUICK: Duration = Duration::from_millis(2);
/// How long one counts at least, however quick the others are: peers that are far away need some round trips.
pub const SLOT_TIME_MIN: Duration = Duration::from_millis(250);
/// How long one counts at most, however slow the others are: where all readers are slow, more of them at once fill the
/// line.
pub const SLOT_TIME_MAX: Duration = Duration::from_secs(8);
/// Stored blobs of which is remembered that others are known by them, so that they are served first.
pub const INDEX_KNOWN_MAX: usize = 65_536;
/// Blobs of which is remembered that they were served; at the cap all are forgotten.
pub const SERVED_MAX: usize = 65_536;
/// Blobs of which a peer told parts, over all channels; further ones are not noted.
pub const HAVE_UNDER_WAY_MAX: usize = 4096;
/// Blobs that a peer said are missing there, remembered per connection; at the cap the peer is not asked for more. The memory is
/// cleared each [`ASK_AGAIN_INTERVAL`] in which none arrive.
pub const REFUSED_MAX: usize = 1024;

// --- content ------------------------------------------------------------------------------------------------

/// Depth of a tree: 1024⁴ blobs are 2^60 bytes. A deeper one is malformed.
pub const TREE_DEPTH_MAX: u8 = 4;
/// Longest manifest body; a longer one is refused.
pub const BODY_LEN_MAX: u64 = 8 << 20;
/// Items in a manifest; more are malformed.
pub const ITEMS_MAX: usize = 1 << 20;
/// Bytes of all files of a manifest together; more are malformed.
pub const CONTENT_BYTES_MAX: u64 = 1 << 60;
/// Longest page of a body; a longer one is malformed.
pub const PAGE_LEN_MAX: usize = 256 << 10;
/// Items in a page; more are malformed.
pub const PAGE_ITEMS_MAX: usize = 1 << 16;
/// From this length on a writer ends a page where an item's name says so ([`PAGE_CUT`]).
pub const PAGE_LEN_MIN: usize = 16 << 10;
/// A page ends after one in this many items.
pub const PAGE_CUT: u32 = 256;
/// Extents, or chunks, of a file; more are malformed.
pub const EXTENTS_MAX: usize = 4096;
/// Packs of a version; more are malformed.
pub const PACKS_MAX: usize = 1 << 16;
/// Longest path of an item in bytes, and longest target of a symlink.
pub const PATH_LEN_MAX: usize = 4096;
/// Longest component of a path in bytes (what common file systems take).
pub const NAME_LEN_MAX: usize = 255;
/// Longest title of a channel or a collection in bytes; a longer one is malformed.
pub const TITLE_LEN_MAX: usize = 1024;
/// Longest description of a channel in bytes; a longer one is malformed.
pub const DESCRIPTION_LEN_MAX: usize = 64 * 1024;
/// Longest magnet URI in bytes; a longer one is malformed.
pub const MAGNET_LEN_MAX: usize = 8 * 1024;
/// Chunks of a manifest that is tried in v5's form; one with more becomes a body, as no head has room for them.
pub const INLINE_CHUNKS_MAX: usize = 8;
/// Collections in a manifest; more are malformed.
pub const COLLECTIONS_MAX: usize = 10_000;
/// Depth of nested CBOR arrays, maps and tags in a body; a deeper one is malformed.
pub const CBOR_DEPTH_MAX: usize = 16;
/// Bootstrap peers in a channel's address; an address with more is refused.
pub const BOOTSTRAP_MAX: usize = 32;
/// The highest sequence and timestamp that we sign, as JavaScript reads no higher number exactly; milliseconds reach it in
/// the year 287 396. Where the next sequence would be higher, nothing is published.
pub const SEQUENCE_SIGNED_MAX: u64 = 1 << 53;
/// How far a head's sequence may lie above the highest known of its channel, 0 before the first. A higher one is refused: one
/// head is not to use up the numbers above it.
pub const SEQUENCE_STEP_MAX: u64 = 1 << 53;
/// Blobs that one fetch has in hand (asked of the store, wanted or being written); the rest of its tree waits.
pub const WANTED_PER_FETCH_MAX: usize = 1024;
/// Blobs that all fetches together have in hand: each gets an equal share, but always [`WANTED_PER_FETCH_MIN`], so where all
/// [`CHANNELS_MAX`] miss some it is four times as many.
pub const WANTED_MAX: usize = 16 * WANTED_PER_FETCH_MAX;
/// Blobs that a fetch may have in hand, however many others there are.
pub const WANTED_PER_FETCH_MIN: usize = 64;
/// What authors call blobs, in one batch; further ones follow in others.
pub const CLAIMS_MAX: usize = 1024;
/// Longest head that came from elsewhere than the DHT; a longer one is refused.
pub const HEAD_LEN_MAX: usize = 1 << 20;
/// Files that one selection names; one with more is refused.
pub const SELECTED_FILES_MAX: usize = 100_000;
/// Ranges that one selection names; one with more is refused.
pub const SELECTED_RANGES_MAX: usize = 64;
/// Files of one channel that are fetched side by side, in the manifest's order.
pub const FILES_AT_ONCE_MAX: usize = 64;

// --- peers and channels -------------------------------------------------------------------------------------

/// Addresses known; at the cap the worst one that is not in use makes room.
pub const PEERS_KNOWN_MAX: usize = 2048;
/// Bans kept; at the cap the one that ends first makes room.
pub const BANS_MAX: usize = 4096;
/// How long a proven lie excludes an address.
pub const BAN_TIME: Duration = Duration::from_hours(1);
/// First wait after a failed dial; doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_secs(2);
/// Longest wait after failed dials.
pub const BACKOFF_MAX: Duration = Duration::from_mins(10);
/// While a node lacks connections, it asks the v6 peers that it has for others, and each of them again after this long, doubled with
/// each time up to [`FIND_PEERS_INTERVAL_MAX`]: where many come at once, a peer soon knows more.
pub const FIND_PEERS_INTERVAL_START: Duration = Duration::from_millis(500);
/// The same of a v5 peer, and the longest such interval while blobs lack and none arrive.
pub const FIND_PEERS_INTERVAL_MIN: Duration = Duration::from_mins(1);
/// The longest time between two such questions to one peer.
pub const FIND_PEERS_INTERVAL_MAX: Duration = Duration::from_mins(15);
/// Pause between two such questions to different peers, and between feeler connections, where nobody is left to dial.
pub const FIND_PEERS_PAUSE: Duration = Duration::from_millis(250);
/// The same where somebody is, who may be made up.
pub const FIND_PEERS_PAUSE_DIALLING: Duration = Duration::from_secs(5);
/// Channels followed; a further subscription is refused.
pub const CHANNELS_MAX: usize = 1024;
/// Identities known; a further one is refused.
pub const IDENTITIES_MAX: usize = CHANNELS_MAX;
/// Publications in progress, each in a channel of its own; a further one is refused.
pub const PUBLICATIONS_MAX: usize = 64;
/// Commands without an answer; a further one is refused.
pub const COMMANDS_MAX: usize = 4 * CHANNELS_MAX;

/// Announces remembered, so that each is carried on once; at the cap the oldest is forgotten.
pub const ANNOUNCES_SEEN_MAX: usize = 4096;
/// Announces taken from one host (an IPv4 address, an IPv6 /64, a name; of a private address, one connection) per minute,
/// and sent over one connection; more are dropped.
pub const ANNOUNCES_PER_MINUTE: u64 = 120;
/// Puts and look-ups that a gateway does for one host per minute, counted in the same way; more are refused.
pub const FAVOURS_PER_MINUTE: u64 = 12;
/// Puts and look-ups that a gateway begins for all others together per minute, on average; more are refused. Half of what the
/// DHT may take remains for the node itself.
pub const FAVOURS_TOTAL_PER_MINUTE: u64 = DHT_OPS_PER_MINUTE / 2;
/// The same at once, after a quiet time.
pub const FAVOURS_TOTAL_BURST: u64 = DHT_OPS_BURST / 2;
/// Hosts of which is known what they had of a quota; at the cap who has all of it again is forgotten, else who has most
/// left, and begins anew.
pub const QUOTA_HOSTS_MAX: usize = 4096;
/// Puts and look-ups under way for others; more are refused.
pub const GATEWAY_JOBS_MAX: usize = 64;
/// Channels whose newest relayed item a gateway remembers; at the cap the one that was put longest ago is forgotten.
pub const RELAYED_MAX: usize = 4096;
/// Gateways that one publication uses; more are ignored.
pub const GATEWAYS_MAX: usize = 16;
/// How long gateways may take to answer one step of a publication while none has answered it.
pub const GATEWAY_TIMEOUT: Duration = Duration::from_mins(1);
/// Once one has answered a step, the others get as long again as it took, but at least so long.
pub const GATEWAY_PATIENCE_MIN: Duration = Duration::from_secs(5);

// --- DHT ----------------------------------------------------------------------------------------------------

/// DHT operations under way at once: beyond it real sockets drop packets.
pub const DHT_JOBS_MAX: usize = 8;
/// Of these, how many are left for what a user waits for.
pub const DHT_JOBS_RESERVED: usize = 2;
/// DHT operations started per minute on average; later ones wait, which the status shows. Each class of them always gets
/// its share of these; what a class leaves, the others use. Within a class, what is due longest comes first.
pub const DHT_OPS_PER_MINUTE: u64 = 120;
/// The share of publications, which a user waits for: one step at a time.
pub const DHT_PUBLISH_PER_MINUTE: u64 = 8;
/// The share of what keeps channels findable: announces of their topics, and heads that are put again.
pub const DHT_UPKEEP_PER_MINUTE: u64 = 56;
/// The share of look-ups of heads, which are the rarer the more channels are followed, so that they fit it.
pub const DHT_POLLS_PER_MINUTE: u64 = 18;
/// The share of look-ups of peers, likewise.
pub const DHT_LOOKUPS_PER_MINUTE: u64 = 14;
/// The share of announces of single blobs, which v5 readers look for.
pub const DHT_BLOBS_PER_MINUTE: u64 = 12;
/// The share of what a gateway does for others.
pub const DHT_FAVOURS_PER_MINUTE: u64 = 12;
/// DHT operations that may start at once after a quiet time.
pub const DHT_OPS_BURST: u64 = 32;
/// Of these, how many are left for what a user waits for.
pub const DHT_OPS_RESERVED: u64 = 4;
/// How many of them are there again after a minute.
pub const DHT_RESERVED_PER_MINUTE: u64 = 16;
/// How long the look-ups of what was just followed are what a user waits for.
pub const AWAITED_TIME: Duration = Duration::from_mins(1);
/// Info-hashes of single blobs that are announced; at the cap further ones are left out.
pub const ANNOUNCES_MAX: usize = 16_384;
/// How often an info-hash is announced.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_mins(15);
/// How often a head is put again (BEP 44 items may expire after two hours).
pub const REPUT_INTERVAL: Duration = Duration::from_hours(1);
/// Shortest time between puts of one head, and before an announce or a look-up of peers that failed is tried again.
pub const DHT_RETRY_INTERVAL: Duration = Duration::from_mins(1);
/// How often a followed channel's head is looked up, where few enough are followed.
pub const HEAD_POLL_INTERVAL: Duration = Duration::from_mins(1);
/// Once a look-up has brought a head, newer ones get as long again as it took, but at least this long, before it counts as the
/// newest: the nodes that never answer are not waited for.
pub const HEAD_PATIENCE_MIN: Duration = Duration::from_millis(100);
/// How soon it is looked up again at first while none is known; doubles with each look-up.
pub const HEAD_RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// Shortest time between look-ups of one head that gossip provokes: a peer may lie about sequences.
pub const GOSSIP_POLL_INTERVAL: Duration = Duration::from_secs(2);
/// How soon peers are looked up again at first for a channel that has no head or lacks blobs; doubles with each look-up while
/// no blob arrives. An author announces at about the time when its first reader comes.
pub const LOOKUP_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The longest wait between two such look-ups, where few enough channels are followed.
pub const LOOKUP_INTERVAL_MAX: Duration = Duration::from_mins(5);
/// Info-hashes of single blobs that one look-up of peers covers.
pub const BLOB_LOOKUPS: usize = 2;
/// How often peers that lacked a channel's blobs are asked again while none arrive.
pub const ASK_AGAIN_INTERVAL: Duration = Duration::from_secs(5);
/// How soon after a look at the store for what it has lost of a complete channel the next may follow; doubles with each one
/// up to [`RECHECK_INTERVAL_MAX`]. Peers that ask in vain meanwhile are refused.
pub const RECHECK_INTERVAL_MIN: Duration = Duration::from_mins(1);
/// How soon after such a look the next may follow where the store itself has found a blob damaged.
pub const RECHECK_DAMAGED_INTERVAL: Duration = Duration::from_mins(1);
/// The longest wait between two of them.
pub const RECHECK_INTERVAL_MAX: Duration = Duration::from_hours(1);
/// Contents whose blobs are looked up again at once; the others wait for [`RECHECK_TURN`] and try again.
pub const RECHECKS_MAX: usize = 4;
/// How long a content waits that has no place among [`RECHECKS_MAX`].
pub const RECHECK_TURN: Duration = Duration::from_secs(1);

const _: () = {
    // What the shortest items leave of a page's length.
    assert!(PAGE_LEN_MAX / 6 <= PAGE_ITEMS_MAX && PAGE_ITEMS_MAX <= ITEMS_MAX && PAGE_LEN_MIN < PAGE_LEN_MAX);
    assert!(CHANNELS_MAX * WANTED_PER_FETCH_MIN <= 4 * WANTED_MAX);
    assert!(DATA_LEN_MAX > CONTROL_LEN_MAX);
    // A chunk's id and key alone are 128 hex digits.
    assert!(INLINE_CHUNKS_MAX * 128 > ITEM_VALUE_LEN_MAX);
    // Whoever knows nothing takes what anyone may sign.
    assert!(SEQUENCE_SIGNED_MAX <= SEQUENCE_STEP_MAX);
    assert!(HEADER_LEN + DATA_LEN_MAX + TAG_LEN == 1_048_613); // spec v5, Frame
    // While every download connection holds a buffer, some are left for what is being written.
    assert!(RECV_BUFFERS_MAX > DOWNLOAD_CONNECTIONS_MAX);
    assert!(UPLOAD_SLOTS <= UPLOAD_SLOTS_QUICK && UPLOAD_SLOTS_QUICK <= PART_SEND_BUFFERS_MAX);
    assert!(PARTS_LOADED_MAX <= PART_SEND_BUFFERS_MAX);
    assert!(PART_WINDOW_START <= PART_WINDOW_SEED && PART_WINDOW_SEED <= PART_WINDOW_MAX);
    assert!(PART_WINDOW_MAX <= PARTS_UNDER_WAY_MAX);
    assert!(SLOT_TIME_MIN.as_millis() <= SLOT_TIME_START.as_millis());
    assert!(SLOT_TIME_START.as_millis() <= SLOT_TIME_MAX.as_millis());
    assert!(1 + PIECE_HEADER_LEN + PIECE_LEN_MAX <= CONTROL_LEN_MAX);
    assert!(HAVES_PER_MINUTE * 2 * UNASKED_MESSAGE_BYTES <= UNASKED_BYTES_PER_MINUTE / 2);
    assert!(HAVES_BURST * 2 * UNASKED_MESSAGE_BYTES <= UNASKED_BYTES_BURST / 2);
    assert!(CONTROL_LEN_MAX as u64 + UNASKED_MESSAGE_BYTES < UNASKED_BYTES_BURST);
    assert!(HAVE_BLOBS_MAX / 8 <= HAVE_BYTES_MAX);
    // A position takes at most 5 bytes, a mask 3, and what stands around them less than 128.
    assert!(HAVE_UNDER_WAY_TOLD_MAX <= HAVE_POSITIONS_MAX);
    assert!(HAVE_BLOBS_MAX / 8 + 8 * HAVE_UNDER_WAY_TOLD_MAX + 128 <= CONTROL_LEN_MAX);
    assert!(5 * HAVE_POSITIONS_MAX + 8 * HAVE_UNDER_WAY_TOLD_MAX + 128 <= CONTROL_LEN_MAX);
    assert!(ANSWERS_LOADED_MAX <= SEND_BUFFERS_MAX);
    assert!(WINDOW_START <= WINDOW_MAX && WINDOW_MAX <= REQUESTS_QUEUED_MAX);
    // The blobs in memory stay well below the 64 MiB that a node may take.
    let blobs = (RECV_BUFFERS_MAX + SEND_BUFFERS_MAX) * BLOB_LEN;
    assert!(blobs + (PARTS_UNDER_WAY_MAX + PART_SEND_BUFFERS_MAX) * PART_LEN < 48 << 20);
    assert!(DHT_JOBS_MAX as u64 <= DHT_OPS_BURST);
    assert!(DHT_JOBS_RESERVED < DHT_JOBS_MAX && DHT_OPS_RESERVED < DHT_OPS_BURST);
    assert!(DHT_RESERVED_PER_MINUTE < DHT_OPS_PER_MINUTE);
    let others = DHT_BLOBS_PER_MINUTE + DHT_FAVOURS_PER_MINUTE;
    let polls = DHT_POLLS_PER_MINUTE + DHT_LOOKUPS_PER_MINUTE;
    assert!(DHT_PUBLISH_PER_MINUTE + DHT_UPKEEP_PER_MINUTE + polls + others == DHT_OPS_PER_MINUTE);
    // With as many channels as may be followed, all of them complete, nothing of them is late.
    let seconds = CHANNELS_MAX as u64 * 60;
    let upkeep = seconds / ANNOUNCE_INTERVAL.as_secs() + seconds / REPUT_INTERVAL.as_secs();
    assert!(upkeep + polls <= DHT_OPS_PER_MINUTE && CHANNELS_MAX <= ANNOUNCES_MAX);
    // Whether others keep a head alive is judged by the last two look-ups.
    assert!(2 * CHANNELS_MAX as u64 * 60 / DHT_POLLS_PER_MINUTE < ITEM_LIFETIME.as_secs());
};

// --- sharing out peers --------------------------------------------------------------------------------------

/// Addresses that one teller may have in the address book by PEERS and ANNOUNCE, where a teller is all peers of one
/// network (IPv4 /16, IPv6 /32), one private address or one name. A further one takes the place of a worse one of
/// the same teller's, or is ignored.
pub const PEERS_PER_REFERRER_MAX: usize = 128;
/// Addresses of one public network, or ports of one name, in the address book; a further one takes the place of a
/// worse one among them, or is ignored.
pub const PEERS_PER_NETWORK_MAX: usize = 64;
/// Addresses in the book from one kind of source (the DHT, ANNOUNCE, PEERS, earlier runs); a further one takes the
/// place of one from the network or teller that has most of them.
pub const PEERS_PER_SOURCE_MAX: usize = PEERS_KNOWN_MAX / 2;
/// Addresses of one public network in one PEERS answer.
pub const EXCHANGED_PER_NETWORK_MAX: usize = PEERS_MAX / 8;
/// A public network, or one teller's names, may have one in so many of our outbound connections, dials included...
pub const OUTBOUND_SHARE: usize = 8;
/// ...but always so many.
pub const OUTBOUND_PER_NETWORK_MIN: usize = 2;
/// An outbound connection that has served nothing for so long may be given up for another address.
pub const USELESS_AFTER: Duration = Duration::from_mins(1);
/// The same where a blob is on its way: what Tor carries needs a minute for one.
pub const USELESS_LOADING_AFTER: Duration = Duration::from_mins(3);
/// How often one is given up while no blob arrives.
pub const ROTATION_INTERVAL: Duration = Duration::from_secs(5);
/// How often one is given up while blobs arrive.
pub const ROTATION_INTERVAL_MOVING: Duration = Duration::from_mins(1);
/// Failures in a row after which an address counts as gone, and makes room before all others.
pub const FAILURES_GONE: u32 = 8;
/// Ports of one public IP address (of an IPv6 /64, of a name) that are banned at a time, at which all of it is: one
/// liar behind a NAT is no reason to shut out its neighbours, but who comes back on another port is to run out of them.
pub const BANS_PER_HOST_MAX: usize = 4;

// --- heads on the DHT ---------------------------------------------------------------------------------------

/// How long the DHT may keep an item after its last put (BEP 44).
pub const ITEM_LIFETIME: Duration = Duration::from_hours(2);
/// DHT nodes that hold the newest head, at which nobody else need put it again (BEP 44): an item is put at the 20 or
/// so nodes that are closest, and a look-up ends at the 8 closest. Our own node may be one of them.
pub const FRESH_COPIES_MIN: usize = 8;
/// Items of others that a gateway keeps alive; at the cap the one that was asked for longest ago makes room.
pub const RELAYED_KEPT_MAX: usize = 1024;
/// How long after the last PUBLISH of it a gateway keeps an item alive.
pub const RELAYED_KEPT: Duration = Duration::from_hours(24);
/// Times that a published head is read back before the publication counts as failed.
pub const READ_BACKS_MAX: u32 = 5;
/// Pause between two of them.
pub const READ_BACK_PAUSE: Duration = Duration::from_secs(2);

const _: () = {
    assert!(PEERS_PER_NETWORK_MAX < PEERS_PER_REFERRER_MAX && PEERS_PER_REFERRER_MAX < PEERS_PER_SOURCE_MAX);
    assert!(OUTBOUND_MAX / OUTBOUND_SHARE > OUTBOUND_PER_NETWORK_MIN);
    assert!(HEARSAY_DIALS_MAX < DIALS_MAX - DIALS_RESERVED);
    assert!(DIALS_RESERVED < DIALS_MAX && OUTBOUND_RESERVED < OUTBOUND_MAX);
    // A head that is put hourly is never gone in between.
    assert!(REPUT_INTERVAL.as_secs() < ITEM_LIFETIME.as_secs());
};
