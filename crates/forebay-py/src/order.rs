//! Order and randomness of epochs with a seed.

use std::ptr::NonNull;

use forebay_order::{Key, Mt19937, SampleSeeds, StateFault};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyIndexError, PyValueError};
use pyo3::prelude::*;

/// The order of an epoch, or of a `part` of it, computed place by place.
///
/// Args:
///     len: how many samples; at most 2**63.
///     seed: of the loader.
///     epoch: its number.
///     part: which of several independent orders.
#[pyclass(frozen, module = "forebay._engine")]
#[derive(Debug)]
pub struct Shuffle(forebay_order::Shuffle);

#[pymethods]
impl Shuffle {
    #[new]
    #[pyo3(signature = (len, seed, epoch, part=0))]
    fn new(len: u64, seed: u64, epoch: u64, part: u64) -> PyResult<Self> {
        if len > forebay_order::Shuffle::MOST || part >= 1 << 59 {
            return Err(PyValueError::new_err(format!("no order of {len} samples, part {part}")));
        }
        Ok(Self(forebay_order::Shuffle::part(len, Key::new(seed, epoch), part)))
    }

    /// The index at a place.
    fn at(&self, place: u64) -> PyResult<u64> {
        if place >= self.0.len() {
            return Err(PyIndexError::new_err(format!(
                "place {place} of an order of {} samples",
                self.0.len()
            )));
        }
        Ok(self.0.at(place))
    }

    /// Writes the indices at the places from `start` on into `out`, a contiguous int64 array.
    fn fill(&self, py: Python<'_>, start: u64, out: PyBuffer<i64>) -> PyResult<()> {
        if start.checked_add(out.item_count() as u64).is_none_or(|end| end > self.0.len()) {
            return Err(PyIndexError::new_err(format!(
                "{} places from {start} of an order of {} samples",
                out.item_count(),
                self.0.len()
            )));
        }
        let mut place = start;
        write(py, &out, |indices| {
            self.0.fill(place, indices);
            place += indices.len() as u64;
        })
    }

    /// Writes the index at each of `places` into `out`; both are contiguous int64 arrays.
    fn pick(&self, py: Python<'_>, places: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let places = PyBuffer::<i64>::get(places)?.to_vec(py)?;
        if let Some(place) = places.iter().find(|place| !(0..self.0.len()).contains(&(**place as u64))) {
            return Err(PyIndexError::new_err(format!(
                "place {place} of an order of {} samples",
                self.0.len()
            )));
        }
        let indices: Vec<i64> =
            py.detach(|| places.iter().map(|place| self.0.at(*place as u64) as i64).collect());
        PyBuffer::<i64>::get(out)?.copy_from_slice(py, &indices)
    }
}

/// Draws by weight, with replacement.
///
/// Args:
///     weights: a contiguous float64 array.
#[pyclass(frozen, module = "forebay._engine")]
#[derive(Debug)]
pub struct Alias(forebay_order::Alias);

#[pymethods]
impl Alias {
    #[new]
    fn new(py: Python<'_>, weights: &Bound<'_, PyAny>) -> PyResult<Self> {
        let weights = PyBuffer::<f64>::get(weights)?.to_vec(py)?;
        let alias = py.detach(|| forebay_order::Alias::new(&weights));
        alias.map(Self).ok_or_else(|| PyValueError::new_err("the weights are no distribution"))
    }

    /// Writes what is drawn at each of `places` of an epoch into `out`; both are contiguous int64 arrays.
    fn pick(
        &self,
        py: Python<'_>,
        seed: u64,
        epoch: u64,
        places: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let places = PyBuffer::<i64>::get(places)?.to_vec(py)?;
        let key = Key::new(seed, epoch);
        // An index of a table in memory is less than 2^63.
        let indices: Vec<i64> =
            py.detach(|| places.iter().map(|place| self.0.draw(key, *place as u64) as i64).collect());
        PyBuffer::<i64>::get(out)?.copy_from_slice(py, &indices)
    }
}

/// Writes the beginning of an epoch's order by weight, without replacement, into `out`, a contiguous int64 array; as much
/// of it as `out` holds.
#[pyfunction]
pub(crate) fn weighted_order(
    py: Python<'_>,
    weights: &Bound<'_, PyAny>,
    seed: u64,
    epoch: u64,
    out: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let weights = PyBuffer::<f64>::get(weights)?.to_vec(py)?;
    let out = PyBuffer::<i64>::get(out)?;
    let order =
        py.detach(|| forebay_order::weighted_order(&weights, Key::new(seed, epoch), out.item_count()));
    let order = order.ok_or_else(|| PyValueError::new_err("there are fewer positive weights"))?;
    // Places in memory are less than 2^63.
    let signed: Vec<i64> = order.into_iter().map(|index| index as i64).collect();
    out.copy_from_slice(py, &signed)
}

