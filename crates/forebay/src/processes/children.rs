//! The trainer's side: starting worker processes, watching them, and leaving none behind.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_engine::{Crew, Engine, WorkerEnd};
use forebay_shm::sys::{self, Woken};
use forebay_shm::{ShmError, fork, socket};

use super::entry::MARK;
use super::hello::{Hello, VERSION, Word};
use crate::Error;
use crate::crewed::{End, Workers};
use crate::worker::Start;

/// So long may a worker that was told to stop take to finish its sample.
const PATIENCE: Duration = Duration::from_secs(5);

/// The worker processes of one engine. Dropped after they were told to stop: waits for them, kills what does not end, and
/// reaps all.
#[derive(Debug)]
pub(super) struct Children {
    members: Vec<Member>,
    depth: u64,
}

#[derive(Debug)]
struct Member {
    child: Mutex<Child>,
    /// Readable when it has ended.
    exit: OwnedFd,
    socket: OwnedFd,
}

impl Children {
    /// Starts a process for each worker, which works by the recipe in this file.
    pub(super) fn start(
        engine: &Engine,
        start: Start,
        (kind, type_name): (u32, &str),
        args: &[String],
        recipe: &OwnedFd,
    ) -> Result<Self, Error> {
        let mut children = Self { members: Vec::new(), depth: fork::depth() };
        for worker in 0..start.num_workers {
            let member = Member::start(worker, args).inspect_err(|_| children.kill())?;
            children.members.push(member);
            let hello = Hello { version: VERSION.into(), worker, start, kind, type_name: type_name.into() };
            let member = &children.members[worker as usize];
            let said = engine.seat(worker).and_then(|seat| Ok(hello.send(&member.socket, &seat, recipe)?));
            said.inspect_err(|_| children.kill())?;
        }
        Ok(children)
    }

    /// There is no use in waiting for any of them.
    fn kill(&self) {
        for member in &self.members {
            // One that has ended already is not there to be killed.
            let _ = member.child.lock().unwrap_or_else(PoisonError::into_inner).kill();
        }
    }
}

impl Member {
    fn start(worker: u32, args: &[String]) -> Result<Self, ShmError> {
        let (socket, other_end) = socket::pair()?;
        // What runs now, even if a newer build stands at its path meanwhile.
        let mut command = Command::new("/proc/self/exe");
        // Ctrl-C is the trainer's to handle: a worker ends when the trainer does.
        command.process_group(0);
        command.arg0(format!("{MARK} {worker}")).args(args).stdin(Stdio::from(other_end));
        let mut child = command.spawn().map_err(|source| ShmError::Os { call: "posix_spawn", source })?;
        // Not reaped yet, so the number is still its own.
        let exit = sys::watch_process(child.id()).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        Ok(Self { child: Mutex::new(child), exit, socket })
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        if fork::depth() != self.depth {
            // The trainer's, not ours: a forked child neither waits for its siblings nor kills them.
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        for member in &mut self.members {
            let ended = loop {
                match sys::wait(&[member.exit.as_fd()], Some(deadline)) {
                    Ok(Woken::Interrupted) => {}
                    woken => break matches!(woken, Ok(Woken::Ready(_))),
                }
            };
            let child = member.child.get_mut().unwrap_or_else(PoisonError::into_inner);
            if !ended {
                // One that has ended may have been reaped by somebody else, and its number given to another process.
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}

/// As the engine sees them.
#[derive(Debug)]
pub(super) struct ProcessCrew(pub(super) Arc<Children>);

impl Crew for ProcessCrew {
    fn exit(&self, worker: u32) -> BorrowedFd<'_> {
        self.0.members[worker as usize].exit.as_fd()
    }

    fn end(&self, _worker: u32) -> WorkerEnd {
        WorkerEnd::Process
    }
}

impl Workers for Arc<Children> {
    fn end(&self, worker: u32) -> End {
        let member = &self.members[worker as usize];
        let mut child = member.child.lock().unwrap_or_else(PoisonError::into_inner);
        let process = child.id();
        let words = Word::all(&member.socket);
        let joined = words.first() == Some(&Word::Joined);
        let last =
            words.into_iter().find_map(|word| if let Word::Last(why) = word { Some(why) } else { None });
        let (how, likely) = match (child.wait(), last) {
            (_, Some(why)) => (format!("could not work: {why}"), "see above"),
            (Ok(status), None) => (ended(status), likely_cause(status, joined)),
            (Err(error), None) => {
                (format!("ended, nobody knows how ({error})"), "somebody else has reaped it")
            }
        };
        End { how: format!("(process {process}) {how}"), likely }
    }
}

fn ended(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (None, Some(code)) => format!("exited with code {code}"),
        (None, None) => format!("ended ({status})"),
    }
}

fn likely_cause(status: ExitStatus, joined: bool) -> &'static str {
    const KILL: i32 = 9;
    match status.signal() {
        _ if !joined => {
            "it ended before it had begun to work: forebay::worker_entry must be the first line of main, before anything that \
             can end the program"
        }
        Some(KILL) => {
            "likely the kernel's out-of-memory killer (`dmesg` tells): lower num_workers, prefetch_factor or batch_size, or \
             give the machine more memory"
        }
        Some(_) => {
            "likely a crash in the dataset or in a library that it calls, or a panic in a program built with panic = \
             \"abort\" (the worker's standard error tells)"
        }
        None => {
            "likely the dataset, or a library that it calls, has ended the process: it must return an error instead"
        }
    }
}
