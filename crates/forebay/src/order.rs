//! In which order an epoch visits the samples, which of them are this rank's, and how they are cut into batches.
//!
//! The order of a shuffled epoch is a function of the seed, the epoch and the number of samples, computed place by place
//! ([`Shuffle`]); a rank's part of it is dealt out as cards are ([`Share`]). So an epoch can begin anywhere, at no cost.

use std::fmt;
use std::ops::Range;

use forebay_order::{Key, Share, Shuffle, Uneven};

use crate::{BatchSampler, Sampler};

/// How a rank's samples are cut into batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) batch_size: usize,
    pub(crate) drop_last: bool,
}

impl Cut {
    /// Batches of so many samples.
    fn count(self, samples: u64) -> u64 {
        let batch_size = self.batch_size as u64;
        if self.drop_last { samples / batch_size } else { samples.div_ceil(batch_size) }
    }

    fn batches<'a>(self, samples: impl Iterator<Item = usize> + Send + 'a) -> Plan<'a> {
        let (mut samples, Self { batch_size, drop_last }) = (samples.fuse(), self);
        let least = if drop_last { batch_size } else { 1 };
        let batch = move || {
            let batch: Vec<usize> = samples.by_ref().take(batch_size).collect();
            (batch.len() >= least).then_some(batch)
        };
        Box::new(std::iter::from_fn(batch).fuse())
    }
}

/// Whose samples the loader gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shard {
    pub(crate) rank: u32,
    pub(crate) world: u32,
    pub(crate) uneven: Uneven,
}

impl Shard {
    fn share(self, length: u64) -> Share {
        Share::new(length, self.rank, self.world, self.uneven)
    }

    /// This rank's share of an order whose length nobody knows, from place `start` on: as [`Share`] deals.
    fn deal<'a>(
        self,
        mut order: Box<dyn Iterator<Item = usize> + Send + 'a>,
        start: u64,
    ) -> impl Iterator<Item = usize> + Send + 'a {
        let (rank, world) = (self.rank as usize, self.world as usize);
        // What is padded with.
        let head = if self.uneven == Uneven::Pad { world } else { 0 };
        let head: Vec<usize> = order.by_ref().take(head).collect();
        let mut left = head.clone().into_iter().chain(order).skip(to_usize(start)).fuse();
        let deal = move || {
            let (mut own, mut dealt) = (None, 0);
            for index in left.by_ref().take(world) {
                own = if dealt == rank { Some(index) } else { own };
                dealt += 1;
            }
            match self.uneven {
                Uneven::Pad if 0 < dealt && dealt <= rank => Some(head[(rank - dealt) % head.len()]),
                Uneven::Drop if dealt < world => None,
                _ => own,
            }
        };
        std::iter::from_fn(deal).fuse()
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The order of the samples in every epoch.
pub(crate) enum Order {
    /// The dataset's own.
    Sequential,
    /// Another one in every epoch.
    Shuffled,
    Sampler(Box<dyn Sampler>),
    BatchSampler(Box<dyn BatchSampler>),
    /// The workers' streams, so many samples at once.
    Streams,
}

impl Order {
    /// What a worker needs to know of it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Sequential | Self::Shuffled | Self::Streams => String::from("the order"),
            Self::Sampler(sampler) => format!("the sampler `{}`", sampler.name()),
            Self::BatchSampler(sampler) => format!("the batch_sampler `{}`", sampler.name()),
        }
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequential => formatter.write_str("Sequential"),
            Self::Shuffled => formatter.write_str("Shuffled"),
            Self::Streams => formatter.write_str("Streams"),
            Self::Sampler(sampler) => formatter.debug_tuple("Sampler").field(&sampler.name()).finish(),
            Self::BatchSampler(sampler) => {
                formatter.debug_tuple("BatchSampler").field(&sampler.name()).finish()
            }
        }
    }
}

/// Batches to be made: their indices, or how many samples to draw from a stream.
pub(crate) type Plan<'a> = Box<dyn Iterator<Item = Vec<usize>> + Send + 'a>;

/// What of an epoch is still to come. Samples are counted, or batches where a batch sampler makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rest {
    pub(crate) epoch: u64,
    /// Samples of the dataset.
    pub(crate) length: u64,
    /// Up to this place of the order all ranks are done.
    pub(crate) start: u64,
    /// What this rank has passed of the places that are dealt to it from `start` on, by their numbers: in order, apart.
    pub(crate) ahead: Vec<Range<u64>>,
}

