//! A block of GPT-2, depth first: `z = x + attention(norm(x))`, `y = z + mlp(norm(z))`.
//!
//! Each task takes whole sequences through all layers of the block, so that what one layer writes is in its core's own cache when the
//! next reads it, and the block is one parallel region. The backward pass is two: all gradients by activations the same way, then
//! those by the weights. For models whose weights of a block are small beside such a cache; where they are not, layers one after
//! the other read them less often ([`pays`]).
//!
//! The sequences are two halves with tasks of their own in every region, those of the first half first. So two threads share the
//! weights alone: a line of the cache that one has written and the other writes next takes much longer than one's own.
//!
//! Layers are those of `layer_norm.rs`, `linear.rs`, `attention.rs` and `gelu.rs`, on some of the rows.
//!
//! Shapes: `x`, `y` and `z` are `(N, D)`. Source: Radford et al. 2019, "Language models are unsupervised multitask learners",
//! section 2.3.
#![expect(unsafe_code, reason = "tasks write the rows of their sequences in several buffers")]

mod buffers;
mod layers;

use crate::add::add_to;
use crate::attention::{self, Attention, Heads};
use crate::buffer::unfilled;
use crate::exec::{Exec, Isa};
use crate::gelu::{self, Gelu};
use crate::lanes::add_in_order;
use crate::layer_norm;
use crate::linear::column_sums;
use crate::matmul::{Onto, Product, View, ViewMut, matmuls};
use crate::parallel::{SharedMut, for_each};
use crate::segments::Segments;
use crate::simd::LANES;
pub use buffers::Kept;
use buffers::{Parts, with_buffers};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Fewest tokens of a unit: the sequences that are never parted, and whose sums for the norms' gradients are one term.
const UNIT: usize = 64;
/// Most tokens of a task that goes forward: weights are copied for each, and its activations are to stay in a second-level cache.
const FORWARD: usize = 192;
/// Most tokens of one that goes backward, where weights are read as they lie and there are more activations.
const BACKWARD: usize = 128;
/// Fewest units worth it: with fewer there are too few tasks.
const FEWEST_UNITS: usize = 8;
/// Weights whose gradient is one task, or somewhat fewer.
const WEIGHTS: usize = 1 << 15;
/// Most floats of a block's weights.
const MOST_WEIGHTS: usize = 1 << 20;

/// Gain and bias of a norm, `(D)` each.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Factor by column.
    pub gain: &'a [f32],
    /// What is added by column.
    pub bias: &'a [f32],
}

/// A linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// `(out, in)`.
    pub weight: &'a [f32],
    /// `(out)`.
    pub bias: Option<&'a [f32]>,
}

/// The weights of a block, or with `T` and `N` of another type their gradients.
#[derive(Clone, Copy, Debug)]
pub struct Weights<N, T> {
    /// Before attention and before the feed-forward layers.
    pub norms: [N; 2],
    /// `(3 D, D)`: queries, keys and values.
    pub qkv: T,
    /// `(D, D)`: what follows attention.
    pub out: T,
    /// `(F, D)` and `(D, F)`: the feed-forward layers.
    pub mlp: [T; 2],
}

/// Gradients of a norm; overwritten.
#[derive(Debug)]
pub struct NormGradient<'a> {
    /// By the gain.
    pub gain: &'a mut [f32],
    /// By the bias.
    pub bias: &'a mut [f32],
}

/// Gradients of a linear layer; overwritten.
#[derive(Debug)]
pub struct LayerGradient<'a> {
    /// By the weight.
    pub weight: &'a mut [f32],
    /// By the bias, if there is one.
    pub bias: Option<&'a mut [f32]>,
}

/// What a block does.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Its weights.
    pub weights: Weights<Norm<'a>, Layer<'a>>,
    /// Heads of attention.
    pub heads: Heads,
    /// Where the sequences lie. None continues another.
    pub segments: &'a Segments,
    /// Factor of the scores.
    pub scale: f32,
    /// What is added to a variance.
    pub eps: f32,
    /// Between the feed-forward layers.
    pub gelu: Gelu,
}

