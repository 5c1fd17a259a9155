//! Dataset and collate together, which is all that a worker needs to make batches, behind one interface.

use std::panic::{AssertUnwindSafe, catch_unwind};

use forebay_engine::EngineError;
use forebay_engine::layout::Value;
use forebay_order::Key;
use serde::{Deserialize, Serialize};

use crate::collate::Room;
use crate::failure::{Class, Failure};
use crate::sample_rng::making;
use crate::{BatchWriter, BoxError, Collate, Dataset, Error, IterableDataset, Samples, Stream, WorkerInfo};

/// The order for one batch, as it goes to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOrder {
    pub(crate) epoch: u64,
    /// Of a dataset with indices: how many samples it has. Of a stream: how many are wanted.
    pub(crate) count: usize,
    pub(crate) indices: Vec<usize>,
}

impl BatchOrder {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 * (2 + self.indices.len()));
        for word in [self.epoch, self.count as u64] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        for index in &self.indices {
            bytes.extend_from_slice(&(*index as u64).to_ne_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, EngineError> {
        let mut words = bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word));
        let (Some(epoch), Some(count)) = (words.next(), words.next()) else {
            return Err(EngineError::Layout("an order for a batch ends too early"));
        };
        Ok(Self { epoch, count: count as usize, indices: words.map(|word| word as usize).collect() })
    }
}

/// What the loader's options say to those who make batches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// What errors call the origin of the indices.
    pub(crate) order: String,
    /// Whether a short last batch of a stream is left out.
    pub(crate) drop_last: bool,
}

/// What makes the batches of a loader.
pub(crate) trait Recipe: Send + Sync {
    /// Samples; 0 of streams.
    fn len(&self) -> usize;

    /// Whether batches come until a worker says that there are no more.
    fn streams(&self) -> bool;

    fn init_worker(&self, info: &WorkerInfo) -> Result<(), Failure>;

    /// Begins an epoch in one worker.
    fn begin(&self, info: WorkerInfo, key: Key) -> Box<dyn Pass + '_>;
}

/// One worker's way through one epoch.
pub(crate) trait Pass: Send {
    /// Makes a batch in `room`; tells its description. `None` when the stream is over. Gives up between two samples once
    /// `stopped` says so.
    fn make(
        &mut self,
        order: &BatchOrder,
        room: &mut dyn Room,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Option<Value>, Failure>;
}

/// The recipe itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Mix<S, C> {
    pub(crate) source: S,
    pub(crate) collate: C,
    pub(crate) rules: Rules,
}

impl<S: Source, C: Collate<S::Sample>> Recipe for Mix<S, C> {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn streams(&self) -> bool {
        S::STREAMS
    }

    fn init_worker(&self, info: &WorkerInfo) -> Result<(), Failure> {
        init_worker(|| self.source.init_worker(info))
    }

    fn begin(&self, info: WorkerInfo, key: Key) -> Box<dyn Pass + '_> {
        Box::new(MixPass { collate: &self.collate, draw: self.source.begin(info, key, &self.rules) })
    }
}

/// Runs what the user wants to happen in a worker before its first sample.
pub(crate) fn init_worker(init: impl FnOnce() -> Result<(), BoxError>) -> Result<(), Failure> {
    match catch_unwind(AssertUnwindSafe(init)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => {
            Err(Failure::new(Class::InitWorker, "the worker's init returned an error").because(source))
        }
        Err(panic) => Err(Failure {
            class: Class::InitWorker,
            ..Failure::panic("the worker's init panicked", panic.as_ref())
        }),
    }
}

struct MixPass<'a, S, C> {
    collate: &'a C,
    draw: Box<dyn Draw<S> + 'a>,
}

impl<S, C: Collate<S>> Pass for MixPass<'_, S, C> {
    fn make(
        &mut self,
        order: &BatchOrder,
        room: &mut dyn Room,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Option<Value>, Failure> {
        let collate = self.collate;
        let mut made = Ok(None);
        self.draw.draw(order, stopped, &mut |samples| {
            let mut page = BatchWriter::new(samples.len(), room);
            let collated = catch_unwind(AssertUnwindSafe(|| collate.collate(samples, &mut page)));
            made = match collated {
                Ok(Ok(())) => Ok(Some(page.describe())),
                Ok(Err(error)) => Err(Failure::of_collate(error)),
                Err(panic) => Err(Failure::panic("the collate panicked", panic.as_ref())),
            };
        })?;
        made
    }
}

