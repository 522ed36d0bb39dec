//! Causal attention over the packed token axis: multi-head or grouped-query, with an optional sliding window.
//!
//! For query `i` and the keys `j` it sees: `p_ij = exp(s q_i k_j - lse_i)`, `o_i = sum_j p_ij v_j`.
//! A query at position `t` of its segment sees the positions `t - window + 1 ..= t` of that segment and, before them,
//! of the segments it continues; nothing else.
//! Backward, with `delta_i = d_o_i . o_i`: `d_p_ij = d_o_i . v_j`, `d_s_ij = s p_ij (d_p_ij - delta_i)`,
//! `d_q_i = sum_j d_s_ij k_j`, `d_k_j = sum_i d_s_ij q_i`, `d_v_j = sum_i p_ij d_o_i`.
//!
//! Memory is linear in the sequence: scores live for a block of queries at a time; the backward pass forms them again
//! from the saved `lse`.
//!
//! Shapes: `qkv` is `(N, (H + 2K) E)`: the query heads of a token, then its key heads, then its value heads; the
//! output is `(N, H E)`, `lse` `(N, H)`.
//! Source: Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, equation 1; Ainslie et al. 2023 for grouped queries,
//! <https://arxiv.org/abs/2305.13245>; recomputation as in Dao et al. 2022, <https://arxiv.org/abs/2205.14135>.
#![expect(unsafe_code, reason = "heads of one token are written by different tasks")]

#[cfg(target_arch = "x86_64")]
mod short;
mod softmax;

use crate::dropout::{keep, threshold};
use crate::exec::Exec;
use crate::matmul::{Onto, View, ViewMut, matmul};
use crate::parallel::{SharedMut, for_each};
use crate::segments::{Segment, Segments};
use crate::simd::{LANES, dispatch};
use softmax::{Softmax, SoftmaxBackward};
use std::cell::RefCell;
use std::ops::Range;

/// Most queries of one block.
const BLOCK: usize = 64;

/// Head counts and size. Invariant: `kv` divides `query`, so no kernel checks it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    query: usize,
    kv: usize,
    dim: usize,
}

impl Heads {
    /// `query` query heads sharing `kv` key/value heads of size `dim`. `None` unless `kv` divides `query`.
    pub fn new(query: usize, kv: usize, dim: usize) -> Option<Self> {
        (query > 0 && kv > 0 && dim > 0 && query.is_multiple_of(kv)).then_some(Self { query, kv, dim })
    }

    /// Query heads.
    pub fn query(self) -> usize {
        self.query
    }

    /// Key/value heads.
    pub fn kv(self) -> usize {
        self.kv
    }

    /// Size of a head.
    pub fn dim(self) -> usize {
        self.dim
    }

    /// Width of a row of packed queries, keys and values.
    pub fn packed_width(self) -> usize {
        (self.query + 2 * self.kv) * self.dim
    }

    /// Width of a row of outputs.
    pub fn width(self) -> usize {
        self.query * self.dim
    }
}

/// What attends to what, and how.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Head counts and size.
    pub heads: Heads,
    /// Where the sequences lie.
    pub segments: &'a Segments,
    /// Most positions a query sees, its own included; `None` for all.
    pub window: Option<usize>,
    /// Factor of the scores, usually `1 / sqrt(dim)`.
    pub scale: f32,
    /// Probability of dropping an attention weight, with the key of the random numbers.
    pub dropout: f32,
    /// See `dropout`: what falls depends on this key, the head and the two tokens alone.
    pub dropout_key: u64,
}

/// Consecutive key columns of a block that are also consecutive tokens: of one segment.
#[derive(Clone, Copy)]
struct Run {
    token: usize,
    column: usize,
    len: usize,
}

/// Queries `rows` of a segment against the positions `columns` of its sequence.
struct QueryBlock {
    /// Packed index of the first query.
    token: usize,
    /// Position of the first query.
    position: usize,
    len: usize,
    columns: Range<usize>,
    runs: Vec<Run>,
    /// Floats from one row of scores to the next: whole vectors.
    stride: usize,
}

impl QueryBlock {
    /// Columns that query `row` of the block sees.
    fn seen(&self, spec: &Attention<'_>, row: usize) -> Range<usize> {
        let seen = spec.visible(self.position + row);
        seen.start - self.columns.start..seen.end - self.columns.start
    }
}

