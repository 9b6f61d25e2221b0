//! Frames: sealing, opening, and cutting a stream into them.

use megatorrent_core::limits::{CONTROL_LEN_MAX, DATA_LEN_MAX};
use megatorrent_core::transport::frame::{self, Frame, FrameReader, HEADER_LEN};
use megatorrent_core::transport::{Open, Opener, Role, Sealer};
use serde_json::{Value, json};

use super::handshake::{direction, secrets};
use super::{Cases, Fault, Input, Layer, hex, repeat, violation};
use crate::value::{digest, no_such_op};

/// Bytes of a tag.
const TAG_LEN: usize = frame::TAG_LEN;

pub(super) const LAYER: Layer = Layer {
    name: "frame",
    about: "seal: both secrets, sender (dialler or listener), skip (empty frames sent before), plaintexts -> the bytes on the \
            wire. open: the same with wire in place of plaintexts -> plaintexts. lengths: wire, data_admitted (whether a \
            request is outstanding) -> the frames' lengths; refused as soon as a length field is wrong.",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    match op {
        "seal" => {
            let (mut sealer, _) = ends(input)?;
            let mut wire = Vec::new();
            for text in input.list("plaintexts")? {
                frame::seal(&mut sealer, &[&text.as_bytes()?], &mut wire);
            }
            Ok(digest(&wire))
        }
        "open" => {
            let (_, mut opener) = ends(input)?;
            let plaintexts = read(&input.bytes("wire")?, false)?.into_iter().map(|mut frame| {
                let text = opener.open(&mut frame).map_err(violation)?;
                Ok(hex(text))
            });
            Ok(plaintexts.collect::<Result<Vec<_>, Fault>>()?.into())
        }
        "lengths" => {
            let frames = read(&input.bytes("wire")?, input.flag("data_admitted"))?;
            Ok(frames.iter().map(Vec::len).collect::<Vec<_>>().into())
        }
        _ => Err(no_such_op(op)),
    }
}

/// The sender's sealer and the receiver's opener, after the frames to skip.
fn ends(input: Input<'_>) -> Result<(Sealer, Opener), Fault> {
    let sender = match input.text("sender")? {
        "dialler" => Role::Dialler,
        "listener" => Role::Listener,
        _ => return Err(Fault::BadVector("sender is dialler or listener".into())),
    };
    let (mut sealer, mut opener) = direction(input, sender)?;
    for _ in 0..input.number("skip")? {
        let mut empty = Vec::new();
        frame::seal(&mut sealer, &[], &mut empty);
        opener.open(&mut empty[HEADER_LEN..]).map_err(violation)?;
    }
    Ok((sealer, opener))
}

/// The sealed frames in `wire`, read in small and large pieces.
fn read(wire: &[u8], data_admitted: bool) -> Result<Vec<Vec<u8>>, Fault> {
    let mut large = vec![0; if data_admitted { DATA_LEN_MAX + TAG_LEN } else { 0 }];
    let (mut reader, mut frames, mut rest) = (FrameReader::default(), Vec::new(), wire);
    for piece in [1, 7, 4096].iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let large_len = large.len();
        let space = reader.space(&mut large);
        let (now, later) = rest.split_at(space.len().min(*piece).min(rest.len()));
        space[..now.len()].copy_from_slice(now);
        rest = later;
        match reader.filled(now.len(), large_len).map_err(violation)? {
            Some(Frame::Small(body)) => frames.push(body),
            Some(Frame::Large(len)) => frames.push(large[..len].to_vec()),
            None => {}
        }
    }
    if reader.is_inside_frame() {
        Err(Fault::BadVector("the wire ends within a frame".into()))
    } else {
        Ok(frames)
    }
}

fn with_ends(sender: &str, skip: u64, member: &str, value: Value) -> Value {
    let (dialler, listener) = secrets();
    let mut input =
        json!({ "dialler_secret": dialler, "listener_secret": listener, "sender": sender, "skip": skip });
    input[member] = value;
    input
}

fn cases(cases: &mut Cases) {
    cases.section(9);
    let texts = json!(["", "01", "0248656c6c6f", "ff4e6f7420466f756e64"]);
    cases.accept("four frames of the dialler", "seal", with_ends("dialler", 0, "plaintexts", texts.clone()));
    cases.accept("four frames of the listener", "seal", with_ends("listener", 0, "plaintexts", texts));
    let late = with_ends("dialler", 300, "plaintexts", json!(["02"]));
    cases.accept("the nonce is a little-endian counter", "seal", late);
    let longest = with_ends("dialler", 0, "plaintexts", json!([repeat("a5", CONTROL_LEN_MAX)]));
    cases.accept("the longest control frame", "seal", longest);
    let blob = json!([repeat("0300ff", DATA_LEN_MAX), "01"]);
    cases.accept(
        "a blob in one frame, and what follows",
        "seal",
        with_ends("listener", 0, "plaintexts", blob),
    );
    open_cases(cases);
    length_cases(cases);
}

fn open_cases(cases: &mut Cases) {
    let sealed = |skip: u64, texts: Value| {
        let sealed = run("seal", Input::new(&with_ends("dialler", skip, "plaintexts", texts)));
        let text = sealed.ok().and_then(|wire| wire.as_str().map(str::to_owned));
        text.expect("short frames are spelled out")
    };
    let (first, second) = (sealed(0, json!(["0131"])), sealed(1, json!(["0132"])));
    let open = |wire: String| with_ends("dialler", 0, "wire", wire.into());
    cases.accept("two frames in order", "open", open(format!("{first}{second}")));
    cases.reject("a frame twice", "open", open(format!("{first}{first}")), "tag");
    cases.reject("the second frame first", "open", open(second), "tag");
    let flipped = json!({ "patch": first, "at": 4, "with": "00" });
    cases.reject("a flipped bit", "open", with_ends("dialler", 0, "wire", flipped), "tag");
    let reflected = with_ends("listener", 0, "wire", first.into());
    cases.reject("a frame sent back to its sender", "open", reflected, "tag");
}

fn length_cases(cases: &mut Cases) {
    let wire = |length: usize, admitted: bool| {
        let header = u32::try_from(length).expect("fits").to_be_bytes();
        let wire = json!({ "patch": repeat("00", HEADER_LEN + length), "at": 0, "with": hex(&header) });
        json!({ "wire": wire, "data_admitted": admitted })
    };
    let header_only = |header: &str, admitted: bool| json!({ "wire": header, "data_admitted": admitted });
    let (control, data) = (CONTROL_LEN_MAX + TAG_LEN, DATA_LEN_MAX + TAG_LEN);
    cases.accept("a tag and nothing else", "lengths", wire(TAG_LEN, false));
    cases.accept("the longest control frame's length", "lengths", wire(control, false));
    cases.accept("a blob's frame where a request is outstanding", "lengths", wire(data, true));
    cases.reject("nothing at all", "lengths", header_only("00000000", true), "frame-short");
    cases.reject("a byte less than a tag", "lengths", header_only("0000000f", true), "frame-short");
    let long = |length: usize| hex(&u32::try_from(length).expect("fits").to_be_bytes());
    cases.reject(
        "a byte more than a control frame",
        "lengths",
        header_only(&long(control + 1), false),
        "frame-long",
    );
    cases.reject("a blob nobody asked for", "lengths", header_only(&long(data), false), "frame-long");
    cases.reject(
        "a byte more than a blob's frame",
        "lengths",
        header_only(&long(data + 1), true),
        "frame-long",
    );
    cases.reject("4 GiB less a byte", "lengths", header_only("ffffffff", true), "frame-long");
}
