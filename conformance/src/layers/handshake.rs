//! The key exchange, seen from both ends.

use megatorrent_core::transport::frame;
use megatorrent_core::transport::{Handshake, Opener, Role, Sealer, Session};
use serde_json::{Value, json};

use super::{Cases, Fault, Input, Layer, hex, violation};
use crate::value::no_such_op;

pub(super) const LAYER: Layer = Layer {
    name: "handshake",
    about: "exchange: dialler_secret, listener_secret (X25519) -> both public keys as they go over the wire, the frame \
            of an empty plaintext that each end sends first, the key that names channels, and the connection's id. finish: secret, their_public -> refused for low-order keys.",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    match op {
        "exchange" => {
            let (dialler, listener) = (half(input, Role::Dialler)?, half(input, Role::Listener)?);
            let (dialler_public, listener_public) = (dialler.public_key(), listener.public_key());
            let mut dialler = dialler.finish(listener_public).map_err(violation)?;
            let mut listener = listener.finish(dialler_public).map_err(violation)?;
            Ok(json!({
                "dialler_public": hex(&dialler_public),
                "listener_public": hex(&listener_public),
                "dialler_frame": hex(&empty_frame(&mut dialler.sealer)),
                "listener_frame": hex(&empty_frame(&mut listener.sealer)),
                "tag_key": hex(listener.tag_key.expose()),
                "session_id": hex(&listener.session_id.0),
            }))
        }
        "finish" => {
            let handshake = Handshake::from_secret(Role::Listener, input.array("secret")?);
            handshake.finish(input.array("their_public")?).map_err(violation)?;
            Ok(true.into())
        }
        _ => Err(no_such_op(op)),
    }
}

fn empty_frame(sealer: &mut Sealer) -> Vec<u8> {
    let mut frame = Vec::new();
    frame::seal(sealer, &[], &mut frame);
    frame
}

fn half(input: Input<'_>, role: Role) -> Result<Handshake, Fault> {
    let name = match role {
        Role::Dialler => "dialler_secret",
        Role::Listener => "listener_secret",
    };
    Ok(Handshake::from_secret(role, input.array(name)?))
}

/// What `role` has after the exchange of the secrets that `input` names.
pub(super) fn finish(input: Input<'_>, role: Role) -> Result<Session, Fault> {
    let (ours, theirs) = match role {
        Role::Dialler => (half(input, role)?, half(input, Role::Listener)?),
        Role::Listener => (half(input, role)?, half(input, Role::Dialler)?),
    };
    ours.finish(theirs.public_key()).map_err(violation)
}

/// The sealer of `sender` and the opener of the other end, from the secrets that `input` names.
pub(super) fn direction(input: Input<'_>, sender: Role) -> Result<(Sealer, Opener), Fault> {
    let (dialler, listener) = (finish(input, Role::Dialler)?, finish(input, Role::Listener)?);
    Ok(match sender {
        Role::Dialler => (dialler.sealer, listener.opener),
        Role::Listener => (listener.sealer, dialler.opener),
    })
}

/// RFC 7748 §6.1: Alice's and Bob's secrets.
pub(super) const ALICE: &str = "77076d0a7318a57d3c16c17251b26645d4d47a3c9b8ec6f0b5a8fbe0c1a7c6a5";
const BOB: &str = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";

/// X25519 points of small order, and their non-canonical encodings (RFC 7748 §6.1 asks for the check).
const LOW_ORDER: [&str; 8] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

/// Members that name both ends' secrets.
pub(super) fn secrets() -> (Value, Value) {
    (ALICE.into(), BOB.into())
}

fn cases(cases: &mut Cases) {
    cases.section(8);
    cases.accept("RFC 7748's keys", "exchange", json!({ "dialler_secret": ALICE, "listener_secret": BOB }));
    cases.accept(
        "the same, ends exchanged",
        "exchange",
        json!({ "dialler_secret": BOB, "listener_secret": ALICE }),
    );
    let repeated = json!({ "dialler_secret": "01".repeat(32), "listener_secret": "02".repeat(32) });
    cases.accept("repeated bytes", "exchange", repeated);
    for point in LOW_ORDER {
        let input = json!({ "secret": ALICE, "their_public": point });
        cases.reject(format!("low-order point {point}"), "finish", input, "low-order-key");
    }
}
