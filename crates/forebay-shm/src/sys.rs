//! The operating system, as few calls as possible: anonymous files, mappings, wake-ups, watching a process.
//!
//! What the rest of the crate relies on:
//! - a descriptor made here is closed on `exec`;
//! - an [`Event`] remembers a ring that came before the wait;
//! - a process descriptor becomes readable when the process has certainly ended, reaped or not;
//! - [`wait`] returns on a signal, so that the caller can let the program react to it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, ftruncate,
    memfd_create,
};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open};

use crate::ShmError;

/// Memory is taken from the kernel in steps of this size, so that a signal is answered in between.
const RESERVE_STEP_BYTES: u64 = 64 << 20;

/// An anonymous file of `len` bytes that takes no memory yet and can never change its size.
pub(crate) fn anonymous_file(len: u64) -> Result<OwnedFd, ShmError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("forebay", flags).map_err(ShmError::os("memfd_create"))?;
    ftruncate(&file, len).map_err(ShmError::os("ftruncate"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(ShmError::os("fcntl(F_ADD_SEALS)"))?;
    Ok(file)
}

/// Whether a file is sealed so that it can never shrink under a mapping.
pub(crate) fn keeps_its_size(file: &OwnedFd) -> bool {
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
}

/// An anonymous file that holds `bytes` and can never change: for what many processes are to read.
///
/// # Errors
/// When there is no memory or no descriptor left.
pub fn sealed_file(bytes: &[u8]) -> Result<OwnedFd, ShmError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("forebay-sealed", flags).map_err(ShmError::os("memfd_create"))?;
    write_all(file.as_fd(), 0, bytes)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(ShmError::os("fcntl(F_ADD_SEALS)"))?;
    Ok(file)
}

/// All that is in a file, wherever its other readers are in it.
///
/// # Errors
/// When it cannot be read.
pub fn read_file(file: &OwnedFd) -> Result<Vec<u8>, ShmError> {
    let mut bytes = vec![0; file_len(file)? as usize];
    let read = read(file.as_fd(), 0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Reads from `offset` of `file` until `bytes` are full or the file ends; tells how many there were.
pub(crate) fn read(file: BorrowedFd<'_>, offset: u64, bytes: &mut [u8]) -> Result<usize, ShmError> {
    let mut read = 0;
    while read < bytes.len() {
        match rustix::io::pread(file, &mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(ShmError::os("pread")(errno)),
        }
    }
    Ok(read)
}

/// Takes this process's standard input away from everybody else: what it was is returned, and `/dev/null` takes its place.
///
/// # Errors
/// When there is none, no `/dev/null`, or no descriptor left.
pub fn take_standard_input() -> Result<OwnedFd, ShmError> {
    let taken = duplicate(rustix::stdio::stdin())?;
    let nothing =
        File::open("/dev/null").map_err(|source| ShmError::Os { call: "open(/dev/null)", source })?;
    rustix::stdio::dup2_stdin(nothing).map_err(ShmError::os("dup2"))?;
    Ok(taken)
}

/// The largest file this process may make.
pub(crate) fn largest_file() -> u64 {
    getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX)
}

/// Has a descriptor that came from another process closed on `exec`.
///
/// # Errors
/// When it is no descriptor.
pub fn close_on_exec(descriptor: BorrowedFd<'_>) -> Result<(), ShmError> {
    rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC).map_err(ShmError::os("fcntl(F_SETFD)"))
}

/// Takes memory for `len` bytes of `file` from `offset`; what is there already stays.
pub(crate) fn reserve(file: BorrowedFd<'_>, mut offset: u64, len: u64) -> Result<(), ShmError> {
    let end = offset + len;
    while offset < end {
        let step = RESERVE_STEP_BYTES.min(end - offset);
        match fallocate(file, FallocateFlags::empty(), offset, step) {
            Ok(()) => offset += step,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(ShmError::os("fallocate")(errno)),
        }
    }
    Ok(())
}

/// Writes all of `bytes` into `file` from `offset`.
pub(crate) fn write_all(file: BorrowedFd<'_>, mut offset: u64, mut bytes: &[u8]) -> Result<(), ShmError> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(ShmError::Corrupt { what: "the length of a write", value: 0 }),
            Ok(written) => {
                offset += written as u64;
                bytes = &bytes[written..];
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(ShmError::os("pwrite")(errno)),
        }
    }
    Ok(())
}

/// Gives the memory of `len` bytes of `file` from `offset` back to the kernel.
pub(crate) fn give_back(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), ShmError> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match fallocate(file, flags, offset, len) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(ShmError::os("fallocate(FALLOC_FL_PUNCH_HOLE)")(errno)),
        }
    }
}

