//! Station 4, the decision: which finished batch is delivered next. Pure: no I/O, no clock.

use std::collections::VecDeque;

/// Finished batches on their way to the trainer.
#[derive(Debug)]
pub(crate) enum Collect<T> {
    /// By step: the front of the queue is the step awaited next.
    InOrder { awaited: u64, waiting: VecDeque<Option<T>> },
    /// As they arrive.
    AsFinished { waiting: VecDeque<T> },
}

impl<T> Collect<T> {
    pub(crate) fn new(in_order: bool, first_step: u64) -> Self {
        if in_order {
            Self::InOrder { awaited: first_step, waiting: VecDeque::new() }
        } else {
            Self::AsFinished { waiting: VecDeque::new() }
        }
    }

    /// Batch `step` is finished. The caller has checked that it was sent and has not come before.
    pub(crate) fn put(&mut self, step: u64, batch: T) {
        match self {
            Self::InOrder { awaited, waiting } => {
                let place = (step - *awaited) as usize;
                if place >= waiting.len() {
                    waiting.resize_with(place + 1, || None);
                }
                waiting[place] = Some(batch);
            }
            Self::AsFinished { waiting } => waiting.push_back(batch),
        }
    }

    /// The batch to deliver next, if it is there.
    pub(crate) fn take(&mut self) -> Option<T> {
        match self {
            Self::InOrder { awaited, waiting } => {
                let batch = waiting.front_mut()?.take()?;
                waiting.pop_front();
                *awaited += 1;
                Some(batch)
            }
            Self::AsFinished { waiting } => waiting.pop_front(),
        }
    }

    /// All that is left, in any order.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        match self {
            Self::InOrder { waiting, .. } => waiting.drain(..).flatten().collect(),
            Self::AsFinished { waiting } => waiting.drain(..).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_the_order_of_arrival_steps_are_delivered_in_order(steps in Just((5..25u64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut collect = Collect::new(true, 5);
            let mut delivered = Vec::new();
            for step in steps {
                collect.put(step, step);
                delivered.extend(std::iter::from_fn(|| collect.take()));
            }
            prop_assert_eq!(delivered, (5..25).collect::<Vec<_>>());
        }
    }

    #[test]
    fn out_of_order_batches_are_delivered_as_they_arrive() {
        let mut collect = Collect::new(false, 0);
        collect.put(2, 'c');
        collect.put(0, 'a');
        assert_eq!([collect.take(), collect.take(), collect.take()], [Some('c'), Some('a'), None]);
    }
}