impl Rest {
    /// Whether this rank's sample of this number is still to come.
    fn has(&self, number: u64) -> bool {
        !self.ahead.iter().any(|passed| passed.contains(&number))
    }

    /// The number of the sample that comes as number `nth`.
    fn number(&self, nth: u64) -> u64 {
        let beyond = |number, passed: &Range<u64>| {
            if passed.start <= number { number + (passed.end - passed.start) } else { number }
        };
        self.ahead.iter().fold(nth, beyond)
    }
}

/// Which batches of an epoch's rest have been delivered.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    /// The first that has not.
    position: u64,
    /// Later ones that have.
    ahead: std::collections::BTreeSet<u64>,
}

impl Cursor {
    pub(crate) fn delivered(&mut self, batch: u64) {
        self.ahead.insert(batch);
        while self.ahead.remove(&self.position) {
            self.position += 1;
        }
    }
}

/// The epochs of a loader.
#[derive(Debug)]
pub(crate) struct Epochs {
    pub(crate) order: Order,
    pub(crate) seed: u64,
    pub(crate) cut: Cut,
    pub(crate) shard: Shard,
}

impl Epochs {
    /// The rest of an epoch from this rank's batch number `batch` on.
    pub(crate) fn rest_from(&self, epoch: u64, length: u64, batch: u64) -> Rest {
        let start = batch.saturating_mul(self.batch_places().saturating_mul(self.shard.world.into()));
        Rest { epoch, length, start, ahead: Vec::new() }
    }

    /// The number that the first batch of `rest` has in its epoch.
    pub(crate) fn first_batch(&self, rest: &Rest) -> u64 {
        rest.start / self.batch_places().saturating_mul(self.shard.world.into())
    }

    /// What is counted of one batch.
    fn batch_places(&self) -> u64 {
        if matches!(self.order, Order::BatchSampler(_)) { 1 } else { self.cut.batch_size as u64 }
    }

    /// This rank's samples of `rest`, and those `ahead`, where the order is the loader's own.
    fn share(&self, rest: &Rest) -> Option<Share> {
        let own = matches!(self.order, Order::Sequential | Order::Shuffled);
        own.then(|| self.dealt().share(rest.length).starting_at(rest.start))
    }

    /// Without short batches all ranks have equally many: then no rank has a sample more than another.
    fn dealt(&self) -> Shard {
        match self.shard.uneven {
            Uneven::Keep if self.cut.drop_last => Shard { uneven: Uneven::Drop, ..self.shard },
            _ => self.shard,
        }
    }

    /// Samples to come, if that is known before.
    fn samples(&self, rest: &Rest) -> Option<u64> {
        let ahead: u64 = rest.ahead.iter().map(|passed| passed.end - passed.start).sum();
        Some(self.share(rest)?.len().saturating_sub(ahead))
    }

    /// Batches to come, if that is known before.
    pub(crate) fn batches(&self, rest: &Rest) -> Option<u64> {
        Some(self.cut.count(self.samples(rest)?))
    }

