//! Memory of a block: one piece each for what it keeps and for what its backward pass needs in between. In a step of a small model asking
//! for each part alone took a hundredth of the time.

use crate::buffer::unfilled;
use crate::simd::LANES;
use std::cell::Cell;

/// Parts of what a block keeps.
const PARTS: usize = 9;

/// What the backward pass needs of the forward pass, each part with a row for every token. What the norms give is formed again: it would
/// be read from memory otherwise, when it has left the caches long ago.
#[derive(Clone, Debug)]
pub struct Kept {
    data: Vec<f32>,
    lens: [usize; PARTS],
}

/// The parts of [`Kept`].
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    /// Of the norms.
    pub(super) mean: [&'a [f32]; 2],
    pub(super) rstd: [&'a [f32]; 2],
    /// Queries, keys and values, `(N, 3 D)`.
    pub(super) qkv: &'a [f32],
    /// What attention gives, `(N, D)`, and the log of each softmax's denominator, `(N, H)`.
    pub(super) mixed: &'a [f32],
    pub(super) lse: &'a [f32],
    /// `z`, `(N, D)`.
    pub(super) stream: &'a [f32],
    /// The input of the activation, `(N, F)`.
    pub(super) inner: &'a [f32],
}

impl Kept {
    /// Of these lengths, in the order of [`Kept::parts_mut`].
    pub(super) fn new(lens: [usize; PARTS]) -> Self {
        Self { data: unfilled(lens.map(whole_lines).iter().sum()), lens }
    }

    /// Means and deviations of the first norm and the second, then as in [`Parts`].
    pub(super) fn parts_mut(&mut self) -> [&mut [f32]; PARTS] {
        cut(&mut self.data, self.lens)
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        let mut rest = &self.data[..];
        let [mean_1, mean_2, rstd_1, rstd_2, qkv, mixed, lse, stream, inner] = self.lens.map(|len| {
            let (part, others) = rest.split_at(whole_lines(len));
            rest = others;
            &part[..len]
        });
        Parts { mean: [mean_1, mean_2], rstd: [rstd_1, rstd_2], qkv, mixed, lse, stream, inner }
    }
}

/// A length, up to the end of a line of the cache.
fn whole_lines(len: usize) -> usize {
    len.next_multiple_of(LANES)
}

fn cut<const K: usize>(data: &mut [f32], lens: [usize; K]) -> [&mut [f32]; K] {
    let mut rest = data;
    lens.map(|len| {
        let (part, others) = std::mem::take(&mut rest).split_at_mut(whole_lines(len));
        rest = others;
        &mut part[..len]
    })
}

/// Most floats that a thread keeps from one call to the next.
const KEPT_ROOM: usize = 1 << 24;

/// Runs `body` with buffers of these lengths whose values are arbitrary.
pub(super) fn with_buffers<const K: usize, R>(lens: [usize; K], body: impl FnOnce([&mut [f32]; K]) -> R) -> R {
    thread_local! {
        static ROOM: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    }
    let mut room = ROOM.take();
    let len = lens.map(whole_lines).iter().sum();
    if room.len() < len {
        room = unfilled(len);
    }
    let result = body(cut(&mut room, lens));
    if room.len() <= KEPT_ROOM {
        ROOM.set(room);
    }
    result
}
