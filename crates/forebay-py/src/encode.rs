//! Any Python object into a slot.
//!
//! Arrays, tensors and plain containers of the exact built-in types are described by the engine's own layout; their
//! elements are copied straight into the slot. As soon as anything else is met, or anything that two places of the
//! batch share, the whole batch is pickled instead, with large buffers out of band: pickle keeps identity.

use std::collections::HashSet;

use forebay_engine::layout::{Array, MAX_DEPTH, Value};
use forebay_shm::{ShmError, SlotWriter, Span};
use pyo3::buffer::PyBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::arrays::{Kind, Source, kind_of, source};
use crate::error::raise_shm;
use crate::front::{Front, NDARRAY, TENSOR};

/// Puts `object`, which is `depth` containers deep in the batch, into the slot; the result describes it.
pub(crate) fn encode(
    front: &Front,
    writer: &mut SlotWriter,
    object: &Bound<'_, PyAny>,
    depth: usize,
) -> PyResult<Value> {
    let start = writer.used();
    let mut encoder = Encoder { front, writer, seen: HashSet::new(), extents: Vec::new() };
    match encoder.value(object, depth)? {
        Some(value) if !encoder.shares_memory() => Ok(value),
        _ => {
            writer.truncate(start);
            pickle(front, writer, object)
        }
    }
}

/// Pickles `object` into the slot, large buffers beside the pickle.
pub(crate) fn pickle(front: &Front, writer: &mut SlotWriter, object: &Bound<'_, PyAny>) -> PyResult<Value> {
    let py = object.py();
    let (body, buffers): (Bound<'_, PyBytes>, Vec<Bound<'_, PyAny>>) =
        front.dump.bind(py).call1((object,))?.extract()?;
    let mut spans = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        spans.push(append_buffer(writer, &buffer)?);
    }
    let body = append(py, writer, body.as_bytes())?;
    Ok(Value::Opaque { body, buffers: spans })
}

fn append(py: Python<'_>, writer: &mut SlotWriter, bytes: &[u8]) -> PyResult<Span> {
    let offset = writer.append(bytes).map_err(|error| raise_shm(py, error))?;
    Ok(Span { offset, len: bytes.len() as u64 })
}

fn append_buffer(writer: &mut SlotWriter, buffer: &Bound<'_, PyAny>) -> PyResult<Span> {
    let py = buffer.py();
    let bytes = PyBuffer::<u8>::get(buffer)?;
    let len = bytes.len_bytes() as u64;
    let offset = writer.allocate(len).map_err(|error| raise_shm(py, error))?;
    match bytes.as_slice_ptr() {
        // SAFETY: `bytes` keeps its memory where it is and is contiguous; no Python code runs during the copy.
        Some(source) => unsafe { copy(writer, offset, source.cast::<u8>().as_ptr() as usize, len) },
        None => {
            let target = writer.bytes_mut(offset, len).map_err(|error| raise_shm(py, error))?;
            return bytes.copy_to_slice(py, target).map(|()| Span { offset, len });
        }
    }
    .map_err(|error| raise_shm(py, error))?;
    Ok(Span { offset, len })
}

struct Encoder<'a> {
    front: &'a Front,
    writer: &'a mut SlotWriter,
    /// Addresses of the mutable objects met so far.
    seen: HashSet<usize>,
    /// First and last byte of every tensor met so far.
    extents: Vec<(usize, usize)>,
}

/// `None`: this object, and so the batch, has to be pickled.
type Encoded = PyResult<Option<Value>>;

