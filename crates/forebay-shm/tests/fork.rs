//! What a fork means for leases. Forks are counted for the whole process, so these tests have a binary of their own
//! and take turns.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use forebay_shm::sys::{self, Woken};
use forebay_shm::{Arena, Geometry, Lease, Returns, SlotMemory, fork};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `body` while no other test runs, and fails when it hangs.
fn alone(body: impl FnOnce() + Send + 'static) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (alive, ended) = channel::<()>();
    let body = thread::spawn(move || {
        let _alive = alive;
        body();
    });
    assert_ne!(
        ended.recv_timeout(Duration::from_secs(60)),
        Err(RecvTimeoutError::Timeout),
        "the watchdog barked"
    );
    if let Err(panic) = body.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A forked child; killed and reaped when dropped.
struct Child(Pid);

impl Child {
    /// Runs `body` in a forked child, whose exit code is 0 when it returns true.
    fn fork(body: impl FnOnce() -> bool) -> Self {
        // SAFETY: the child has this thread only. It takes no lock that another thread may hold (the tests take
        // turns, the allocator is prepared for forks by the C library), and leaves by `_exit` below.
        match unsafe { libc::fork() } {
            -1 => panic!("fork failed: {}", std::io::Error::last_os_error()),
            0 => {
                let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(false);
                // SAFETY: `_exit` takes no pointers and does not return; the parent's destructors must not run here.
                unsafe { libc::_exit(if good { 0 } else { 1 }) }
            }
            pid => Self(Pid::from_raw(pid).unwrap()),
        }
    }

    /// Waits for the end: whether `body` returned true.
    fn was_good(self) -> bool {
        let (_, status) = waitpid(Some(self.0), WaitOptions::empty()).unwrap().unwrap();
        std::mem::forget(self);
        status.exit_status() == Some(0)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
        let _ = waitpid(Some(self.0), WaitOptions::empty());
    }
}

/// One byte can go through: what a child waits for, or tells.
struct Signpost {
    reading: OwnedFd,
    writing: OwnedFd,
}

impl Signpost {
    fn new() -> Self {
        let (reading, writing) = rustix::pipe::pipe().unwrap();
        Self { reading, writing }
    }

    fn give(&self) {
        assert_eq!(rustix::io::write(&self.writing, &[1]), Ok(1));
    }

    fn await_it(&self) -> bool {
        rustix::io::read(&self.reading, &mut [0; 1]) == Ok(1)
    }
}

struct Setting {
    arena: Arena,
    returns: Arc<Returns>,
}

impl Setting {
    fn new() -> Self {
        let geometry = Geometry {
            workers: 1,
            queue_capacity: 4,
            slots: 8,
            stride_bytes: 2 << 20,
            budget_bytes: 16 << 20,
            board_entries: 0,
        };
        Self { arena: Arena::create(geometry).unwrap(), returns: Arc::new(Returns::new(8)) }
    }

    fn lease(&self, slot: u32) -> Lease {
        self.arena.reserve(slot, 100).unwrap();
        Lease::new(&self.arena, self.returns.clone(), slot, 100, &mut SlotMemory::unmapped()).unwrap()
    }

    fn free(&self) -> Vec<u32> {
        self.returns.take_free().collect()
    }

    fn seen_by_children(&self) -> Vec<u32> {
        self.returns.take_seen_by_children().collect()
    }
}

#[test]
fn without_a_fork_a_dropped_lease_frees_its_slot_at_once() {
    alone(|| {
        let setting = Setting::new();
        drop((setting.lease(3), setting.lease(1)));
        assert_eq!(setting.free(), [1, 3]);
        assert_eq!(setting.seen_by_children(), []);
    });
}

#[test]
fn a_lease_dropped_after_a_fork_is_set_aside_until_the_child_has_ended() {
    alone(|| {
        let (setting, end) = (Setting::new(), Signpost::new());
        let lease = setting.lease(5);
        let child = Child::fork(|| end.await_it());
        drop(lease);
        assert_eq!(setting.free(), []);
        assert_eq!(setting.seen_by_children(), [5]);
        assert!(!fork::children_are_gone(0, fork::count()));
        end.give();
        assert!(child.was_good());
        assert!(fork::children_are_gone(0, fork::count()));
    });
}

#[test]
fn a_killed_child_is_gone() {
    alone(|| {
        let (setting, end) = (Setting::new(), Signpost::new());
        let _lease = setting.lease(0);
        let child = Child::fork(|| end.await_it());
        assert!(!fork::children_are_gone(0, fork::count()));
        drop(child);
        assert!(fork::children_are_gone(0, fork::count()));
    });
}

#[test]
fn a_slot_waits_for_the_children_forked_before_it_was_dropped_and_for_no_later_ones() {
    alone(|| {
        let (setting, end) = (Setting::new(), Signpost::new());
        let lease = setting.lease(0);
        let older = Child::fork(|| end.await_it());
        drop(lease);
        let at_the_drop = fork::count();
        let _other = setting.lease(1);
        let younger = Child::fork(|| end.await_it());
        drop(older);
        assert!(fork::children_are_gone(0, at_the_drop));
        assert!(!fork::children_are_gone(0, fork::count()));
        drop(younger);
        assert!(fork::children_are_gone(0, fork::count()));
    });
}

#[test]
fn a_lease_made_after_a_fork_frees_its_slot_at_once() {
    alone(|| {
        let (setting, end) = (Setting::new(), Signpost::new());
        let _before = setting.lease(0);
        let _child = Child::fork(|| end.await_it());
        drop(setting.lease(1));
        assert_eq!(setting.free(), [1]);
    });
}

#[test]
fn a_child_that_was_forked_when_there_were_no_leases_need_not_end() {
    alone(|| {
        let (setting, end) = (Setting::new(), Signpost::new());
        drop(setting.lease(0));
        let _child = Child::fork(|| end.await_it());
        assert!(fork::children_are_gone(0, fork::count()));
    });
}

#[test]
fn a_slot_does_not_wait_for_children_forked_before_its_lease() {
    alone(|| {
        let (setting, end) = (Setting::new(), Signpost::new());
        let _before = setting.lease(0);
        let _older = Child::fork(|| end.await_it());
        let lease = setting.lease(1);
        let younger = Child::fork(|| end.await_it());
        let born = lease.forks();
        drop(lease);
        assert_eq!(setting.seen_by_children(), [1]);
        assert!(!fork::children_are_gone(born, fork::count()));
        drop(younger);
        assert!(fork::children_are_gone(born, fork::count()));
    });
}

#[test]
fn what_a_forked_child_drops_is_not_seen_by_the_trainer() {
    alone(|| {
        let setting = Setting::new();
        let mut lease = Some(setting.lease(2));
        let child = Child::fork(|| {
            drop(lease.take());
            setting.seen_by_children() == [2]
        });
        assert!(child.was_good());
        assert_eq!((setting.free(), setting.seen_by_children()), (vec![], vec![]));
        assert!(lease.is_some());
    });
}

#[test]
fn a_child_of_a_child_sees_the_leases_too() {
    alone(|| {
        let (setting, end, pid) = (Setting::new(), Signpost::new(), Signpost::new());
        let _lease = setting.lease(0);
        let child = Child::fork(|| {
            let of_child = Child::fork(|| end.await_it());
            let number = of_child.0.as_raw_nonzero().get().to_ne_bytes();
            std::mem::forget(of_child);
            rustix::io::write(&pid.writing, &number) == Ok(4)
        });
        let mut number = [0; 4];
        assert_eq!(rustix::io::read(&pid.reading, &mut number), Ok(4));
        let of_child = sys::watch_process(u32::from_ne_bytes(number)).unwrap();
        assert!(child.was_good());
        assert!(!fork::children_are_gone(0, fork::count()), "the child's child lives");
        end.give();
        assert_eq!(sys::wait(&[of_child.as_fd()], None).unwrap(), Woken::Ready(0));
        assert!(fork::children_are_gone(0, fork::count()));
    });
}

#[test]
fn a_child_that_runs_another_program_sees_no_leases() {
    alone(|| {
        let (setting, to, from) = (Setting::new(), Signpost::new(), Signpost::new());
        let _lease = setting.lease(0);
        let _child = Child::fork(|| {
            let stdin = to.reading.as_fd().try_clone_to_owned().unwrap();
            let stdout = from.writing.as_fd().try_clone_to_owned().unwrap();
            let error = Command::new("cat").stdin(stdin).stdout(stdout).exec();
            panic!("{error}")
        });
        to.give();
        assert!(from.await_it(), "the program runs: it has answered");
        assert!(fork::children_are_gone(0, fork::count()));
    });
}

#[test]
fn depth_differs_in_a_forked_child() {
    alone(|| {
        let depth = fork::depth();
        assert!(Child::fork(|| fork::depth() != depth).was_good());
        assert_eq!(fork::depth(), depth);
    });
}

#[test]
fn depth_differs_in_the_child_of_a_forked_child() {
    alone(|| {
        let depth = fork::depth();
        let child = Child::fork(|| {
            let depth_of_child = fork::depth();
            Child::fork(|| fork::depth() != depth && fork::depth() != depth_of_child).was_good()
        });
        assert!(child.was_good());
    });
}

#[test]
fn many_threads_may_fork_and_lease_at_once() {
    alone(|| {
        let setting = Arc::new(Setting::new());
        let threads: Vec<_> = (0..4)
            .map(|slot| {
                let setting = setting.clone();
                thread::spawn(move || {
                    for _ in 0..20 {
                        let lease = setting.lease(slot);
                        assert!(Child::fork(|| fork::depth() > 0).was_good());
                        drop(lease);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(fork::children_are_gone(0, fork::count()));
    });
}
