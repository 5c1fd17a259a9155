//! Engine errors as Python exceptions. The classes are defined in Python (`forebay.errors`), so that they can have the
//! bases users expect; here they are only found and raised.

use forebay_engine::EngineError;
use forebay_shm::ShmError;
use pyo3::BoundObject;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The exception `forebay.errors.<name>(*arguments)`.
pub(crate) fn exception<'py, A>(py: Python<'py>, name: &str, arguments: A) -> PyErr
where
    A: IntoPyObject<'py, Target = PyTuple>,
{
    let make = || -> PyResult<PyErr> {
        let arguments = arguments.into_pyobject(py).map_err(Into::into)?.into_bound();
        Ok(PyErr::from_value(py.import("forebay.errors")?.getattr(name)?.call1(arguments)?))
    };
    make().unwrap_or_else(|error| error)
}

/// An engine error, as the exception that a user of Python expects.
pub(crate) fn raise(py: Python<'_>, error: EngineError) -> PyErr {
    let text = error.to_string();
    match error {
        EngineError::Config(_) => exception(py, "ConfigError", (text,)),
        EngineError::Shm(error) => raise_shm(py, error),
        EngineError::WorkerEnded { worker, in_flight, .. } => {
            exception(py, "WorkerEnded", (worker, in_flight))
        }
        EngineError::ForkedChild => exception(py, "ForkedChildError", (text,)),
        _ => exception(py, "EngineError", (text,)),
    }
}

/// An error of the shared memory, as the exception that a user of Python expects.
pub(crate) fn raise_shm(py: Python<'_>, error: ShmError) -> PyErr {
    let name = match &error {
        ShmError::OverBudget { .. } | ShmError::TooLarge { .. } | ShmError::NoMemory { .. } => {
            "SharedMemoryError"
        }
        _ => "EngineError",
    };
    exception(py, name, (error.to_string(),))
}