impl Attention<'_> {
    /// Positions that the query at `position` sees.
    fn visible(&self, position: usize) -> Range<usize> {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))..position + 1
    }

    fn blocks(&self, index: usize) -> impl Iterator<Item = QueryBlock> + '_ {
        let segment = self.segments.list()[index];
        let size = if segment.len <= 2 * BLOCK { BLOCK / 2 } else { BLOCK };
        (0..segment.len).step_by(size).map(move |first| {
            let len = size.min(segment.len - first);
            let position = segment.position + first;
            let columns = self.visible(position).start..position + len;
            let runs = self.runs(index, &columns);
            let stride = columns.len().next_multiple_of(LANES);
            QueryBlock { token: segment.start + first, position, len, columns, runs, stride }
        })
    }

    /// Where the positions `columns` of the sequence that ends in segment `index` lie, from the first on.
    fn runs(&self, index: usize, columns: &Range<usize>) -> Vec<Run> {
        let part = |index: usize| {
            let Segment { start, len, position, .. } = self.segments.list()[index];
            let seen = columns.start.max(position)..columns.end.min(position + len);
            let run =
                || Run { token: start + seen.start - position, column: seen.start - columns.start, len: seen.len() };
            (!seen.is_empty()).then(run)
        };
        let mut runs: Vec<Run> = self.segments.chain(index).filter_map(part).collect();
        runs.reverse();
        runs
    }

    fn assert_fits(&self, qkv: usize, out: usize, lse: usize) {
        let tokens = self.segments.tokens();
        let (packed, width) = (self.heads.packed_width(), self.heads.width());
        let fits = qkv == tokens * packed && out == tokens * width && lse == tokens * self.heads.query;
        assert!(fits, "{tokens} tokens, {:?}: {qkv}, {out}, {lse}", self.heads);
    }

    /// Column of a query head in a packed row.
    fn q_column(&self, head: usize) -> usize {
        head * self.heads.dim
    }

    /// Column of a key head in a packed row.
    fn k_column(&self, kv_head: usize) -> usize {
        (self.heads.query + kv_head) * self.heads.dim
    }

    /// Column of a value head in a packed row.
    fn v_column(&self, kv_head: usize) -> usize {
        (self.heads.query + self.heads.kv + kv_head) * self.heads.dim
    }

    /// `len` rows of one head.
    fn head<'a>(&self, packed: &'a [f32], row: usize, len: usize, column: usize) -> View<'a> {
        let stride = self.heads.packed_width();
        View::strided(&packed[row * stride + column..], len, self.heads.dim, stride)
    }
}

