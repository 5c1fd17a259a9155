//! The journey of a batch, for any front (Rust, Python) and any crew (threads, processes).
//!
//! ```text
//! 1 plan      indices from the front's sampler      -> Ticket { step, indices }
//! 2 dispatch  Ticket + free slot                    -> ToWorker::Fill, into a worker's index queue
//! 3 worker    each index: fetch; collate            -> bytes in the slot; FromWorker::Done, into its result queue
//! 4 collect   Done                                  -> Batch { lease, layout }, in step order
//! 5 hand over Batch -> views, by the front
//! 6 return    last view dropped                     -> slot free again
//! ```
//!
//! Where workers share rows ([`EngineConfig::sharing_rows`]), a ticket goes to the board instead, and station 3 is any worker's:
//! each claims row after row, and whoever finishes the last one of a batch publishes it ([`Part`]).
//!
//! Stations 1, 2, 4 and 6 are [`Engine`]; station 3 is [`Worker`], whoever runs it; station 5 differs by front.
//! Who holds a slot is known here and nowhere else (the private module `slots`), so a worker's death needs no repair of shared state.
//!
//! This crate knows no Python and contains no unsafe code.

#![forbid(unsafe_code)]

pub mod config;
pub mod layout;

mod collect;
mod crew;
mod dispatch;
mod engine;
mod error;
mod message;
mod rows;
mod slots;
mod worker;

pub use config::EngineConfig;
pub use crew::{Crew, OutsideCrew, ThreadCrew};
pub use engine::{Batch, Engine, Seat, Turn};
pub use error::{EngineError, WorkerEnd};
pub use message::Outcome;
pub use rows::{Complete, Part, Piece};
pub use worker::{Order, Ticket, Unpublished, Worker};
