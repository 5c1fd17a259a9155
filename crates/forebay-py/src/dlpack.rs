//! Tensors without their library: DLPack's C structures and its exchange interface (DLPack 1.2 and later), by which torch
//! hands us a tensor's address and takes a tensor over our bytes, in well under a microsecond each.
//!
//! The structures are those of `dlpack.h`, whose layout is frozen within major version 1; [`TensorApi::of`] refuses any
//! other.

use std::ffi::{CStr, c_int, c_void};

use forebay_engine::layout::{Array, DType, extent};
use forebay_shm::Region;
use pyo3::exceptions::{PyImportError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyCapsuleMethods, PyType};

const MAJOR_VERSION: u32 = 1;
const CPU: i32 = 1;
const EXCHANGE_NAME: &CStr = c"dlpack_exchange_api";

#[repr(C)]
#[derive(Clone, Copy)]
struct Version {
    major: u32,
    minor: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Device {
    kind: i32,
    id: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: Device,
    dimensions: i32,
    dtype: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct ManagedTensor {
    version: Version,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut ManagedTensor)>,
    flags: u64,
    tensor: Tensor,
}

type ToObject = unsafe extern "C" fn(*mut ManagedTensor, *mut *mut c_void) -> c_int;
type FromObject = unsafe extern "C" fn(*mut c_void, *mut Tensor) -> c_int;

#[repr(C)]
struct ExchangeApi {
    version: Version,
    previous: *mut c_void,
    allocate: *const c_void,
    managed_from_object: *const c_void,
    to_object: Option<ToObject>,
    from_object: Option<FromObject>,
    current_stream: *const c_void,
}

/// A tensor library's two functions that we need.
#[derive(Debug)]
pub(crate) struct TensorApi {
    pub(crate) class: Py<PyType>,
    to_object: ToObject,
    from_object: FromObject,
}

/// Where a tensor's elements are, on the CPU.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) address: usize,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<u64>,
    /// In elements; `None` when contiguous.
    pub(crate) strides: Option<Vec<u64>>,
}

impl TensorApi {
    /// The interface that a tensor class offers.
    pub(crate) fn of(class: &Bound<'_, PyType>) -> PyResult<Self> {
        let missing =
            |what: &str| PyImportError::new_err(format!("{class} {what}; forebay.torch needs torch >= 2.10"));
        let capsule = class
            .getattr("__dlpack_c_exchange_api__")
            .map_err(|_| missing("has no DLPack exchange interface"))?;
        let capsule = capsule.cast_into::<PyCapsule>().map_err(|_| missing("offers no capsule"))?;
        let pointer = capsule.pointer_checked(Some(EXCHANGE_NAME))?.cast::<ExchangeApi>();
        // SAFETY: the capsule's name promises this structure, static in the library; its version comes first in every
        // version of it and is checked before any other field is used.
        let version = unsafe { (*pointer.as_ptr()).version };
        if version.major != MAJOR_VERSION || version.minor < 2 {
            return Err(missing("offers another version of the DLPack exchange interface"));
        }
        // SAFETY: as above; major version 1 has these fields, and the structure is never written.
        let api = unsafe { pointer.as_ref() };
        let to_object = api.to_object.ok_or_else(|| missing("cannot take tensors"))?;
        let from_object = api.from_object.ok_or_else(|| missing("cannot lend tensors"))?;
        Ok(Self { class: class.clone().unbind(), to_object, from_object })
    }

    /// Where `tensor`'s elements are, or `None` when they are not plainly in this process's memory (another device,
    /// sparse, quantised, conjugated, ...).
    pub(crate) fn view(&self, tensor: &Bound<'_, PyAny>) -> Option<View> {
        let mut lent = Tensor {
            data: std::ptr::null_mut(),
            device: Device { kind: 0, id: 0 },
            dimensions: 0,
            dtype: DataType { code: 0, bits: 0, lanes: 0 },
            shape: std::ptr::null_mut(),
            strides: std::ptr::null_mut(),
            byte_offset: 0,
        };
        // SAFETY: the function belongs to the class whose exact type the caller checked `tensor` to be; `lent` is ours.
        let refused = unsafe { (self.from_object)(tensor.as_ptr().cast(), &raw mut lent) };
        if refused != 0 {
            // The refusal is the answer; its exception says no more to us.
            let _ = PyErr::take(tensor.py());
            return None;
        }
        let plain = lent.device.kind == CPU && lent.dtype.lanes == 1;
        let dimensions = usize::try_from(lent.dimensions).ok()?;
        if !plain || dimensions > forebay_engine::layout::MAX_DIMENSIONS {
            return None;
        }
        // SAFETY: the library says that `shape` has `dimensions` entries as long as `tensor` lives, which is longer than
        // this call.
        let shape = unsafe { numbers(lent.shape, dimensions) }?;
        // SAFETY: as for `shape`.
        let strides = unsafe { numbers(lent.strides, dimensions) };
        let strides = strides.filter(|strides| !is_contiguous(&shape, strides));
        let dtype = DType { code: lent.dtype.code, bits: lent.dtype.bits };
        dtype.bytes()?;
        // Some tensors are rules instead of memory (torch has one of zeros).
        if lent.data.is_null() && extent(dtype, &shape, strides.as_deref())? > 0 {
            return None;
        }
        Some(View { address: lent.data as usize + lent.byte_offset as usize, dtype, shape, strides })
    }

