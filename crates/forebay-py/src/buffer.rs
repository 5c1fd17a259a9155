//! Bytes of a batch as a Python object with the buffer protocol: what NumPy arrays and unpickled objects stand on.

use std::ffi::c_int;

use forebay_shm::Region;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Writable bytes of one array of a batch. The slot they are in returns when the last view of them dies.
#[pyclass(frozen, module = "forebay._engine")]
#[derive(Debug)]
pub struct Buffer {
    region: Region,
}

impl Buffer {
    pub(crate) fn new(region: Region) -> Self {
        Self { region }
    }
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.region.len()
    }

    /// # Safety
    /// Called by the interpreter with a `view` to fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let region = &slf.get().region;
        let len = isize::try_from(region.len())?;
        // SAFETY: `view` is the interpreter's, not null; the bytes stay where they are as long as `slf` lives, and
        // `PyBuffer_FillInfo` takes a reference to `slf` for the view.
        let refused = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), region.pointer().as_ptr().cast(), len, 0, flags)
        };
        if refused == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
