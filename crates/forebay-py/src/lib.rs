//! The Python face of the engine: translation only. What Python sees is the list below; `python/forebay/_engine.pyi`
//! describes it and is checked against it.
//!
//! No decision about order, memory or workers is made here.

mod arrays;
mod buffer;
mod collate;
mod decode;
mod dlpack;
mod encode;
mod engine;
mod error;
mod front;
mod order;
mod worker;

/// Forebay's engine.
#[pyo3::pymodule]
mod _engine {
    #[pymodule_export]
    use crate::buffer::Buffer;
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::engine::Seat;
    #[pymodule_export]
    use crate::front::Front;
    #[pymodule_export]
    use crate::order::Alias;
    #[pymodule_export]
    use crate::order::Shuffle;
    #[pymodule_export]
    use crate::order::TorchPermutation;
    #[pymodule_export]
    use crate::order::base_seed;
    #[pymodule_export]
    use crate::order::collate_seeds;
    #[pymodule_export]
    use crate::order::sample_rng_key;
    #[pymodule_export]
    use crate::order::sample_seeds;
    #[pymodule_export]
    use crate::order::sampler_seeds;
    #[pymodule_export]
    use crate::order::skip_words;
    #[pymodule_export]
    use crate::order::weighted_order;
    #[pymodule_export]
    use crate::worker::Worker;
}
