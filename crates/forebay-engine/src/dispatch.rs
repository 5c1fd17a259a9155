//! Station 2, the decision: which worker makes the next batch. Pure: no I/O, no clock.
//!
//! The rules are PyTorch's, because users can see who made a batch: in order, batch `i` of an epoch goes to worker
//! `i mod n`; out of order, to the next worker in the circle that has not more than its share to do. A worker whose
//! stream of samples is over leaves the circle until the next epoch.

/// Who has how much to do.
#[derive(Debug)]
pub(crate) struct Dispatch {
    in_order: bool,
    window: u32,
    members: Vec<Member>,
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    outstanding: u32,
    active: bool,
}

impl Dispatch {
    pub(crate) fn new(workers: u32, window: u32, in_order: bool) -> Self {
        let members = vec![Member { outstanding: 0, active: true }; workers as usize];
        Self { in_order, window, members, next: 0 }
    }

    /// Whether [`choose`](Self::choose) would find a worker.
    pub(crate) fn has_room(&self) -> bool {
        let share = self.share();
        self.members.iter().any(|member| self.may_have_more(*member, share))
    }

    /// The worker for the next batch, which then counts as sent. `None` when all have left the circle, or have their
    /// share already.
    pub(crate) fn choose(&mut self) -> Option<u32> {
        let (count, share) = (self.members.len(), self.share());
        for _ in 0..count {
            let worker = self.next;
            self.next = (self.next + 1) % count;
            if self.may_have_more(self.members[worker], share) {
                self.members[worker].outstanding += 1;
                return Some(worker as u32);
            }
        }
        None
    }

    fn may_have_more(&self, member: Member, share: u32) -> bool {
        member.active && (self.in_order || member.outstanding < share)
    }

    /// Batches that one worker may have, out of order.
    fn share(&self) -> u32 {
        let active = self.members.iter().filter(|member| member.active).count() as u32;
        self.window / active.max(1)
    }

    /// The batch for `worker`, which was chosen last, could not be sent.
    pub(crate) fn take_back(&mut self, worker: u32) {
        self.members[worker as usize].outstanding -= 1;
        self.next = worker as usize;
    }

    /// `worker` has finished a batch.
    pub(crate) fn finished(&mut self, worker: u32) {
        self.members[worker as usize].outstanding -= 1;
    }

    /// `worker` has no more samples in this epoch.
    pub(crate) fn retire(&mut self, worker: u32) {
        self.members[worker as usize].active = false;
    }

    /// A new epoch begins with worker `first`, and with all.
    pub(crate) fn restart(&mut self, first: u32) {
        self.next = first as usize % self.members.len();
        self.members.iter_mut().for_each(|member| member.active = true);
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
        dispatch.restart(0);
        assert_eq!(dispatch.choose(), Some(0));
    }

    #[test]
    fn an_epoch_that_goes_on_in_its_middle_begins_with_the_worker_whose_turn_it_was() {
        let mut dispatch = Dispatch::new(3, 6, true);
        dispatch.restart(2);
        assert_eq!((0..4).filter_map(|_| dispatch.choose()).collect::<Vec<_>>(), [2, 0, 1, 2]);
        dispatch.restart(0);
        assert_eq!(dispatch.choose(), Some(0), "only that epoch");
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

    #[test]
    fn a_worker_whose_stream_is_over_leaves_the_circle_until_the_next_epoch() {
        let mut dispatch = Dispatch::new(3, 6, true);
        dispatch.retire(1);
        assert_eq!((0..4).filter_map(|_| dispatch.choose()).collect::<Vec<_>>(), [0, 2, 0, 2]);
        dispatch.restart(0);
        assert_eq!((0..3).filter_map(|_| dispatch.choose()).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn those_that_stay_share_the_window() {
        let mut dispatch = Dispatch::new(3, 6, false);
        dispatch.retire(0);
        dispatch.retire(2);
        assert_eq!((0..9).filter_map(|_| dispatch.choose()).collect::<Vec<_>>(), [1; 6]);
        assert!(!dispatch.has_room());
        dispatch.finished(1);
        assert!(dispatch.has_room());
        dispatch.retire(1);
        assert!(!dispatch.has_room(), "nobody is left");
    }
}
