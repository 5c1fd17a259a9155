//! In which order an epoch visits the samples, and how it is cut into batches.
//!
//! The order of a shuffled epoch is part of the public promise: it depends on the seed, the epoch and the number of
//! samples only, and will not change with a release.
//!
//! - The generator is SplitMix64. Let `first(x)` be its first output when it starts from `x`: an epoch's generator
//!   starts from `first(first(seed) ^ epoch)`.
//! - A number below `n` is the upper half of the 128-bit product of `n` and an output; outputs whose lower half is less
//!   than `2^64 mod n` are left out (Lemire's method, without bias).
//! - The permutation is Fisher and Yates's: from the last place to the second, each is swapped with one drawn from those
//!   up to and including itself.

/// Steele, Lea and Flood's generator.
struct SplitMix64(u64);

impl SplitMix64 {
    fn of_epoch(seed: u64, epoch: u64) -> Self {
        let seed = Self(seed).next();
        Self(Self(seed ^ epoch).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, each as likely as the others.
    fn below(&mut self, bound: u64) -> u64 {
        let unfair = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next()) * u128::from(bound);
            if product as u64 >= unfair {
                return (product >> 64) as u64;
            }
        }
    }
}

fn permutation(seed: u64, epoch: u64, len: usize) -> Vec<usize> {
    let mut generator = SplitMix64::of_epoch(seed, epoch);
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, generator.below(last as u64 + 1) as usize);
    }
    order
}

/// How epochs are cut into batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) batch_size: usize,
    pub(crate) drop_last: bool,
}

impl Cut {
    /// Batches in an epoch of `len` samples.
    pub(crate) fn batches(self, len: usize) -> usize {
        if self.drop_last { len / self.batch_size } else { len.div_ceil(self.batch_size) }
    }
}

/// The indices of one epoch that are still to come, batch by batch.
#[derive(Debug)]
pub(crate) struct Plan {
    /// `None` is the order of the dataset.
    order: Option<Vec<usize>>,
    len: usize,
    cut: Cut,
    next: usize,
}

impl Plan {
    pub(crate) fn new(len: usize, cut: Cut, seed: Option<u64>, epoch: u64) -> Self {
        Self { order: seed.map(|seed| permutation(seed, epoch, len)), len, cut, next: 0 }
    }

    /// Batches still to come.
    pub(crate) fn batches_left(&self) -> usize {
        self.cut.batches(self.len) - self.next
    }
}

impl Iterator for Plan {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        if self.batches_left() == 0 {
            return None;
        }
        let start = self.next * self.cut.batch_size;
        let end = self.len.min(start.saturating_add(self.cut.batch_size));
        self.next += 1;
        Some(match &self.order {
            Some(order) => order[start..end].to_vec(),
            None => (start..end).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The outputs for this seed that other implementations publish.
        let mut generator = SplitMix64(1_234_567);
        let outputs = [(); 3].map(|()| generator.next());
        assert_eq!(
            outputs,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn numbers_below_a_bound_are_fair() {
        let mut generator = SplitMix64::of_epoch(0, 0);
        let mut counts = [0; 5];
        (0..50_000).for_each(|_| counts[generator.below(5) as usize] += 1);
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_bound_of_more_than_half_of_all_numbers_is_kept() {
        let mut generator = SplitMix64::of_epoch(1, 0);
        assert!((0..1000).all(|_| generator.below((1 << 63) + 1) <= 1 << 63));
    }
}
