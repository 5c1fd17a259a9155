#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod array;
mod batch;
mod builder;
mod collate;
mod crewed;
mod dataset;
mod error;
mod failure;
mod loader;
mod order;
mod processes;
mod recipe;
mod sampler;
mod threads;
mod worker;

#[doc = include_str!("../guide.md")]
pub mod guide {}

pub use array::{Array, DType, Element};
pub use batch::{ArrayView, ArrayViewMut, Batch, OwnedArray};
pub use builder::Builder;
pub use collate::{ArrayId, BatchWriter, Collate, Samples, Stack};
pub use dataset::{BoxError, Dataset, IterableDataset, Sample, Stream, WorkerInfo};
pub use error::Error;
pub use failure::RemoteError;
pub use loader::{Batches, DataLoader};
pub use processes::{WorkerEntry, worker_entry};
pub use recipe::{Indexed, Source, Streamed};
pub use sampler::{BatchSampler, Sampler};
