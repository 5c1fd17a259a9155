//! What can go wrong with memory and wake-ups, with the numbers a user needs.

use std::io;

/// An error of the shared memory or of the operating system behind it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShmError {
    /// The operating system refused a call.
    #[error("{call} failed: {source}")]
    Os {
        /// The call, as in its manual page.
        call: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A worker needs more memory for its batch than the loader may use.
    #[error(
        "a batch needs {needed} bytes of shared memory, but the loader's memory budget of {budget} bytes has \
         only {left} left ({reserved} bytes are held by other batches in flight or kept by the program); raise \
         memory_budget, or lower batch_size, prefetch_factor or num_workers"
    )]
    OverBudget {
        /// Bytes this batch needs.
        needed: u64,
        /// The loader's budget.
        budget: u64,
        /// What the budget still allows.
        left: u64,
        /// Bytes reserved by all other slots.
        reserved: u64,
    },
    /// One batch is larger than a slot can ever be.
    #[error(
        "a batch needs {needed} bytes of shared memory, but one batch can hold at most {limit} bytes here; lower \
         batch_size or raise memory_budget"
    )]
    TooLarge {
        /// Bytes this batch needs.
        needed: u64,
        /// The largest batch possible.
        limit: u64,
    },
    /// The machine (or the control group) has not enough memory left.
    #[error(
        "a batch needs {needed} more bytes of shared memory, but only {available} bytes are available to this \
         process ({limited_by}); lower batch_size, prefetch_factor or num_workers, or give the program more memory"
    )]
    NoMemory {
        /// Bytes asked for.
        needed: u64,
        /// Bytes available.
        available: u64,
        /// What sets the limit: the machine or a control group.
        limited_by: &'static str,
    },
    /// Another process wrote something impossible into shared memory.
    #[error("shared memory is corrupt: {what} is {value}; a worker has written where it must not")]
    Corrupt {
        /// Which field.
        what: &'static str,
        /// The impossible value.
        value: u64,
    },
    /// A queue had no room; the protocol bounds every queue, so one side does not follow it.
    #[error("a queue of {capacity} records is full: more work was sent than the protocol allows")]
    QueueFull {
        /// The queue's size.
        capacity: u64,
    },
}

#[cfg(not(loom))]
impl ShmError {
    /// Names the call that failed.
    pub(crate) fn os(call: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Os { call, source: errno.into() }
    }
}
