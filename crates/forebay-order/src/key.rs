//! What the random numbers of an epoch are drawn from.

use crate::philox::philox;

/// Sets our keys apart from those of others who use the same generator with the same seed.
const FOREBAY: u64 = u64::from_le_bytes(*b"forebay\x01");

/// What a block of random words is used for: two uses never share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Use {
    /// The order of an epoch.
    Order = 0,
    /// The global generators while a sample is made.
    SampleSeeds = 1,
    /// The private generator of a sample.
    SampleRng = 2,
    /// The seed of an epoch's workers.
    Workers = 3,
    /// The global generators while a sampler of somebody else's begins an epoch.
    Sampler = 4,
    /// The draws of a weighted sampler.
    Weights = 5,
    /// The global generators while a batch is collated.
    Collate = 6,
}

/// One epoch of a loader with a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The loader's seed.
    pub seed: u64,
    /// The number of the epoch, from 0.
    pub epoch: u64,
}

/// Seeds of the global generators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleSeeds {
    /// For Python's `random`.
    pub random: u64,
    /// For NumPy's legacy stream, which takes 32 bits.
    pub numpy: u32,
    /// For torch, which takes what is not negative.
    pub torch: u64,
}

impl SampleSeeds {
    fn of([random, numpy, torch, _]: [u64; 4]) -> Self {
        Self { random, numpy: numpy as u32, torch: torch >> 1 }
    }
}

impl Key {
    /// The key of an epoch.
    pub fn new(seed: u64, epoch: u64) -> Self {
        Self { seed, epoch }
    }

    /// Four random words for one use: those of an `index`, and of its `block` if it needs several.
    pub fn words(self, usage: Use, index: u64, block: u64) -> [u64; 4] {
        philox([self.seed, FOREBAY], [index, self.epoch, block, usage as u64])
    }

    /// The seeds of the global generators before the sample at `index` is made.
    pub fn sample_seeds(self, index: u64) -> SampleSeeds {
        SampleSeeds::of(self.words(Use::SampleSeeds, index, 0))
    }

    /// The seeds of the global generators before a sampler that draws from them begins an epoch.
    pub fn sampler_seeds(self) -> SampleSeeds {
        SampleSeeds::of(self.words(Use::Sampler, 0, 0))
    }

    /// The seeds of the global generators before the batch that begins with `index` is collated.
    pub fn collate_seeds(self, index: u64) -> SampleSeeds {
        SampleSeeds::of(self.words(Use::Collate, index, 0))
    }

    /// The private generator of the sample at `index`.
    pub fn sample_rng(self, index: u64) -> SampleRng {
        SampleRng::new(self.sample_rng_key(index))
    }

    /// What [`sample_rng`](Self::sample_rng) is keyed with; `numpy.random.Philox(key=...)` draws the same words.
    pub fn sample_rng_key(self, index: u64) -> [u64; 2] {
        let [first, second, ..] = self.words(Use::SampleRng, index, 0);
        [first, second]
    }

    /// The seed of this epoch's workers, below 2^63; a worker adds its number.
    pub fn base_seed(self) -> u64 {
        self.words(Use::Workers, 0, 0)[0] >> 1
    }
}

/// A stream of random words: those of `numpy.random.Philox` with the same key.
///
/// ```
/// use forebay_order::Key;
/// let mut rng = Key::new(7, 0).sample_rng(42);
/// let dice = 1 + rng.below(6);
/// assert!((1..=6).contains(&dice));
/// assert_eq!(1 + Key::new(7, 0).sample_rng(42).below(6), dice);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleRng {
    key: [u64; 2],
    block: u64,
    words: [u64; 4],
    used: usize,
}

impl SampleRng {
    /// The stream of a key, from its beginning.
    pub fn new(key: [u64; 2]) -> Self {
        Self { key, block: 0, words: [0; 4], used: 4 }
    }

    /// The next word.
    pub fn next_u64(&mut self) -> u64 {
        if self.used == self.words.len() {
            self.block += 1;
            self.words = philox(self.key, [self.block, 0, 0, 0]);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// A number from 0 up to but not including 1, of 53 bits; `numpy.random.Generator.random` draws the same.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A number below `bound`, each as likely as the others.
    ///
    /// Source: Lemire, "Fast random integer generation in an interval" (2019).
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        let unfair = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= unfair {
                return (product >> 64) as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_epochs_indices_and_seeds_have_words_of_their_own() {
        let words = Key::new(7, 1).words(Use::SampleSeeds, 5, 0);
        assert_ne!(words, Key::new(8, 1).words(Use::SampleSeeds, 5, 0));
        assert_ne!(words, Key::new(7, 2).words(Use::SampleSeeds, 5, 0));
        assert_ne!(words, Key::new(7, 1).words(Use::SampleSeeds, 6, 0));
        assert_ne!(words, Key::new(7, 1).words(Use::SampleRng, 5, 0));
        assert_ne!(words, Key::new(7, 1).words(Use::SampleSeeds, 5, 1));
    }
}