/// Whether a block of these sizes is faster this way.
///
/// It depends on shapes and instruction set alone, so that the bits of a run do not depend on the number of threads.
pub fn pays(exec: Exec, segments: &Segments, width: usize, inner: usize) -> bool {
    let weights = width * (4 * width + 2 * inner);
    // Where products are another crate's, a row's bits may depend on how many there are.
    let rows_are_alone = exec.isa() != Isa::Neon;
    let apart = segments.list().iter().all(|segment| segment.prefix.is_none());
    rows_are_alone && apart && weights <= MOST_WEIGHTS && units(segments).len() >= FEWEST_UNITS
}

/// Consecutive segments.
#[derive(Clone, Debug)]
struct Part {
    segments: Range<usize>,
    tokens: Range<usize>,
}

/// Consecutive parts, each of at least `fewest` tokens where there are so many.
fn joined(parts: impl Iterator<Item = Part>, fewest: usize) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last) if last.tokens.len() < fewest => {
                last.segments.end = part.segments.end;
                last.tokens.end = part.tokens.end;
            }
            _ => joined.push(part),
        }
    }
    joined
}

fn units(segments: &Segments) -> Vec<Part> {
    let list = segments.list().iter().enumerate();
    joined(list.map(|(s, at)| Part { segments: s..s + 1, tokens: at.start..at.start + at.len }), UNIT)
}

/// The units in two parts of about as many tokens.
fn halves(segments: &Segments) -> [Vec<Part>; 2] {
    let (mut first, middle) = (units(segments), segments.tokens().div_ceil(2));
    let second = first.split_off(first.partition_point(|unit| unit.tokens.start < middle));
    [first, second]
}

/// A buffer with a row for every token.
struct Rows<'a> {
    data: SharedMut<'a, f32>,
    width: usize,
}

impl<'a> Rows<'a> {
    fn new(data: &'a mut [f32], tokens: usize) -> Self {
        assert!(tokens > 0 && data.len().is_multiple_of(tokens), "{} elements of {tokens} tokens", data.len());
        Self { width: data.len() / tokens, data: SharedMut::new(data) }
    }

    /// # Safety
    /// No two live parts may have a token in common.
    #[expect(clippy::mut_from_ref, reason = "the caller promises disjoint parts")]
    unsafe fn part(&self, tokens: &Range<usize>) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.data.slice(tokens.start * self.width, tokens.len() * self.width) }
    }
}

fn rows<'a>(data: &'a [f32], all: usize, tokens: &Range<usize>) -> &'a [f32] {
    let width = data.len() / all;
    &data[tokens.start * width..tokens.end * width]
}

thread_local! {
    /// Buffers of a task, kept by its thread.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = RefCell::default();
}

fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        *buffer = unfilled(len);
    }
    &mut buffer[..len]
}

/// Asks for what will be read soon.
fn fetch(x: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in x.chunks(LANES) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and nothing is read.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = x;
}

/// `d_x = d_y W` on the calling thread.
fn linear_backward(serial: Exec, d_y: View<'_>, layer: Layer<'_>, d_x: ViewMut<'_>) {
    let (a, b, c) = (d_y, View::new(layer.weight, d_y.cols(), d_x.cols()), d_x);
    matmuls(serial, [Product { onto: Onto::Overwrite, row: None, scale: 1.0, a, b, c, after: None }]);
}

/// Floats from one row of `width` to the next, so that a column spreads over a cache: an odd number of its lines.
///
/// On Zen 5 a column of rows 512 floats apart is read from the third-level cache at 18 GB/s, one of rows 528 apart at 66.
fn spread(width: usize) -> usize {
    (width.div_ceil(LANES) | 1) * LANES
}

