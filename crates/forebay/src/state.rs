//! Where an epoch stands, so that another program can go on with it.

use forebay_order::Share;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::Kind;
use crate::order::{Epochs, Order, Rest};

const VERSION: u32 = 1;

/// Where an epoch stands: what [`Batches::state`](crate::Batches::state) tells, and
/// [`DataLoader::resume`](crate::DataLoader::resume) goes on from. A cursor of a hundred bytes, for any format of serde.
///
/// It counts places in the order of the samples of *all* ranks. So it may be opened by a loader with another number or
/// kind of workers, another batch size and, if every rank has taken equally many batches, another number of ranks: with
/// batches of `b` samples on `w` ranks, each has taken `samples / (w * b)` of them.
///
/// ```
/// # use forebay::{BoxError, DataLoader, Dataset, LoaderState, Sample};
/// # struct Numbers;
/// # impl Dataset for Numbers {
/// #     type Sample = Sample;
/// #     fn len(&self) -> usize { 100 }
/// #     fn get(&self, index: usize) -> Result<Sample, BoxError> {
/// #         Ok(Sample::new().with("number", index as i64))
/// #     }
/// # }
/// let loader = DataLoader::builder(Numbers).batch_size(10).shuffle(true).seed(7).build()?;
/// let mut batches = loader.iter()?;
/// batches.next();
/// let state = serde_json::to_string(&batches.state()?)?;
///
/// // In another program, perhaps:
/// let state: LoaderState = serde_json::from_str(&state)?;
/// let loader = DataLoader::builder(Numbers).batch_size(30).shuffle(true).seed(7).num_workers(2).build()?;
/// assert_eq!(loader.resume(&state)?.count(), 3); // the 90 samples that were not delivered
/// # Ok::<(), BoxError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LoaderState {
    /// Of this format: 1.
    pub version: u32,
    /// The loader's [seed](crate::Builder::seed).
    pub seed: u64,
    /// The epoch's number.
    pub epoch: u64,
    /// The place in the order of all ranks' samples up to which the epoch is done. With a
    /// [`Sampler`](crate::Sampler), whose end nobody knows, a short last batch counts as a whole one.
    pub samples: u64,
    /// With a [`BatchSampler`](crate::BatchSampler), which alone knows its batches' samples: how many batches are done.
    pub batches: u64,
    /// The dataset's samples, when the epoch began.
    pub length: u64,
    /// Whether the order is [shuffled](crate::Builder::shuffle).
    pub shuffle: bool,
    /// What gives the order if the loader does not.
    pub sampler: Option<SamplerKind>,
    /// What has been delivered beyond `samples`, without [`in_order`](crate::Builder::in_order): first and last + 1 of
    /// this rank's samples, or batches, counted from there.
    pub ahead: Vec<(u64, u64)>,
    /// Whose `ahead` it is.
    pub rank: u32,
    /// How many ranks there were.
    pub world: u32,
}

/// What a user gave for the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SamplerKind {
    /// A [`Sampler`](crate::Sampler).
    Sampler,
    /// A [`BatchSampler`](crate::BatchSampler).
    BatchSampler,
}

impl SamplerKind {
    fn of(order: &Order) -> Option<Self> {
        match order {
            Order::Sampler(_) => Some(Self::Sampler),
            Order::BatchSampler(_) => Some(Self::BatchSampler),
            Order::Sequential | Order::Shuffled | Order::Streams => None,
        }
    }

    fn name(kind: Option<Self>) -> &'static str {
        match kind {
            Some(Self::Sampler) => "a sampler",
            Some(Self::BatchSampler) => "a batch_sampler",
            None => "no sampler",
        }
    }
}

/// What a state must have in common with the loader that opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    All,
    /// What is the state's own only.
    Sense,
}

