//! What differs between the NumPy and the torch front, told once by the front itself.

use std::collections::HashMap;
use std::sync::Mutex;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyType};

use crate::dlpack::TensorApi;

/// An array of a batch becomes a NumPy array.
pub(crate) const NDARRAY: u8 = 0;
/// An array of a batch becomes a tensor.
pub(crate) const TENSOR: u8 = 1;

/// How a front turns objects into bytes and back.
///
/// Args:
///     ndarray: NumPy's array type.
///     memmap: NumPy's type of arrays over files.
///     dtypes: NumPy's element types by DLPack's (code, bits).
///     dump: `object -> (bytes, buffers)`, for what the engine cannot describe itself.
///     load: `(buffer, buffers) -> object`, its inverse.
///     collate: the front's own `default_collate`, for what is not uniform.
///     stack: `(samples, out)`, which stacks arrays or tensors into `out`.
///     tensor: the tensor type of the front, or None when batches are of NumPy arrays.
///     byte_dtypes: the tensor library's element types of one signed or unsigned byte; others that DLPack cannot tell from
///         them (torch has integers of 1 to 7 bits) go another way.
#[pyclass(frozen, module = "forebay._engine")]
#[derive(Debug)]
pub struct Front {
    pub(crate) ndarray: Py<PyType>,
    pub(crate) memmap: Py<PyType>,
    pub(crate) dtypes: Py<PyDict>,
    pub(crate) dump: Py<PyAny>,
    pub(crate) load: Py<PyAny>,
    pub(crate) collate: Py<PyAny>,
    pub(crate) stack: Py<PyAny>,
    pub(crate) tensor: Option<TensorApi>,
    pub(crate) byte_dtypes: Vec<Py<PyAny>>,
    /// Classes of named tuples by what they are pickled to.
    classes: Mutex<HashMap<Vec<u8>, Py<PyAny>>>,
    /// What classes of named tuples are pickled to, by their addresses.
    names: Mutex<HashMap<usize, Named>>,
}

/// A class and the bytes that name it in another process.
#[derive(Debug)]
struct Named {
    name: Vec<u8>,
    /// Held, so that its address stays its own.
    _class: Py<PyAny>,
}

#[pymethods]
impl Front {
    #[new]
    #[pyo3(signature = (*, ndarray, memmap, dtypes, dump, load, collate, stack, tensor=None, byte_dtypes=Vec::new()))]
    #[expect(clippy::too_many_arguments, reason = "keyword-only, and each is a different part of the front")]
    fn new(
        ndarray: Py<PyType>,
        memmap: Py<PyType>,
        dtypes: Py<PyDict>,
        dump: Py<PyAny>,
        load: Py<PyAny>,
        collate: Py<PyAny>,
        stack: Py<PyAny>,
        tensor: Option<Bound<'_, PyType>>,
        byte_dtypes: Vec<Py<PyAny>>,
    ) -> PyResult<Self> {
        let tensor = tensor.map(|tensor| TensorApi::of(&tensor)).transpose()?;
        Ok(Self {
            ndarray,
            memmap,
            dtypes,
            dump,
            load,
            collate,
            stack,
            tensor,
            byte_dtypes,
            classes: Mutex::default(),
            names: Mutex::default(),
        })
    }
}

impl Front {
    /// What a stacked array becomes.
    pub(crate) fn flavour(&self) -> u8 {
        if self.tensor.is_some() { TENSOR } else { NDARRAY }
    }

    /// The bytes that name `class` in another process.
    pub(crate) fn name_class(&self, class: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        let key = class.as_ptr() as usize;
        let known = self.names.lock().ok().and_then(|names| names.get(&key).map(|named| named.name.clone()));
        if let Some(name) = known {
            return Ok(name);
        }
        let (body, buffers): (Bound<'_, PyBytes>, Vec<Bound<'_, PyAny>>) =
            self.dump.bind(class.py()).call1((class,))?.extract()?;
        if !buffers.is_empty() {
            return Err(PyTypeError::new_err("a class cannot have buffers"));
        }
        let name = body.as_bytes().to_vec();
        if let Ok(mut names) = self.names.lock() {
            names.insert(key, Named { name: name.clone(), _class: class.clone().unbind() });
        }
        Ok(name)
    }

    /// The class that [`name_class`](Self::name_class) named, in the process that made the batch.
    pub(crate) fn class_named<'py>(&self, py: Python<'py>, name: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        // Held only for the look-up: loading a class can run any code.
        let known =
            self.classes.lock().ok().and_then(|classes| classes.get(name).map(|class| class.clone_ref(py)));
        if let Some(class) = known {
            return Ok(class.into_bound(py));
        }
        let class = self.load.bind(py).call1((PyBytes::new(py, name), Vec::<Py<PyAny>>::new()))?;
        if let Ok(mut classes) = self.classes.lock() {
            classes.insert(name.to_vec(), class.clone().unbind());
        }
        Ok(class)
    }
}
