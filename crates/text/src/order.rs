//! The order in which training examples come: seeded, stateless, in batches.

use crate::rng::{Rng, hash3};
use std::ops::Range;

/// The order of `count` examples in batches of `batch_size`, another one each epoch.
///
/// The order of an epoch is a function of `(seed, epoch)` alone, so a run resumes from the pair (epoch, batch) with
/// nothing else saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    count: usize,
    batch_size: usize,
    drop_last: bool,
    shuffle: Option<u64>,
}

impl Order {
    /// An order of `count` examples. `shuffle` is the seed, or `None` for the order of the text; with `drop_last` a
    /// last batch that is not full is left out.
    ///
    /// # Panics
    /// If `batch_size` is 0.
    pub fn new(count: usize, batch_size: usize, drop_last: bool, shuffle: Option<u64>) -> Self {
        assert!(batch_size > 0, "a batch holds at least one example");
        Self { count, batch_size, drop_last, shuffle }
    }

    /// How many batches one epoch has. 0 if `drop_last` leaves none.
    pub fn batches_per_epoch(&self) -> usize {
        if self.drop_last { self.count / self.batch_size } else { self.count.div_ceil(self.batch_size) }
    }

    /// The examples of one epoch in their order: a permutation of `0..count`, computed in one pass.
    pub fn epoch(&self, epoch: usize) -> Epoch {
        let mut indices: Vec<usize> = (0..self.count).collect();
        if let Some(seed) = self.shuffle {
            Rng::new(hash3(seed, epoch as u64, 0x0EDE)).shuffle(&mut indices);
        }
        Epoch { indices, order: *self }
    }

    /// Epoch and batch within it of step number `step` counted from 0, one batch a step.
    ///
    /// # Panics
    /// If an epoch has no batch.
    pub fn locate(&self, step: usize) -> (usize, usize) {
        let batches = self.batches_per_epoch();
        assert!(batches > 0, "an epoch of {} examples in batches of {} has no batch", self.count, self.batch_size);
        (step / batches, step % batches)
    }
}

/// One epoch of an [`Order`].
#[derive(Clone, Debug)]
pub struct Epoch {
    indices: Vec<usize>,
    order: Order,
}

impl Epoch {
    /// The examples of batch `batch`, in order.
    ///
    /// # Panics
    /// If the epoch has no such batch.
    pub fn batch(&self, batch: usize) -> &[usize] {
        assert!(batch < self.order.batches_per_epoch(), "batch {batch} of {}", self.order.batches_per_epoch());
        let start = batch * self.order.batch_size;
        let range: Range<usize> = start..(start + self.order.batch_size).min(self.indices.len());
        &self.indices[range]
    }

    /// All batches of the epoch in order.
    pub fn batches(&self) -> impl Iterator<Item = &[usize]> {
        (0..self.order.batches_per_epoch()).map(|batch| self.batch(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nine_batches_of_two_come_from_nineteen_windows_when_the_last_is_dropped() {
        assert_eq!(Order::new(19, 2, true, None).batches_per_epoch(), 9);
        assert_eq!(Order::new(19, 2, false, None).batches_per_epoch(), 10);
        assert_eq!(Order::new(19, 2, false, None).epoch(0).batch(9), [18]);
        assert_eq!(Order::new(19, 2, true, None).locate(20), (2, 2));
    }

    #[test]
    fn epochs_and_seeds_have_orders_of_their_own() {
        let order = Order::new(100, 100, false, Some(1));
        assert_eq!(order.epoch(3).batch(0), order.epoch(3).batch(0));
        assert_ne!(order.epoch(3).batch(0), order.epoch(4).batch(0));
        assert_ne!(order.epoch(3).batch(0), Order::new(100, 100, false, Some(2)).epoch(3).batch(0));
    }

    #[test]
    fn the_order_of_a_seed_never_changes() {
        // Saved runs depend on these numbers: a change here breaks resuming them.
        assert_eq!(Order::new(8, 8, false, Some(42)).epoch(1).batch(0), [1, 4, 3, 7, 6, 2, 5, 0]);
    }

    proptest! {
        #[test]
        fn an_epoch_visits_every_example_once(count in 0usize..300, batch_size in 1usize..40, seed: u64, epoch in 0usize..9) {
            let epoch = Order::new(count, batch_size, false, Some(seed)).epoch(epoch);
            let mut seen: Vec<usize> = epoch.batches().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }

        #[test]
        fn with_drop_last_every_batch_is_full(count in 0usize..300, batch_size in 1usize..40) {
            let epoch = Order::new(count, batch_size, true, Some(5)).epoch(0);
            prop_assert!(epoch.batches().all(|batch| batch.len() == batch_size));
            prop_assert_eq!(epoch.batches().count(), count / batch_size);
        }
    }
}
