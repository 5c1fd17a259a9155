//! Station 2, the decision: which worker makes the next batch. Pure: no I/O, no clock.
//!
//! The rules are PyTorch's, because users can see who made a batch: in order, batch `i` of an epoch goes to worker
//! `i mod n`; out of order, to the next worker in the circle that has not more than its share to do.

/// Who has how much to do.
#[derive(Debug)]
pub(crate) struct Dispatch {
    in_order: bool,
    share: u32,
    outstanding: Vec<u32>,
    next: usize,
}

impl Dispatch {
    pub(crate) fn new(workers: u32, window: u32, in_order: bool) -> Self {
        let outstanding = vec![0; workers as usize];
        Self { in_order, share: window / workers, outstanding, next: 0 }
    }

    /// The worker for the next batch, which then counts as sent. `None` when every worker has its share already;
    /// that is so only when more batches are outstanding than the window allows.
    pub(crate) fn choose(&mut self) -> Option<u32> {
        let count = self.outstanding.len();
        for _ in 0..count {
            let worker = self.next;
            self.next = (self.next + 1) % count;
            if self.in_order || self.outstanding[worker] < self.share {
                self.outstanding[worker] += 1;
                return Some(worker as u32);
            }
        }
        None
    }

    /// The batch for `worker`, which was chosen last, could not be sent.
    pub(crate) fn take_back(&mut self, worker: u32) {
        self.outstanding[worker as usize] -= 1;
        self.next = worker as usize;
    }

    /// `worker` has finished a batch.
    pub(crate) fn finished(&mut self, worker: u32) {
        self.outstanding[worker as usize] -= 1;
    }

    /// A new epoch begins with worker 0.
    pub(crate) fn restart(&mut self) {
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_workers_take_turns_and_every_epoch_begins_with_worker_0() {
        let mut dispatch = Dispatch::new(3, 6, true);
        let chosen: Vec<_> = (0..5).filter_map(|_| dispatch.choose()).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1]);
        dispatch.restart();
        assert_eq!(dispatch.choose(), Some(0));
    }

    #[test]
    fn out_of_order_a_slow_worker_gets_no_more_than_its_share() {
        let mut dispatch = Dispatch::new(2, 4, false);
        assert_eq!((0..4).filter_map(|_| dispatch.choose()).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert_eq!(dispatch.choose(), None);
        for _ in 0..5 {
            dispatch.finished(1);
            assert_eq!(dispatch.choose(), Some(1), "worker 0 still has its share");
        }
    }
}
