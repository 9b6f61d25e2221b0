//! Messages (`docs/protocol.md` §10 and §12).

use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use megatorrent_core::addr::PeerAddr;
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::codec::{EXACT_STEP, Have, Message, Tag, VERSION_MIN, Want, kind};
use megatorrent_core::error::Violation;
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::{Root, Secret};
use megatorrent_core::limits::{
    ANNOUNCE_HOPS_MAX, CONTROL_LEN_MAX, GOSSIP_CHANNELS_MAX, HAVE_BLOBS_MAX, HAVE_POSITIONS_MAX, PEERS_MAX,
    PIECE_LEN_MAX, TEXT_LEN_MAX, WATCH_TAGS_MAX,
};
use megatorrent_core::parts::{Mask, PART_LEN, PARTS, VALUES_LEN, Values};
use megatorrent_fuzz::{byte_strings, check, near, number};

fn plaintexts() -> &'static [Vec<u8>] {
    static PLAINTEXTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    PLAINTEXTS.get_or_init(|| {
        [("message", "decode"), ("v6", "decode"), ("v6", "parts")]
            .iter()
            .flat_map(|(layer, op)| byte_strings(layer, op, "plaintext"))
            .collect()
    })
}

fn is_cut(want: &Want, len: u32) -> bool {
    len > 0 && len.is_multiple_of(EXACT_STEP) && (len as usize) < PART_LEN && !want.mask.is_empty()
}

/// Whether everything in a message is as its type promises.
fn is_within_limits(message: &Message) -> bool {
    match message {
        Message::Hello { version, sequences, port, .. } => {
            version.is_none_or(|version| version >= VERSION_MIN)
                && sequences.len() <= GOSSIP_CHANNELS_MAX
                && *port != Some(0)
        }
        Message::Peers(peers) => peers.len() <= PEERS_MAX && peers.iter().all(PeerAddr::is_exchangeable),
        Message::Announce(_, _, hops) => *hops <= ANNOUNCE_HOPS_MAX,
        Message::Ok(text) | Message::Error(text) => text.len() <= TEXT_LEN_MAX,
        Message::Watch(tags) => tags.len() <= WATCH_TAGS_MAX,
        Message::Want(want) => !want.mask.is_empty() && want.last_len.is_none_or(|len| is_cut(want, len)),
        Message::Piece { part, half, bytes, .. } => {
            usize::from(*part) < PARTS && *half < 2 && bytes.len() <= PIECE_LEN_MAX
        }
        Message::Have(_, _, have) => {
            have.bitmap.len() <= HAVE_BLOBS_MAX / 8
                && have.positions.len() <= HAVE_POSITIONS_MAX
                && have.under_way.len() <= HAVE_POSITIONS_MAX
        }
        _ => true,
    }
}

#[test]
fn a_message_that_decodes_keeps_its_limits_and_survives_the_wire() {
    check!(20_000, |input| {
        let plaintext = near(input, plaintexts())?;
        let Ok(message) = Message::decode(&plaintext) else { return Ok(()) };
        assert!(is_within_limits(&message), "{message:?}");
        // A name of a network that is not known is passed on by nobody.
        if message != Message::Unknown(kind::ANNOUNCE) {
            let sent = message.encode();
            assert!(sent.len() <= CONTROL_LEN_MAX.max(plaintext.len()), "{}", sent.len());
            assert_eq!(Message::decode(&sent), Ok(message));
        }
        Ok(())
    });
}

/// What comes of a message, whatever its numbers are.
type Expected = std::result::Result<Message, Violation>;

fn channel() -> PublicKey {
    Identity::new(&Secret::new([3; 32]), None).public_key()
}

/// A number of a message's own width; where it does not fit, its lowest digits.
fn narrow<T: TryFrom<u64>>(input: &mut Unstructured<'_>, edges: &[u64]) -> Result<T> {
    let number = number(input, edges)?;
    let narrowed = [number, number % (1 << 32), number % (1 << 16), number % (1 << 8)];
    Ok(narrowed.into_iter().find_map(|number| T::try_from(number).ok()).expect("a byte fits"))
}

fn want(input: &mut Unstructured<'_>) -> Result<(Message, Expected)> {
    let last_len: Option<u32> = if input.arbitrary()? {
        Some(narrow(input, &[0, EXACT_STEP.into(), PART_LEN as u64])?)
    } else {
        None
    };
    let mask = Mask(narrow(input, &[])?);
    let (number, root, values) = (narrow(input, &[])?, Root(input.arbitrary()?), input.arbitrary()?);
    let want = Want { number, root, mask, values, last_len };
    let fits = !mask.is_empty() && last_len.is_none_or(|len| is_cut(&want, len));
    let message = Message::Want(want);
    Ok((message.clone(), fits.then_some(message).ok_or(Violation::Malformed)))
}

