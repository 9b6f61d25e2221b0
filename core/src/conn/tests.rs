use super::*;
use crate::blob::BLOB_LEN;
use crate::codec::Want;
use crate::limits::{
    REQUESTS_QUEUED_MAX, UNASKED_BYTES_BURST, UNASKED_BYTES_PER_MINUTE, UNASKED_MESSAGE_BYTES,
};
use crate::parts::VALUES_LEN;
use crate::rng::Rng;
use alloc::vec;

const NOW: Instant = Instant(0);

/// Moves all bytes that `from` has to `to`, at most `piece` at a time; returns what they amounted to.
fn pump(from: &mut Conn, to: &mut Conn, piece: usize) -> Result<Vec<Incoming>, Violation> {
    pump_at(from, to, piece, NOW)
}

fn pump_at(from: &mut Conn, to: &mut Conn, piece: usize, now: Instant) -> Result<Vec<Incoming>, Violation> {
    let mut incoming = Vec::new();
    loop {
        let chunk = from.send_chunk(now).to_vec();
        if chunk.is_empty() {
            return Ok(incoming);
        }
        let space = to.recv_space();
        let n = space.len().min(chunk.len()).min(piece);
        if n == 0 {
            return Ok(incoming);
        }
        space[..n].copy_from_slice(&chunk[..n]);
        from.sent(now, n);
        let got = to.received(now, n)?;
        if !matches!(got, Incoming::Nothing) {
            incoming.push(got);
        }
    }
}

fn keyed(piece: usize) -> (Conn, Conn) {
    let mut rng = Rng::new([5; 32]);
    let mut dialler = Conn::new(Link::v5(Role::Dialler, &mut rng), NOW);
    let mut listener = Conn::new(Link::v5(Role::Listener, &mut rng), NOW);
    assert!(matches!(pump(&mut dialler, &mut listener, piece).as_deref(), Ok([Incoming::Open])));
    assert!(matches!(pump(&mut listener, &mut dialler, piece).as_deref(), Ok([Incoming::Open])));
    (dialler, listener)
}

fn blob(fill: u8) -> Buffer {
    let mut buffer = Buffer::new();
    buffer.blob_mut().fill(fill);
    buffer.blob_mut()[BLOB_LEN - 1] = 0xEE;
    buffer
}

fn serve(conn: &mut Conn, fill: u8) {
    let id = conn.waiting_blob().expect("a request waits");
    conn.reading_blob(id);
    assert!(conn.blob_done(id, Some(blob(fill))).is_none());
}

#[test]
fn a_blob_arrives_whole_whatever_the_pieces() {
    for piece in [999, 65_536, usize::MAX] {
        let (mut dialler, mut listener) = keyed(piece);
        dialler.request(BlobId([1; 32]));
        dialler.give_buffer(Buffer::new());
        assert!(matches!(pump(&mut dialler, &mut listener, piece).as_deref(), Ok([Incoming::Request])));
        serve(&mut listener, 7);
        let mut got = pump(&mut listener, &mut dialler, piece).expect("honest");
        let Some(Incoming::Blob(id, buffer)) = got.pop() else { panic!("no blob") };
        assert_eq!((id, got.len()), (BlobId([1; 32]), 0));
        assert!(buffer.blob() == blob(7).blob());
    }
}

