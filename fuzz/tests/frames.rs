//! The transport (`docs/protocol.md` §8 and §9).

use arbitrary::{Result, Unstructured};
use megatorrent_core::client::{Client, Heard};
use megatorrent_core::limits::CONTROL_LEN_MAX;
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::RealSuite;
use megatorrent_core::transport::frame::{Frame, FrameReader, TAG_LEN};
use megatorrent_core::transport::{Link, Received, Role};
use megatorrent_fuzz::{check, near, number};

/// A wire of frames whose length fields may say anything; each is followed by at most this many bytes.
const BODY_LEN_MAX: usize = 2 * CONTROL_LEN_MAX;

/// Cuts a wire in pieces of these lengths, over and over, and reads it. Returns the frames' lengths, and whether it ends in a refusal.
fn read(wire: &[u8], pieces: &[usize], large: &mut [u8]) -> (Vec<usize>, bool) {
    let (mut reader, mut lens, mut at) = (FrameReader::default(), Vec::new(), 0);
    let large_len = large.len();
    for piece in pieces.iter().cycle() {
        if at == wire.len() {
            break;
        }
        let space = reader.space(large);
        assert!(!space.is_empty(), "there is always space");
        let n = space.len().min(*piece).min(wire.len() - at);
        space[..n].copy_from_slice(&wire[at..at + n]);
        at += n;
        match reader.filled(n, large_len) {
            Ok(None) => {}
            Ok(Some(Frame::Small(body))) => lens.push(body.len()),
            Ok(Some(Frame::Large(len))) => lens.push(len),
            Err(_) => return (lens, true),
        }
    }
    (lens, false)
}

fn pieces(input: &mut Unstructured<'_>) -> Result<Vec<usize>> {
    let count = input.int_in_range(1..=4)?;
    (0..count).map(|_| input.int_in_range(1..=5000)).collect()
}

#[test]
fn a_wire_is_cut_into_the_same_frames_however_it_comes_and_none_is_longer_than_admitted() {
    check!(2000, |input| {
        let large_len = usize::from(input.arbitrary::<u16>()?) * 4;
        let mut wire = Vec::new();
        for _ in 0..input.int_in_range(1..=5)? {
            let edges = [16, 20, (CONTROL_LEN_MAX + TAG_LEN) as u64, large_len as u64];
            let len = u32::try_from(number(input, &edges)?).unwrap_or(u32::MAX);
            wire.extend(len.to_be_bytes());
            wire.resize(wire.len() + BODY_LEN_MAX.min(len as usize), 7);
        }
        wire.truncate(wire.len() - usize::from(input.arbitrary::<u8>()?).min(wire.len()));
        let mut large = vec![0; large_len];
        let at_once = read(&wire, &[usize::MAX], &mut large);
        assert!(
            at_once.0.iter().all(|len| (TAG_LEN..=large_len.max(CONTROL_LEN_MAX + TAG_LEN)).contains(len))
        );
        assert_eq!(read(&wire, &pieces(input)?, &mut large), at_once);
        Ok(())
    });
}

type Real = Link<RealSuite>;

/// Delivers bytes in pieces; returns what they amount to, until a rule is broken.
fn deliver(to: &mut Real, mut wire: &[u8], pieces: &[usize]) -> Vec<Received> {
    let mut received = Vec::new();
    for piece in pieces.iter().cycle() {
        let space = to.recv_space(&mut []);
        let n = space.len().min(*piece).min(wire.len());
        space[..n].copy_from_slice(&wire[..n]);
        wire = &wire[n..];
        match to.received(n, &mut []) {
            Ok(Received::Nothing) if n == 0 => break,
            Ok(Received::Nothing) => {}
            Ok(more) => received.push(more),
            Err(_) => {
                assert!(to.is_dead() && to.recv_space(&mut []).is_empty() && to.send_chunk().is_empty());
                break;
            }
        }
    }
    received
}

fn take(from: &mut Real) -> Vec<u8> {
    let bytes = from.send_chunk().to_vec();
    from.sent(bytes.len());
    bytes
}

#[test]
fn of_a_wire_that_somebody_changed_comes_what_stands_before_the_change() {
    check!(1500, |input| {
        let mut rng = Rng::new([1; 32]);
        let (mut dialler, mut listener) =
            (Real::v5(Role::Dialler, &mut rng), Real::v5(Role::Listener, &mut rng));
        assert_eq!(deliver(&mut dialler, &take(&mut listener), &[32]), [Received::Open]);
        assert_eq!(deliver(&mut listener, &take(&mut dialler), &[32]), [Received::Open]);
        let mut sent = Vec::new();
        for fill in 0..input.int_in_range(1..=4)? {
            let plaintext = vec![fill; input.int_in_range(0..=300)?];
            assert!(dialler.send(&[&plaintext]));
            sent.push(Received::Message(plaintext));
        }
        let wire = take(&mut dialler);
        let changed = near(input, &[&wire])?;
        let received = deliver(&mut listener, &changed, &pieces(input)?);
        assert!(sent.starts_with(&received), "what was not sealed does not open");
        let intact = wire.iter().zip(&changed).take_while(|(a, b)| a == b).count();
        let mut ends = sent.iter().scan(0, |end, message| {
            let Received::Message(plaintext) = message else { return None };
            *end += 4 + plaintext.len() + TAG_LEN;
            Some(*end)
        });
        assert_eq!(received.len(), ends.by_ref().take_while(|end| *end <= intact).count());
        Ok(())
    });
}

#[test]
fn bytes_of_anybody_without_a_key_amount_to_no_message() {
    check!(1000, |input| {
        let role = if input.arbitrary()? { Role::Dialler } else { Role::Listener };
        let mut client: Client = Client::new(role, &mut Rng::new([1; 32]));
        if input.arbitrary()? {
            client.admit_blobs();
        }
        while !input.is_empty() {
            let len = input.int_in_range(1..=input.len())?;
            client.feed(input.bytes(len.min(input.len()))?);
            while let Ok(Some(heard)) = client.hear() {
                assert_eq!(heard, Heard::Open);
            }
        }
        Ok(())
    });
}
