#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod array;
mod batch;
mod collate;
mod dataset;
mod error;
mod loader;
mod order;
mod threads;

pub use array::{Array, DType, Element};
pub use batch::{ArrayView, ArrayViewMut, Batch};
pub use dataset::{BoxError, Dataset, Sample};
pub use error::Error;
pub use loader::{Batches, Builder, DataLoader};