/// Buffers of one task, kept by its thread.
#[derive(Default)]
struct Scratch {
    probabilities: Vec<f32>,
    d_scores: Vec<f32>,
    denominators: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    short: short::Copies,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Attention's output and the log of each softmax's denominator.
///
/// Numbers: f32 sums. Same bits for any number of threads, and for a segment whatever its neighbours.
/// Panics: if the lengths do not fit the segments and heads.
/// Source: see the file's head.
pub fn forward(exec: Exec, spec: &Attention<'_>, qkv: &[f32], out: &mut [f32], lse: &mut [f32]) {
    spec.assert_fits(qkv.len(), out.len(), lse.len());
    let heads = spec.heads;
    let (out, lse) = (SharedMut::new(out), SharedMut::new(lse));
    let serial = exec.with_threads(1);
    for_each(exec, spec.segments.list().len() * heads.query, |task| {
        let (segment, head) = (task / heads.query, task % heads.query);
        SCRATCH.with_borrow_mut(|scratch| {
            #[cfg(target_arch = "x86_64")]
            if short::serves(serial, spec, segment) {
                // SAFETY: this task alone writes this segment's rows of this head.
                return unsafe { short::forward(serial, spec, (segment, head), qkv, scratch, &out, &lse) };
            }
            for block in spec.blocks(segment) {
                let probabilities = sized(&mut scratch.probabilities, block.len * block.stride);
                scores(serial, spec, &block, head, qkv, probabilities);
                let denominators = sized(&mut scratch.denominators, block.len);
                let seen = |row| block.seen(spec, row);
                let (stride, columns) = (block.stride, block.columns.len());
                let softmax = Softmax { scores: probabilities, stride, columns, seen, denominators };
                dispatch(serial, softmax);
                for (row, &denominator) in scratch.denominators[..block.len].iter().enumerate() {
                    // SAFETY: this task alone writes this token's row of this head.
                    unsafe { lse.slice((block.token + row) * heads.query + head, 1)[0] = denominator };
                }
                drop_weights(spec, &block, head, probabilities);
                weighted_values(serial, spec, &block, head, qkv, probabilities, &out);
            }
        });
    });
}

/// `s q k^T` of a block, `(queries, columns)`, with rows `block.stride` apart.
fn scores(exec: Exec, spec: &Attention<'_>, block: &QueryBlock, head: usize, qkv: &[f32], scores: &mut [f32]) {
    let kv_head = head / (spec.heads.query / spec.heads.kv);
    let q = spec.head(qkv, block.token, block.len, spec.q_column(head));
    for run in &block.runs {
        let k = spec.head(qkv, run.token, run.len, spec.k_column(kv_head)).t();
        let part = ViewMut::strided(&mut scores[run.column..], block.len, run.len, block.stride);
        matmul(exec, Onto::Overwrite, spec.scale, q, k, part);
    }
}

/// `p v` of a block, `(queries, E)`, into its rows of the output.
fn weighted_values(
    exec: Exec,
    spec: &Attention<'_>,
    block: &QueryBlock,
    head: usize,
    qkv: &[f32],
    weights: &[f32],
    out: &SharedMut<'_, f32>,
) {
    let (heads, kv_head) = (spec.heads, head / (spec.heads.query / spec.heads.kv));
    let start = block.token * heads.width() + head * heads.dim;
    let mut onto = Onto::Overwrite;
    for run in &block.runs {
        let v = spec.head(qkv, run.token, run.len, spec.v_column(kv_head));
        let part = View::strided(&weights[run.column..], block.len, run.len, block.stride);
        // SAFETY: one task alone writes this block's rows of this head.
        let rows = unsafe { ViewMut::shared(out, start, block.len, heads.dim, heads.width()) };
        matmul(exec, onto, 1.0, part, v, rows);
        onto = Onto::Add;
    }
}

/// Index of the random number of a weight: head and query above, key below.
fn dropout_index(spec: &Attention<'_>, block: &QueryBlock, row: usize, head: usize, column: usize) -> u64 {
    let query = (head * spec.segments.tokens() + block.token + row) as u64;
    (query << 32) | column as u64
}

/// Applies dropout to the visible weights of a block.
fn drop_weights(spec: &Attention<'_>, block: &QueryBlock, head: usize, weights: &mut [f32]) {
    if spec.dropout > 0.0 {
        let (threshold, scale) = (threshold(spec.dropout), 1.0 / (1.0 - spec.dropout));
        for (row, weights) in weights.chunks_mut(block.stride).enumerate() {
            for column in block.seen(spec, row) {
                let index = dropout_index(spec, block, row, head, block.columns.start + column);
                let kept = keep(spec.dropout_key, index, threshold);
                weights[column] = if kept { weights[column] * scale } else { 0.0 };
            }
        }
    }
}

/// `d_qkv` from the gradient by the output.
///
/// Numbers, Panics, Source: as [`forward`]. `out` and `lse` are its results.
pub fn backward(
    exec: Exec,
    spec: &Attention<'_>,
    d_out: &[f32],
    qkv: &[f32],
    out: &[f32],
    lse: &[f32],
    d_qkv: &mut [f32],
) {
    spec.assert_fits(qkv.len(), out.len(), lse.len());
    assert!(d_out.len() == out.len() && d_qkv.len() == qkv.len(), "{} and {}", d_out.len(), d_qkv.len());
    let (heads, segments) = (spec.heads, spec.segments.list());
    let families = families(spec.segments);
    let d_qkv = SharedMut::new(d_qkv);
    for_each(exec, families.len() * heads.kv, |task| {
        let (family, kv_head) = (&families[task / heads.kv], task % heads.kv);
        SCRATCH.with_borrow_mut(|scratch| {
            let pass = BackwardPass { exec: exec.with_threads(1), spec, kv_head, d_out, qkv, out, lse };
            #[cfg(target_arch = "x86_64")]
            if let [segment] = family[..]
                && short::serves(pass.exec, spec, segment)
            {
                // SAFETY: this task alone writes this segment's rows of this key/value head and its query heads.
                return unsafe { short::backward(&pass, segment, scratch, &d_qkv) };
            }
            for token in family.iter().flat_map(|&s| segments[s].start..segments[s].start + segments[s].len) {
                let start = token * heads.packed_width();
                // SAFETY: this task alone writes this family's rows of this key/value head.
                unsafe {
                    d_qkv.slice(start + spec.k_column(kv_head), heads.dim).fill(0.0);
                    d_qkv.slice(start + spec.v_column(kv_head), heads.dim).fill(0.0);
                }
            }
            family.iter().for_each(|&s| pass.segment(s, scratch, &d_qkv));
        });
    });
}

/// Segments that share a beginning, in order; each segment is in one family.
fn families(segments: &Segments) -> Vec<Vec<usize>> {
    let roots = segments.roots();
    let mut families = vec![Vec::new(); roots.len()];
    roots.iter().enumerate().for_each(|(segment, &root)| families[root].push(segment));
    families.retain(|family| !family.is_empty());
    families
}

/// The backward pass of one family of segments and key/value head.
struct BackwardPass<'a> {
    exec: Exec,
    spec: &'a Attention<'a>,
    kv_head: usize,
    d_out: &'a [f32],
    qkv: &'a [f32],
    out: &'a [f32],
    lse: &'a [f32],
}

