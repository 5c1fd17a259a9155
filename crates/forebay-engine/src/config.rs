//! What an engine is told once, at birth.

use forebay_shm::memory;

use crate::EngineError;

/// Arrays up to this size are copied out of the slot, so that a kept label does not keep megabytes of images.
pub const SMALL_ARRAY_BYTES: u64 = 4096;

/// Slots that can be in use at once, at least; they cost nothing until they are.
const SLOTS: u32 = 4096;
/// More batches ahead than this is a mistake.
const MAX_WINDOW: u64 = 1 << 16;
/// No batch is larger, whatever the budget.
const MAX_BATCH_BYTES: u64 = 1 << 40;
/// More scratch slots than this would cost more than idle workers do.
const MAX_SCRATCH_SLOTS: u64 = 1 << 14;
/// Where rows are shared, this share of the budget is for samples on their way from worker to worker.
const SCRATCH_SHARE: u64 = 8;
/// The default budget is this share of all memory.
const BUDGET_SHARE: u64 = 2;
/// The default budget where the machine does not tell its memory.
const FALLBACK_BUDGET_BYTES: u64 = 1 << 30;

/// How an [`Engine`](crate::Engine) works. Checked by [`EngineConfig::new`] and immutable afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineConfig {
    workers: u32,
    prefetch_factor: u32,
    in_order: bool,
    memory_budget_bytes: u64,
    shares_rows: bool,
}

impl EngineConfig {
    /// `workers` workers, each with `prefetch_factor` batches ahead, at most `memory_budget_bytes` of shared memory
    /// (half of the memory this process may use when `None`).
    ///
    /// # Errors
    /// [`EngineError::Config`] when a value cannot work.
    pub fn new(
        workers: u32,
        prefetch_factor: u32,
        in_order: bool,
        memory_budget_bytes: Option<u64>,
    ) -> Result<Self, EngineError> {
        let window = u64::from(workers) * u64::from(prefetch_factor);
        if workers == 0 || prefetch_factor == 0 || window > MAX_WINDOW {
            return Err(EngineError::Config(format!(
                "num_workers * prefetch_factor must be from 1 to {MAX_WINDOW} batches ahead, but is {workers} * \
                 {prefetch_factor}"
            )));
        }
        let default = || memory::total().map_or(FALLBACK_BUDGET_BYTES, |bytes| bytes / BUDGET_SHARE);
        let memory_budget_bytes = memory_budget_bytes.unwrap_or_else(default);
        let least = window * forebay_shm::MIN_SLOT_BYTES;
        if memory_budget_bytes < least {
            return Err(EngineError::Config(format!(
                "memory_budget must be at least {least} bytes for {window} batches ahead, but is {memory_budget_bytes}"
            )));
        }
        Ok(Self { workers, prefetch_factor, in_order, memory_budget_bytes, shares_rows: false })
    }

    /// The same, but workers that have nothing to do make rows of the others' batches, so that nobody can tell any more
    /// who makes what.
    ///
    /// Nothing changes where that cannot help: with one worker, where batches are delivered as they arrive, and where
    /// there are so many workers and batches ahead (more than 16,384 pairs of them) that there is always enough to do.
    #[must_use]
    pub fn sharing_rows(mut self) -> Self {
        let scratch = u64::from(self.workers) * self.places();
        self.shares_rows = self.in_order && self.workers > 1 && scratch <= MAX_SCRATCH_SLOTS;
        self
    }

    /// Whether workers make rows of each other's batches.
    pub fn shares_rows(&self) -> bool {
        self.shares_rows
    }

    /// Places for batches that are out: a power of two keeps the modulo cheap.
    fn places(&self) -> u64 {
        u64::from(self.window()).next_power_of_two()
    }

    /// Workers.
    pub fn workers(&self) -> u32 {
        self.workers
    }

    /// Batches that may be sent and not yet delivered.
    pub fn window(&self) -> u32 {
        self.workers * self.prefetch_factor
    }

    /// Whether batches are delivered in the order of their steps.
    pub fn in_order(&self) -> bool {
        self.in_order
    }

    /// Shared memory for all batches, in bytes.
    pub fn memory_budget_bytes(&self) -> u64 {
        self.memory_budget_bytes
    }

    pub(crate) fn geometry(&self) -> forebay_shm::Geometry {
        let (board_entries, budget_bytes) = if self.shares_rows {
            (self.places() as u32, self.memory_budget_bytes / SCRATCH_SHARE * (SCRATCH_SHARE - 1))
        } else {
            (0, self.memory_budget_bytes)
        };
        forebay_shm::Geometry {
            workers: self.workers,
            queue_capacity: self.places(),
            slots: SLOTS.max(4 * self.window()),
            stride_bytes: budget_bytes.min(MAX_BATCH_BYTES),
            budget_bytes,
            board_entries,
        }
    }
}
