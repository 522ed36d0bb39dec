//! Causal attention of new tokens over a cache of old ones: the formula of [`crate::attention`], without its backward pass.
//!
//! A few queries of a row (decoding) are dot products over the stored keys; many (a prompt in chunks) are matrix
//! products. New keys and values are used as they were computed and stored afterwards, so a chunk may be longer than
//! the ring that keeps its end.
//!
//! Shapes: `qkv` is `(N, (H + 2K) E)` and the output `(N, H E)`, as in [`crate::attention`].
//! Source: as there.
#![expect(unsafe_code, reason = "heads of one token are written by different tasks")]

use crate::attention::Heads;
use crate::exec::Exec;
use crate::kv_cache::{KvCache, Part, Stored};
use crate::lanes::sum_of;
use crate::math::exp;
use crate::matmul::{Onto, View, ViewMut, matmul};
use crate::parallel::{SharedMut, for_each};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use std::cell::RefCell;
use std::ops::Range;

/// Queries of one block of a prompt.
const BLOCK: usize = 64;
/// From so many queries on, a matrix product beats dot products.
const MANY: usize = 8;
/// Multiply-adds that are worth a second thread.
const WORTH_SHARING: usize = 1 << 15;

/// The new tokens of one row: where they lie on the packed axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewTokens {
    /// Row of the cache.
    pub row: usize,
    /// Index of the first on the packed axis.
    pub start: usize,
    /// How many.
    pub len: usize,
}

/// Buffers of one task, kept by its thread.
#[derive(Default)]
struct Scratch {
    stored: Vec<f32>,
    probabilities: Vec<f32>,
    rows: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One head of the new tokens of one row.
struct Task<'a> {
    exec: Exec,
    cache: &'a KvCache,
    layer: usize,
    heads: Heads,
    scale: f32,
    qkv: &'a [f32],
    new: NewTokens,
    head: usize,
}

/// Attends from every new token to what its row has seen and to the new tokens up to itself, then stores their keys
/// and values in `layer`. [`KvCache::advance`] counts them once all layers are done.
///
/// Numbers: f32 sums. Same bits for any number of threads, and for a row whatever its neighbours.
/// Law: near [`crate::attention::forward`] on the whole sequence, for f32 storage and any chunks.
/// Panics: if `new` does not tile the token axis, names a row twice, or a row has no room.
/// Source: see the file's head.
pub fn forward(
    exec: Exec,
    cache: &mut KvCache,
    layer: usize,
    heads: Heads,
    scale: f32,
    new: &[NewTokens],
    qkv: &[f32],
    out: &mut [f32],
) {
    let (packed, width) = (heads.packed_width(), heads.width());
    let tokens: usize = new.iter().map(|new| new.len).sum();
    let shape = *cache.shape();
    assert!(qkv.len() == tokens * packed && out.len() == tokens * width, "{tokens} tokens, {heads:?}: {}", qkv.len());
    assert!(shape.kv_heads == heads.kv() && shape.head_dim == heads.dim(), "{shape:?} for {heads:?}");
    let mut next = 0;
    for (index, tokens) in new.iter().enumerate() {
        assert!(tokens.start == next && tokens.len <= cache.room(tokens.row), "{tokens:?} of {new:?}");
        assert!(new[..index].iter().all(|other| other.row != tokens.row), "row {} twice", tokens.row);
        next += tokens.len;
    }
    let seen = |new: &NewTokens| new.len * (cache.len(new.row) + new.len).min(shape.window.unwrap_or(usize::MAX));
    let work = 2 * width * new.iter().map(seen).sum::<usize>();
    let threads = if work < WORTH_SHARING { 1 } else { exec.threads() };
    let out = SharedMut::new(out);
    let shared: &KvCache = cache;
    for_each(exec.with_threads(threads), new.len() * heads.query(), |task| {
        let (new, head) = (new[task / heads.query()], task % heads.query());
        let task = Task { exec: exec.with_threads(1), cache: shared, layer, heads, scale, qkv, new, head };
        SCRATCH.with_borrow_mut(|scratch| task.run(scratch, &out));
    });
    for new in new {
        cache.store(layer, new.row, &qkv[new.start * packed..(new.start + new.len) * packed], new.len);
    }
}

fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

impl Task<'_> {
    fn kv_head(&self) -> usize {
        self.head / (self.heads.query() / self.heads.kv())
    }

    /// `len` rows of one head of the new tokens, from the `first`.
    fn fresh(&self, first: usize, len: usize, head_index: usize) -> View<'_> {
        let stride = self.heads.packed_width();
        let start = (self.new.start + first) * stride + head_index * self.heads.dim();
        View::strided(&self.qkv[start..], len, self.heads.dim(), stride)
    }

    /// Positions that the query at `position` sees.
    fn visible(&self, position: usize) -> Range<usize> {
        let window = self.cache.shape().window;
        window.map_or(0, |window| (position + 1).saturating_sub(window))..position + 1
    }

    fn run(&self, scratch: &mut Scratch, out: &SharedMut<'_, f32>) {
        let (dim, seen) = (self.heads.dim(), self.cache.len(self.new.row));
        let Scratch { stored: buffer, probabilities, rows } = scratch;
        for first in (0..self.new.len).step_by(BLOCK) {
            let len = BLOCK.min(self.new.len - first);
            let position = seen + first;
            let columns = self.visible(position).start..position + len;
            let stored = self.cache.stored(self.new.row, columns.start);
            // The first new token that the block sees, and how many.
            let skipped = columns.start.saturating_sub(seen);
            let fresh = first + len - skipped;
            let probabilities = sized(probabilities, len * columns.len());
            let queries = self.fresh(first, len, self.head);
            let (keys, values) = (self.heads.query(), self.heads.query() + self.heads.kv());
            let mut part = |run: &Stored, part: Part, each: &mut dyn FnMut(View<'_>, usize)| {
                let found = self.cache.read(self.layer, part, self.kv_head(), *run, buffer);
                each(View::new(found, run.len, dim), run.position - columns.start);
            };
            let new_column = seen.max(columns.start) - columns.start;
            for run in &stored {
                part(run, Part::Keys, &mut |keys, column| {
                    self.scores(queries, keys, column, columns.len(), probabilities);
                });
            }
            let new_keys = self.fresh(skipped, fresh, keys + self.kv_head());
            self.scores(queries, new_keys, new_column, columns.len(), probabilities);
            for (row, weights) in probabilities.chunks_mut(columns.len()).enumerate() {
                let sees = self.visible(position + row);
                let sees = sees.start - columns.start..sees.end - columns.start;
                dispatch(self.exec, Softmax { scores: weights, sees });
            }
            let rows = sized(rows, len * dim);
            rows.fill(0.0);
            for run in &stored {
                part(run, Part::Values, &mut |values, column| {
                    self.mix(values, column, columns.len(), probabilities, rows);
                });
            }
            let new_values = self.fresh(skipped, fresh, values + self.kv_head());
            self.mix(new_values, new_column, columns.len(), probabilities, rows);
            for (row, values) in rows.chunks(dim).enumerate() {
                let start = (self.new.start + first + row) * self.heads.width() + self.head * dim;
                // SAFETY: this task alone writes this token's part of this head.
                unsafe { out.slice(start, dim) }.copy_from_slice(values);
            }
        }
    }

    /// Scores of all queries of a block and the keys of a run, whose first stands in `column` of `columns`.
    fn scores(&self, queries: View<'_>, keys: View<'_>, column: usize, columns: usize, scores: &mut [f32]) {
        let (rows, count) = (queries.rows(), keys.rows());
        if rows >= MANY {
            let part = ViewMut::strided(&mut scores[column..], rows, count, columns);
            matmul(self.exec, Onto::Overwrite, self.scale, queries, keys.t(), part);
        } else {
            for row in 0..rows {
                let scores = &mut scores[row * columns + column..][..count];
                dispatch(self.exec, Dots { query: queries.row(row), keys, scale: self.scale, scores });
            }
        }
    }

    /// Adds the values of a run, weighted, to the rows of a block.
    fn mix(&self, values: View<'_>, column: usize, columns: usize, weights: &[f32], rows: &mut [f32]) {
        let (dim, count) = (self.heads.dim(), values.rows());
        let len = rows.len() / dim;
        if len >= MANY {
            let part = View::strided(&weights[column..], len, count, columns);
            matmul(self.exec, Onto::Add, 1.0, part, values, ViewMut::new(rows, len, dim));
        } else {
            for (row, out) in rows.chunks_mut(dim).enumerate() {
                dispatch(self.exec, Mix { weights: &weights[row * columns + column..][..count], values, out });
            }
        }
    }
}