    /// A tensor over `region`, which it owns.
    pub(crate) fn tensor<'py>(
        &self,
        py: Python<'py>,
        array: &Array,
        region: Region,
    ) -> PyResult<Bound<'py, PyAny>> {
        let managed = Managed::new(array, Some(region), None);
        self.take(py, managed)
    }

    /// A tensor over bytes that it does not own, for a library function to write into.
    ///
    /// # Safety
    /// `address` must be writable for the array's extent until the tensor has died.
    pub(crate) unsafe fn borrow<'py>(
        &self,
        py: Python<'py>,
        array: &Array,
        address: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.take(py, Managed::new(array, None, Some(address)))
    }

    fn take<'py>(&self, py: Python<'py>, managed: Box<Managed>) -> PyResult<Bound<'py, PyAny>> {
        let managed = Box::into_raw(managed);
        let mut object = std::ptr::null_mut();
        // SAFETY: `ManagedTensor` is the first field of the `repr(C)` structure `Managed`; the library owns it from here and
        // calls `delete` once.
        let refused = unsafe { (self.to_object)(managed.cast(), &raw mut object) };
        if refused != 0 {
            // Whether the library has taken the structure before it failed is not said: rather leak it than free it twice.
            return Err(PyErr::take(py)
                .unwrap_or_else(|| PyRuntimeError::new_err("the tensor library refused a tensor")));
        }
        // SAFETY: on success `object` is a new reference, or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, object.cast()) }
    }
}

/// A managed tensor with everything it points to.
#[repr(C)]
struct Managed {
    head: ManagedTensor,
    shape: Vec<i64>,
    strides: Vec<i64>,
    /// Dropped with the tensor's storage, on whatever thread that dies.
    region: Option<Region>,
}

impl Managed {
    fn new(array: &Array, region: Option<Region>, address: Option<usize>) -> Box<Self> {
        let data = match &region {
            Some(region) => region.pointer().as_ptr().cast(),
            None => address.unwrap_or(0) as *mut c_void,
        };
        let shape: Vec<i64> = array.shape.iter().map(|count| *count as i64).collect();
        let strides = match &array.strides {
            Some(strides) => strides.iter().map(|stride| *stride as i64).collect(),
            None => contiguous(&shape),
        };
        let tensor = Tensor {
            data,
            device: Device { kind: CPU, id: 0 },
            dimensions: shape.len() as i32,
            dtype: DataType { code: array.dtype.code, bits: array.dtype.bits, lanes: 1 },
            shape: std::ptr::null_mut(),
            strides: std::ptr::null_mut(),
            byte_offset: 0,
        };
        let version = Version { major: MAJOR_VERSION, minor: 2 };
        let head =
            ManagedTensor { version, context: std::ptr::null_mut(), deleter: Some(delete), flags: 0, tensor };
        let mut managed = Box::new(Self { head, shape, strides, region });
        managed.head.tensor.shape = managed.shape.as_mut_ptr();
        managed.head.tensor.strides = managed.strides.as_mut_ptr();
        managed
    }
}

/// Called by the tensor library when the storage dies: on any thread, with or without the interpreter's lock.
unsafe extern "C" fn delete(managed: *mut ManagedTensor) {
    // SAFETY: only `take` gives this function out, with a pointer to the first field of a boxed `Managed`; the library calls
    // it once.
    drop(unsafe { Box::from_raw(managed.cast::<Managed>()) });
}

/// # Safety
/// `start` must be null or point to `count` integers.
unsafe fn numbers(start: *const i64, count: usize) -> Option<Vec<u64>> {
    if count == 0 {
        return Some(Vec::new());
    }
    if start.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller promises `count` integers.
    let numbers = unsafe { std::slice::from_raw_parts(start, count) };
    numbers.iter().map(|number| u64::try_from(*number).ok()).collect()
}

/// The strides of a contiguous array of this shape.
pub(crate) fn contiguous(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for place in (0..shape.len().saturating_sub(1)).rev() {
        strides[place] = strides[place + 1] * shape[place + 1].max(1);
    }
    strides
}

fn is_contiguous(shape: &[u64], strides: &[u64]) -> bool {
    let mut expected = 1;
    for (count, stride) in shape.iter().zip(strides).rev() {
        if *count != 1 && *stride != expected {
            return shape.contains(&0);
        }
        expected *= *count;
    }
    true
}
