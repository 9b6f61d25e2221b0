//! The node's only source of randomness: ChaCha20 keystream under a seed from outside, forked by label.

use blake2::Blake2b;
use blake2::digest::{Digest, consts::U32};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

/// A deterministic generator: the same seed gives the same bytes on every machine.
///
/// Forks are independent of each other and of how much was drawn before, so that a new draw in one part of the
/// node does not change another part's.
pub struct Rng {
    seed: Zeroizing<[u8; 32]>,
    stream: ChaCha20,
}

impl Rng {
    /// A generator from a seed of full entropy.
    pub fn new(seed: [u8; 32]) -> Self {
        let stream = ChaCha20::new(&seed.into(), &[0; 12].into());
        Self { seed: Zeroizing::new(seed), stream }
    }

    /// An independent generator for `label`.
    pub fn fork(&self, label: &str) -> Self {
        let mut hash = Blake2b::<U32>::new();
        hash.update(*self.seed);
        hash.update(label.as_bytes());
        Self::new(hash.finalize().into())
    }

    /// The next 32 bytes, for a key or another seed.
    pub fn bytes_32(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        self.fill(&mut out);
        out
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        out.fill(0);
        if self.stream.try_apply_keystream(out).is_err() {
            // The keystream ends after 256 GiB and must not be reused: go on from a fresh seed.
            *self = self.fork("next");
            out.fill(0);
            self.stream.apply_keystream(out);
        }
    }

    /// The next 64 bits.
    pub fn u64(&mut self) -> u64 {
        let mut out = [0; 8];
        self.fill(&mut out);
        u64::from_le_bytes(out)
    }

    /// A number below `bound`, without bias; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        let zone = u64::MAX - (u64::MAX % bound);
        loop {
            let draw = self.u64();
            if draw < zone {
                return draw % bound;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_do_not_depend_on_draws() {
        let mut a = Rng::new([7; 32]);
        let fork_before = a.fork("x").u64();
        a.u64();
        assert_eq!(a.fork("x").u64(), fork_before);
        assert_ne!(a.fork("y").u64(), fork_before);
    }

    #[test]
    fn below_stays_below() {
        let mut rng = Rng::new([1; 32]);
        assert!((0..1000).all(|_| rng.below(3) < 3));
        assert_eq!(rng.below(0), 0);
    }
}