/// A bell that can be rung from another process and that remembers having been rung.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    /// A silent bell.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> Result<Self, ShmError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        eventfd(0, flags).map(Self).map_err(ShmError::os("eventfd"))
    }

    /// A bell that came from another process as a descriptor.
    pub fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Wakes whoever waits for this bell, now or later.
    ///
    /// # Errors
    /// When the descriptor is none of a bell.
    pub fn ring(&self) -> Result<(), ShmError> {
        match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            // A full counter means that it has been rung often enough.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(ShmError::os("write(eventfd)")(errno)),
        }
    }

    /// Forgets that it was rung.
    ///
    /// # Errors
    /// When the descriptor is none of a bell.
    pub fn silence(&self) -> Result<(), ShmError> {
        match rustix::io::read(&self.0, &mut [0u8; 8]) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(ShmError::os("read(eventfd)")(errno)),
        }
    }

    /// A second handle on the same bell.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn duplicate(&self) -> Result<Self, ShmError> {
        duplicate(self.0.as_fd()).map(Self)
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Another descriptor for the same thing, closed on `exec`.
///
/// # Errors
/// When no descriptor is left.
pub fn duplicate(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, ShmError> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, 3).map_err(ShmError::os("fcntl(F_DUPFD_CLOEXEC)"))
}

/// A descriptor that becomes readable when process `pid` has ended.
///
/// # Errors
/// When there is no such process, or no descriptor left.
pub fn watch_process(pid: u32) -> Result<OwnedFd, ShmError> {
    let unknown = || ShmError::Corrupt { what: "a process number", value: u64::from(pid) };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(unknown)?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(ShmError::os("pidfd_open"))
}

/// A descriptor that becomes readable when this process has ended: the lifeline its workers hold.
///
/// # Errors
/// When no descriptor is left.
pub fn watch_self() -> Result<OwnedFd, ShmError> {
    watch_process(std::process::id())
}

/// Why [`wait`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// At least one descriptor is readable; the index of the first one.
    Ready(usize),
    /// A signal arrived.
    Interrupted,
    /// The deadline passed.
    TimedOut,
}

/// Sleeps until one of `descriptors` is readable, a signal arrives, or `deadline` passes.
///
/// # Errors
/// When the operating system refuses to wait.
pub fn wait(descriptors: &[BorrowedFd<'_>], deadline: Option<Instant>) -> Result<Woken, ShmError> {
    let mut polled: Vec<PollFd<'_>> =
        descriptors.iter().map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN)).collect();
    let limit = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
    match poll(&mut polled, limit.as_ref()) {
        Ok(0) => Ok(Woken::TimedOut),
        Ok(_) => {
            let first = polled.iter().position(|polled| !polled.revents().is_empty());
            Ok(first.map_or(Woken::Interrupted, Woken::Ready))
        }
        Err(Errno::INTR) => Ok(Woken::Interrupted),
        Err(errno) => Err(ShmError::os("poll")(errno)),
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Ends this process without ceremony when the process behind `lifeline` ends, whatever this one is doing then.
///
/// Called by: a worker process, once, on start. The thread it starts makes system calls only, so it works while
/// the worker is stuck in foreign code and holds no lock of anybody.
///
/// # Errors
/// When no thread can be started.
pub fn die_with(lifeline: OwnedFd) -> Result<(), ShmError> {
    let watch = move || {
        while matches!(wait(&[lifeline.as_fd()], None), Ok(Woken::Interrupted | Woken::TimedOut)) {}
        // The trainer has ended, or cannot be watched any more, which must not make an orphan.
        // SAFETY: `_exit` takes no pointers and does not return; destructors must not run here.
        unsafe { libc::_exit(1) }
    };
    let thread =
        std::thread::Builder::new().name("forebay-lifeline".into()).stack_size(64 * 1024).spawn(watch);
    thread.map(drop).map_err(|source| ShmError::Os { call: "pthread_create", source })
}

/// Lets the C allocator keep what a worker frees, within bounds, instead of giving it back to the kernel and faulting it in
/// again for the next batch: a `collate_fn` that makes new arrays for every batch costs half as much. Does nothing when
/// the user has tuned the allocator himself, or it is another one.
pub fn reuse_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGEST_REUSED_BYTES: i32 = 32 << 20;
        const MOST_KEPT_BYTES: i32 = 128 << 20;
        let tuned = |(name, _): (std::ffi::OsString, _)| name.as_encoded_bytes().starts_with(b"MALLOC_");
        if std::env::vars_os().any(tuned) || std::env::var_os("GLIBC_TUNABLES").is_some() {
            return;
        }
        // SAFETY: `mallopt` takes two integers, and may be called at any time.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_REUSED_BYTES) };
        // SAFETY: as above.
        unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, MOST_KEPT_BYTES) };
    }
}

/// An open file that is the size it says.
pub(crate) fn file_len(file: &OwnedFd) -> Result<u64, ShmError> {
    let file = File::from(duplicate(file.as_fd())?);
    file.metadata().map(|metadata| metadata.len()).map_err(|source| ShmError::Os { call: "fstat", source })
}