impl Encoder<'_> {
    fn value(&mut self, object: &Bound<'_, PyAny>, depth: usize) -> Encoded {
        if let Some(kind) = kind_of(self.front, object) {
            return self.array(kind, object);
        }
        if let Some(scalar) = scalar(object) {
            return Ok(Some(scalar));
        }
        if depth >= MAX_DEPTH {
            return Ok(None);
        }
        if let Ok(list) = object.cast_exact::<PyList>() {
            return if self.is_new(object) {
                Ok(self.all(list.iter(), depth)?.map(Value::List))
            } else {
                Ok(None)
            };
        }
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            return Ok(self.all(tuple.iter(), depth)?.map(Value::Tuple));
        }
        if let Ok(dict) = object.cast_exact::<PyDict>() {
            return if self.is_new(object) { self.dict(dict, depth) } else { Ok(None) };
        }
        match object.cast::<PyTuple>() {
            Ok(tuple) if is_named_tuple(object) => self.record(tuple, depth),
            _ => Ok(None),
        }
    }

    fn is_new(&mut self, object: &Bound<'_, PyAny>) -> bool {
        self.seen.insert(object.as_ptr() as usize)
    }

    fn all<'py>(
        &mut self,
        objects: impl Iterator<Item = Bound<'py, PyAny>>,
        depth: usize,
    ) -> PyResult<Option<Vec<Value>>> {
        objects.map(|object| self.value(&object, depth + 1)).collect()
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>, depth: usize) -> Encoded {
        let mut pairs = Vec::with_capacity(dict.len());
        for (key, value) in dict.iter() {
            let (Some(key), Some(value)) = (scalar(&key), self.value(&value, depth + 1)?) else {
                return Ok(None);
            };
            pairs.push((key, value));
        }
        Ok(Some(Value::Map(pairs)))
    }

    fn record(&mut self, tuple: &Bound<'_, PyTuple>, depth: usize) -> Encoded {
        let Some(fields) = self.all(tuple.iter(), depth)? else { return Ok(None) };
        // A class that cannot be named cannot be pickled either: pickle says so best.
        let class = self.front.name_class(tuple.get_type().as_any());
        Ok(class.ok().map(|class| Value::Record { class, fields }))
    }

    fn array(&mut self, kind: Kind, object: &Bound<'_, PyAny>) -> Encoded {
        let py = object.py();
        if !self.is_new(object) {
            return Ok(None);
        }
        let Some(source) = source(self.front, kind, object) else { return Ok(None) };
        let Some(extent) = source.extent() else { return Ok(None) };
        let Source { view, .. } = &source;
        // NumPy pickles an array with its elements in order, torch keeps a tensor's strides.
        if kind == Kind::Ndarray && view.strides.is_some() {
            return Ok(None);
        }
        if kind == Kind::Tensor && extent > 0 {
            self.extents.push((view.address, view.address + extent as usize - 1));
        }
        let offset = self.writer.allocate(extent).map_err(|error| raise_shm(py, error))?;
        // SAFETY: the extent of the view is what its library says is there, `source` keeps it there, and it was just
        // allocated in the slot, which nothing outside this writer refers to.
        unsafe { copy(self.writer, offset, view.address, extent) }.map_err(|error| raise_shm(py, error))?;
        let flavour = if kind == Kind::Tensor { TENSOR } else { NDARRAY };
        let Source { view, .. } = source;
        let span = Span { offset, len: extent };
        Ok(Some(Value::Array(Array {
            flavour,
            dtype: view.dtype,
            shape: view.shape,
            strides: view.strides,
            span,
        })))
    }

    /// Whether two tensors share bytes, which a copy of each would undo.
    fn shares_memory(&mut self) -> bool {
        self.extents.sort_unstable();
        self.extents.windows(2).any(|pair| pair[1].0 <= pair[0].1)
    }
}

/// Copies `len` bytes from `address` into what was allocated at `offset`.
///
/// # Safety
/// `len` bytes must be readable at `address` and not be part of the writer's slot.
pub(crate) unsafe fn copy(
    writer: &mut SlotWriter,
    offset: u64,
    address: usize,
    len: u64,
) -> Result<(), ShmError> {
    if len == 0 {
        return Ok(());
    }
    // SAFETY: the caller promises that the bytes are readable; they are not changed during the call, which runs no
    // code but the copy.
    writer.write(offset, unsafe { std::slice::from_raw_parts(address as *const u8, len as usize) })
}

/// Immutable values that stand in the description itself.
pub(crate) fn scalar(object: &Bound<'_, PyAny>) -> Option<Value> {
    if let Ok(text) = object.cast_exact::<PyString>() {
        return text.to_cow().ok().map(|text| Value::Text(text.into_owned()));
    }
    if object.is_exact_instance_of::<PyInt>() {
        return object.extract().ok().map(Value::Int);
    }
    if let Ok(float) = object.cast_exact::<PyFloat>() {
        return Some(Value::Float(float.value()));
    }
    if let Ok(truth) = object.cast_exact::<PyBool>() {
        return Some(Value::Bool(truth.is_true()));
    }
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return Some(Value::Bytes(bytes.as_bytes().to_vec()));
    }
    object.is_none().then_some(Value::None)
}

/// Whether a tuple's class was made by `namedtuple` or `typing.NamedTuple`.
pub(crate) fn is_named_tuple(object: &Bound<'_, PyAny>) -> bool {
    let py = object.py();
    let class = object.get_type();
    let fields =
        class.getattr(intern!(py, "_fields")).is_ok_and(|fields| fields.is_exact_instance_of::<PyTuple>());
    // A subclass with attributes of its own is more than its fields.
    fields && !object.hasattr(intern!(py, "__dict__")).unwrap_or(true)
}