impl Block<'_> {
    /// Tokens, width and inner width.
    fn sizes(&self, x: &[f32]) -> [usize; 3] {
        let (n, d, f) = (self.segments.tokens(), self.weights.norms[0].gain.len(), self.weights.mlp[0].weight.len());
        assert!(n > 0 && d > 0 && x.len() == n * d && f.is_multiple_of(d), "{} elements, {n} tokens of {d}", x.len());
        let (f, w) = (f / d, &self.weights);
        let sizes = [&w.qkv, &w.out, &w.mlp[0], &w.mlp[1]].map(|layer| layer.weight.len());
        assert!(sizes == [self.heads.packed_width() * d, self.heads.width() * d, f * d, f * d], "weights of {sizes:?}");
        assert!(
            self.segments.list().iter().all(|segment| segment.prefix.is_none()),
            "a segment that continues another"
        );
        [n, d, f]
    }

    /// Tasks of each half in turn: at least two a thread, each of some units and at most about `most` tokens. With `falling`, the last
    /// are smaller, so that no thread waits long for another.
    fn tasks(&self, threads: usize, most: usize, falling: bool) -> Vec<Vec<Part>> {
        let mut tasks = Vec::new();
        for half in halves(self.segments) {
            let (all, mut units) = (tokens_of(&half), half.into_iter().peekable());
            while let Some(first) = units.peek() {
                let start = first.tokens.start;
                let left = if falling { all.end - start } else { all.len() };
                let end = start + (left / threads.max(2)).clamp(1, most);
                tasks.push(std::iter::from_fn(|| units.next_if(|unit| unit.tokens.start < end)).collect());
            }
        }
        tasks
    }

    /// The sequences of a part alone.
    fn segments_of(&self, part: &Part) -> Segments {
        let lengths: Vec<usize> =
            self.segments.list()[part.segments.clone()].iter().map(|segment| segment.len).collect();
        Segments::of_lengths(&lengths)
    }

    fn attention<'a>(&self, segments: &'a Segments) -> Attention<'a> {
        Attention { heads: self.heads, segments, window: None, scale: self.scale, dropout: 0.0, dropout_key: 0 }
    }
}

/// All units of a task.
fn whole(task: &[Part]) -> Part {
    let (first, last) = (&task[0], &task[task.len() - 1]);
    Part { segments: first.segments.start..last.segments.end, tokens: first.tokens.start..last.tokens.end }
}

fn tokens_of(half: &[Part]) -> Range<usize> {
    if half.is_empty() { 0..0 } else { whole(half).tokens }
}

/// `y`, and what the backward pass needs.
///
/// Numbers: those of the layers one after the other, bit for bit, but for their products of a few rows.
/// Law: the same bits for any number of threads.
/// Panics: if the lengths do not fit together, on no tokens, or if a segment continues another.
/// Source: see the file's head.
pub fn forward(exec: Exec, block: &Block<'_>, x: &[f32], y: &mut [f32]) -> Kept {
    let ([n, d, f], Weights { norms, qkv, out, mlp }) = (block.sizes(x), block.weights);
    assert_eq!(y.len(), x.len(), "a block's output");
    let (packed, width, heads) = (block.heads.packed_width(), block.heads.width(), block.heads.query());
    let mut kept = Kept::new([n, n, n, n, n * packed, n * width, n * heads, n * d, n * f]);
    let results = kept.parts_mut().map(|x| Rows::new(x, n));
    let y = Rows::new(y, n);
    let (tasks, serial) = (block.tasks(exec.threads(), FORWARD, false), exec.with_threads(1));
    let [of_qkv, of_out, of_first, of_second] = std::array::from_fn(|number| number);
    let sizes = [d, block.heads.width(), d, f];
    layers::with(exec, [qkv, out, mlp[0], mlp[1]], sizes, |layers| {
        for_each(exec, tasks.len(), |task| {
            let part = whole(&tasks[task]);
            let (at, count, segments) = (&part.tokens, part.tokens.len(), block.segments_of(&part));
            // SAFETY: tasks have no tokens in common, and each runs once.
            let (results, y) = unsafe { (results.each_ref().map(|rows| rows.part(at)), y.part(at)) };
            let [mean_1, mean_2, rstd_1, rstd_2, packed, mixed, lse, stream, inner] = results;
            let (x, [first, second]) = (rows(x, n, at), norms);
            SCRATCH.with_borrow_mut(|[normed, active]| {
                let (normed, active) = (sized(normed, x.len()), sized(active, inner.len()));
                layer_norm::forward(serial, x, first.gain, Some(first.bias), block.eps, normed, mean_1, rstd_1);
                layers.apply(serial, of_qkv, normed, count, packed);
                attention::forward(serial, &block.attention(&segments), packed, mixed, lse);
                layers.apply(serial, of_out, mixed, count, stream);
                add_to(serial, x, stream);
                layer_norm::forward(serial, stream, second.gain, Some(second.bias), block.eps, normed, mean_2, rstd_2);
                layers.apply(serial, of_first, normed, count, inner);
                gelu::forward(serial, block.gelu, inner, active);
                layers.apply(serial, of_second, active, count, y);
                add_to(serial, stream, y);
            });
        });
    });
    kept
}