fn piece(input: &mut Unstructured<'_>) -> Result<(Message, Expected)> {
    let len: usize = narrow(input, &[0, PIECE_LEN_MAX as u64])?;
    let bytes = vec![7; len % (2 * PIECE_LEN_MAX)];
    let (number, part, half) = (narrow(input, &[])?, narrow(input, &[PARTS as u64])?, narrow(input, &[2])?);
    let message = Message::Piece { number, part, half, bytes };
    let fits = is_within_limits(&message);
    Ok((message.clone(), fits.then_some(message).ok_or(Violation::Malformed)))
}

fn have(input: &mut Unstructured<'_>) -> Result<(Message, Expected)> {
    let count =
        |input: &mut Unstructured<'_>| Ok(narrow::<u16>(input, &[0, HAVE_POSITIONS_MAX as u64])?.into());
    let bits: usize = narrow(input, &[0, HAVE_BLOBS_MAX as u64 / 8])?;
    let (positions, under_way): (usize, usize) = (count(input)?, count(input)?);
    let first: u32 = narrow(input, &[HAVE_BLOBS_MAX as u64])?;
    let mask = Mask(input.arbitrary()?);
    let numbers = |count: usize| (0..count).zip(0..).map(move |(_, n)| first.wrapping_add(n));
    let have = Have {
        replaces: input.arbitrary()?,
        all: input.arbitrary()?,
        bitmap: vec![input.arbitrary()?; bits % (HAVE_BLOBS_MAX / 4)],
        positions: numbers(positions).collect(),
        under_way: numbers(under_way).map(|at| (at, mask)).collect(),
    };
    let mut kept = have.clone();
    kept.bitmap.truncate(HAVE_BLOBS_MAX / 8);
    kept.positions.truncate(HAVE_POSITIONS_MAX);
    kept.under_way.truncate(HAVE_POSITIONS_MAX);
    let (tag, sequence) = (Tag(input.arbitrary()?), number(input, &[])?);
    Ok((Message::Have(tag, sequence, have), Ok(Message::Have(tag, sequence, kept))))
}

fn head(input: &mut Unstructured<'_>) -> Result<Message> {
    let value = vec![input.arbitrary()?; usize::from(input.arbitrary::<u16>()?)];
    let seq = number(input, &[])?.cast_signed();
    let signature = input.arbitrary()?;
    Ok(Message::Head(Tag(input.arbitrary()?), Some(SignedItem { key: channel(), seq, value, signature })))
}

fn any_message(input: &mut Unstructured<'_>) -> Result<(Message, Expected)> {
    let message = match input.int_in_range(0..=9)? {
        0 => return want(input),
        1 => return piece(input),
        2 => return have(input),
        3 => head(input)?,
        4 => {
            let look_up = input.arbitrary::<bool>()?.then(channel);
            Message::GetHead { tag: Tag(input.arbitrary()?), known: number(input, &[])?, look_up }
        }
        5 => {
            let count: u16 = narrow(input, &[0, WATCH_TAGS_MAX as u64])?;
            let mut tags = vec![Tag(input.arbitrary()?); count.into()];
            let sent = Message::Watch(tags.clone());
            tags.truncate(WATCH_TAGS_MAX);
            return Ok((sent, Ok(Message::Watch(tags))));
        }
        6 => {
            let values = Values::from_bytes([input.arbitrary()?; VALUES_LEN]);
            Message::Parts { number: narrow(input, &[])?, values: Box::new(values) }
        }
        7 => Message::Cancel { number: narrow(input, &[])?, mask: Mask(input.arbitrary()?) },
        8 => Message::AskHave(Tag(input.arbitrary()?), number(input, &[])?),
        _ => {
            let (version, port): (u64, u16) = (number(input, &[VERSION_MIN])?, narrow(input, &[])?);
            let sequences = [(channel(), number(input, &[])?)].into();
            let features = number(input, &[])?;
            let sent = Message::Hello { version: Some(version), sequences, port: Some(port), features };
            let mut read = sent.clone();
            if let (Message::Hello { port, .. }, 0) = (&mut read, port) {
                *port = None;
            }
            let is_spoken = version >= VERSION_MIN;
            return Ok((sent, is_spoken.then_some(read).ok_or(Violation::Version)));
        }
    };
    Ok((message.clone(), Ok(message)))
}

#[test]
fn a_message_of_any_numbers_is_read_as_it_is_meant_or_refused() {
    check!(4000, |input| {
        let (sent, expected) = any_message(input)?;
        assert_eq!(Message::decode(&sent.encode()), expected);
        Ok(())
    });
}