/// Where samples come from, in one worker and one epoch.
pub trait Draw<S>: Send {
    /// Gives the samples of one batch to `collate`, unless there are no more.
    #[doc(hidden)]
    fn draw(
        &mut self,
        order: &BatchOrder,
        stopped: &dyn Fn() -> bool,
        collate: &mut dyn FnMut(Samples<'_, S>),
    ) -> Result<(), Failure>;
}

/// A source of samples that a loader can be built of: [`Indexed`] or [`Streamed`].
///
/// It cannot be implemented elsewhere.
pub trait Source: sealed::Source {}

impl<D: Dataset> Source for Indexed<D> {}
impl<D: IterableDataset> Source for Streamed<D> {}

pub(crate) mod sealed {
    use super::{Draw, Key, Rules};
    use crate::{BoxError, WorkerInfo};

    pub trait Source: Send + Sync {
        type Sample;

        #[doc(hidden)]
        const STREAMS: bool;

        #[doc(hidden)]
        fn len(&self) -> usize;

        #[doc(hidden)]
        fn init_worker(&self, info: &WorkerInfo) -> Result<(), BoxError>;

        #[doc(hidden)]
        fn begin<'a>(
            &'a self,
            info: WorkerInfo,
            key: Key,
            rules: &'a Rules,
        ) -> Box<dyn Draw<Self::Sample> + 'a>;
    }
}

/// A [`Dataset`] as the source of a loader.
#[derive(Debug, Serialize, Deserialize)]
pub struct Indexed<D>(pub(crate) D);

impl<D: Dataset> sealed::Source for Indexed<D> {
    type Sample = D::Sample;

    const STREAMS: bool = false;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn init_worker(&self, info: &WorkerInfo) -> Result<(), BoxError> {
        self.0.init_worker(info)
    }

    fn begin<'a>(&'a self, _info: WorkerInfo, key: Key, rules: &'a Rules) -> Box<dyn Draw<D::Sample> + 'a> {
        Box::new(ByIndex { dataset: &self.0, key, rules })
    }
}

struct ByIndex<'a, D> {
    dataset: &'a D,
    key: Key,
    rules: &'a Rules,
}

impl<D: Dataset> Draw<D::Sample> for ByIndex<'_, D> {
    fn draw(
        &mut self,
        order: &BatchOrder,
        stopped: &dyn Fn() -> bool,
        collate: &mut dyn FnMut(Samples<'_, D::Sample>),
    ) -> Result<(), Failure> {
        let mut indices = order.indices.iter();
        let mut next = || {
            let index = *indices.next()?;
            Some(if stopped() { Err(abandoned()) } else { self.get(index, order.count) }.map_err(Error::from))
        };
        collate(Samples::new(order.indices.len(), Some(&order.indices), &mut next));
        Ok(())
    }
}

impl<D: Dataset> ByIndex<'_, D> {
    fn get(&self, index: usize, count: usize) -> Result<D::Sample, Failure> {
        if index >= count {
            let text = format!(
                "{} gave index {index}, but the dataset has {count} samples: give indices less than that",
                self.rules.order
            );
            return Err(Failure::new(Class::Index, text).at(Some(index)));
        }
        let failure = match catch_unwind(AssertUnwindSafe(|| {
            making(self.key, index as u64, || self.dataset.get(index))
        })) {
            Ok(Ok(sample)) => return Ok(sample),
            Ok(Err(source)) => {
                Failure::new(Class::Dataset, format!("the dataset returned an error for index {index}"))
                    .because(source)
            }
            Err(panic) => Failure::panic(&format!("the dataset panicked for index {index}"), panic.as_ref()),
        };
        Err(failure.at(Some(index)))
    }
}

