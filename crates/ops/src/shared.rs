//! One input of several operations, whose gradients meet in one buffer.

use crate::cpu::{filled, slice_mut};
use burn_flex::FlexTensor;
use cavy_kernels::matmul::Onto;
use std::sync::{Arc, Mutex, PoisonError};

/// Carries the gradient of an input that several operations of a pass have in common.
///
/// Burn sums the gradients of an input's users by as many tensors and additions. Here each user adds its product to one
/// buffer, and the last one hands that on. So every user must be reached by the backward pass, which holds for layers
/// whose results all enter what comes next.
#[derive(Clone, Debug)]
pub struct SharedInput(Arc<Mutex<Sum>>);

#[derive(Debug)]
struct Sum {
    /// Users that have not added theirs.
    left: usize,
    buffer: Option<FlexTensor>,
}

impl SharedInput {
    /// For an input of so many operations.
    pub fn new(users: usize) -> Self {
        Self(Arc::new(Mutex::new(Sum { left: users, buffer: None })))
    }

    /// Adds what `add` writes onto the buffer; the sum, if this was the last user.
    ///
    /// Panics: if there are more users than were announced.
    fn add<const D: usize>(&self, shape: [usize; D], add: impl FnOnce(Onto, &mut [f32])) -> Option<FlexTensor> {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (onto, mut buffer) = match sum.buffer.take() {
            Some(buffer) => (Onto::Add, buffer),
            None => (Onto::Overwrite, filled(shape, |_| ())),
        };
        add(onto, slice_mut(&mut buffer));
        sum.left = sum.left.checked_sub(1).expect("no more users than announced");
        if sum.left == 0 {
            return Some(buffer);
        }
        sum.buffer = Some(buffer);
        None
    }
}

/// Carries the gradient of a residual stream around a branch that begins with a norm: `x + branch(norm(x))`.
///
/// Burn would add the stream's two gradients as tensors. Here the sum's backward pass leaves its own with the norm's, which
/// comes later and adds it to what it writes.
#[derive(Clone, Debug, Default)]
pub struct Residual(Arc<Mutex<Option<FlexTensor>>>);

impl Residual {
    pub(crate) fn leave(&self, gradient: FlexTensor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(gradient);
    }

    pub(crate) fn take(&self) -> Option<FlexTensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A gradient by an input: into the buffer it shares with others, or one of its own.
pub(crate) fn add_to<const D: usize>(
    shared: Option<&SharedInput>,
    shape: [usize; D],
    add: impl FnOnce(Onto, &mut [f32]),
) -> Option<FlexTensor> {
    match shared {
        Some(shared) => shared.add(shape, add),
        None => Some(filled(shape, |d_x| add(Onto::Overwrite, d_x))),
    }
}