/// The gradients by input and weights, from the gradient by the output.
///
/// Numbers: as [`forward`], but for the gradients of the weights, which are sums over two halves of the sequences, and of the norms'
/// gains and all biases, whose sums are in units of at least 64 tokens.
/// Law, Panics, Source: as [`forward`].
pub fn backward(
    exec: Exec,
    block: &Block<'_>,
    d_y: &[f32],
    (x, kept): (&[f32], &Kept),
    d_x: &mut [f32],
    gradients: Weights<NormGradient<'_>, LayerGradient<'_>>,
) {
    let ([n, d, f], kept) = (block.sizes(x), kept.parts());
    assert!(d_y.len() == x.len() && d_x.len() == x.len() && kept.inner.len() == n * f, "gradients of a block");
    let (packed, width, wide) = (block.heads.packed_width(), block.heads.width(), spread(f));
    let tasks = block.tasks(exec.threads(), BACKWARD, true);
    let units: usize = tasks.iter().map(Vec::len).sum();
    let Weights { norms, qkv, out, mlp: [first, second] } = gradients;
    let (layers, columns) = ([qkv, out, first, second], Columns::new(block));
    let [w1, w2, w3, w4] = layers.each_ref().map(|layer| layer.weight.len());
    let lens = [n * wide, n * wide, n * d, n * packed, n * d, n * d, units * columns.all, w1, w2, w3, w4];
    with_buffers(lens, |[d_inner, active, d_stream, d_packed, normed_1, normed_2, sums, w1, w2, w3, w4]| {
        {
            let buffers = [d_x, &mut *d_inner, active, d_stream, d_packed, normed_1, normed_2];
            let (results, sums) = (buffers.map(|x| Rows::new(x, n)), Rows::new(sums, units));
            let pass = BackwardPass { serial: exec.with_threads(1), block, n, d_y, x, kept };
            for_each(exec, tasks.len(), |task| {
                let first = tasks[..task].iter().map(Vec::len).sum::<usize>();
                let (tokens, units) = (whole(&tasks[task]).tokens, first..first + tasks[task].len());
                // SAFETY: tasks have no tokens and no units in common, and each runs once.
                let (results, sums) = unsafe { (results.each_ref().map(|rows| rows.part(&tokens)), sums.part(&units)) };
                pass.run(&tasks[task], results, sums);
            });
        }
        let add_up = |from: usize, total: &mut [f32]| add_in_order(sums, columns.all, from, total);
        for (number, NormGradient { gain, bias }) in norms.into_iter().enumerate() {
            add_up(columns.norms[number], gain);
            add_up(columns.norms[number] + d, bias);
        }
        let mut from = columns.biases.into_iter();
        let weights = layers.map(|LayerGradient { weight, bias }| {
            let from = from.next().expect("of four layers");
            bias.into_iter().for_each(|bias| add_up(from, bias));
            weight
        });
        let operands = halves(block.segments).map(|half| {
            let at = tokens_of(&half);
            let view = |data, width, stride| View::strided(rows(data, n, &at), at.len(), width, stride);
            [
                (view(d_packed, packed, packed), view(normed_1, d, d)),
                (view(d_stream, d, d), view(kept.mixed, width, width)),
                (view(d_inner, f, wide), view(normed_2, d, d)),
                (view(d_y, d, d), view(active, f, wide)),
            ]
        });
        weight_gradients(exec, weights, [w1, w2, w3, w4], &operands);
    });
}