impl LoaderState {
    /// The state of an epoch that has this rest to come.
    pub(crate) fn of(epochs: &Epochs, rest: &Rest) -> Result<Self, Error> {
        refuse_streams(epochs)?;
        let sampler = SamplerKind::of(&epochs.order);
        let of_batches = sampler == Some(SamplerKind::BatchSampler);
        let (samples, batches) = if of_batches { (0, rest.start) } else { (rest.start, 0) };
        Ok(Self {
            version: VERSION,
            seed: epochs.seed,
            epoch: rest.epoch,
            samples,
            batches,
            length: rest.length,
            shuffle: matches!(epochs.order, Order::Shuffled),
            sampler,
            ahead: rest.ahead.iter().map(|passed| (passed.start, passed.end)).collect(),
            rank: epochs.shard.rank,
            world: epochs.shard.world,
        })
    }

    /// What is to come of its epoch, for a loader of `length` samples.
    pub(crate) fn rest(&self, epochs: &Epochs, length: u64, check: Check) -> Result<Rest, Error> {
        refuse_streams(epochs)?;
        self.make_sense()?;
        let differences = self.differences(epochs, length);
        if check == Check::All && !differences.is_empty() {
            return Err(refused(format!(
                "the state is of another loader: it has {}; build the loader as it was, or take resume_anyway to go on at \
                 that place of this one's order",
                differences.join(", ")
            )));
        }
        if !self.ahead.is_empty() && (self.rank, self.world) != (epochs.shard.rank, epochs.shard.world) {
            return Err(refused(format!(
                "the state has batches that rank {} of {} got out of order, so only that rank can go on from it, and this is \
                 rank {} of {}: go on as that one, or take states with in_order(true)",
                self.rank, self.world, epochs.shard.rank, epochs.shard.world
            )));
        }
        let of_batches = matches!(epochs.order, Order::BatchSampler(_));
        let start = if of_batches { self.batches } else { self.samples };
        let ahead = self.ahead.iter().map(|(first, end)| *first..*end).collect();
        Ok(Rest { epoch: self.epoch, length, start, ahead })
    }

    /// Whoever edits a state may get it wrong.
    fn make_sense(&self) -> Result<(), Error> {
        if self.version != VERSION {
            return Err(refused(format!(
                "the state has version {}, but this release opens version {VERSION}: open it with the release that took it, or \
                 a later one",
                self.version
            )));
        }
        if self.sampler.is_none() && self.samples > self.length {
            return Err(refused(format!(
                "the state has passed {} samples of {}, which no loader does: it was changed",
                self.samples, self.length
            )));
        }
        let mut before = 0;
        for (first, end) in &self.ahead {
            if *first <= before || end <= first || *end > Share::MOST {
                return Err(refused(format!(
                    "the state has passed samples {first} to {end} ahead, behind sample {before}, which no loader does: it was \
                     changed"
                )));
            }
            before = *end;
        }
        Ok(())
    }

    fn differences(&self, epochs: &Epochs, length: u64) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, then: String, now: String| {
            if then != now {
                differences.push(format!("{what} {then} and not {now}"));
            }
        };
        let order = |shuffle| String::from(if shuffle { "shuffled" } else { "the dataset's" });
        compare("seed", self.seed.to_string(), epochs.seed.to_string());
        compare("a dataset of length", self.length.to_string(), length.to_string());
        compare("the order", order(self.shuffle), order(matches!(epochs.order, Order::Shuffled)));
        let now = SamplerKind::name(SamplerKind::of(&epochs.order));
        compare("for its order", SamplerKind::name(self.sampler).into(), now.into());
        differences
    }
}

fn refused(text: String) -> Error {
    Kind::State(text).into()
}

fn refuse_streams(epochs: &Epochs) -> Result<(), Error> {
    if matches!(epochs.order, Order::Streams) {
        return Err(refused(
            "a stream has no state, since only its dataset knows how to begin later: let it skip in iter what was read".into(),
        ));
    }
    Ok(())
}