/// `scores[j] = scale * query . keys[j]`.
struct Dots<'a> {
    query: &'a [f32],
    keys: View<'a>,
    scale: f32,
    scores: &'a mut [f32],
}

impl Kernel for Dots<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (j, score) in self.scores.iter_mut().enumerate() {
            let key = self.keys.row(j);
            let (q, q_tail) = self.query.as_chunks::<LANES>();
            let (k, k_tail) = key.as_chunks::<LANES>();
            let mut lanes = [0.0; LANES];
            for (q, k) in q.iter().zip(k) {
                for i in 0..LANES {
                    lanes[i] = simd.mul_add(q[i], k[i], lanes[i]);
                }
            }
            let tail: f32 = q_tail.iter().zip(k_tail).map(|(q, k)| q * k).sum();
            *score = self.scale * (crate::lanes::sum(lanes) + tail);
        }
    }
}

/// `out += sum_j weights[j] values[j]`.
struct Mix<'a> {
    weights: &'a [f32],
    values: View<'a>,
    out: &'a mut [f32],
}

impl Kernel for Mix<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // 64 sums at a time stay in registers while the values pass by.
        const WIDE: usize = 4 * LANES;
        let (blocks, tail) = self.out.as_chunks_mut::<WIDE>();
        let mut first = 0;
        for block in blocks {
            let mut sums = *block;
            for (j, &weight) in self.weights.iter().enumerate() {
                let value: &[f32; WIDE] = self.values.row(j)[first..first + WIDE].try_into().expect("a whole block");
                for i in 0..WIDE {
                    sums[i] = simd.mul_add(weight, value[i], sums[i]);
                }
            }
            *block = sums;
            first += WIDE;
        }
        for (j, &weight) in self.weights.iter().enumerate() {
            let value = &self.values.row(j)[first..];
            tail.iter_mut().zip(value).for_each(|(sum, &value)| *sum = simd.mul_add(weight, value, *sum));
        }
    }
}

/// Turns one row of scores into probabilities, zero outside what the query sees.
struct Softmax<'a> {
    scores: &'a mut [f32],
    sees: Range<usize>,
}

