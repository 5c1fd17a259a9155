//! A batch as Python objects, over its bytes where they are.

use forebay_engine::layout::{Array, Value};
use forebay_shm::Region;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::buffer::Buffer;
use crate::front::{Front, TENSOR};

/// What `value` describes, whose bytes are in `regions`, in the order of its spans.
pub(crate) fn decode<'py>(
    py: Python<'py>,
    front: &Front,
    value: Value,
    regions: Vec<Region>,
) -> PyResult<Bound<'py, PyAny>> {
    Decoder { py, front, regions: regions.into_iter() }.value(value)
}

struct Decoder<'a, 'py> {
    py: Python<'py>,
    front: &'a Front,
    /// In the order of the walk.
    regions: std::vec::IntoIter<Region>,
}

impl<'py> Decoder<'_, 'py> {
    fn value(&mut self, value: Value) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        match value {
            Value::None => Ok(py.None().into_bound(py)),
            Value::Bool(truth) => truth.into_bound_py_any(py),
            Value::Int(number) => number.into_bound_py_any(py),
            Value::Float(number) => number.into_bound_py_any(py),
            Value::Text(text) => text.into_bound_py_any(py),
            Value::Bytes(bytes) => Ok(PyBytes::new(py, &bytes).into_any()),
            Value::Array(array) => self.array(&array),
            Value::List(values) => Ok(PyList::new(py, self.all(values)?)?.into_any()),
            Value::Tuple(values) => Ok(PyTuple::new(py, self.all(values)?)?.into_any()),
            Value::Map(pairs) => self.dict(pairs),
            Value::Record { class, fields } => {
                let class = self.front.class_named(py, &class)?;
                class.call_method1(intern!(py, "_make"), (self.all(fields)?,))
            }
            Value::Opaque { buffers, .. } => self.unpickle(buffers.len()),
        }
    }

    fn all(&mut self, values: Vec<Value>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        values.into_iter().map(|value| self.value(value)).collect()
    }

    fn dict(&mut self, pairs: Vec<(Value, Value)>) -> PyResult<Bound<'py, PyAny>> {
        let dict = PyDict::new(self.py);
        for (key, value) in pairs {
            dict.set_item(self.value(key)?, self.value(value)?)?;
        }
        Ok(dict.into_any())
    }

    fn array(&mut self, array: &Array) -> PyResult<Bound<'py, PyAny>> {
        let region = self.region()?;
        match &self.front.tensor {
            Some(tensor) if array.flavour == TENSOR => tensor.tensor(self.py, array, region),
            _ => self.ndarray(array, region),
        }
    }

    fn ndarray(&self, array: &Array, region: Region) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let unknown = || PyRuntimeError::new_err(format!("NumPy has no element type for {:?}", array.dtype));
        let dtype =
            self.front.dtypes.bind(py).get_item((array.dtype.code, array.dtype.bits))?.ok_or_else(unknown)?;
        let shape = PyTuple::new(py, &array.shape)?;
        let buffer = Bound::new(py, Buffer::new(region))?;
        self.front.ndarray.bind(py).call1((shape, dtype, buffer))
    }

    fn unpickle(&mut self, buffers: usize) -> PyResult<Bound<'py, PyAny>> {
        let body = Bound::new(self.py, Buffer::new(self.region()?))?;
        let buffers: PyResult<Vec<_>> =
            (0..buffers).map(|_| Bound::new(self.py, Buffer::new(self.region()?))).collect();
        self.front.load.bind(self.py).call1((body, buffers?))
    }

    fn region(&mut self) -> PyResult<Region> {
        self.regions
            .next()
            .ok_or_else(|| PyRuntimeError::new_err("a batch has fewer regions than its layout says"))
    }
}
