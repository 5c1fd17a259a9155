//! What a fork of the trainer means for leased slots.
//!
//! A forked child sees the same shared memory. Whatever it holds of a batch (`cache = list(loader)` in a dataset,
//! say) must not change under it when the *trainer* drops its own view and the slot would be used again. So:
//!
//! - each fork that happens while leases live gets a *witness*: a pipe whose writing end only the
//!   child (and its children) keeps. The reading end reports the end of file when they are all gone;
//! - a lease remembers the count of forks at its birth. If that has grown when it is dropped, its slot is set aside
//!   until the witnesses of those forks have reported;
//! - a fork counts twice: before there is a child, and when there is one. Whatever is born or dropped in between, by
//!   another thread, is set aside too: nobody can tell whether the child sees it.
//!
//! A child that closes descriptors it does not know (a daemon) counts as gone.
//!
//! The hooks are `pthread_atfork`'s, so that forks by other libraries count too; `posix_spawn` and `vfork` with
//! `exec` do not run them and need not.

use std::cell::RefCell;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Instant;

use rustix::pipe::{PipeFlags, pipe_with};

use crate::sync::{AtomicU64, Ordering};
use crate::sys::{self, Woken};

static LEASES: AtomicU64 = AtomicU64::new(0);
/// Two for each fork; odd while one is under way.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// How many forks lie between the process that loaded this library and this one.
static DEPTH: AtomicU64 = AtomicU64::new(0);
static WITNESSES: Mutex<Vec<Witness>> = Mutex::new(Vec::new());

/// A fork whose child may still see slots that were leased then.
struct Witness {
    /// The count of forks while it was under way.
    fork: u64,
    /// `None` when no descriptor was left to watch the child with: then it is never known to be gone.
    child: Option<OwnedFd>,
}

thread_local! {
    /// The forking thread's lock and pipe, between the hook before and the hook after.
    static FORKING: RefCell<Option<Forking>> = const { RefCell::new(None) };
}

struct Forking {
    witnesses: MutexGuard<'static, Vec<Witness>>,
    /// Made if leases live.
    pipe: Option<(OwnedFd, OwnedFd)>,
}

/// Counts a new lease; tells the count of forks.
pub(crate) fn lease_begins() -> u64 {
    install_hooks();
    // SYNC POINT fork: either this lease is seen by `before`, or it sees that fork as under way.
    LEASES.fetch_add(1, Ordering::SeqCst);
    FORKS.load(Ordering::SeqCst)
}

/// Uncounts a lease that was born at the count `born`; tells whether a child may see it.
pub(crate) fn lease_ends(born: u64) -> bool {
    LEASES.fetch_sub(1, Ordering::SeqCst);
    let forks = FORKS.load(Ordering::SeqCst);
    forks != born || !forks.is_multiple_of(2)
}

/// The count of forks, which grows with every one.
pub fn count() -> u64 {
    FORKS.load(Ordering::SeqCst)
}

/// Differs between a process and its forked children: something made under another depth is not ours.
pub fn depth() -> u64 {
    install_hooks();
    DEPTH.load(Ordering::Acquire)
}

/// Whether all children are gone that can see a lease born at the count `born` and dropped at the latest at `dropped`.
pub fn children_are_gone(born: u64, dropped: u64) -> bool {
    let mut witnesses = lock();
    witnesses.retain(|witness| !witness.is_gone());
    !witnesses.iter().any(|witness| born <= witness.fork && witness.fork <= dropped)
}

impl Witness {
    fn is_gone(&self) -> bool {
        let Some(child) = &self.child else { return false };
        matches!(sys::wait(&[child.as_fd()], Some(Instant::now())), Ok(Woken::Ready(_)))
    }
}

fn lock() -> MutexGuard<'static, Vec<Witness>> {
    WITNESSES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install_hooks() {
    static HOOKS: Once = Once::new();
    HOOKS.call_once(|| {
        // SAFETY: the three hooks are plain functions of this library, which is never unloaded; they do not unwind
        // (nothing in them panics) and call only what may be called around a fork.
        let refused =
            unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
        assert_eq!(refused, 0, "pthread_atfork refuses only when there is no memory");
    });
}

extern "C" fn before() {
    let witnesses = lock();
    // SYNC POINT fork.
    FORKS.fetch_add(1, Ordering::SeqCst);
    let leases = LEASES.load(Ordering::SeqCst);
    let pipe = (leases > 0).then(|| pipe_with(PipeFlags::CLOEXEC).ok()).flatten();
    FORKING.with(|forking| *forking.borrow_mut() = Some(Forking { witnesses, pipe }));
}

extern "C" fn after_in_parent() {
    let fork = FORKS.fetch_add(1, Ordering::SeqCst);
    let Some(Forking { mut witnesses, pipe }) = FORKING.with(RefCell::take) else { return };
    // Of earlier children, many are gone: else a program that forks for every epoch would collect pipes.
    witnesses.retain(|witness| !witness.is_gone());
    let child = pipe.map(|(reading, _writing)| reading);
    if child.is_some() || LEASES.load(Ordering::SeqCst) > 0 {
        witnesses.push(Witness { fork, child });
    }
}

extern "C" fn after_in_child() {
    DEPTH.fetch_add(1, Ordering::AcqRel);
    FORKS.fetch_add(1, Ordering::SeqCst);
    let Some(Forking { mut witnesses, pipe }) = FORKING.with(RefCell::take) else { return };
    // The parent's children are not ours to watch.
    witnesses.clear();
    if let Some((_reading, writing)) = pipe {
        // Open for as long as this process lives: that is the witness.
        let _ = writing.into_raw_fd();
    }
}
