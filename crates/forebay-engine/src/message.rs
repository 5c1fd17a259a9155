//! What goes through the queues: closed enums, one 64-byte record each.

use forebay_shm::Span;
use forebay_shm::queue::Record;

const FILL: u64 = 1;
const DONE: u64 = 2;

/// What a record in a result queue reports about a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The slot holds the batch.
    Batch,
    /// The slot holds a pair: the batch, and bytes that say how the worker's dataset stands after it.
    BatchAndState,
    /// The slot holds the description of an error, made by the dataset's side of the front.
    Error,
    /// There is no batch: the worker's own stream of samples is over for this epoch. Never delivered.
    End,
}

/// From the trainer to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToWorker {
    /// Make batch `step` of `epoch` into `slot`, whose first `indices_len` bytes are its indices in the front's `format`.
    Fill { step: u64, epoch: u64, slot: u32, format: u32, indices_len: u64 },
}

/// From a worker to the trainer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromWorker {
    /// `slot` holds the outcome of batch `step`, described by the bytes at `layout`; `used` bytes are in use.
    Done { step: u64, slot: u32, outcome: Outcome, layout: Span, used: u64 },
}

impl ToWorker {
    pub(crate) fn encode(self) -> Record {
        let Self::Fill { step, epoch, slot, format, indices_len } = self;
        [FILL, step, slot.into(), format.into(), indices_len, epoch, 0, 0]
    }

    pub(crate) fn decode(record: &Record) -> Result<Self, &'static str> {
        match record[0] {
            FILL => Ok(Self::Fill {
                step: record[1],
                slot: small(record[2])?,
                format: small(record[3])?,
                indices_len: record[4],
                epoch: record[5],
            }),
            _ => Err("unknown kind"),
        }
    }
}

impl FromWorker {
    pub(crate) fn encode(self) -> Record {
        let Self::Done { step, slot, outcome, layout, used } = self;
        let outcome = match outcome {
            Outcome::Batch => 0,
            Outcome::Error => 1,
            Outcome::End => 2,
            Outcome::BatchAndState => 3,
        };
        [DONE, step, slot.into(), outcome, layout.offset, layout.len, used, 0]
    }

    pub(crate) fn decode(record: &Record) -> Result<Self, &'static str> {
        let outcome = match record[3] {
            0 => Outcome::Batch,
            1 => Outcome::Error,
            2 => Outcome::End,
            3 => Outcome::BatchAndState,
            _ => return Err("unknown outcome"),
        };
        let layout = Span { offset: record[4], len: record[5] };
        match record[0] {
            DONE => {
                Ok(Self::Done { step: record[1], slot: small(record[2])?, outcome, layout, used: record[6] })
            }
            _ => Err("unknown kind"),
        }
    }
}

fn small(value: u64) -> Result<u32, &'static str> {
    u32::try_from(value).map_err(|_| "number too large")
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_shm::queue::RECORD_WORDS;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_the_queue(
            [step, epoch, len, offset, used]: [u64; 5],
            [slot, format]: [u32; 2],
            outcome in prop::sample::select(&[Outcome::Batch, Outcome::BatchAndState, Outcome::Error, Outcome::End][..]),
        ) {
            let fill = ToWorker::Fill { step, epoch, slot, format, indices_len: len };
            prop_assert_eq!(ToWorker::decode(&fill.encode()), Ok(fill));
            let done = FromWorker::Done { step, slot, outcome, layout: Span { offset, len }, used };
            prop_assert_eq!(FromWorker::decode(&done.encode()), Ok(done));
        }

        #[test]
        fn any_record_is_a_message_or_an_error(record: [u64; RECORD_WORDS]) {
            let _ = ToWorker::decode(&record);
            let _ = FromWorker::decode(&record);
        }
    }
}