impl Kernel for Softmax<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (before, rest) = self.scores.split_at_mut(self.sees.start);
        let (seen, after) = rest.split_at_mut(self.sees.len());
        before.fill(0.0);
        after.fill(0.0);
        let max = seen.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
        seen.iter_mut().for_each(|x| *x = exp(simd, *x - max));
        let scale = 1.0 / sum_of(seen, |sum, x| sum + x);
        seen.iter_mut().for_each(|x| *x *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{self, Attention};
    use crate::exec::Isa;
    use crate::kv_cache::{KvShape, KvStorage};
    use crate::segments::Segments;
    use crate::testing::{assert_near, test_input, wide};

    fn heads() -> Heads {
        Heads::new(4, 2, 20).unwrap()
    }

    fn shape(window: Option<usize>, storage: KvStorage) -> KvShape {
        KvShape { layers: 1, kv_heads: 2, head_dim: 20, window, storage }
    }

    fn input(tokens: usize, salt: usize) -> Vec<f32> {
        test_input(tokens * heads().packed_width(), salt).into_iter().map(|x| 3.0 * x).collect()
    }

    /// What every token of these segments gets when nothing is cached.
    fn uncached(segments: &Segments, window: Option<usize>, qkv: &[f32]) -> Vec<f64> {
        let spec = Attention { heads: heads(), segments, window, scale: 0.3, dropout: 0.0, dropout_key: 0 };
        let n = segments.tokens();
        let (mut out, mut lse) = (vec![0.0; n * heads().width()], vec![0.0; n * heads().query()]);
        attention::forward(Exec::new(1), &spec, qkv, &mut out, &mut lse);
        wide(&out)
    }

    /// Feeds tokens to one row.
    fn feed(exec: Exec, cache: &mut KvCache, row: usize, qkv: &[f32]) -> Vec<f32> {
        let len = qkv.len() / heads().packed_width();
        let mut out = vec![f32::NAN; len * heads().width()];
        forward(exec, cache, 0, heads(), 0.3, &[NewTokens { row, start: 0, len }], qkv, &mut out);
        cache.advance(row, len);
        out
    }

    #[test]
    fn chunks_of_any_size_give_what_the_whole_sequence_gives() {
        let (n, packed) = (150, heads().packed_width());
        let qkv = input(n, 1);
        for isa in Isa::available() {
            for threads in [1, 2] {
                let exec = Exec::new(threads).with_isa(isa);
                for window in [None, Some(1), Some(7), Some(70)] {
                    let expected = uncached(&Segments::of_lengths(&[n]), window, &qkv);
                    for chunks in [vec![n], vec![1; n], vec![5, 1, 70, 3, 71], vec![100, 50]] {
                        let mut cache = KvCache::new(shape(window, KvStorage::F32), &[n]);
                        let (mut at, mut out) = (0, Vec::new());
                        for len in chunks {
                            out.extend(feed(exec, &mut cache, 0, &qkv[at * packed..(at + len) * packed]));
                            at += len;
                        }
                        assert_near(&format!("{}, window {window:?}", isa.name()), &out, &expected, 2e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn rounded_storage_stays_within_its_bound() {
        let qkv = input(40, 2);
        let expected = uncached(&Segments::of_lengths(&[40]), None, &qkv);
        for (storage, bound) in [(KvStorage::Bf16, 0.01), (KvStorage::Q8, 0.02)] {
            let mut cache = KvCache::new(shape(None, storage), &[40]);
            let out: Vec<f32> =
                qkv.chunks(heads().packed_width()).flat_map(|token| feed(Exec::new(1), &mut cache, 0, token)).collect();
            assert_near("rounded", &out, &expected, bound);
            let worst = out.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(worst > 1e-5, "{storage:?} rounds: {worst:e}");
        }
    }

    #[test]
    fn continuations_of_one_prefix_give_what_the_whole_sequences_give() {
        let packed = heads().packed_width();
        let (prompt, first, second) = (input(9, 3), input(5, 4), input(3, 5));
        for window in [None, Some(4), Some(11)] {
            let mut cache = KvCache::new(shape(window, KvStorage::F32), &[9, 5, 5]);
            feed(Exec::new(1), &mut cache, 0, &prompt);
            for (row, own) in [(1, &first), (2, &second)] {
                cache.continue_from(row, 0);
                let out: Vec<f32> =
                    own.chunks(2 * packed).flat_map(|piece| feed(Exec::new(2), &mut cache, row, piece)).collect();
                let whole = [prompt.clone(), own.clone()].concat();
                let expected = uncached(&Segments::of_lengths(&[9 + own.len() / packed]), window, &whole);
                assert_near("continuation", &out, &expected[9 * heads().width()..], 2e-6);
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_whatever_its_neighbours() {
        let (packed, width) = (heads().packed_width(), heads().width());
        let (a, b) = (input(6, 6), input(11, 7));
        for isa in Isa::available() {
            let exec = Exec::new(2).with_isa(isa);
            let mut alone = KvCache::new(shape(Some(8), KvStorage::F32), &[20]);
            let mut both = KvCache::new(shape(Some(8), KvStorage::F32), &[20, 20]);
            let mut expected = feed(exec, &mut alone, 0, &a);
            feed(exec, &mut both, 1, &b);
            let mut found = feed(exec, &mut both, 0, &a);
            for step in 0..6 {
                let (x, y) = (input(1, 20 + step), input(1, 40 + step));
                expected.extend(feed(exec, &mut alone, 0, &x));
                let mut out = vec![0.0; 2 * width];
                let new = [NewTokens { row: 1, start: 0, len: 1 }, NewTokens { row: 0, start: 1, len: 1 }];
                let qkv = [y, x].concat();
                assert_eq!(qkv.len(), 2 * packed);
                forward(exec, &mut both, 0, heads(), 0.3, &new, &qkv, &mut out);
                (0..2).for_each(|row| both.advance(row, 1));
                found.extend(&out[width..]);
            }
            assert_eq!(expected, found, "{}", isa.name());
        }
    }
}
