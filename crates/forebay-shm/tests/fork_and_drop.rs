//! Leases that are made or dropped by one thread while another forks. To meet those moments every time, that happens in
//! hooks of the fork; they have to be the process's first ones, so these tests have a binary of their own.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use forebay_shm::{Arena, Geometry, Lease, Returns, SlotMemory, fork};
use rustix::process::{Pid, WaitOptions, waitpid};

/// What the next fork's hooks are to do.
#[derive(Default)]
struct Hooks {
    /// Once forks are watched and before there is a child.
    before_the_child: Option<Box<dyn FnOnce() + Send>>,
    /// When there is a child, and before the trainer knows.
    after_the_child: Option<Box<dyn FnOnce() + Send>>,
}

static HOOKS: Mutex<Hooks> = Mutex::new(Hooks { before_the_child: None, after_the_child: None });
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn hooks() -> MutexGuard<'static, Hooks> {
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn before_the_child() {
    let hook = hooks().before_the_child.take();
    hook.into_iter().for_each(|hook| hook());
}

extern "C" fn after_the_child() {
    let hook = hooks().after_the_child.take();
    hook.into_iter().for_each(|hook| hook());
}

/// Waits for the other tests' end, and sees to it that the hooks above are the first.
fn alone() -> MutexGuard<'static, ()> {
    static FIRST: Once = Once::new();
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    FIRST.call_once(|| {
        // SAFETY: the hooks are functions of this program, which take a lock that the forking thread does not hold. If
        // one of them panics, the process ends.
        let refused = unsafe { libc::pthread_atfork(Some(before_the_child), Some(after_the_child), None) };
        assert_eq!(refused, 0);
        fork::depth();
    });
    turn
}

fn fork_with(hooks_of_fork: Hooks) {
    *hooks() = hooks_of_fork;
    // SAFETY: the child leaves at once, by a call that takes no locks.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: `_exit` takes no pointers and does not return.
        unsafe { libc::_exit(0) }
    }
    waitpid(Some(Pid::from_raw(pid).unwrap()), WaitOptions::empty()).unwrap();
}

struct Setting {
    arena: Arena,
    returns: Arc<Returns>,
}

impl Setting {
    fn new() -> Arc<Self> {
        let (stride_bytes, budget_bytes) = (1, 1 << 20);
        let geometry = Geometry {
            workers: 1,
            queue_capacity: 1,
            slots: 8,
            stride_bytes,
            budget_bytes,
            board_entries: 0,
        };
        Arc::new(Self { arena: Arena::create(geometry).unwrap(), returns: Arc::new(Returns::new(8)) })
    }

    fn lease(&self, slot: u32) -> Lease {
        Lease::new(&self.arena, self.returns.clone(), slot, 0, &mut SlotMemory::unmapped()).unwrap()
    }

    /// Slots that are free, and slots that are set aside.
    fn returned(&self) -> (Vec<u32>, Vec<u32>) {
        (self.returns.take_free().collect(), self.returns.take_seen_by_children().collect())
    }
}

#[test]
fn a_lease_dropped_when_the_child_is_there_and_the_fork_has_not_returned_is_set_aside() {
    let _alone = alone();
    let setting = Setting::new();
    let lease = setting.lease(0);
    fork_with(Hooks { after_the_child: Some(Box::new(|| drop(lease))), ..Hooks::default() });
    assert_eq!(setting.returned(), (vec![], vec![0]));
}

/// A lease made between the moment when forks are counted and the child; `others` says whether there were leases before.
fn made_during_a_fork(setting: &Arc<Setting>, others: bool) -> Lease {
    let _other = others.then(|| setting.lease(7));
    let (made, of_hook) = (Arc::new(Mutex::new(None)), setting.clone());
    let place = made.clone();
    let make = move || *place.lock().unwrap() = Some(of_hook.lease(0));
    fork_with(Hooks { before_the_child: Some(Box::new(make)), ..Hooks::default() });
    let lease = made.lock().unwrap().take();
    lease.expect("the hook ran")
}

#[test]
fn a_lease_made_just_before_the_child_is_set_aside_when_it_is_dropped() {
    let _alone = alone();
    for others in [true, false] {
        let setting = Setting::new();
        let lease = made_during_a_fork(&setting, others);
        let at_its_birth = lease.forks();
        setting.returned();
        drop(lease);
        assert_eq!(setting.returned(), (vec![], vec![0]));
        // Its child has ended; where nobody could foresee that it had to be watched, that is not known.
        assert_eq!(fork::children_are_gone(at_its_birth, fork::count()), others);
    }
}

#[test]
fn a_lease_made_and_dropped_during_a_fork_is_set_aside() {
    let _alone = alone();
    let setting = Setting::new();
    let _other = setting.lease(7);
    let of_hook = setting.clone();
    let lease = Arc::new(Mutex::new(None));
    let place = lease.clone();
    fork_with(Hooks {
        before_the_child: Some(Box::new(move || *place.lock().unwrap() = Some(of_hook.lease(0)))),
        after_the_child: Some(Box::new(move || drop(lease.lock().unwrap().take()))),
    });
    assert_eq!(setting.returned(), (vec![], vec![0]));
}
