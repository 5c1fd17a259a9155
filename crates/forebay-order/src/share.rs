//! One rank's share of an order: which places of it are its own.

/// What is done where samples do not divide evenly among the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Uneven {
    /// Every sample is kept: some ranks have one more.
    #[default]
    Keep,
    /// All ranks have as many as the one with the most: what is missing is taken from the order's beginning.
    Pad,
    /// All ranks have as many as the one with the fewest: what is left over is dropped.
    Drop,
}

/// The places that are dealt to one rank, as cards are: `start + rank`, then every `world`-th.
///
/// So whatever the ranks have passed together, after equally many samples each, is the beginning of the order; from there
/// it can be dealt to another number of ranks.
///
/// ```
/// use forebay_order::{Share, Uneven};
/// let places = |rank, uneven| -> Vec<u64> {
///     let share = Share::new(5, rank, 2, uneven);
///     (0..share.len()).map(|number| share.place(number)).collect()
/// };
/// assert_eq!([places(0, Uneven::Keep), places(1, Uneven::Keep)], [vec![0, 2, 4], vec![1, 3]]);
/// assert_eq!([places(0, Uneven::Pad), places(1, Uneven::Pad)], [vec![0, 2, 4], vec![1, 3, 0]]);
/// assert_eq!([places(0, Uneven::Drop), places(1, Uneven::Drop)], [vec![0, 2], vec![1, 3]]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    length: u64,
    rank: u64,
    world: u64,
    uneven: Uneven,
    start: u64,
}

impl Share {
    /// The most samples an order can have.
    pub const MOST: u64 = crate::Shuffle::MOST;

    /// The share of `rank`, of `world` ranks, in an order of `length` samples.
    ///
    /// # Panics
    /// When there is no such rank, or `length` is more than [`MOST`](Self::MOST).
    pub fn new(length: u64, rank: u32, world: u32, uneven: Uneven) -> Self {
        assert!(rank < world, "rank {rank} of {world}");
        assert!(length <= Self::MOST, "an order of {length} samples");
        Self { length, rank: rank.into(), world: world.into(), uneven, start: 0 }
    }

    /// The share of what is left of the order from place `start` on.
    #[must_use]
    pub fn starting_at(self, start: u64) -> Self {
        Self { start: start.min(self.length), ..self }
    }

    /// How many samples the rank has.
    pub fn len(&self) -> u64 {
        let left = self.length - self.start;
        match self.uneven {
            Uneven::Keep => left.saturating_sub(self.rank).div_ceil(self.world),
            Uneven::Pad => left.div_ceil(self.world),
            Uneven::Drop => left / self.world,
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place of the rank's sample number `number`, from 0.
    ///
    /// # Panics
    /// When the rank has no such sample.
    pub fn place(&self, number: u64) -> u64 {
        assert!(number < self.len(), "sample {number} of {}", self.len());
        // Less than `length + world`; what lies beyond `length` is padded.
        (self.start + self.rank + number * self.world) % self.length
    }

    /// The place up to which the order is done, when every rank has passed `samples` samples, if it has them.
    pub fn passed(&self, samples: u64) -> u64 {
        self.start.saturating_add(samples.saturating_mul(self.world)).min(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places(share: Share) -> Vec<u64> {
        (0..share.len()).map(|number| share.place(number)).collect()
    }

    fn shares(length: u64, world: u32, uneven: Uneven, start: u64) -> Vec<Share> {
        (0..world).map(|rank| Share::new(length, rank, world, uneven).starting_at(start)).collect()
    }

    fn any_uneven() -> impl Strategy<Value = Uneven> {
        prop_oneof![Just(Uneven::Keep), Just(Uneven::Pad), Just(Uneven::Drop)]
    }

    proptest! {
        #[test]
        fn kept_samples_come_exactly_once_over_all_ranks(length in 0..300u64, world in 1..20u32, start in 0..300u64) {
            let mut all = shares(length, world, Uneven::Keep, start).into_iter().flat_map(places).collect::<Vec<_>>();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(start.min(length)..length));
        }

        #[test]
        fn padded_and_dropped_shares_are_equally_long(length in 0..300u64, world in 1..20u32, start in 0..300u64) {
            for uneven in [Uneven::Pad, Uneven::Drop] {
                let shares = shares(length, world, uneven, start);
                prop_assert!(shares.iter().all(|share| share.len() == shares[0].len()));
            }
        }

        #[test]
        fn padding_repeats_and_dropping_leaves_out_fewer_samples_than_there_are_ranks(
            length in 0..300u64, world in 1..20u32, start in 0..300u64,
        ) {
            let total = |uneven| shares(length, world, uneven, start).iter().map(Share::len).sum::<u64>();
            let (kept, padded, dropped) = (total(Uneven::Keep), total(Uneven::Pad), total(Uneven::Drop));
            prop_assert!(dropped <= kept && kept <= padded);
            prop_assert!(kept - dropped < world.into() && padded - kept < world.into());
        }

        #[test]
        fn after_equally_many_samples_each_the_ranks_have_passed_a_beginning_of_the_order(
            length in 1..300u64, world in 1..20u32, start in 0..300u64, steps in 0..50u64, uneven in any_uneven(),
        ) {
            let shares = shares(length, world, uneven, start);
            let steps = steps.min(shares[world as usize - 1].len());
            let passed = |step| shares.iter().map(move |share| share.place(step));
            let end = shares[0].passed(steps);
            let dealt: Vec<u64> = (0..steps).flat_map(passed).take((end - start.min(length)) as usize).collect();
            prop_assert!(dealt.into_iter().eq(start.min(length)..end));
        }

        #[test]
        fn another_number_of_ranks_goes_on_where_the_first_ones_stopped(
            length in 0..300u64, worlds in (1..9u32, 1..9u32), steps in 0..50u64,
        ) {
            let before = shares(length, worlds.0, Uneven::Keep, 0);
            let steps = steps.min(length / u64::from(worlds.0));
            let after = shares(length, worlds.1, Uneven::Keep, before[0].passed(steps));
            let first = before.iter().flat_map(|share| (0..steps).map(|step| share.place(step)));
            let mut all: Vec<u64> = first.chain(after.into_iter().flat_map(places)).collect();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..length));
        }

        #[test]
        fn the_longest_orders_do_not_overflow(back in 0..1000u64, rank in 0..u32::MAX, start: u64, number: u64) {
            for uneven in [Uneven::Keep, Uneven::Pad, Uneven::Drop] {
                let share = Share::new(Share::MOST - back, rank, u32::MAX, uneven).starting_at(start);
                prop_assert!(share.is_empty() || share.place(number % share.len()) < Share::MOST);
                prop_assert!(share.is_empty() || share.place(share.len() - 1) < Share::MOST);
                prop_assert!(share.passed(number) <= Share::MOST);
            }
        }
    }
}
