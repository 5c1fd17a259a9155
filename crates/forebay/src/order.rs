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

use std::fmt;

use crate::{BatchSampler, Sampler};

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Steele, Lea and Flood's generator.
struct SplitMix64(u64);

impl SplitMix64 {
    fn of_epoch(seed: u64, epoch: u64) -> Self {
        let seed = Self(seed).next();
        Self(Self(seed ^ epoch).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
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

/// The seed of one worker in one epoch: the output number `worker` of a generator that starts apart from the one that
/// shuffles. A generator's outputs are all different, so the seeds of an epoch are.
pub(crate) fn worker_seed(seed: u64, epoch: u64, worker: u64) -> u64 {
    let mut generator = SplitMix64::of_epoch(!seed, epoch);
    generator.0 = generator.0.wrapping_add(worker.wrapping_mul(STEP));
    generator.next()
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
    fn batches(self, len: usize) -> usize {
        if self.drop_last { len / self.batch_size } else { len.div_ceil(self.batch_size) }
    }
}

/// The order of the samples in every epoch.
pub(crate) enum Order {
    /// The dataset's own.
    Sequential(Cut),
    /// Another one in every epoch, by this seed.
    Shuffled(Cut, u64),
    Sampler(Cut, Box<dyn Sampler>),
    BatchSampler(Box<dyn BatchSampler>),
    /// The workers' streams, so many samples at once.
    Streams(Cut),
}

/// Batches to be made: their indices, or how many samples to draw from a stream.
pub(crate) type Plan<'a> = Box<dyn Iterator<Item = Vec<usize>> + Send + 'a>;

impl Order {
    /// Batches in an epoch of a dataset of `len` samples, if that is known before.
    pub(crate) fn batches(&self, len: usize) -> Option<usize> {
        match self {
            Self::Sequential(cut) | Self::Shuffled(cut, _) => Some(cut.batches(len)),
            _ => None,
        }
    }

    /// The epoch `epoch` of a dataset of `len` samples, from batch number `batch` on.
    pub(crate) fn plan(&self, len: usize, epoch: u64, batch: usize) -> Plan<'_> {
        match self {
            Self::Sequential(cut) => Box::new(Chunks { order: None, len, cut: *cut, next: batch }),
            Self::Shuffled(cut, seed) => {
                Box::new(Chunks { order: Some(permutation(*seed, epoch, len)), len, cut: *cut, next: batch })
            }
            Self::Sampler(cut, sampler) => {
                let mut indices = sampler.indices(epoch);
                let Cut { batch_size, drop_last } = *cut;
                let chunk = move || {
                    let batch: Vec<usize> = indices.by_ref().take(batch_size).collect();
                    let least = if drop_last { batch_size } else { 1 };
                    (batch.len() >= least).then_some(batch)
                };
                Box::new(std::iter::from_fn(chunk).fuse().skip(batch))
            }
            Self::BatchSampler(sampler) => Box::new(sampler.batches(epoch).skip(batch)),
            Self::Streams(_) => Box::new(std::iter::repeat_with(Vec::new)),
        }
    }

    /// What a worker needs to know of it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Sequential(_) | Self::Shuffled(..) | Self::Streams(_) => String::from("the order"),
            Self::Sampler(_, sampler) => format!("the sampler `{}`", sampler.name()),
            Self::BatchSampler(sampler) => format!("the batch_sampler `{}`", sampler.name()),
        }
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequential(cut) => formatter.debug_tuple("Sequential").field(cut).finish(),
            Self::Shuffled(cut, seed) => formatter.debug_tuple("Shuffled").field(cut).field(seed).finish(),
            Self::Streams(cut) => formatter.debug_tuple("Streams").field(cut).finish(),
            Self::Sampler(cut, sampler) => {
                formatter.debug_tuple("Sampler").field(cut).field(&sampler.name()).finish()
            }
            Self::BatchSampler(sampler) => {
                formatter.debug_tuple("BatchSampler").field(&sampler.name()).finish()
            }
        }
    }
}

/// The indices of one epoch that are still to come, batch by batch.
#[derive(Debug)]
struct Chunks {
    /// `None` is the order of the dataset.
    order: Option<Vec<usize>>,
    len: usize,
    cut: Cut,
    next: usize,
}

impl Iterator for Chunks {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        if self.next >= self.cut.batches(self.len) {
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

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.cut.batches(self.len).saturating_sub(self.next);
        (left, Some(left))
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
    fn all_workers_of_all_epochs_have_different_seeds() {
        let seeds = |epoch| (0..100).map(move |worker| worker_seed(7, epoch, worker));
        let distinct: std::collections::BTreeSet<u64> = (0..100).flat_map(seeds).collect();
        assert_eq!(distinct.len(), 100 * 100);
        assert_ne!(worker_seed(7, 0, 0), worker_seed(8, 0, 0));
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
