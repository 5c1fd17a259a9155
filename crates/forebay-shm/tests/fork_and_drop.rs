//! A lease that is dropped while another thread forks. To meet that moment every time, the drop happens in a hook of the
//! fork; it has to be the process's first hook, so this test has a binary of its own.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::sync::{Arc, Mutex, PoisonError};

use forebay_shm::{Arena, Geometry, Lease, Returns, SlotMemory};
use rustix::process::{Pid, WaitOptions, waitpid};

static KEPT: Mutex<Option<Lease>> = Mutex::new(None);

extern "C" fn drop_what_is_kept() {
    drop(KEPT.lock().unwrap_or_else(PoisonError::into_inner).take());
}

#[test]
fn a_lease_that_a_child_has_seen_is_set_aside_even_if_it_is_dropped_before_the_fork_has_returned() {
    // SAFETY: the hook is a function of this program; it does not unwind, and takes a lock that the forking thread
    // does not hold.
    assert_eq!(unsafe { libc::pthread_atfork(None, Some(drop_what_is_kept), None) }, 0);
    let geometry =
        Geometry { workers: 1, queue_capacity: 1, slots: 1, stride_bytes: 1, budget_bytes: 1 << 20 };
    let (arena, returns) = (Arena::create(geometry).unwrap(), Arc::new(Returns::new(1)));
    let lease = Lease::new(&arena, returns.clone(), 0, 0, &mut SlotMemory::unmapped()).unwrap();
    *KEPT.lock().unwrap() = Some(lease);
    // SAFETY: the child leaves at once, by a call that takes no locks.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: `_exit` takes no pointers and does not return.
        unsafe { libc::_exit(0) }
    }
    waitpid(Pid::from_raw(pid), WaitOptions::empty()).unwrap();
    assert!(KEPT.lock().unwrap().is_none(), "the hook ran");
    assert_eq!(returns.take_free().next(), None);
    assert_eq!(returns.take_seen_by_children().next(), Some(0));
}
