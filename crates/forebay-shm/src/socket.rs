//! How a process that starts is given descriptors: a pair of connected sockets, one end of which it starts with.
//!
//! Messages keep their bounds, and nobody blocks on a full socket: a few short messages are all that ever passes.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::ShmError;

/// Descriptors in one message, at most.
pub const MOST_DESCRIPTORS: usize = 8;

/// What has come.
#[derive(Debug)]
pub struct Message {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Duplicates of the descriptors that were sent with it.
    pub descriptors: Vec<OwnedFd>,
}

const SPACE: usize = rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS));

/// Two connected sockets, both closed on `exec`.
///
/// # Errors
/// When no descriptor is left.
pub fn pair() -> Result<(OwnedFd, OwnedFd), ShmError> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(ShmError::os("socketpair"))
}

/// Sends one message, and duplicates of these descriptors with it.
///
/// # Errors
/// When the other end is gone, or the operating system has no room.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), ShmError> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(ShmError::os("sendmsg")(Errno::TOOMANYREFS));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(ShmError::os("sendmsg")(errno)),
        }
    }
}

/// The next message, of at most `most_bytes`, and its descriptors; sleeps until there is one. `None` when the other end is
/// gone and has left nothing.
///
/// # Errors
/// When `socket` is no such socket, or no descriptor is left.
pub fn receive(socket: BorrowedFd<'_>, most_bytes: usize) -> Result<Option<Message>, ShmError> {
    receive_with(socket, most_bytes, RecvFlags::empty())
}

/// As [`receive`], but without sleeping: `None` also when there is no message yet.
///
/// # Errors
/// As [`receive`].
pub fn try_receive(socket: BorrowedFd<'_>, most_bytes: usize) -> Result<Option<Message>, ShmError> {
    receive_with(socket, most_bytes, RecvFlags::DONTWAIT)
}

fn receive_with(
    socket: BorrowedFd<'_>,
    most_bytes: usize,
    flags: RecvFlags,
) -> Result<Option<Message>, ShmError> {
    let mut bytes = vec![0; most_bytes];
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
            Ok(received) => break received,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::CONNRESET) => return Ok(None),
            Err(errno) => return Err(ShmError::os("recvmsg")(errno)),
        }
    };
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors: Vec<OwnedFd> = rights.flatten().collect();
    if received.bytes == 0 && descriptors.is_empty() {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    Ok(Some(Message { bytes, descriptors }))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::Event;

    #[test]
    fn a_descriptor_arrives_beside_its_message() {
        let (one, other) = pair().unwrap();
        let bell = Event::new().unwrap();
        send(one.as_fd(), b"bell", &[bell.as_fd()]).unwrap();
        let Message { bytes, mut descriptors } = receive(other.as_fd(), 64).unwrap().unwrap();
        assert_eq!((bytes.as_slice(), descriptors.len()), (&b"bell"[..], 1));
        Event::from_descriptor(descriptors.remove(0)).ring().unwrap();
        assert_eq!(crate::sys::wait(&[bell.as_fd()], None).unwrap(), crate::sys::Woken::Ready(0));
    }

    #[test]
    fn what_was_sent_before_the_end_still_arrives() {
        let (one, other) = pair().unwrap();
        assert!(try_receive(other.as_fd(), 64).unwrap().is_none(), "nothing was sent");
        send(one.as_fd(), b"last words", &[]).unwrap();
        drop(one);
        assert_eq!(receive(other.as_fd(), 64).unwrap().unwrap().bytes, b"last words");
        assert!(receive(other.as_fd(), 64).unwrap().is_none());
    }
}
