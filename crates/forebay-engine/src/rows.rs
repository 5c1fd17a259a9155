//! Station 3, where workers share rows: one worker's part in a batch.
//!
//! ```text
//! begin a batch (a row of it)     the oldest that nobody has begun, at once;
//!                                 the epoch's first, together with all others;
//!                                 any other, when its makers have left rows unclaimed for a while
//! next_row, next_row, ...         until all are claimed
//! hand_in                         others are still at it: what was made goes to the scratch slot, and that is all
//!                                 else: the others' pieces and a ticket, by which the batch is published
//! ```

use forebay_shm::board::{self, Wanted};
use forebay_shm::{Region, SlotWriter, Span};

use crate::EngineError;
use crate::layout::{self, Value};
use crate::worker::{Order, Ticket, Worker};

/// What one worker makes of a batch: the rows that it has claimed.
#[derive(Debug)]
pub struct Part {
    /// Which epoch of the loader's life, counted from 0.
    pub epoch: u64,
    /// The front's mark of how `indices` is written.
    pub format: u32,
    /// The indices of the whole batch, as the front wrote them.
    pub indices: Vec<u8>,
    claimed: board::Part,
}

impl Part {
    /// The row that was claimed when the part was begun.
    pub fn first_row(&self) -> u32 {
        self.claimed.first_row()
    }
}

/// What another worker made of a batch.
#[derive(Debug)]
pub struct Piece {
    /// What it is, as that worker described it.
    pub value: Value,
    /// The bytes of its arrays and opaque parts, in the order of [`Value::spans`].
    pub regions: Vec<Region>,
}

/// All rows of a batch are done, and this worker, who was last, is to publish it.
#[derive(Debug)]
pub struct Complete {
    /// The ticket to publish it by.
    pub ticket: Ticket,
    /// What others made of it, if that can be had. Rows that are missing have to be made again.
    pub others: Result<Vec<Piece>, EngineError>,
}

impl Worker {
    /// Begins, or joins in, a batch that is wanted. One that cannot be shared, because it is a single row, is a ticket.
    pub(crate) fn begin(&mut self, wanted: Wanted) -> Result<Option<Order>, EngineError> {
        let Some((claimed, indices)) = self.end.begin(wanted)? else { return Ok(None) };
        let board::Posting { epoch, format, rows, .. } = claimed.posting;
        let part = Part { epoch, format, indices, claimed };
        if rows > 1 {
            return Ok(Some(Order::Rows(part)));
        }
        let complete = self.hand_in(part, None)?;
        Ok(complete.map(|complete| Order::Fill(complete.ticket)))
    }

    /// Claims one more row of the batch, if one is left.
    pub fn next_row(&mut self, part: &mut Part) -> Option<u32> {
        self.end.next_row(&mut part.claimed)
    }

    /// Claims all rows of the batch that are left, to leave them to the finisher.
    pub fn rest(&mut self, part: &mut Part) {
        self.end.rest(&mut part.claimed);
    }

    /// Whether the rows of all others are done, so that nothing need be written for them.
    pub fn is_last(&self, part: &Part) -> bool {
        self.end.is_last(&part.claimed)
    }

    /// Where what was made is written to, for the finisher.
    pub fn scratch(&self, part: &Part) -> SlotWriter {
        self.end.scratch(&part.claimed)
    }

    /// The rows of `part` are done. What was made of them is in the scratch slot as described, if it is there; rows that are
    /// nowhere are made again by the finisher. If that is this worker, it gets all that it needs.
    ///
    /// # Errors
    /// When what stands in shared memory is impossible, or a slot cannot be had.
    pub fn hand_in(
        &mut self,
        part: Part,
        written: Option<(SlotWriter, Value)>,
    ) -> Result<Option<Complete>, EngineError> {
        let written = written.and_then(|(mut writer, value)| {
            let mut description = Vec::new();
            layout::encode(&value, &mut description);
            // Without room for the description, the rows are made again.
            let offset = writer.append(&description).ok()?;
            Some((writer, Span { offset, len: description.len() as u64 }))
        });
        if !self.end.hand_in(&part.claimed, written)? {
            return Ok(None);
        }
        let parts = self.end.parts(&part.claimed).into_iter();
        let others = parts.map(|(slot, description)| self.piece(slot, description)).collect();
        let Part { epoch, format, indices, claimed } = part;
        let (writer, _) = self.end.open_slot(claimed.posting.slot, 0)?;
        let ticket = Ticket { step: claimed.posting.step, epoch, format, indices, writer };
        Ok(Some(Complete { ticket, others }))
    }

    fn piece(&self, slot: u32, description: Span) -> Result<Piece, EngineError> {
        let value = layout::decode(self.end.read_scratch(slot, description)?.bytes())?;
        let spans = value.spans().into_iter();
        let regions = spans.map(|span| self.end.read_scratch(slot, span)).collect::<Result<_, _>>()?;
        Ok(Piece { value, regions })
    }
}