/// What `torch.randperm(count)` gives, drawn place by place.
///
/// Args:
///     count: how many samples; at most `MOST`.
///     state: of the generator that it is drawn from, as its `get_state()` gives it: a contiguous uint8 array.
///     start: the first place to give.
#[pyclass(module = "forebay._engine")]
#[derive(Debug)]
pub struct TorchPermutation(forebay_order::TorchPermutation);

#[pymethods]
impl TorchPermutation {
    /// Longer ones are drawn by torch in a way that knows no index before the last draw.
    #[classattr]
    const MOST: u64 = forebay_order::TorchPermutation::MOST;

    #[new]
    #[pyo3(signature = (count, state, start=0))]
    fn new(py: Python<'_>, count: u64, state: PyBuffer<u8>, start: u64) -> PyResult<Self> {
        if start > count || count > Self::MOST {
            return Err(PyValueError::new_err(format!(
                "no permutation of {count} samples from place {start} on"
            )));
        }
        let random = stream(py, &state)?;
        Ok(Self(py.detach(|| forebay_order::TorchPermutation::new(count, random, start))))
    }

    /// Writes the indices at the next places into `out`, a contiguous int64 array.
    fn fill(&mut self, py: Python<'_>, out: PyBuffer<i64>) -> PyResult<()> {
        if out.item_count() as u64 > self.0.left() {
            return Err(PyIndexError::new_err(format!(
                "{} places of {} left",
                out.item_count(),
                self.0.left()
            )));
        }
        write(py, &out, |indices| self.0.fill(indices))
    }
}

/// Changes the state of a generator of torch's to the one that it has after `count` more words of 32 bits: of them,
/// `torch.randperm(n)` takes `n - 1`.
#[pyfunction]
pub(crate) fn skip_words(py: Python<'_>, state: PyBuffer<u8>, count: u64) -> PyResult<()> {
    let mut random = stream(py, &state)?;
    py.detach(|| random.skip(count));
    let mut bytes = state.to_vec(py)?;
    random.to_torch(&mut bytes).map_err(fault)?;
    state.copy_from_slice(py, &bytes)
}

fn stream(py: Python<'_>, state: &PyBuffer<u8>) -> PyResult<Mt19937> {
    Mt19937::of_torch(&state.to_vec(py)?).map_err(fault)
}

fn fault(fault: StateFault) -> PyErr {
    PyValueError::new_err(fault.to_string())
}

/// Writes indices into an array, block after block.
fn write(_py: Python<'_>, out: &PyBuffer<i64>, mut fill: impl FnMut(&mut [u64])) -> PyResult<()> {
    let cells = out.as_slice_ptr().filter(|_| !out.readonly());
    let cells =
        cells.ok_or_else(|| PyBufferError::new_err("indices go into a contiguous, writable int64 array"))?;
    let mut block = [0; 256];
    for first in (0..cells.len()).step_by(block.len()) {
        let block = &mut block[..(cells.len() - first).min(256)];
        fill(block);
        // SAFETY: `first` is within the buffer, which has as many elements as `cells`.
        let to = unsafe { cells.cast::<u64>().add(first) };
        // SAFETY: From `to` on, the buffer has room for the block, is aligned, lives as long as `out`, and nobody has a
        // reference to it: Python code that uses it waits for the interpreter's lock. Both types are any 64 bits.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(&*block).cast(), block.len()) };
    }
    Ok(())
}

/// The seeds of `random`, NumPy's legacy stream and torch before the sample at `index` is made.
#[pyfunction]
pub(crate) fn sample_seeds(seed: u64, epoch: u64, index: u64) -> (u64, u32, u64) {
    triple(Key::new(seed, epoch).sample_seeds(index))
}

/// The same before the batch that begins with `index` is collated.
#[pyfunction]
pub(crate) fn collate_seeds(seed: u64, epoch: u64, index: u64) -> (u64, u32, u64) {
    triple(Key::new(seed, epoch).collate_seeds(index))
}

/// The same before a sampler that draws from them begins an epoch.
#[pyfunction]
pub(crate) fn sampler_seeds(seed: u64, epoch: u64) -> (u64, u32, u64) {
    triple(Key::new(seed, epoch).sampler_seeds())
}

/// The key of `numpy.random.Philox` for the private generator of the sample at `index`.
#[pyfunction]
pub(crate) fn sample_rng_key(seed: u64, epoch: u64, index: u64) -> [u64; 2] {
    Key::new(seed, epoch).sample_rng_key(index)
}

/// The seed of an epoch's workers, below 2**63.
#[pyfunction]
pub(crate) fn base_seed(seed: u64, epoch: u64) -> u64 {
    Key::new(seed, epoch).base_seed()
}

fn triple(SampleSeeds { random, numpy, torch }: SampleSeeds) -> (u64, u32, u64) {
    (random, numpy, torch)
}
