//! Attention within a short sequence that continues none: all its scores stay in a core's cache.
//!
//! Queries go in strips as high as a register tile, each against the keys up to its last query alone; keys and values are turned once a
//! head; the gradients of keys and values are formed at the end, each element in one go.
#![expect(unsafe_code, reason = "heads of one token are written by different tasks")]

use super::softmax::{Softmax, SoftmaxBackward};
use super::{Attention, BackwardPass, QueryBlock, Scratch, drop_weights, sized};
use crate::exec::{Exec, Isa};
use crate::matmul::avx512::{Columns, MR, multiply_copy, multiply_in_place};
use crate::matmul::{Onto, View, ViewMut};
use crate::parallel::SharedMut;
use crate::simd::{LANES, dispatch};

/// Most tokens of such a sequence: two squares of scores are half of a second-level cache.
const MOST: usize = 256;

/// Keys and values with rows and columns exchanged.
#[derive(Default)]
pub(super) struct Copies {
    keys: Columns,
    values: Columns,
}

/// Whether a segment that nothing continues is attended to this way.
pub(super) fn serves(exec: Exec, spec: &Attention<'_>, segment: usize) -> bool {
    let segment = spec.segments.list()[segment];
    let is_whole = segment.prefix.is_none() && spec.window.is_none_or(|window| window >= segment.len);
    exec.isa() == Isa::Avx512 && exec.half_products().is_none() && is_whole && segment.len <= MOST
}

/// Strips of a sequence of `len` tokens that begins with `token`, their rows of scores `stride` apart.
fn strips(token: usize, len: usize, stride: usize) -> impl Iterator<Item = QueryBlock> {
    let height = len.div_ceil(len.div_ceil(MR).max(1)).max(1);
    (0..len).step_by(height).map(move |first| {
        let count = height.min(len - first);
        let columns = 0..first + count;
        QueryBlock { token: token + first, position: first, len: count, columns, runs: Vec::new(), stride }
    })
}

/// [`super::forward`] of one segment and head.
///
/// # Safety
/// Nobody else touches this segment's rows of this head of `out` and `lse`.
pub(super) unsafe fn forward(
    exec: Exec,
    spec: &Attention<'_>,
    (segment, head): (usize, usize),
    qkv: &[f32],
    scratch: &mut Scratch,
    out: &SharedMut<'_, f32>,
    lse: &SharedMut<'_, f32>,
) {
    let (heads, segment) = (spec.heads, spec.segments.list()[segment]);
    let kv_head = head / (heads.query / heads.kv);
    let part = |first: usize, len: usize, column: usize| spec.head(qkv, segment.start + first, len, column);
    let stride = segment.len.next_multiple_of(LANES);
    scratch.short.keys.copy(exec, part(0, segment.len, spec.k_column(kv_head)).t());
    let scores = sized(&mut scratch.probabilities, MR * stride);
    for strip in strips(segment.start, segment.len, stride) {
        let (first, count, seen) = (strip.position, strip.len, strip.columns.len());
        let scores = &mut scores[..count * stride];
        let q = part(first, count, spec.q_column(head));
        multiply_copy(exec, spec.scale, q, &scratch.short.keys, None, ViewMut::strided(scores, count, seen, stride));
        let denominators = sized(&mut scratch.denominators, count);
        dispatch(exec, Softmax { scores, stride, columns: seen, seen: |row| strip.seen(spec, row), denominators });
        for (row, &denominator) in scratch.denominators[..count].iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { lse.slice((strip.token + row) * heads.query + head, 1)[0] = denominator };
        }
        drop_weights(spec, &strip, head, scores);
        let weights = View::strided(scores, count, seen, stride);
        // SAFETY: the caller's promise.
        let rows = unsafe {
            let start = strip.token * heads.width() + head * heads.dim;
            ViewMut::shared(out, start, count, heads.dim, heads.width())
        };
        multiply_in_place(exec, Onto::Overwrite, 1.0, weights, part(0, seen, spec.v_column(kv_head)), rows);
    }
}

