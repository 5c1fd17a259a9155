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
mod sample_rng;
mod sampler;
mod state;
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
pub use forebay_order::Uneven;
pub use loader::{Batches, DataLoader};
pub use processes::{WorkerEntry, worker_entry};
pub use recipe::{Indexed, Source, Streamed};
pub use sample_rng::{SampleRng, sample_rng, with_sample_rng};
pub use sampler::{BatchSampler, Sampler};
pub use state::{LoaderState, SamplerKind};