/// Where a unit's sums lie: of each norm by gain and bias, and of each layer by bias.
struct Columns {
    norms: [usize; 2],
    biases: [usize; 4],
    all: usize,
}

impl Columns {
    fn new(block: &Block<'_>) -> Self {
        let (d, packed) = (block.weights.norms[0].gain.len(), block.heads.packed_width());
        let (mut all, f) = (4 * d, block.weights.mlp[0].weight.len() / d);
        let biases = [packed, d, f, d].map(|width| {
            all += width;
            all - width
        });
        Self { norms: [0, 2 * d], biases, all }
    }
}

/// What the tasks of a backward pass read.
struct BackwardPass<'a> {
    serial: Exec,
    block: &'a Block<'a>,
    n: usize,
    d_y: &'a [f32],
    x: &'a [f32],
    kept: Parts<'a>,
}

impl BackwardPass<'_> {
    /// The gradients by the activations of some units: by the block's input, by what goes into the activation, by `z` and by queries, keys and
    /// values; with them the activation and what the norms gave. `sums` are those of each unit.
    fn run(&self, units: &[Part], results: [&mut [f32]; 7], sums: &mut [f32]) {
        let Self { serial, block, n, kept, .. } = *self;
        let Weights { norms, qkv, out, mlp } = block.weights;
        let (Part { tokens, .. }, segments) = (whole(units), block.segments_of(&whole(units)));
        let (count, d) = (tokens.len(), norms[0].gain.len());
        let (packed_width, width, f) = (block.heads.packed_width(), block.heads.width(), kept.inner.len() / n);
        let [d_x, d_inner, active, d_stream, d_packed, normed_1, normed_2] = results;
        let ours = |data| rows(data, n, &tokens);
        let (x, d_y, packed, mixed) = (ours(self.x), ours(self.d_y), ours(kept.qkv), ours(kept.mixed));
        let wide = d_inner.len() / count;
        let [of_qkv, of_out, of_first, of_second] = Columns::new(block).biases;
        self.add_up(units, View::new(d_y, count, d), of_second, sums);
        linear_backward(serial, View::new(d_y, count, d), mlp[1], ViewMut::strided(d_inner, count, f, wide));
        let inner = ours(kept.inner).chunks_exact(f);
        let later = packed.chunks_exact(packed_width).zip(mixed.chunks_exact(width));
        let both = d_inner.chunks_exact_mut(wide).zip(active.chunks_exact_mut(wide));
        let parts = inner.zip(later).zip(both).map(|((inner, (packed, mixed)), (d, h))| {
            // Attention reads them head by head, which no prefetcher foresees.
            [packed, mixed].into_iter().for_each(fetch);
            (inner, [&mut d[..f], &mut h[..f]])
        });
        gelu::backward_rows(serial, block.gelu, parts);
        SCRATCH.with_borrow_mut(|[d_normed, d_mixed]| {
            let (d_normed, d_mixed) = (sized(d_normed, count * d), sized(d_mixed, count * width));
            let d_inner = View::strided(d_inner, count, f, wide);
            self.add_up(units, d_inner, of_first, sums);
            linear_backward(serial, d_inner, mlp[0], ViewMut::new(d_normed, count, d));
            self.norm(1, units, (ours(kept.stream), normed_2), d_normed, (d_y, d_stream), sums);
            self.add_up(units, View::new(d_stream, count, d), of_out, sums);
            linear_backward(serial, View::new(d_stream, count, d), out, ViewMut::new(d_mixed, count, width));
            let spec = block.attention(&segments);
            attention::backward(serial, &spec, d_mixed, packed, mixed, ours(kept.lse), d_packed);
            if qkv.bias.is_some() {
                self.add_up(units, View::new(d_packed, count, packed_width), of_qkv, sums);
            }
            linear_backward(serial, View::new(d_packed, count, packed_width), qkv, ViewMut::new(d_normed, count, d));
            self.norm(0, units, (x, normed_1), d_normed, (d_stream, d_x), sums);
        });
    }

    /// For each unit the sums over its rows of `d_y`, the first at `from`.
    fn add_up(&self, units: &[Part], d_y: View<'_>, from: usize, sums: &mut [f32]) {
        let (first, all) = (units[0].tokens.start, sums.len() / units.len());
        for (unit, sums) in units.iter().zip(sums.chunks_exact_mut(all)) {
            let rows = unit.tokens.start - first..unit.tokens.end - first;
            column_sums(self.serial, d_y.some_rows(rows), &mut sums[from..][..d_y.cols()]);
        }
    }

    /// Norm number `number` of some units: what it gave, and the gradient by its input with what comes `around` it.
    fn norm(
        &self,
        number: usize,
        units: &[Part],
        (x, normed): (&[f32], &mut [f32]),
        d_normed: &[f32],
        (around, d_x): (&[f32], &mut [f32]),
        sums: &mut [f32],
    ) {
        let Self { serial, n, kept, .. } = *self;
        let (Norm { gain, bias }, tokens) = (self.block.weights.norms[number], whole(units).tokens);
        let (count, d) = (tokens.len(), gain.len());
        let (mean, rstd) = (rows(kept.mean[number], n, &tokens), rows(kept.rstd[number], n, &tokens));
        layer_norm::again(serial, x, gain, bias, mean, rstd, normed);
        let columns = Columns::new(self.block);
        for (unit, sums) in units.iter().zip(sums.chunks_exact_mut(columns.all)) {
            let part = unit.tokens.start - tokens.start..unit.tokens.end - tokens.start;
            let of = |data| rows(data, count, &part);
            let (d_gain, d_bias) = sums[columns.norms[number]..][..2 * d].split_at_mut(d);
            let (d_x, around) = (&mut d_x[part.start * d..part.end * d], Some(of(around)));
            let (d_gain, d_bias) = (Some(d_gain), Some(d_bias));
            layer_norm::backward(serial, of(d_normed), of(x), gain, of(mean), of(rstd), around, d_x, d_gain, d_bias);
        }
    }
}

