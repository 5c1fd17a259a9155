//! One stream everywhere: the order of an epoch and the randomness of every sample, as pure functions.
//!
//! Nothing here has a state that moves on: whoever knows the seed of a loader and the number of an epoch can tell any
//! part of its order, and what a sample's random numbers are, without what came before. So it does not matter who does
//! the work, or when.
//!
//! | what | is a function of |
//! |---|---|
//! | [`Shuffle`], the order of an epoch | seed, epoch, number of samples |
//! | [`Alias`], [`weighted_order`], draws by weight | seed, epoch, weights |
//! | [`Share`], a rank's places in that order | rank, number of ranks |
//! | [`Key::sample_seeds`] and [`Key::sample_rng`], a sample's randomness | seed, epoch, index |
//!
//! All bits come from [`philox`](philox::philox), a counter-based generator. They are part of the public promise: golden
//! values freeze them, and a change of them is named in the changelog under a heading of its own.

#![forbid(unsafe_code)]

mod key;
mod mt19937;
pub mod philox;
mod share;
mod shuffle;
mod torch;
mod weighted;

pub use key::{Key, SampleRng, SampleSeeds, Use};
pub use mt19937::{Mt19937, StateFault};
pub use share::{Share, Uneven};
pub use shuffle::Shuffle;
pub use torch::TorchPermutation;
pub use weighted::{Alias, weighted_order};
