//! The default collate, straight into the slot: one copy per byte.
//!
//! The rules are `default_collate`'s of either front. What is uniform and of exact built-in types is done here; every
//! other leaf is given to the front's own `default_collate` and copied, so the result is always what that makes.

use forebay_engine::layout::{Array, DType, MAX_DEPTH, Value};
use forebay_shm::{SlotWriter, Span};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::arrays::{Kind, Source, kind_of, source};
use crate::encode::{copy, encode, is_named_tuple, scalar};
use crate::error::raise_shm;
use crate::front::Front;

/// Collates `samples` into the slot; the result describes the batch.
pub(crate) fn collate(
    front: &Front,
    writer: &mut SlotWriter,
    samples: &Bound<'_, PyList>,
) -> PyResult<Value> {
    let rows: Vec<_> = samples.iter().collect();
    Collator { front, writer, py: samples.py() }.collate(&rows, false, 0)
}

struct Collator<'a, 'py> {
    front: &'a Front,
    writer: &'a mut SlotWriter,
    py: Python<'py>,
}

impl<'py> Collator<'_, 'py> {
    /// `zipped`: the samples came out of a `zip`, so the front would see a tuple of them.
    fn collate(&mut self, samples: &[Bound<'py, PyAny>], zipped: bool, depth: usize) -> PyResult<Value> {
        let native = match samples.first() {
            Some(first) if depth < MAX_DEPTH => self.native(first, samples, zipped, depth)?,
            _ => None,
        };
        match native {
            Some(value) => Ok(value),
            None => self.by_the_front(samples, zipped, depth),
        }
    }

    fn native(
        &mut self,
        first: &Bound<'py, PyAny>,
        samples: &[Bound<'py, PyAny>],
        zipped: bool,
        depth: usize,
    ) -> PyResult<Option<Value>> {
        if let Some(kind) = self.kind_of(first) {
            return self.stack(kind, samples);
        }
        if first.is_exact_instance_of::<PyInt>() {
            return self.column(samples, DType::I64, |sample| {
                if sample.is_exact_instance_of::<PyInt>() {
                    sample.extract::<i64>().ok().map(i64::to_ne_bytes)
                } else {
                    None
                }
            });
        }
        if first.is_exact_instance_of::<PyFloat>() {
            let bits =
                |sample: &Bound<'py, PyAny>| Some(sample.cast_exact::<PyFloat>().ok()?.value().to_ne_bytes());
            return self.column(samples, DType::F64, bits);
        }
        if first.is_exact_instance_of::<PyBool>() {
            let truth =
                |sample: &Bound<'py, PyAny>| Some([u8::from(sample.cast_exact::<PyBool>().ok()?.is_true())]);
            return self.column(samples, DType::BOOL, truth);
        }
        if first.is_exact_instance_of::<PyString>() || first.is_exact_instance_of::<PyBytes>() {
            let texts: Option<Vec<_>> = samples.iter().map(scalar).collect();
            return Ok(texts.map(|texts| if zipped { Value::Tuple(texts) } else { Value::List(texts) }));
        }
        if let Ok(dict) = first.cast_exact::<PyDict>() {
            return self.dicts(dict, samples, depth);
        }
        let named = !first.is_exact_instance_of::<PyTuple>()
            && first.cast::<PyTuple>().is_ok()
            && is_named_tuple(first);
        if named || first.is_exact_instance_of::<PyTuple>() || first.is_exact_instance_of::<PyList>() {
            return self.sequences(first, named, samples, depth);
        }
        Ok(None)
    }

    /// Exact array types, and NumPy's arrays over files, which every `default_collate` treats as arrays.
    fn kind_of(&self, object: &Bound<'py, PyAny>) -> Option<Kind> {
        let memmap = object.get_type_ptr() == self.front.memmap.as_ptr().cast();
        if memmap { Some(Kind::Ndarray) } else { kind_of(self.front, object) }
    }

    fn by_the_front(&mut self, samples: &[Bound<'py, PyAny>], zipped: bool, depth: usize) -> PyResult<Value> {
        let py = self.py;
        let samples =
            if zipped { PyTuple::new(py, samples)?.into_any() } else { PyList::new(py, samples)?.into_any() };
        let batch = self.front.collate.bind(py).call1((samples,))?;
        encode(self.front, self.writer, &batch, depth)
    }

    /// Scalars of one type become a vector.
    fn column<const N: usize>(
        &mut self,
        samples: &[Bound<'py, PyAny>],
        dtype: DType,
        bytes: impl Fn(&Bound<'py, PyAny>) -> Option<[u8; N]>,
    ) -> PyResult<Option<Value>> {
        let mut column = Vec::with_capacity(samples.len() * N);
        for sample in samples {
            let Some(bytes) = bytes(sample) else { return Ok(None) };
            column.extend_from_slice(&bytes);
        }
        let array = self.allocate(dtype, vec![samples.len() as u64])?;
        self.writer.write(array.span.offset, &column).map_err(|error| raise_shm(self.py, error))?;
        Ok(Some(Value::Array(array)))
    }

    /// Arrays of one shape and element type become one array with a dimension more.
    fn stack(&mut self, kind: Kind, samples: &[Bound<'py, PyAny>]) -> PyResult<Option<Value>> {
        let Some(sources) = self.uniform(kind, samples) else { return Ok(None) };
        let view = &sources[0].view;
        let mut shape = vec![samples.len() as u64];
        shape.extend(&view.shape);
        let contiguous = sources.iter().all(|source| source.view.strides.is_none());
        let array = self.allocate(view.dtype, shape)?;
        if contiguous {
            let row = array.span.len / samples.len() as u64;
            for (place, source) in sources.iter().enumerate() {
                let offset = array.span.offset + place as u64 * row;
                // SAFETY: a contiguous source has as many bytes as a row, `sources` keeps it, and it is not in the slot,
                // whose bytes nothing but this writer knows.
                unsafe { copy(self.writer, offset, source.view.address, row) }
                    .map_err(|error| raise_shm(self.py, error))?;
            }
        } else {
            self.stack_by_the_front(kind, samples, &array)?;
        }
        Ok(Some(Value::Array(array)))
    }

    /// The sources of all samples, if they agree in shape and element type.
    fn uniform(&self, kind: Kind, samples: &[Bound<'py, PyAny>]) -> Option<Vec<Source>> {
        let mut sources: Vec<Source> = Vec::with_capacity(samples.len());
        for sample in samples {
            if self.kind_of(sample) != Some(kind) {
                return None;
            }
            let source = source(self.front, kind, sample)?;
            if let Some(first) = sources.first()
                && (source.view.shape != first.view.shape || source.view.dtype != first.view.dtype)
            {
                return None;
            }
            sources.push(source);
        }
        Some(sources)
    }

    /// Strided samples: the library copies them in its own order, but into the slot.
    fn stack_by_the_front(
        &mut self,
        kind: Kind,
        samples: &[Bound<'py, PyAny>],
        array: &Array,
    ) -> PyResult<()> {
        let py = self.py;
        let bytes = self.writer.bytes_mut(array.span.offset, array.span.len);
        let address = bytes.map_err(|error| raise_shm(py, error))?.as_mut_ptr() as usize;
        let out = match (&self.front.tensor, kind) {
            // SAFETY: the bytes are allocated to this writer, and `out` dies before it is published, below.
            (Some(tensor), Kind::Tensor) => unsafe { tensor.borrow(py, array, address) }?,
            _ => self.ndarray_over(py, array, address)?,
        };
        self.front.stack.bind(py).call1((PyList::new(py, samples)?, &out))?;
        Ok(())
    }

    fn ndarray_over(&self, py: Python<'py>, array: &Array, address: usize) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: as in `stack_by_the_front`: writable, exclusive, and outlives `out`.
        let memory = unsafe {
            let start = address as *mut std::ffi::c_char;
            pyo3::ffi::PyMemoryView_FromMemory(start, array.span.len as isize, pyo3::ffi::PyBUF_WRITE)
        };
        // SAFETY: a new reference, or null with an exception set.
        let memory = unsafe { Bound::from_owned_ptr_or_err(py, memory) }?;
        let dtype = self.front.dtypes.bind(py).get_item((array.dtype.code, array.dtype.bits))?;
        self.front.ndarray.bind(py).call1((PyTuple::new(py, &array.shape)?, dtype, memory))
    }

    fn allocate(&mut self, dtype: DType, shape: Vec<u64>) -> PyResult<Array> {
        let len = forebay_engine::layout::extent(dtype, &shape, None).unwrap_or(u64::MAX);
        let offset = self.writer.allocate(len).map_err(|error| raise_shm(self.py, error))?;
        // Every array a default collate makes is of the front's own kind, whatever the samples were.
        let flavour = self.front.flavour();
        Ok(Array { flavour, dtype, shape, strides: None, span: Span { offset, len } })
    }

    /// The first sample's keys decide; others may have more.
    fn dicts(
        &mut self,
        first: &Bound<'py, PyDict>,
        samples: &[Bound<'py, PyAny>],
        depth: usize,
    ) -> PyResult<Option<Value>> {
        let Ok(dicts) =
            samples.iter().map(|sample| sample.cast_exact::<PyDict>()).collect::<Result<Vec<_>, _>>()
        else {
            return Ok(None);
        };
        let mut pairs = Vec::with_capacity(first.len());
        for key in first.keys() {
            let Some(name) = scalar(&key) else { return Ok(None) };
            let mut column = Vec::with_capacity(samples.len());
            for dict in &dicts {
                // A missing key is the front's to report.
                let Some(value) = dict.get_item(&key)? else { return Ok(None) };
                column.push(value);
            }
            pairs.push((name, self.collate(&column, false, depth + 1)?));
        }
        Ok(Some(Value::Map(pairs)))
    }

    /// Tuples become lists (as ever in torch), lists stay lists, named tuples stay what they are.
    fn sequences(
        &mut self,
        first: &Bound<'py, PyAny>,
        named: bool,
        samples: &[Bound<'py, PyAny>],
        depth: usize,
    ) -> PyResult<Option<Value>> {
        let class = first.get_type_ptr();
        if samples.iter().any(|sample| sample.get_type_ptr() != class) {
            return Ok(None);
        }
        let rows: Vec<Vec<Bound<'py, PyAny>>> = samples.iter().map(items).collect::<PyResult<_>>()?;
        let width = rows[0].len();
        if rows.iter().any(|row| row.len() != width) {
            return Ok(None);
        }
        let mut fields = Vec::with_capacity(width);
        for place in 0..width {
            let column: Vec<_> = rows.iter().map(|row| row[place].clone()).collect();
            fields.push(self.collate(&column, true, depth + 1)?);
        }
        if named {
            let class = self.front.name_class(first.get_type().as_any())?;
            return Ok(Some(Value::Record { class, fields }));
        }
        Ok(Some(Value::List(fields)))
    }
}

fn items<'py>(sequence: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    if let Ok(list) = sequence.cast::<PyList>() {
        return Ok(list.iter().collect());
    }
    Ok(sequence.cast::<PyTuple>()?.iter().collect())
}