impl BackwardPass<'_> {
    fn segment(&self, segment: usize, scratch: &mut Scratch, d_qkv: &SharedMut<'_, f32>) {
        let group = self.spec.heads.query / self.spec.heads.kv;
        for head in self.kv_head * group..(self.kv_head + 1) * group {
            for block in self.spec.blocks(segment) {
                self.block(&block, head, scratch, d_qkv);
            }
        }
    }

    fn block(&self, block: &QueryBlock, head: usize, scratch: &mut Scratch, d_qkv: &SharedMut<'_, f32>) {
        let (spec, exec, heads) = (self.spec, self.exec, self.spec.heads);
        let (dim, width, stride) = (heads.dim, heads.width(), block.stride);
        let probabilities = sized(&mut scratch.probabilities, block.len * stride);
        scores(exec, spec, block, head, self.qkv, probabilities);
        let d_scores = sized(&mut scratch.d_scores, block.len * stride);
        let d_rows = View::strided(&self.d_out[block.token * width + head * dim..], block.len, dim, width);
        for run in &block.runs {
            let v = spec.head(self.qkv, run.token, run.len, spec.v_column(self.kv_head)).t();
            let part = ViewMut::strided(&mut d_scores[run.column..], block.len, run.len, stride);
            matmul(exec, Onto::Overwrite, 1.0, d_rows, v, part);
        }
        drop_weights(spec, block, head, d_scores);
        let at = block.token * width + head * dim;
        let softmax = SoftmaxBackward {
            p: probabilities,
            d: d_scores,
            stride,
            columns: block.columns.len(),
            seen: |row| block.seen(spec, row),
            lse: |row| self.lse[(block.token + row) * heads.query + head],
            outputs: [&self.d_out[at..], &self.out[at..]],
            width,
            dim,
        };
        dispatch(exec, softmax);
        drop_weights(spec, block, head, probabilities);
        // SAFETY: one task alone writes this block's rows of this query head, and its family's of this key/value head.
        let gradient = |token: usize, len: usize, column: usize| unsafe {
            ViewMut::shared(d_qkv, token * heads.packed_width() + column, len, dim, heads.packed_width())
        };
        for run in &block.runs {
            let p = View::strided(&probabilities[run.column..], block.len, run.len, stride).t();
            let d = View::strided(&d_scores[run.column..], block.len, run.len, stride).t();
            let q = spec.head(self.qkv, block.token, block.len, spec.q_column(head));
            matmul(exec, Onto::Add, 1.0, p, d_rows, gradient(run.token, run.len, spec.v_column(self.kv_head)));
            matmul(exec, Onto::Add, spec.scale, d, q, gradient(run.token, run.len, spec.k_column(self.kv_head)));
        }
        let mut onto = Onto::Overwrite;
        for run in &block.runs {
            let k = spec.head(self.qkv, run.token, run.len, spec.k_column(self.kv_head));
            let d = View::strided(&d_scores[run.column..], block.len, run.len, stride);
            matmul(exec, onto, spec.scale, d, k, gradient(block.token, block.len, spec.q_column(head)));
            onto = Onto::Add;
        }
    }
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;

/// The formulas in f64, one query at a time, with dropout.
pub mod reference {
    use super::Attention;
    use crate::dropout::{keep, threshold};

