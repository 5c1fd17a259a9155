//! The workers of one engine and the watching of them, whatever they are made of.
//!
//! A crew's laws, the same for every kind:
//! - `exit(worker)` becomes readable when the worker has certainly ended, and only then: it will never write again;
//! - a crew decides no order and touches no slot; changing the crew never changes a batch;
//! - dropping a crew whose workers were told to stop leaves none behind.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use forebay_shm::sys::Event;
use forebay_shm::{ShmError, fork};

use crate::error::WorkerEnd;
use crate::{EngineError, Seat, Worker};

/// Workers somewhere, each of which can be seen to end.
pub trait Crew: fmt::Debug + Send {
    /// Becomes readable when `worker` has certainly ended.
    fn exit(&self, worker: u32) -> BorrowedFd<'_>;

    /// How `worker` ended; asked after `exit` was readable.
    fn end(&self, worker: u32) -> WorkerEnd;
}

/// Processes that somebody else started and will reap: only their process descriptors are here.
#[derive(Debug)]
pub struct OutsideCrew {
    exits: Vec<OwnedFd>,
}

impl OutsideCrew {
    /// `exits[i]` becomes readable when worker `i` has ended ([`forebay_shm::sys::watch_process`]).
    pub fn new(exits: Vec<OwnedFd>) -> Self {
        Self { exits }
    }
}

impl Crew for OutsideCrew {
    fn exit(&self, worker: u32) -> BorrowedFd<'_> {
        self.exits[worker as usize].as_fd()
    }

    fn end(&self, _worker: u32) -> WorkerEnd {
        WorkerEnd::Process
    }
}

/// Threads of this program.
#[derive(Debug)]
pub struct ThreadCrew {
    members: Vec<Member>,
    depth: u64,
}

#[derive(Debug)]
struct Member {
    exit: Event,
    end: Arc<Mutex<String>>,
    thread: Option<JoinHandle<()>>,
}

impl ThreadCrew {
    /// Starts one thread per seat; each runs `work` with its [`Worker`] until that returns.
    ///
    /// # Errors
    /// When a thread, a descriptor or the mapping cannot be had; threads already started then end by themselves
    /// once the engine is dropped.
    pub fn start<F>(seats: Vec<Seat>, work: F) -> Result<Self, EngineError>
    where
        F: Fn(Worker) -> Result<(), EngineError> + Clone + Send + 'static,
    {
        let members =
            seats.into_iter().map(|seat| Member::start(seat, work.clone())).collect::<Result<_, _>>()?;
        Ok(Self { members, depth: fork::depth() })
    }
}

impl Member {
    fn start<F>(seat: Seat, work: F) -> Result<Self, EngineError>
    where
        F: FnOnce(Worker) -> Result<(), EngineError> + Send + 'static,
    {
        let exit = Event::new()?;
        let end = Arc::new(Mutex::new(String::from("it was never started")));
        let (rung, note) = (exit.duplicate()?, end.clone());
        let name = format!("forebay-worker-{}", seat.worker);
        let worker = Worker::join(seat)?;
        let run = move || {
            let how = match catch_unwind(AssertUnwindSafe(|| work(worker))) {
                Ok(Ok(())) => String::from("it returned"),
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("it panicked: {}", panic_text(panic.as_ref())),
            };
            *note.lock().unwrap_or_else(PoisonError::into_inner) = how;
            // Nobody is left to tell if the trainer's side of the bell is gone.
            let _ = rung.ring();
        };
        let thread = std::thread::Builder::new().name(name).spawn(run);
        let thread = thread.map_err(|source| ShmError::Os { call: "pthread_create", source })?;
        Ok(Self { exit, end, thread: Some(thread) })
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into())
}

impl Crew for ThreadCrew {
    fn exit(&self, worker: u32) -> BorrowedFd<'_> {
        self.members[worker as usize].exit.as_fd()
    }

    fn end(&self, worker: u32) -> WorkerEnd {
        let end = self.members[worker as usize].end.lock().unwrap_or_else(PoisonError::into_inner);
        WorkerEnd::Thread(end.clone())
    }
}

impl Drop for ThreadCrew {
    fn drop(&mut self) {
        for member in &mut self.members {
            let thread = member.thread.take();
            if fork::depth() == self.depth {
                // A panic was caught and noted inside the thread.
                let _ = thread.map(JoinHandle::join);
            } else {
                // The threads of a trainer are not in its forked children: there is nothing to join, or to detach.
                std::mem::forget(thread);
            }
        }
    }
}
