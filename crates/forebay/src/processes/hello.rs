//! What trainer and worker process say to each other while the worker starts; and its last words.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use forebay_engine::Seat;
use forebay_shm::ShmError;
use forebay_shm::socket::{self, Message};
use serde::{Deserialize, Serialize};

use crate::worker::Start;

const MAGIC: &[u8] = b"forebay worker 3\n";
/// A type's name may be long, but not so long.
const MOST_BYTES: usize = 64 * 1024;
const MOST_LAST_WORDS_BYTES: usize = 8 * 1024;

/// The first message to a worker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: String,
    pub(super) worker: u32,
    pub(super) start: Start,
    /// The place of the recipe's type in the program's entry.
    pub(super) kind: u32,
    /// The name of the recipe's type.
    pub(super) type_name: String,
}

impl Hello {
    /// Says hello, and hands over the seat and the recipe's file.
    pub(super) fn send(&self, socket: &OwnedFd, seat: &Seat, recipe: &OwnedFd) -> Result<(), ShmError> {
        let Seat { worker: _, arena, worker_bell, trainer_bell, lifeline } = seat;
        let descriptors: Vec<BorrowedFd<'_>> =
            [arena, worker_bell, trainer_bell, lifeline, recipe].map(AsFd::as_fd).to_vec();
        match socket::send(socket.as_fd(), &self.encode(), &descriptors) {
            // It is gone already: how, is told when that is noticed as any worker's end is.
            Err(ShmError::Os { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent,
        }
    }

    /// Waits for the trainer's hello. `None` when the trainer has ended.
    pub(super) fn receive(socket: &OwnedFd) -> Result<Option<(Self, Seat, OwnedFd)>, String> {
        let received = socket::receive(socket.as_fd(), MOST_BYTES).map_err(|error| {
            format!(
                "its standard input is not a trainer's socket ({error}); `{}` is the name of workers",
                super::entry::MARK
            )
        })?;
        let Some(Message { bytes, descriptors }) = received else { return Ok(None) };
        let hello = Self::decode(&bytes)?;
        let count = descriptors.len();
        let [arena, worker_bell, trainer_bell, lifeline, recipe] = <[OwnedFd; 5]>::try_from(descriptors)
            .map_err(|_| format!("it was sent {count} descriptors, not 5"))?;
        let seat = Seat { worker: hello.worker, arena, worker_bell, trainer_bell, lifeline };
        Ok(Some((hello, seat, recipe)))
    }

    fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(self).expect("numbers and short texts always have a form");
        [MAGIC, &body].concat()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let body = bytes.strip_prefix(MAGIC).ok_or("it was sent something else than a trainer's hello")?;
        let hello: Self =
            postcard::from_bytes(body).map_err(|error| format!("the hello makes no sense: {error}"))?;
        if hello.version != VERSION {
            return Err(format!(
                "the trainer has version {} of forebay, the worker {VERSION}",
                hello.version
            ));
        }
        Ok(hello)
    }
}

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A word of a worker to its trainer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// It has taken its seat.
    Joined,
    /// It cannot go on.
    Last(String),
}

impl Word {
    pub(super) fn send(self, socket: &OwnedFd) {
        let word = match self {
            Self::Joined => Self::Joined,
            Self::Last(text) => Self::Last(text.chars().take(MOST_LAST_WORDS_BYTES / 8).collect()),
        };
        let bytes = postcard::to_stdvec(&word).unwrap_or_default();
        // A trainer that has ended needs no word.
        let _ = socket::send(socket.as_fd(), &bytes, &[]);
    }

    /// All that a worker, which has ended, has said. What makes no sense was not said by our worker.
    pub(super) fn all(socket: &OwnedFd) -> Vec<Self> {
        let next = || socket::try_receive(socket.as_fd(), MOST_LAST_WORDS_BYTES).ok().flatten();
        std::iter::from_fn(next)
            .take(2)
            .filter_map(|message| postcard::from_bytes(&message.bytes).ok())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        let start = Start { num_workers: 3, seed: 7, epoch: 2, rank: 1, world: 2 };
        Hello { version: VERSION.into(), worker: 1, start, kind: 4, type_name: "a::Type".into() }
    }

    #[test]
    fn a_hello_reads_back_as_it_was_said() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
    }

    #[test]
    fn a_hello_of_another_version_is_refused() {
        let other = Hello { version: "0.0.0-other".into(), ..hello() };
        assert!(Hello::decode(&other.encode()).unwrap_err().contains("0.0.0-other"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_hello_or_an_error(mut bytes: Vec<u8>, ours: bool) {
            if ours {
                bytes.splice(0..0, MAGIC.iter().copied());
            }
            let _ = Hello::decode(&bytes);
        }

        #[test]
        fn a_hello_that_is_cut_short_is_an_error(cut in 0usize..60) {
            let bytes = hello().encode();
            prop_assume!(cut < bytes.len());
            prop_assert!(Hello::decode(&bytes[..cut]).is_err());
        }
    }
}
