//! A backup of an identity, sealed by a passphrase: JSON of a salt, the cost of the key, and the identity's file sealed.

use argon2::{Algorithm, Argon2, Params, Version};
use base64ct::{Base64, Encoding};
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use megatorrent_core::identity::Identity;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};

/// What the file says it is.
const KIND: &str = "megatorrent-identity-backup-1";
/// Argon2id as RFC 9106 recommends it where memory is scarce: 64 MiB, three passes, four lanes.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// The most that a file may ask for: a hostile one could take all memory.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
/// The shortest passphrase that is taken.
const PASSPHRASE_LEN_MIN: usize = 8;
const SALT_LEN: usize = 16;
const NONCE_LEN: usize = 24;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Backup {
    kind: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    nonce: String,
    sealed: String,
}

/// An identity's backup.
pub(super) fn seal(identity: &Identity, passphrase: &str) -> Result<String, Failure> {
    if passphrase.len() < PASSPHRASE_LEN_MIN {
        let message = format!("the passphrase has less than {PASSPHRASE_LEN_MIN} bytes: take a longer one");
        return Err(Failure::usage(message));
    }
    let (mut salt, mut nonce) = ([0; SALT_LEN], [0; NONCE_LEN]);
    getrandom::fill(&mut salt).and_then(|()| getrandom::fill(&mut nonce)).map_err(|error| {
        Failure::new(Exit::Other, format!("the system has no randomness to give: {error}"))
    })?;
    let cipher = cipher(passphrase, &salt, (MEMORY_KIB, PASSES, LANES))?;
    let text = identity.to_json();
    let sealed = cipher.encrypt(&XNonce::from(nonce), text.as_bytes());
    let sealed = sealed.map_err(|_| Failure::new(Exit::Other, "the identity cannot be sealed"))?;
    let backup = Backup {
        kind: KIND.into(),
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: LANES,
        salt: Base64::encode_string(&salt),
        nonce: Base64::encode_string(&nonce),
        sealed: Base64::encode_string(&sealed),
    };
    Ok(serde_json::to_string_pretty(&backup).expect("strings and numbers are JSON") + "\n")
}

/// The identity in a backup.
pub(super) fn open(text: &str, passphrase: &str) -> Result<Identity, Failure> {
    let damaged = || Failure::new(Exit::Integrity, "it is no backup of an identity, or a damaged one");
    let backup: Backup = serde_json::from_str(text).map_err(|_| damaged())?;
    let is_known = backup.kind == KIND
        && backup.memory_kib <= MEMORY_KIB_MAX
        && backup.passes <= PASSES_MAX
        && backup.lanes <= LANES_MAX;
    if !is_known {
        return Err(damaged());
    }
    let bytes = |text: &str| Base64::decode_vec(text).map_err(|_| damaged());
    let nonce: [u8; NONCE_LEN] = bytes(&backup.nonce)?.try_into().map_err(|_| damaged())?;
    let cipher = cipher(passphrase, &bytes(&backup.salt)?, (backup.memory_kib, backup.passes, backup.lanes))?;
    let opened = cipher.decrypt(&XNonce::from(nonce), bytes(&backup.sealed)?.as_slice()).map_err(|_| {
        Failure::new(Exit::Permission, "the passphrase does not open the backup, or the backup is damaged")
    })?;
    let opened = Zeroizing::new(opened);
    let text = str::from_utf8(&opened).map_err(|_| damaged())?;
    Identity::from_json(text).map_err(|error| Failure::new(Exit::Integrity, error.to_string()))
}

fn cipher(passphrase: &str, salt: &[u8], cost: (u32, u32, u32)) -> Result<XChaCha20Poly1305, Failure> {
    let failed = |error: argon2::Error| Failure::new(Exit::Integrity, format!("no key can be made: {error}"));
    let params = Params::new(cost.0, cost.1, cost.2, Some(32)).map_err(failed)?;
    let mut key = Zeroizing::new([0; 32]);
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon.hash_password_into(passphrase.as_bytes(), salt, &mut *key).map_err(failed)?;
    Ok(XChaCha20Poly1305::new((&*key).into()))
}

#[cfg(test)]
mod tests {
    use megatorrent_core::ids::Secret;

    use super::*;

    #[test]
    fn a_backup_opens_with_its_passphrase_alone() {
        let identity = Identity::new(&Secret::new([1; 32]), Some(Secret::new([2; 32])));
        let text = seal(&identity, "correct horse").expect("it is long enough");
        let back = open(&text, "correct horse").expect("it is the passphrase");
        assert_eq!(back.to_json(), identity.to_json());
        assert_eq!(open(&text, "correct house").err().map(|it| it.exit), Some(Exit::Permission));
        assert!(!text.contains(&*identity.to_json()));
    }

    #[test]
    fn a_backup_that_asks_for_all_memory_is_refused() {
        let identity = Identity::new(&Secret::new([1; 32]), None);
        let text = seal(&identity, "correct horse").expect("it is long enough");
        let greedy = text.replace("65536", "4294967295");
        assert_eq!(open(&greedy, "correct horse").err().map(|it| it.exit), Some(Exit::Integrity));
        assert!(seal(&identity, "short").is_err());
    }
}