/// [`super::backward`] of one segment and key/value head.
///
/// # Safety
/// Nobody else touches this segment's rows of this key/value head and its query heads in `d_qkv`.
pub(super) unsafe fn backward(
    pass: &BackwardPass<'_>,
    segment: usize,
    scratch: &mut Scratch,
    d_qkv: &SharedMut<'_, f32>,
) {
    let (exec, spec, kv_head) = (pass.exec, pass.spec, pass.kv_head);
    let (heads, segment) = (spec.heads, spec.segments.list()[segment]);
    let (dim, width, len) = (heads.dim, heads.width(), segment.len);
    let part = |first: usize, len: usize, column: usize| spec.head(pass.qkv, segment.start + first, len, column);
    // SAFETY: the caller's promise.
    let gradient = |first: usize, len: usize, column: usize| unsafe {
        let start = (segment.start + first) * heads.packed_width() + column;
        ViewMut::shared(d_qkv, start, len, dim, heads.packed_width())
    };
    let (k_column, v_column) = (spec.k_column(kv_head), spec.v_column(kv_head));
    let stride = len.next_multiple_of(LANES);
    let Scratch { probabilities, d_scores, short: Copies { keys, values }, .. } = scratch;
    keys.copy(exec, part(0, len, k_column).t());
    values.copy(exec, part(0, len, v_column).t());
    let (probabilities, d_scores) = (sized(probabilities, len * stride), sized(d_scores, len * stride));
    let group = heads.query / heads.kv;
    for head in kv_head * group..(kv_head + 1) * group {
        let q_column = spec.q_column(head);
        let d_rows = |first: usize, len: usize| {
            View::strided(&pass.d_out[(segment.start + first) * width + head * dim..], len, dim, width)
        };
        for strip in strips(segment.start, len, stride) {
            let (first, count, seen) = (strip.position, strip.len, strip.columns.len());
            let rows = first * stride..(first + count) * stride;
            let (p, d) = (&mut probabilities[rows.clone()], &mut d_scores[rows]);
            let q = part(first, count, q_column);
            multiply_copy(exec, spec.scale, q, keys, None, ViewMut::strided(p, count, seen, stride));
            multiply_copy(exec, 1.0, d_rows(first, count), values, None, ViewMut::strided(d, count, seen, stride));
            drop_weights(spec, &strip, head, d);
            let at = strip.token * width + head * dim;
            let softmax = SoftmaxBackward {
                p,
                d,
                stride,
                columns: seen,
                seen: |row| strip.seen(spec, row),
                lse: |row| pass.lse[(strip.token + row) * heads.query + head],
                outputs: [&pass.d_out[at..], &pass.out[at..]],
                width,
                dim,
            };
            dispatch(exec, softmax);
            drop_weights(spec, &strip, head, p);
            let d = View::strided(d, count, seen, stride);
            multiply_in_place(
                exec,
                Onto::Overwrite,
                spec.scale,
                d,
                part(0, seen, k_column),
                gradient(first, count, q_column),
            );
        }
        let onto = if head == kv_head * group { Onto::Overwrite } else { Onto::Add };
        for strip in strips(segment.start, len, stride) {
            // Keys of a strip are seen by its queries and all later ones.
            let (first, count, rest) = (strip.position, strip.len, len - strip.position);
            let turned = |x| View::strided(x, rest, count, stride).t();
            let (p, d) =
                (turned(&probabilities[first * stride + first..]), turned(&d_scores[first * stride + first..]));
            multiply_in_place(exec, onto, 1.0, p, d_rows(first, rest), gradient(first, count, v_column));
            let q = part(first, rest, q_column);
            multiply_in_place(exec, onto, spec.scale, d, q, gradient(first, count, k_column));
        }
    }
}