/// `d_W = d_y^T x` of several layers, each with its `d_y` and `x` of either half of the tokens: of two tasks with the same weights the
/// later one adds up what both have, the second half's in `others`.
fn weight_gradients(
    exec: Exec,
    weights: [&mut [f32]; 4],
    others: [&mut [f32]; 4],
    halves: &[[(View<'_>, View<'_>); 4]; 2],
) {
    let blocks: Vec<(usize, Range<usize>)> = (0..4)
        .flat_map(|layer| {
            let [outputs, inputs] = [halves[0][layer].0.cols(), halves[0][layer].1.cols()];
            let rows = outputs.div_ceil((outputs * inputs).div_ceil(WEIGHTS));
            (0..outputs).step_by(rows).map(move |row| (layer, row..outputs.min(row + rows)))
        })
        .collect();
    let parts = [weights, others].map(|half| half.map(SharedMut::new));
    let is_done: Vec<AtomicBool> = blocks.iter().map(|_| AtomicBool::new(false)).collect();
    let serial = exec.with_threads(1);
    for_each(exec, 2 * blocks.len(), |task| {
        let (half, (layer, rows)) = (task / blocks.len(), &blocks[task % blocks.len()]);
        let (d_y, x) = halves[half][*layer];
        let (start, len) = (rows.start * x.cols(), rows.len() * x.cols());
        // SAFETY: each half has its own sums, and no other task these rows of them.
        let sums = unsafe { parts[half][*layer].slice(start, len) };
        if x.rows() == 0 {
            // One unit is the first half.
            sums.fill(0.0);
        } else {
            let (a, c) = (d_y.t().some_rows(rows.clone()), ViewMut::new(sums, rows.len(), x.cols()));
            matmuls(serial, [Product { onto: Onto::Overwrite, row: None, scale: 1.0, a, b: x, c, after: None }]);
        }
        if is_done[task % blocks.len()].swap(true, Ordering::AcqRel) {
            // SAFETY: both tasks with these rows have written them.
            let [first, second] = unsafe { parts.each_ref().map(|part| part[*layer].slice(start, len)) };
            add_to(serial, second, first);
        }
    });
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