#[test]
fn data_split_over_frames_of_any_size_is_joined() {
    let (mut dialler, mut listener) = keyed(usize::MAX);
    let content: Vec<u8> = (0..BLOB_LEN).map(|i| u8::try_from(i % 251).expect("below 251")).collect();
    dialler.request(BlobId([1; 32]));
    dialler.give_buffer(Buffer::new());
    let mut got = Vec::new();
    let mut rest = &content[..];
    for len in [1, 500, 0, 65_000, 300_000, 65_535, 65_536, 400_000, usize::MAX] {
        let (part, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        assert!(listener.link.send(&[&[kind::DATA], part]));
        got.extend(pump(&mut listener, &mut dialler, 10_000).expect("honest"));
    }
    assert!(matches!(&got[..], [Incoming::Blob(_, buffer)] if buffer.blob() == content));
}

#[test]
fn answers_keep_the_order_of_the_requests() {
    let (mut dialler, mut listener) = keyed(usize::MAX);
    for i in 1..=3 {
        dialler.request(BlobId([i; 32]));
    }
    pump(&mut dialler, &mut listener, usize::MAX).expect("honest");
    for id in [1, 2].map(|i| BlobId([i; 32])) {
        assert_eq!(listener.waiting_blob(), Some(id));
        listener.reading_blob(id);
    }
    assert_eq!(listener.waiting_blob(), None, "two are loaded at most");
    assert!(listener.blob_done(BlobId([2; 32]), Some(blob(2))).is_none());
    assert!(listener.send_chunk(NOW).is_empty(), "the first answer is not there yet");
    assert!(listener.blob_done(BlobId([1; 32]), None).is_none());
    assert!(listener.take_writable());
    dialler.give_buffer(Buffer::new());
    let got = pump(&mut listener, &mut dialler, usize::MAX).expect("honest");
    assert!(matches!(&got[..], [Incoming::NotFound(a), Incoming::Blob(b, _)] if (a.0[0], b.0[0]) == (1, 2)));
}

#[test]
fn a_late_answer_of_the_store_gives_its_buffer_back() {
    let (_, mut listener) = keyed(usize::MAX);
    assert!(listener.blob_done(BlobId([1; 32]), Some(Buffer::new())).is_some());
}

#[test]
fn reading_pauses_at_each_bound_and_resumes() {
    let (mut dialler, mut listener) = keyed(usize::MAX);
    for i in 0..=REQUESTS_QUEUED_MAX {
        dialler.request(BlobId([u8::try_from(i).expect("few"); 32]));
    }
    pump(&mut dialler, &mut listener, usize::MAX).expect("honest");
    assert!(listener.recv_space().is_empty() && !listener.take_readable());
    serve(&mut listener, 1);
    listener.send_chunk(NOW);
    assert!(listener.take_readable() && !listener.recv_space().is_empty());

    assert!(dialler.recv_space().is_empty(), "no buffer for the outstanding request");
    dialler.give_buffer(Buffer::new());
    assert!(dialler.take_readable() && !dialler.recv_space().is_empty());
}

#[test]
fn unsolicited_blobs_are_refused_before_memory_is_taken() {
    let (mut dialler, mut listener) = keyed(usize::MAX);
    listener.push(&Message::Data(b"x".to_vec()));
    assert_eq!(pump(&mut listener, &mut dialler, 64).map(|_| ()), Err(Violation::UnaskedData));
    let (mut dialler, _) = keyed(usize::MAX);
    dialler.recv_space().copy_from_slice(&1_048_609_u32.to_be_bytes());
    assert_eq!(dialler.received(NOW, 4).map(|_| ()), Err(Violation::FrameLong));
}

#[test]
fn more_than_a_blob_is_refused() {
    let (mut dialler, mut listener) = keyed(usize::MAX);
    dialler.request(BlobId([1; 32]));
    dialler.give_buffer(Buffer::new());
    for _ in 0..BLOB_LEN / 60_000 {
        listener.push(&Message::Data(vec![0; 60_000]));
        assert!(pump(&mut listener, &mut dialler, usize::MAX).is_ok());
    }
    listener.push(&Message::Data(vec![0; 60_000]));
    assert_eq!(pump(&mut listener, &mut dialler, usize::MAX).map(|_| ()), Err(Violation::DataLong));
}

#[test]
fn unasked_answers_end_the_connection() {
    for message in [Message::Ok("x".into()), Message::Peers(vec![])] {
        let (mut dialler, mut listener) = keyed(usize::MAX);
        listener.push(&message);
        assert_eq!(pump(&mut listener, &mut dialler, 64).map(|_| ()), Err(Violation::Unasked));
    }
}

#[test]
fn unsolicited_messages_have_a_burst_and_then_a_rate() {
    for message in
        [Message::Unknown(0x99), Message::Error("a remark".into()), Message::FindPeers(BlobId([1; 32]))]
    {
        let cost = UNASKED_MESSAGE_BYTES + message.encode().len() as u64;
        for minutes in 0..3 {
            let (mut dialler, mut listener) = keyed(usize::MAX);
            let mut say = |now: Instant| {
                listener.push(&message);
                pump_at(&mut listener, &mut dialler, 64, now).map(|_| ())
            };
            let mut now = NOW;
            assert!((0..UNASKED_BYTES_BURST / cost).all(|_| say(now) == Ok(())));
            for _ in 0..minutes {
                now = now + Duration::from_mins(1);
                assert!((0..UNASKED_BYTES_PER_MINUTE / cost).all(|_| say(now) == Ok(())));
            }
            // The rest of each minute's allowance may be enough for a few more.
            let more = (0..=minutes + 1).find_map(|_| say(now).err());
            assert_eq!(more, Some(Violation::Flood));
        }
    }
}

#[test]
fn after_a_violation_nothing_is_read_and_the_reason_is_still_sent() {
    let (mut dialler, mut listener) = keyed(usize::MAX);
    dialler.push(&Message::Ok("x".into()));
    dialler.push(&Message::Request(BlobId([1; 32])));
    assert_eq!(pump(&mut dialler, &mut listener, 64).map(|_| ()), Err(Violation::Unasked));
    assert!(!listener.is_open() && listener.recv_space().is_empty() && !listener.owes_answers());
    assert!(matches!(listener.received(NOW, 0), Ok(Incoming::Nothing)));
    listener.drain("Malformed Message");
    assert!(!listener.is_drained() && !listener.send_chunk(NOW).is_empty());
    assert!(matches!(pump(&mut listener, &mut dialler, 64).as_deref(), Ok([])), "a remark");
    assert!(listener.is_drained());
    // A dead link does not even send the reason.
    let (mut dialler, _) = keyed(usize::MAX);
    dialler.recv_space().fill(0xFF);
    assert_eq!(dialler.received(NOW, 4).map(|_| ()), Err(Violation::FrameLong));
    dialler.drain("why");
    assert!(dialler.is_drained() && dialler.send_chunk(NOW).is_empty());
}

#[test]
fn messages_queued_before_the_handshake_ends_come_after_it_and_in_order() {
    let mut rng = Rng::new([5; 32]);
    let mut dialler = Conn::new(Link::v5(Role::Dialler, &mut rng), NOW);
    let mut listener = Conn::new(Link::v5(Role::Listener, &mut rng), NOW);
    dialler.request(BlobId([1; 32]));
    for n in 2..40 {
        dialler.push(&Message::FindPeers(BlobId([n; 32])));
    }
    assert!(!dialler.has_control_room() && !dialler.ask_for_peers(BlobId([9; 32])), "nothing more is begun");
    pump(&mut dialler, &mut listener, 7).expect("its key");
    assert!(!dialler.take_writable(), "nothing can be sealed");
    assert!(matches!(pump(&mut listener, &mut dialler, 7).as_deref(), Ok([Incoming::Open])));
    assert!(dialler.take_writable());
    let got = pump(&mut dialler, &mut listener, 7).expect("honest");
    let ids: Vec<u8> = got[1..]
        .iter()
        .map(|incoming| match incoming {
            Incoming::Message(Message::FindPeers(id)) => id.0[0],
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(matches!(got[0], Incoming::Request) && ids == (2..40).collect::<Vec<u8>>());
}

#[test]
fn control_messages_are_sealed_when_bytes_are_asked_for() {
    let (mut dialler, mut listener) = keyed(usize::MAX);
    listener.push(&Message::FindPeers(BlobId([1; 32])));
    // The link's next nonce is still free, so the other end opens what it seals meanwhile.
    assert!(listener.link.is_idle() && listener.link.send(&[&Message::Empty.encode()]));
    let got = pump(&mut listener, &mut dialler, 64).expect("the nonces are in order");
    assert!(matches!(&got[..], [Incoming::Message(Message::FindPeers(_))]));
}

#[test]
fn an_error_answers_the_oldest_question() {
    let (mut dialler, mut listener) = keyed(usize::MAX);
    dialler.ask_for_peers(BlobId([9; 32]));
    dialler.request(BlobId([1; 32]));
    dialler.give_buffer(Buffer::new());
    listener.push(&Message::Error("what?".into()));
    listener.push(&Message::Error("Not Found".into()));
    let got = pump(&mut listener, &mut dialler, 64).expect("honest");
    assert!(matches!(&got[..], [Incoming::NotFound(id)] if id.0[0] == 1));
}

#[test]
fn draining_sends_the_reason_and_reads_no_more() {
    let (mut dialler, mut listener) = keyed(usize::MAX);
    listener.drain("Protocol Version Mismatch");
    assert!(listener.recv_space().is_empty() && !listener.is_drained());
    let got = pump(&mut listener, &mut dialler, 64).expect("honest");
    assert!(got.is_empty(), "a remark that answers nothing");
    assert!(listener.is_drained());
}

#[test]
fn a_want_with_an_open_number_ends_the_connection_and_one_with_a_free_number_does_not() {
    let want = |number| {
        let (root, mask) = (Root([1; 32]), Mask(1));
        Message::Want(Want { number, root, mask, values: false, last_len: None })
    };
    let (mut dialler, mut listener) = keyed(usize::MAX);
    for message in [want(7), want(8), Message::Cancel { number: 7, mask: Mask(1) }, want(7)] {
        dialler.push(&message);
        assert!(pump(&mut dialler, &mut listener, 64).is_ok());
    }
    dialler.push(&want(8));
    assert_eq!(pump(&mut dialler, &mut listener, 64).map(|_| ()), Err(Violation::WantRepeated));
}

#[test]
fn parts_arrive_after_the_values_whatever_the_pieces() {
    for piece in [999, usize::MAX] {
        let (mut dialler, mut listener) = keyed(piece);
        let (root, values) = (Root([1; 32]), Values::from_bytes([9; VALUES_LEN]));
        dialler.want(root, Mask(0b100), true, None);
        assert!(matches!(pump(&mut dialler, &mut listener, piece).as_deref(), Ok([Incoming::Request])));
        assert_eq!(listener.waiting_parts().collect::<Vec<_>>(), [(root, Mask(0b100), false)]);
        listener.reading_part(&root, 2);
        let mut part = Buffer::for_blob_of(PART_LEN);
        part.blob_mut()[PART_LEN - 1] = 7;
        assert!(listener.part_done(&root, 2, Some((part, Box::new(values.clone())))).is_none());
        let got = pump(&mut listener, &mut dialler, piece).expect("honest");
        let [Incoming::Values(_, came), Incoming::Piece(first), Incoming::Piece(second)] = &got[..] else {
            panic!("{got:?}")
        };
        assert!(**came == values && first.part == 2 && !first.is_second && second.is_second);
        assert_eq!((second.bytes().len(), second.bytes().last()), (PART_LEN / 2, Some(&7)));
        assert_eq!((dialler.parts_outstanding(), listener.take_spent().is_some()), (0, true));
    }
}

#[test]
fn a_connection_may_move_between_threads_and_is_small_while_idle() {
    fn assert_send<T: Send>() {}
    assert_send::<Link<RealSuite>>();
    assert_send::<Conn>();
    let size = size_of::<Conn>();
    assert!(size <= 640, "{size} bytes");
}