    /// Packed index of every key that the query `row` of segment `s` sees, in order, with its position.
    fn keys(spec: &Attention<'_>, s: usize, row: usize) -> Vec<(usize, usize)> {
        let segments = spec.segments.list();
        let segment = segments[s];
        let token = |position: usize| {
            let mut holder = segment;
            while let Some(prefix) = holder.prefix.filter(|_| position < holder.position) {
                holder = segments[prefix];
            }
            holder.start + position - holder.position
        };
        spec.visible(segment.position + row).map(|position| (token(position), position)).collect()
    }

    /// Runs `visit(query token, head, keys, probabilities, dropped factors)` for every query and head.
    fn for_each_query(
        spec: &Attention<'_>,
        qkv: &[f64],
        mut visit: impl FnMut(usize, usize, &[usize], &[f64], &[f64]),
    ) {
        let (width, dim) = (spec.heads.packed_width(), spec.heads.dim);
        for (s, segment) in spec.segments.list().iter().enumerate() {
            for (row, head) in (0..segment.len).flat_map(|row| (0..spec.heads.query).map(move |head| (row, head))) {
                let token = segment.start + row;
                let kv_head = head / (spec.heads.query / spec.heads.kv);
                let keys = keys(spec, s, row);
                let score = |key: usize| {
                    let (q, k) = (token * width + spec.q_column(head), key * width + spec.k_column(kv_head));
                    f64::from(spec.scale) * (0..dim).map(|e| qkv[q + e] * qkv[k + e]).sum::<f64>()
                };
                let exps: Vec<f64> = keys.iter().map(|&(key, _)| score(key).exp()).collect();
                let sum: f64 = exps.iter().sum();
                let p: Vec<f64> = exps.iter().map(|e| e / sum).collect();
                let factor = |position: usize| {
                    let query = (head * spec.segments.tokens() + token) as u64;
                    let kept = keep(spec.dropout_key, (query << 32) | position as u64, threshold(spec.dropout));
                    if spec.dropout == 0.0 || kept { 1.0 / (1.0 - f64::from(spec.dropout)) } else { 0.0 }
                };
                let factors: Vec<f64> = keys.iter().map(|&(_, position)| factor(position)).collect();
                visit(token, head, &keys.iter().map(|&(key, _)| key).collect::<Vec<_>>(), &p, &factors);
            }
        }
    }

    /// The output, `(N, H E)`.
    pub fn forward(spec: &Attention<'_>, qkv: &[f64]) -> Vec<f64> {
        let (width, dim) = (spec.heads.packed_width(), spec.heads.dim);
        let mut out = vec![0.0; spec.segments.tokens() * spec.heads.width()];
        for_each_query(spec, qkv, |token, head, keys, p, factors| {
            let v_column = spec.v_column(head / (spec.heads.query / spec.heads.kv));
            for ((key, p), factor) in keys.iter().zip(p).zip(factors) {
                for e in 0..dim {
                    out[token * spec.heads.width() + head * dim + e] += p * factor * qkv[key * width + v_column + e];
                }
            }
        });
        out
    }

    /// `d_qkv`.
    pub fn backward(spec: &Attention<'_>, d_out: &[f64], qkv: &[f64]) -> Vec<f64> {
        let (width, dim, scale) = (spec.heads.packed_width(), spec.heads.dim, f64::from(spec.scale));
        let mut d_qkv = vec![0.0; qkv.len()];
        for_each_query(spec, qkv, |token, head, keys, p, factors| {
            let kv_head = head / (spec.heads.query / spec.heads.kv);
            let d_o = &d_out[token * spec.heads.width() + head * dim..][..dim];
            let value = |key: usize| key * width + spec.v_column(kv_head);
            let d_p = |j: usize| factors[j] * (0..dim).map(|e| d_o[e] * qkv[value(keys[j]) + e]).sum::<f64>();
            let delta: f64 = (0..keys.len()).map(|j| p[j] * d_p(j)).sum();
            for (j, &key) in keys.iter().enumerate() {
                let d_s = scale * p[j] * (d_p(j) - delta);
                let (q, k) = (token * width + spec.q_column(head), key * width + spec.k_column(kv_head));
                for e in 0..dim {
                    d_qkv[q + e] += d_s * qkv[k + e];
                    d_qkv[k + e] += d_s * qkv[q + e];
                    d_qkv[value(key) + e] += p[j] * factors[j] * d_o[e];
                }
            }
        });
        d_qkv
    }
}