    /// The batches to come.
    pub(crate) fn plan(&self, rest: Rest) -> Plan<'_> {
        let (epoch, start) = (rest.epoch, rest.start);
        match &self.order {
            Order::Sequential => self.own(rest, |place| place),
            Order::Shuffled => {
                let shuffle = Shuffle::new(rest.length, Key::new(self.seed, epoch));
                self.own(rest, move |place| shuffle.at(place))
            }
            Order::Sampler(sampler) => {
                let indices = (0..).zip(self.dealt().deal(sampler.indices(epoch), start));
                let left = indices.filter(move |(number, _)| rest.has(*number));
                self.cut.batches(left.map(|(_, index)| index))
            }
            Order::BatchSampler(sampler) => {
                let batches = (0..).zip(sampler.batches(epoch).skip(to_usize(start)));
                let left = batches.filter(move |(number, _)| rest.has(*number));
                Box::new(left.map(|(_, batch)| batch))
            }
            Order::Streams => Box::new(std::iter::repeat_with(Vec::new)),
        }
    }

    /// The batches of an order of our own, of which `index` tells every place.
    fn own<'a>(&'a self, rest: Rest, index: impl Fn(u64) -> u64 + Send + 'a) -> Plan<'a> {
        let share = self.dealt().share(rest.length).starting_at(rest.start);
        let left = (0..share.len()).filter(move |number| rest.has(*number));
        self.cut.batches(left.map(move |number| to_usize(index(share.place(number)))))
    }

    /// What is left of `rest` after the batches that have been delivered.
    pub(crate) fn after(&self, rest: &Rest, cursor: &Cursor) -> Rest {
        let (of_batch, samples) = (self.batch_places(), self.samples(rest).unwrap_or(u64::MAX));
        let first_of = |batch: u64| batch.saturating_mul(of_batch).min(samples);
        let done = rest.number(first_of(cursor.position));
        let start = match self.share(rest) {
            Some(share) => share.passed(done),
            None => rest.start.saturating_add(done.saturating_mul(self.shard.world.into())),
        };
        let delivered = cursor.ahead.iter().flat_map(|batch| first_of(*batch)..first_of(*batch + 1));
        let numbers = delivered.map(|nth| rest.number(nth)).map(|number| number..number + 1);
        let ahead = joined(rest.ahead.iter().cloned().chain(numbers).collect());
        // `done` is none of those ahead, so each is all before it or all beyond.
        let beyond = ahead.into_iter().filter(|passed| done < passed.end);
        let ahead = beyond.map(|passed| passed.start - done..passed.end - done).collect();
        Rest { start, ahead, ..*rest }
    }

    /// What is left when there are no batches more.
    pub(crate) fn end(&self, rest: &Rest, cursor: &Cursor) -> Rest {
        match self.share(rest) {
            Some(_) => Rest { start: rest.length, ahead: Vec::new(), ..*rest },
            None => self.after(rest, cursor),
        }
    }
}

/// Ranges in order; those that touch are one.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epochs(order: Order, batch_size: usize, shard: (u32, u32, Uneven)) -> Epochs {
        let (rank, world, uneven) = shard;
        Epochs {
            order,
            seed: 7,
            cut: Cut { batch_size, drop_last: false },
            shard: Shard { rank, world, uneven },
        }
    }

    fn any_uneven() -> impl Strategy<Value = Uneven> {
        prop_oneof![Just(Uneven::Keep), Just(Uneven::Pad), Just(Uneven::Drop)]
    }

    proptest! {
        #[test]
        fn a_samplers_order_is_dealt_as_the_loaders_own(
            length in 0..60u64, world in 1..9u32, uneven in any_uneven(), batch in 0..5u64, batch_size in 1..7usize,
            drop_last: bool,
        ) {
            for rank in 0..world {
                let mut own = epochs(Order::Sequential, batch_size, (rank, world, uneven));
                own.cut.drop_last = drop_last;
                let sampler = move |_| 0..length as usize;
                let sampled = Epochs { order: Order::Sampler(Box::new(sampler)), ..own };
                let own = epochs(Order::Sequential, batch_size, (rank, world, uneven));
                let own = Epochs { cut: sampled.cut, ..own };
                let rest = own.rest_from(0, length, batch);
                let batches: Vec<_> = own.plan(rest.clone()).collect();
                prop_assert_eq!(own.batches(&rest), Some(batches.len() as u64));
                prop_assert!(sampled.plan(rest).eq(batches));
            }
        }

        #[test]
        fn what_is_left_after_any_batches_is_all_that_was_not_delivered(
            length in 1..80u64, batch_size in 1..6usize, others in 1..6usize,
            taken in proptest::collection::btree_set(0..20u64, 0..8),
            again in proptest::collection::btree_set(0..20u64, 0..8),
        ) {
            let mut rest = epochs(Order::Shuffled, batch_size, (0, 1, Uneven::Keep)).rest_from(0, length, 0);
            let whole: Vec<usize> = epochs(Order::Shuffled, 1, (0, 1, Uneven::Keep)).plan(rest.clone()).flatten().collect();
            let mut delivered: Vec<usize> = Vec::new();
            for (batch_size, taken) in [(batch_size, taken), (others, again)] {
                let epochs = epochs(Order::Shuffled, batch_size, (0, 1, Uneven::Keep));
                let mut cursor = Cursor::default();
                for (number, batch) in (0..).zip(epochs.plan(rest.clone())) {
                    if taken.contains(&number) {
                        delivered.extend(batch);
                        cursor.delivered(number);
                    }
                }
                rest = epochs.after(&rest, &cursor);
                let left: Vec<usize> = epochs.plan(rest.clone()).flatten().collect();
                prop_assert!(whole.iter().filter(|index| !delivered.contains(index)).eq(&left));
            }
        }
    }
}
