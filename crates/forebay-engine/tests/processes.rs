//! Workers that are processes, and what a fork means for an engine. The children are forked from the tests themselves,
//! so that they need no program of their own.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{
    Recipe, assert_cooked, assert_right_bytes, config, cook, expect_batch, kitchen, next, serve, watched,
};
use forebay_engine::{Engine, EngineConfig, EngineError, OutsideCrew, Worker, WorkerEnd};
use forebay_shm::sys::{Woken, wait, watch_process};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// The tests of this file come one after the other: a fork copies what the others have open.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A forked child; killed and reaped when dropped.
struct Child(Pid);

impl Child {
    /// Runs `body` in a forked child, whose exit code is 0 when it returns true.
    fn fork(body: impl FnOnce() -> bool) -> Self {
        // SAFETY: the child has this thread only. It takes no lock that another thread of a test may hold (the tests
        // take turns, the allocator is prepared for forks by the C library), and leaves by `_exit` below.
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

    fn exit(&self) -> OwnedFd {
        watch_process(self.0.as_raw_nonzero().get() as u32).unwrap()
    }

    fn kill(&self) {
        kill_process(self.0, Signal::KILL).unwrap();
    }

    /// Waits for the end and tells the exit code; `None` after a signal.
    fn join(self) -> Option<i32> {
        let (_, status) = waitpid(Some(self.0), WaitOptions::empty()).unwrap().unwrap();
        std::mem::forget(self);
        status.exit_status()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
        let _ = waitpid(Some(self.0), WaitOptions::empty());
    }
}

/// An engine whose workers are forked children that cook; worker 0 stops cooking before batch `stuck`, for ever.
fn forked_kitchen(config: EngineConfig, stuck: u64) -> (Engine, Vec<Child>) {
    let mut engine = Engine::new(config).unwrap();
    let work = |worker: u32, engine: &Engine| {
        let worker = Worker::join_as_process(engine.seat(worker)?)?;
        serve(worker, |ticket| {
            if ticket.step < stuck {
                return cook(ticket);
            }
            loop {
                std::thread::park();
            }
        })
    };
    let children: Vec<_> =
        (0..config.workers()).map(|worker| Child::fork(|| work(worker, &engine).is_ok())).collect();
    engine.attach(Box::new(OutsideCrew::new(children.iter().map(Child::exit).collect())));
    (engine, children)
}

#[test]
fn batches_made_in_other_processes_arrive_unchanged_in_order() {
    watched(|| {
        let _alone = alone();
        let (mut engine, children) = forked_kitchen(config(2, 2), u64::MAX);
        let recipes: Vec<_> = (0..100).map(|step| Recipe(vec![step * 1000, 10, step * 20_000])).collect();
        let mut steps = Vec::new();
        common::travel(&mut engine, &recipes, |_, batch| {
            assert_cooked(&batch, &recipes[batch.step as usize]);
            steps.push(batch.step);
        });
        assert_eq!(steps, (0..100).collect::<Vec<_>>());
        drop(engine);
        let ends: Vec<_> = children.into_iter().map(Child::join).collect();
        assert_eq!(ends, [Some(0), Some(0)], "told to stop, workers return");
    });
}

#[test]
fn a_killed_worker_is_reported_with_its_batches_after_what_it_had_finished() {
    watched(|| {
        let _alone = alone();
        let (mut engine, children) = forked_kitchen(config(1, 4), 2);
        let recipe = Recipe(vec![300_000]);
        for _ in 0..4 {
            engine.submit(0, recipe.to_indices()).unwrap();
        }
        let kept = [expect_batch(&mut engine), expect_batch(&mut engine)];
        children[0].kill();
        let error = next(&mut engine).unwrap_err();
        let EngineError::WorkerEnded { worker: 0, in_flight, end: WorkerEnd::Process } = error else {
            panic!("{error}");
        };
        assert_eq!(in_flight, [2, 3]);
        kept.iter().for_each(|batch| assert_cooked(batch, &recipe));
    });
}

#[test]
fn the_end_of_a_worker_is_reported_at_every_wait() {
    watched(|| {
        let _alone = alone();
        let (mut engine, children) = forked_kitchen(config(2, 1), 0);
        engine.submit(0, Vec::new()).unwrap();
        children[1].kill();
        for _ in 0..3 {
            assert!(matches!(engine.wait(None), Err(EngineError::WorkerEnded { worker: 1, .. })));
        }
    });
}

#[test]
fn a_worker_process_ends_with_its_trainer_whatever_it_is_doing() {
    watched(|| {
        let _alone = alone();
        // The trainer is a child, its worker a grandchild that is stuck.
        let (report, worker_pid) = rustix::pipe::pipe().unwrap();
        let trainer = Child::fork(|| {
            let (mut engine, workers) = forked_kitchen(config(1, 1), 0);
            engine.submit(0, Vec::new()).unwrap();
            rustix::io::write(&worker_pid, &workers[0].0.as_raw_nonzero().get().to_ne_bytes()).unwrap();
            loop {
                std::thread::park();
            }
        });
        let mut pid = [0; 4];
        assert_eq!(rustix::io::read(&report, &mut pid).unwrap(), 4);
        let worker = watch_process(u32::from_ne_bytes(pid)).unwrap();
        trainer.kill();
        assert_eq!(wait(&[worker.as_fd()], None).unwrap(), Woken::Ready(0));
    });
}

#[test]
fn a_forked_child_cannot_use_the_engine_of_its_parent() {
    watched(|| {
        let _alone = alone();
        let mut engine = kitchen(config(1, 1));
        engine.submit(0, Recipe(vec![10]).to_indices()).unwrap();
        let child = Child::fork(|| {
            matches!(engine.submit(0, Vec::new()), Err(EngineError::ForkedChild))
                && matches!(engine.turn(), Err(EngineError::ForkedChild))
                && matches!(engine.wait(None), Err(EngineError::ForkedChild))
        });
        assert_eq!(child.join(), Some(0));
        assert_right_bytes(&expect_batch(&mut engine));
    });
}

#[test]
fn dropping_an_engine_in_a_forked_child_leaves_the_parents_workers_alone() {
    watched(|| {
        let _alone = alone();
        let mut engine = Some(kitchen(config(2, 2)));
        let child = Child::fork(|| {
            drop(engine.take());
            true
        });
        assert_eq!(child.join(), Some(0));
        let mut engine = engine.unwrap();
        for _ in 0..4 {
            engine.submit(0, Recipe(vec![10]).to_indices()).unwrap();
        }
        for _ in 0..4 {
            assert_right_bytes(&expect_batch(&mut engine));
        }
    });
}

#[test]
fn a_kept_batch_stays_as_it_is_in_a_forked_child_after_the_trainer_dropped_it() {
    watched(|| {
        let _alone = alone();
        let recipe = Recipe(vec![50_000]);
        let (go, gone) = rustix::pipe::pipe().unwrap();
        let mut engine = kitchen(config(1, 2));
        let mut kept = Vec::new();
        common::travel(&mut engine, &vec![recipe.clone(); 10], |_, batch| kept.push(batch));
        let child = Child::fork(|| {
            let told = rustix::io::read(&go, &mut [0; 1]) == Ok(1);
            let unchanged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                kept.iter().for_each(|batch| assert_cooked(batch, &recipe));
            }));
            told && unchanged.is_ok()
        });
        kept.clear();
        common::travel(&mut engine, &vec![recipe.clone(); 100], |_, batch| assert_cooked(&batch, &recipe));
        rustix::io::write(&gone, &[1]).unwrap();
        assert_eq!(child.join(), Some(0));
    });
}
