//! A sample's own random numbers.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use forebay_order::Key;
use rand_core::{Infallible, TryRng, utils};

use crate::Error;
use crate::error::Kind;

thread_local! {
    /// The sample that this thread is making.
    static MAKING: RefCell<Option<Making>> = const { RefCell::new(None) };
}

struct Making {
    key: Key,
    index: u64,
    /// There once it was asked for.
    rng: Option<SampleRng>,
}

/// The private generator of the sample that this thread is making, within [`Dataset::get`](crate::Dataset::get): a
/// function of the loader's [seed](crate::Builder::seed), the epoch and the index, and of nothing else. So a random
/// augmentation is the same with any number of workers, be they threads or processes, and after a resume; and it is
/// another one in every epoch.
///
/// ```
/// use forebay::{BoxError, DataLoader, Dataset, Error, Sample, sample_rng};
///
/// struct Noisy;
///
/// impl Dataset for Noisy {
///     type Sample = Sample;
///
///     fn len(&self) -> usize {
///         100
///     }
///
///     fn get(&self, index: usize) -> Result<Sample, BoxError> {
///         let noise = sample_rng()?.next_f64();
///         Ok(Sample::new().with("value", index as f64 + noise))
///     }
/// }
///
/// let values = |workers| -> Result<Vec<f64>, Error> {
///     let loader = DataLoader::builder(Noisy).seed(7).batch_size(10).num_workers(workers).build()?;
///     let mut values = Vec::new();
///     for batch in &loader {
///         values.extend_from_slice(batch?.array("value")?.as_slice());
///     }
///     Ok(values)
/// };
/// assert_eq!(values(0)?, values(3)?);
/// # Ok::<(), Error>(())
/// ```
///
/// Asked for again for the same sample, it goes on where it was. In a stream, it is that of the item that the stream's
/// iterator is making: see [`IterableDataset`](crate::IterableDataset#randomness).
///
/// # Errors
/// Where this thread is not making a sample ([`Error::is_outside_sample`]): in a collate, in `init_worker`, in a thread
/// that the dataset has started. An error and not a panic, since it passes through `get` with `?`; and not numbers from
/// elsewhere, since those would be others in every run. A test that calls `get` itself does so in [`with_sample_rng`].
pub fn sample_rng() -> Result<SampleRng, Error> {
    let rng = |making: &RefCell<Option<Making>>| {
        let mut making = making.borrow_mut();
        let Making { key, index, rng } = making.as_mut()?;
        Some(rng.get_or_insert_with(|| SampleRng::of(*key, *index)).clone())
    };
    // A thread that has ended but for its destructors makes no sample.
    let rng = MAKING.try_with(rng).ok().flatten();
    rng.ok_or_else(|| Kind::OutsideSample.into())
}

/// Calls `make` as a loader with this seed would in this epoch for the sample at `index`: for a dataset's own tests.
///
/// ```
/// use forebay::{sample_rng, with_sample_rng};
/// let dice = || sample_rng().map(|mut rng| 1 + rng.below(6));
/// assert_eq!(with_sample_rng(7, 0, 42, dice)?, with_sample_rng(7, 0, 42, dice)?);
/// assert!(dice().is_err());
/// # Ok::<(), forebay::Error>(())
/// ```
pub fn with_sample_rng<R>(seed: u64, epoch: u64, index: u64, make: impl FnOnce() -> R) -> R {
    making(Key::new(seed, epoch), index, make)
}

pub(crate) fn making<R>(key: Key, index: u64, make: impl FnOnce() -> R) -> R {
    /// A sample may be made within another: by a loader in a dataset.
    struct Before(Option<Making>);

    impl Drop for Before {
        fn drop(&mut self) {
            MAKING.set(self.0.take());
        }
    }

    let _before = Before(MAKING.replace(Some(Making { key, index, rng: None })));
    make()
}

/// A sample's private generator, from [`sample_rng`]: the words of Philox4x64, as `numpy.random.Philox` draws them.
///
/// It has the traits of [`rand_core`], so the distributions of the crate `rand` draw from it; `next_u32` is the lower half
/// of a word. The words are promised by Forebay, what a distribution makes of them by `rand`.
///
/// ```
/// use rand::RngExt;
/// # forebay::with_sample_rng(7, 0, 42, || {
/// let mut rng = forebay::sample_rng()?;
/// let (angle, flip) = (rng.random_range(-15.0..15.0), rng.random_bool(0.5));
/// # let _ = (angle, flip);
/// # Ok::<(), forebay::Error>(())
/// # }).unwrap();
/// ```
///
/// Clones draw from one stream. It stays in its thread, so no dataset can keep it for another sample; threads that a
/// dataset starts for one sample are given numbers drawn from it.
///
/// ```compile_fail
/// fn goes_to_another_thread<T: Send>() {}
/// goes_to_another_thread::<forebay::SampleRng>();
/// ```
#[derive(Clone)]
pub struct SampleRng(Rc<RefCell<forebay_order::SampleRng>>);

impl SampleRng {
    fn of(key: Key, index: u64) -> Self {
        Self(Rc::new(RefCell::new(key.sample_rng(index))))
    }

    /// The next word.
    pub fn next_u64(&mut self) -> u64 {
        self.0.borrow_mut().next_u64()
    }

    /// A number from 0 up to but not including 1, of 53 bits; `numpy.random.Generator.random` draws the same.
    pub fn next_f64(&mut self) -> f64 {
        self.0.borrow_mut().next_f64()
    }

    /// A number below `bound`, each as likely as the others.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.borrow_mut().below(bound)
    }
}

impl TryRng for SampleRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.next_u64() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        utils::fill_bytes_via_next_word(bytes, || self.try_next_u64())
    }
}

impl fmt::Debug for SampleRng {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SampleRng").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word() -> u64 {
        sample_rng().unwrap().next_u64()
    }

    #[test]
    fn a_sample_within_another_leaves_the_outer_ones_numbers_alone() {
        let alone = with_sample_rng(7, 0, 1, || [word(), word()]);
        let around = with_sample_rng(7, 0, 1, || {
            let first = word();
            assert_eq!(with_sample_rng(7, 0, 1, word), first, "the inner one begins its own");
            [first, word()]
        });
        assert_eq!(alone, around);
    }

    #[test]
    fn a_sample_that_panics_is_over() {
        let panics = || with_sample_rng(7, 0, 1, || panic!("no sample"));
        std::panic::catch_unwind(panics).unwrap_err();
        assert!(sample_rng().unwrap_err().is_outside_sample());
    }

    #[test]
    fn halves_and_bytes_are_parts_of_whole_words() {
        let words = with_sample_rng(7, 0, 1, || [word(), word(), word(), word()]);
        let (mut bytes, drawn) = ([0; 11], |bytes: &mut [u8]| {
            let mut rng = sample_rng().unwrap();
            let Ok(half) = rng.try_next_u32();
            let Ok(()) = rng.try_fill_bytes(bytes);
            (half, rng.next_u64())
        });
        assert_eq!(with_sample_rng(7, 0, 1, || drawn(&mut bytes)), (words[0] as u32, words[3]));
        assert_eq!(bytes[..8], words[1].to_le_bytes());
        assert_eq!(bytes[8..], words[2].to_le_bytes()[..3]);
    }
}
