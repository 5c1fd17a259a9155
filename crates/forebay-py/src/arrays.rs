//! Looking at arrays and tensors: where their elements are, without copying any.

use forebay_engine::layout::{DType, extent};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::intern;
use pyo3::prelude::*;

use crate::dlpack::View;
use crate::front::Front;

/// DLPack's code of complex numbers.
const COMPLEX: u8 = 5;

/// An array or tensor whose elements can be copied: its view, and what keeps it where it is.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) view: View,
    /// Held so that NumPy does not move or free the elements.
    _buffer: Option<PyUntypedBuffer>,
}

/// What kind of thing an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tensor,
    Ndarray,
}

/// Whether `object` is exactly one of the front's array types. Subclasses are not: they may mean something else.
pub(crate) fn kind_of(front: &Front, object: &Bound<'_, PyAny>) -> Option<Kind> {
    let class = object.get_type_ptr();
    if class == front.ndarray.as_ptr().cast() {
        return Some(Kind::Ndarray);
    }
    front.tensor.as_ref().filter(|tensor| class == tensor.class.as_ptr().cast()).map(|_| Kind::Tensor)
}

/// Where the elements of `object` are; `None` when it has to go another way: part of an autograd graph, on another
/// device, of an element type without a plain width, ...
pub(crate) fn source(front: &Front, kind: Kind, object: &Bound<'_, PyAny>) -> Option<Source> {
    match kind {
        Kind::Tensor => tensor_source(front, object),
        Kind::Ndarray => ndarray_source(object),
    }
}

fn tensor_source(front: &Front, tensor: &Bound<'_, PyAny>) -> Option<Source> {
    let py = tensor.py();
    let flag =
        |value: PyResult<Bound<'_, PyAny>>| value.and_then(|value| value.extract::<bool>()).unwrap_or(true);
    if flag(tensor.getattr(intern!(py, "requires_grad"))) || flag(tensor.call_method0(intern!(py, "is_neg")))
    {
        return None;
    }
    let view = front.tensor.as_ref()?.view(tensor)?;
    if is_byte(view.dtype) {
        let dtype = tensor.getattr(intern!(py, "dtype")).ok()?;
        front.byte_dtypes.iter().find(|known| dtype.is(*known))?;
    }
    if view.dtype.code == COMPLEX && flag(tensor.call_method0(intern!(py, "is_conj"))) {
        return None;
    }
    Some(Source { view, _buffer: None })
}

/// Whether DLPack calls it an integer of one byte.
fn is_byte(dtype: DType) -> bool {
    dtype.code <= 1 && dtype.bits == 8
}

fn ndarray_source(array: &Bound<'_, PyAny>) -> Option<Source> {
    // What has no buffer (dates, objects) goes another way.
    let buffer = PyUntypedBuffer::get(array).ok()?;
    let dtype = dtype_of(buffer.format().to_bytes(), buffer.item_size())?;
    let shape: Vec<u64> = buffer.shape().iter().map(|count| *count as u64).collect();
    let strides = if buffer.is_c_contiguous() {
        None
    } else {
        let size = buffer.item_size();
        let strides = buffer.strides().iter().map(|stride| {
            let bytes = usize::try_from(*stride).ok()?;
            bytes.is_multiple_of(size).then_some((bytes / size) as u64)
        });
        Some(strides.collect::<Option<Vec<_>>>()?)
    };
    let view = View { address: buffer.buf_ptr() as usize, dtype, shape, strides };
    Some(Source { view, _buffer: Some(buffer) })
}

/// The element type that a format of the buffer protocol means, in this machine's byte order.
fn dtype_of(format: &[u8], size: usize) -> Option<DType> {
    let format = match format {
        [b'@' | b'=' | b'<', rest @ ..] if cfg!(target_endian = "little") => rest,
        [b'@' | b'=' | b'>', rest @ ..] if cfg!(target_endian = "big") => rest,
        other => other,
    };
    let code = match format {
        b"?" => 6,
        b"b" | b"h" | b"i" | b"l" | b"q" => 0,
        b"B" | b"H" | b"I" | b"L" | b"Q" => 1,
        b"e" | b"f" | b"d" => 2,
        b"Zf" | b"Zd" => 5,
        _ => return None,
    };
    Some(DType { code, bits: u8::try_from(size * 8).ok()? })
}

impl Source {
    /// Bytes from the first to the last element.
    pub(crate) fn extent(&self) -> Option<u64> {
        extent(self.view.dtype, &self.view.shape, self.view.strides.as_deref())
    }
}