/// Nobody will see it.
fn abandoned() -> Failure {
    Failure::new(Class::Collate, "nobody wants this batch any more")
}

/// An [`IterableDataset`] as the source of a loader.
#[derive(Debug, Serialize, Deserialize)]
pub struct Streamed<D>(pub(crate) D);

impl<D: IterableDataset> sealed::Source for Streamed<D> {
    type Sample = D::Sample;

    const STREAMS: bool = true;

    fn len(&self) -> usize {
        0
    }

    fn init_worker(&self, info: &WorkerInfo) -> Result<(), BoxError> {
        self.0.init_worker(info)
    }

    fn begin<'a>(&'a self, info: WorkerInfo, key: Key, rules: &'a Rules) -> Box<dyn Draw<D::Sample> + 'a> {
        let (place, step) = (info.first() as u64, info.step() as u64);
        Box::new(FromStream {
            dataset: &self.0,
            key,
            rules,
            place,
            step,
            stream: StreamState::NotBegun(info),
        })
    }
}

struct FromStream<'a, D: IterableDataset> {
    dataset: &'a D,
    key: Key,
    rules: &'a Rules,
    /// Of the next item, if items are dealt to the workers.
    place: u64,
    step: u64,
    stream: StreamState<'a, D::Sample>,
}

enum StreamState<'a, S> {
    NotBegun(WorkerInfo),
    Begun(Stream<'a, S>),
    Over,
}

impl<D: IterableDataset> Draw<D::Sample> for FromStream<'_, D> {
    fn draw(
        &mut self,
        order: &BatchOrder,
        stopped: &dyn Fn() -> bool,
        collate: &mut dyn FnMut(Samples<'_, D::Sample>),
    ) -> Result<(), Failure> {
        // How many there are must be known before the first is collated, so these are in memory together.
        let mut samples = Vec::new();
        while samples.len() < order.count {
            if stopped() {
                return Err(abandoned());
            }
            match self.next()? {
                Some(sample) => samples.push(sample),
                None => break,
            }
        }
        if samples.is_empty() || self.rules.drop_last && samples.len() < order.count {
            return Ok(());
        }
        let (len, mut samples) = (samples.len(), samples.into_iter());
        collate(Samples::new(len, None, &mut || samples.next().map(Ok)));
        Ok(())
    }
}

impl<D: IterableDataset> FromStream<'_, D> {
    /// The next sample. After its end, a panic, or a stream that could not begin, nothing more is asked of the dataset.
    fn next(&mut self) -> Result<Option<D::Sample>, Failure> {
        let (state, dataset) = (std::mem::replace(&mut self.stream, StreamState::Over), self.dataset);
        let (key, place) = (self.key, self.place);
        self.place = place.wrapping_add(self.step);
        let advanced = catch_unwind(AssertUnwindSafe(|| {
            let mut stream = match state {
                StreamState::NotBegun(info) => dataset.iter(&info)?,
                StreamState::Begun(stream) => stream,
                StreamState::Over => return Ok((None, None)),
            };
            let sample = making(key, place, || stream.next());
            // A stream that is over ends here, where its panics are caught.
            Ok(if sample.is_some() { (sample, Some(stream)) } else { (None, None) })
        }));
        let failed =
            |source| Failure::new(Class::Dataset, "the dataset's stream returned an error").because(source);
        match advanced {
            Ok(Ok((sample, stream))) => {
                self.stream = match (&sample, stream) {
                    (Some(_), Some(stream)) => StreamState::Begun(stream),
                    _ => StreamState::Over,
                };
                sample.transpose().map_err(failed)
            }
            Ok(Err(source)) => Err(failed(source)),
            Err(panic) => Err(Failure::panic("the dataset's stream panicked", panic.as_ref())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_order_reads_back_as_it_was_written(epoch: u64, count: usize, indices: Vec<usize>) {
            let order = BatchOrder { epoch, count, indices };
            prop_assert_eq!(BatchOrder::decode(&order.encode()).unwrap(), order);
        }
    }

    #[test]
    fn an_order_that_is_cut_short_is_an_error() {
        assert!(BatchOrder::decode(&[0; 15]).is_err());
    }
}
