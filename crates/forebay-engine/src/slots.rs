//! Who holds which slot. The trainer's own memory; no other process sees it.
//!
//! ```text
//!        grant               finish              lease              the last view dies
//! Free --------> Granted ------------> Finished --------> Leased ----------------------> Free
//!                   |                     |                  |                            ^
//!                   |  worker surely dead |  not wanted      |  seen by a forked child    |
//!                   +---------------------+----> Free        +--> SetAside --(child gone)-+
//! ```

use std::sync::Arc;

use forebay_shm::{Arena, Lease, Returns, ShmError, SlotMemory, fork};

/// Idle slots keep at most this share of the budget, so that a batch larger than those before it finds memory.
const IDLE_SHARE: u64 = 4;

/// A slot whose trainer's view is gone while a forked child may still look at it.
#[derive(Debug)]
struct SetAside {
    slot: u32,
    /// The count of forks when it was leased: children of those before cannot see it.
    born: u64,
    /// The count when it was certainly dropped.
    dropped: u64,
}

/// The slots of one arena.
#[derive(Debug)]
pub(crate) struct Slots {
    arena: Arena,
    returns: Arc<Returns>,
    /// Free slots that were used before; the last one was used last, so it is the warmest.
    free: Vec<u32>,
    /// Free slots without memory.
    empty: Vec<u32>,
    /// Slots from here on were never used.
    untouched: u32,
    set_aside: Vec<SetAside>,
    /// The worker that wrote a slot last has it mapped and maybe cached.
    last_writer: Vec<u32>,
    /// Bytes of each slot while it is leased, else 0.
    leased_bytes: Vec<u64>,
    /// How many forks there had been when a slot was leased.
    leased_at_fork: Vec<u64>,
    leased_count: u32,
    leased_total: u64,
    /// The trainer's views.
    memory: Vec<SlotMemory>,
    /// The most free slots that keep their memory.
    keep: usize,
    /// The most memory any slot has taken, in bytes.
    largest: u64,
}

impl Slots {
    pub(crate) fn new(arena: Arena, window: u32) -> Self {
        let slots = arena.geometry().slots;
        Self {
            returns: Arc::new(Returns::new(slots)),
            free: Vec::new(),
            empty: Vec::new(),
            untouched: 0,
            set_aside: Vec::new(),
            last_writer: vec![u32::MAX; slots as usize],
            leased_bytes: vec![0; slots as usize],
            leased_at_fork: vec![0; slots as usize],
            leased_count: 0,
            leased_total: 0,
            memory: vec![SlotMemory::unmapped(); slots as usize],
            keep: window as usize + 2,
            largest: 0,
            arena,
        }
    }

    /// A free slot for `worker`, or `None` when there is none.
    pub(crate) fn grant(&mut self, worker: u32) -> Result<Option<u32>, ShmError> {
        self.take_returned();
        let warm = self.free.iter().rposition(|slot| self.last_writer[*slot as usize] == worker);
        let slot = match warm {
            Some(place) => self.free.remove(place),
            None => match self.free.pop().or_else(|| self.empty.pop()) {
                Some(slot) => slot,
                None if self.untouched < self.arena.geometry().slots => {
                    self.untouched += 1;
                    self.untouched - 1
                }
                None => return Ok(None),
            },
        };
        self.last_writer[slot as usize] = worker;
        self.trim()?;
        Ok(Some(slot))
    }

    /// Writes the indices of a batch at the start of a granted slot.
    pub(crate) fn put_indices(&mut self, slot: u32, indices: &[u8]) -> Result<(), ShmError> {
        let memory = std::mem::replace(&mut self.memory[slot as usize], SlotMemory::unmapped());
        let mut writer = self.arena.indices_writer(slot, memory);
        let written = writer.append(indices);
        self.memory[slot as usize] = writer.into_memory();
        written.map(|_| ())
    }

    /// A slot that nobody looks at: its batch was not wanted.
    pub(crate) fn free(&mut self, slot: u32) -> Result<(), ShmError> {
        self.free.push(slot);
        self.trim()
    }

    /// Leases the slot of a finished batch of `used` bytes, and tells whether the user may keep it. If not, the batch has to be copied
    /// and the lease dropped: there must always be room for the batches in flight, or a user who keeps batches would
    /// stop the loader.
    pub(crate) fn lease(&mut self, slot: u32, used: u64, window: u32) -> Result<(Lease, bool), ShmError> {
        self.take_returned();
        let size = self.arena.reserved(slot);
        self.largest = self.largest.max(size);
        let in_flight = u64::from(window) * self.largest;
        let within_budget = self.leased_total + size + in_flight <= self.arena.geometry().budget_bytes;
        let slots_left = self.leased_count + 1 + window < self.arena.geometry().slots;
        let memory = &mut self.memory[slot as usize];
        let lease = match Lease::new(&self.arena, self.returns.clone(), slot, used, memory) {
            Ok(lease) => lease,
            Err(error) => {
                self.free(slot)?;
                return Err(error);
            }
        };
        self.leased_bytes[slot as usize] = size;
        self.leased_total += size;
        self.arena.set_leased(self.leased_total);
        self.leased_at_fork[slot as usize] = lease.forks();
        self.leased_count += 1;
        Ok((lease, within_budget && slots_left))
    }

    fn is_back(&mut self, slot: u32) {
        self.leased_total -= std::mem::take(&mut self.leased_bytes[slot as usize]);
        self.arena.set_leased(self.leased_total);
        self.leased_count -= 1;
        self.free.push(slot);
    }

    fn take_returned(&mut self) {
        let returns = self.returns.clone();
        for slot in returns.take_free() {
            self.is_back(slot);
        }
        let seen: Vec<_> = returns.take_seen_by_children().collect();
        // Counted after they were taken: a fork in between may have seen them.
        let dropped = fork::count();
        let aside = |slot: u32| SetAside { slot, born: self.leased_at_fork[slot as usize], dropped };
        self.set_aside.extend(seen.into_iter().map(aside));
        let gone = |aside: &mut SetAside| fork::children_are_gone(aside.born, aside.dropped);
        let back: Vec<_> = self.set_aside.extract_if(.., gone).collect();
        for aside in back {
            self.is_back(aside.slot);
        }
    }

    /// Gives the memory of all free slots back. What is leased stays.
    pub(crate) fn release(&mut self) -> Result<(), ShmError> {
        self.keep = 0;
        self.take_returned();
        self.trim()
    }

    /// Slots beyond what the loader needs without a user who keeps batches give their memory back, the coldest
    /// first. Called when a slot has been granted, so that the next batch's own slot is not among them.
    fn trim(&mut self) -> Result<(), ShmError> {
        let most_idle = self.arena.geometry().budget_bytes / IDLE_SHARE;
        while self.free.len() > self.keep || self.idle_bytes() > most_idle {
            let coldest = self.free.remove(0);
            self.arena.give_back(coldest)?;
            self.memory[coldest as usize] = SlotMemory::unmapped();
            self.empty.push(coldest);
        }
        Ok(())
    }

    fn idle_bytes(&self) -> u64 {
        self.free.iter().map(|slot| self.arena.reserved(*slot)).sum()
    }
}
