//! The world's dice: a generator that draws numbers in batches, since most draws are of a few bytes.

use core::ops::RangeInclusive;

use megatorrent_core::rng::Rng;

/// Numbers in a batch.
const STOCK: usize = 64;

/// Draws numbers from a generator. The same generator gives the same numbers.
pub(crate) struct Dice {
    rng: Rng,
    stock: [u64; STOCK],
    used: usize,
}

impl Dice {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { rng, stock: [0; STOCK], used: STOCK }
    }

    fn u64(&mut self) -> u64 {
        if self.used == STOCK {
            let mut bytes = [0; STOCK * 8];
            self.rng.fill(&mut bytes);
            for (number, bytes) in self.stock.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *number = u64::from_le_bytes(*bytes);
            }
            self.used = 0;
        }
        self.used += 1;
        self.stock[self.used - 1]
    }

    /// Draws a number below `bound`; 0 where `bound` is 0. It is biased by `bound` in 2^64, which no run could show.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.u64()) * u128::from(bound);
        (wide >> 64) as u64
    }

    /// Draws a number of `range`.
    pub(crate) fn draw(&mut self, range: &RangeInclusive<u64>) -> u64 {
        let span = range.end().saturating_sub(*range.start());
        range.start() + self.below(span.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_range_comes_and_no_other() {
        let mut dice = Dice::new(Rng::new([1; 32]));
        let mut counts = [0; 4];
        for _ in 0..4000 {
            counts[usize::try_from(dice.draw(&(7..=10))).expect("small") - 7] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
        assert_eq!((dice.below(0), dice.below(1), dice.draw(&(5..=5))), (0, 0, 5));
    }
}
