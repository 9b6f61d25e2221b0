//! What our own server stores. The client asks other nodes only, so where ours is the network's only server, it does
//! not find what others have put there. Our server is then asked as anybody asks it: by a `get` over UDP (BEP 44).

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use async_io::Timer;
use futures_lite::FutureExt;
use mainline::{Id, MutableItem};
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::limits::ITEM_VALUE_LEN_MAX;
use serde::Deserialize;
use serde_bytes::ByteBuf;

use crate::egress::Egress;

/// Longest answer read: an item, eight nodes and what goes with them are shorter; what is longer does not parse.
const ANSWER_LEN_MAX: usize = 4096;
/// The query, in the answer too.
const TRANSACTION: &[u8; 4] = b"ours";
/// How long it may take; nothing is lost on the way, but the server may be busy.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The item of this key, where the server at `own` has one.
pub(crate) async fn get(egress: &Egress, own: SocketAddrV4, key: &PublicKey) -> Option<SignedItem> {
    let late = async {
        Timer::after(TIMEOUT).await;
        Ok(None)
    };
    ask(egress, own, key).or(late).await.ok().flatten()
}

async fn ask(egress: &Egress, own: SocketAddrV4, key: &PublicKey) -> io::Result<Option<SignedItem>> {
    let ip = if own.ip().is_unspecified() { Ipv4Addr::LOCALHOST } else { *own.ip() };
    let socket = egress.connect_udp(ip, SocketAddrV4::new(ip, own.port()))?;
    socket.send(&query(&MutableItem::target_from_key(key.as_bytes(), None))).await?;
    let mut answer = [0; ANSWER_LEN_MAX];
    let n = socket.recv(&mut answer).await?;
    Ok(item(&answer[..n], key))
}

fn query(target: &Id) -> Vec<u8> {
    let parts: [&[u8]; 7] = [
        b"d1:ad2:id20:",
        &[0; 20],
        b"6:target20:",
        target.as_bytes(),
        b"e1:q3:get1:t4:",
        TRANSACTION,
        b"1:y1:qe",
    ];
    parts.concat()
}

/// An answer to a `get` (BEP 44), as far as it matters.
#[derive(Deserialize)]
struct Answer {
    r: Found,
}

#[derive(Deserialize)]
struct Found {
    k: ByteBuf,
    seq: i64,
    sig: ByteBuf,
    v: ByteBuf,
}

fn item(answer: &[u8], key: &PublicKey) -> Option<SignedItem> {
    let Found { k, seq, sig, v } = serde_bencode::from_bytes::<Answer>(answer).ok()?.r;
    let is_usable = k == key.as_bytes() && seq >= 0 && v.len() <= ITEM_VALUE_LEN_MAX;
    let signature = sig.into_vec().try_into().ok()?;
    is_usable.then(|| SignedItem { key: *key, seq, value: v.into_vec(), signature })
}

#[cfg(test)]
mod tests {
    use super::*;
    use megatorrent_core::identity::Identity;
    use megatorrent_core::ids::Secret;

    #[test]
    fn only_a_whole_answer_with_the_keys_item_is_one() {
        let key = Identity::new(&Secret::new([7; 32]), None).public_key();
        let answer = |k: &[u8; 32], seq: &[u8]| {
            let parts: [&[u8]; 9] = [
                b"d2:ip6:123456",
                b"1:rd2:id20:",
                &[1; 20],
                b"1:k32:",
                k,
                b"5:nodesli1ee3:seqi",
                seq,
                b"e3:sig64:",
                &[9; 64],
            ];
            [parts.concat(), b"5:token2:to1:v3:abce1:t4:ours1:y1:re".to_vec()].concat()
        };
        let whole = answer(key.as_bytes(), b"5");
        let item_there = SignedItem { key, seq: 5, value: b"abc".to_vec(), signature: [9; 64] };
        assert_eq!(item(&whole, &key), Some(item_there));
        assert_eq!(
            (item(&answer(&[8; 32], b"5"), &key), item(&answer(key.as_bytes(), b"-5"), &key)),
            (None, None)
        );
        for len in 0..whole.len() {
            assert_eq!(item(&whole[..len], &key), None, "{len}");
        }
        let deep = [b"d1:a".as_slice(), &[b'l'; ANSWER_LEN_MAX]].concat();
        for hostile in [
            b"d1:rd1:v99999999999999999999:".as_slice(),
            b"d1:rd1:v-1:ee",
            &[b'l'; 4000],
            &deep,
            b"d1:rle",
            b"e",
        ] {
            assert_eq!(item(hostile, &key), None);
        }
    }
}
