//! Keys and values of tokens already seen, preallocated, so that decoding computes each of them once.
//!
//! A row of the cache is one sequence. It may continue another row, its prefix: the tokens of a prompt are then kept
//! once for all its continuations. With a sliding window a row is a ring that overwrites what no query sees any more.
//!
//! Shapes: of each layer, row and key/value head, `(slots, E)`. Position `p` of a row whose prefix has `P` tokens lies
//! in slot `(p - P) % slots`.
//! Sources: Pope et al. 2022, <https://arxiv.org/abs/2211.05102>, section 2; the ring as in Jiang et al. 2023,
//! <https://arxiv.org/abs/2310.06825>, section 2.

use std::ops::Range;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KvStorage {
    /// As they are computed.
    #[default]
    F32,
    /// The upper half of an f32, rounded to nearest even: half the memory, 8 bits of precision.
    Bf16,
    /// Eight bits an element and one f32 scale a head vector: a quarter of the memory.
    Q8,
}

impl KvStorage {
    /// Bytes of one head vector of `dim` elements.
    pub fn vector_bytes(self, dim: usize) -> usize {
        match self {
            Self::F32 => 4 * dim,
            Self::Bf16 => 2 * dim,
            Self::Q8 => dim + 4,
        }
    }
}

/// What a cache is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Layers of the model, `L`.
    pub layers: usize,
    /// Key/value heads, `K`.
    pub kv_heads: usize,
    /// Size of a head, `E`.
    pub head_dim: usize,
    /// Most positions a query sees, its own included; `None` for all.
    pub window: Option<usize>,
    /// How elements are stored.
    pub storage: KvStorage,
}

impl KvShape {
    /// Slots of a row that is to hold `capacity` tokens of its own.
    pub fn slots(&self, capacity: usize) -> usize {
        self.window.map_or(capacity, |window| capacity.min(window)).max(1)
    }

    /// Bytes of a row that is to hold `capacity` tokens of its own; `None` where that overflows.
    pub fn row_bytes(&self, capacity: usize) -> Option<usize> {
        let vectors = self.slots(capacity).checked_mul(self.kv_heads)?.checked_mul(2)?.checked_mul(self.layers)?;
        vectors.checked_mul(self.storage.vector_bytes(self.head_dim))
    }
}

/// Head vectors of one layer and row: keys, or values.
#[derive(Clone, Debug)]
enum Store {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    Q8 { codes: Vec<i8>, scales: Vec<f32> },
}

impl Store {
    fn new(storage: KvStorage, vectors: usize, dim: usize) -> Self {
        match storage {
            KvStorage::F32 => Self::F32(vec![0.0; vectors * dim]),
            KvStorage::Bf16 => Self::Bf16(vec![0; vectors * dim]),
            KvStorage::Q8 => Self::Q8 { codes: vec![0; vectors * dim], scales: vec![0.0; vectors] },
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => 4 * values.len(),
            Self::Bf16(values) => 2 * values.len(),
            Self::Q8 { codes, scales } => codes.len() + 4 * scales.len(),
        }
    }

    fn write(&mut self, vector: usize, x: &[f32]) {
        let at = vector * x.len()..(vector + 1) * x.len();
        match self {
            Self::F32(values) => values[at].copy_from_slice(x),
            Self::Bf16(values) => values[at].iter_mut().zip(x).for_each(|(to, &x)| *to = to_bf16(x)),
            Self::Q8 { codes, scales } => {
                let largest = x.iter().fold(0.0_f32, |largest, x| if x.abs() > largest { x.abs() } else { largest });
                let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                scales[vector] = largest / 127.0;
                codes[at].iter_mut().zip(x).for_each(|(to, &x)| *to = (x * inverse).round() as i8);
            }
        }
    }

    /// Vectors `first..first + out.len() / dim` as f32: borrowed where they are stored so, else through `out`.
    fn read<'a>(&'a self, first: usize, count: usize, dim: usize, out: &'a mut Vec<f32>) -> &'a [f32] {
        let at = first * dim..(first + count) * dim;
        match self {
            Self::F32(values) => return &values[at],
            Self::Bf16(values) => {
                out.clear();
                out.extend(values[at].iter().map(|&x| f32::from_bits(u32::from(x) << 16)));
            }
            Self::Q8 { codes, scales } => {
                out.clear();
                for (codes, &scale) in codes[at].chunks_exact(dim).zip(&scales[first..]) {
                    out.extend(codes.iter().map(|&code| f32::from(code) * scale));
                }
            }
        }
        out
    }

    fn copy_vector(&mut self, vector: usize, from: &Self, dim: usize) {
        let at = vector * dim..(vector + 1) * dim;
        match (self, from) {
            (Self::F32(to), Self::F32(from)) => to[at.clone()].copy_from_slice(&from[at]),
            (Self::Bf16(to), Self::Bf16(from)) => to[at.clone()].copy_from_slice(&from[at]),
            (Self::Q8 { codes: to, scales: to_scales }, Self::Q8 { codes: from, scales }) => {
                to[at.clone()].copy_from_slice(&from[at]);
                to_scales[vector] = scales[vector];
            }
            _ => unreachable!("all rows of a cache are stored alike"),
        }
    }
}

/// The upper half of `x`, rounded to nearest even; a NaN stays one.
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

/// One sequence.
#[derive(Clone, Debug)]
struct Row {
    /// Tokens of its own that it may hold.
    capacity: usize,
    slots: usize,
    /// Tokens seen, those of the prefix included.
    len: usize,
    /// The row it continues, and how many tokens of that.
    prefix: Option<(usize, usize)>,
    /// Keys and values of each layer.
    layers: Vec<[Store; 2]>,
}

impl Row {
    fn prefix_len(&self) -> usize {
        self.prefix.map_or(0, |(_, len)| len)
    }
}

/// A run of consecutive positions whose vectors lie one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    row: usize,
    slot: usize,
    pub(crate) position: usize,
    pub(crate) len: usize,
}

/// Keys, or values.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Keys = 0,
    Values = 1,
}

/// The cache of all layers and rows.
///
/// Law: [`Self::bytes`] does not change after construction.
#[derive(Clone, Debug)]
pub struct KvCache {
    shape: KvShape,
    rows: Vec<Row>,
}

impl KvCache {
    /// An empty row for each capacity, the number of tokens it is to hold beside those of a prefix.
    pub fn new(shape: KvShape, capacities: &[usize]) -> Self {
        let row = |&capacity: &usize| {
            let slots = shape.slots(capacity);
            let store = || Store::new(shape.storage, slots * shape.kv_heads, shape.head_dim);
            let layers = (0..shape.layers).map(|_| [store(), store()]).collect();
            Row { capacity, slots, len: 0, prefix: None, layers }
        };
        Self { shape, rows: capacities.iter().map(row).collect() }
    }

    /// What it was made for.
    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.rows.iter().flat_map(|row| row.layers.iter().flatten()).map(Store::bytes).sum()
    }

    /// Tokens a row has seen, those of its prefix included: the position of its next token.
    pub fn len(&self, row: usize) -> usize {
        self.rows[row].len
    }

    /// Whether no row has seen a token.
    pub fn is_empty(&self) -> bool {
        self.rows.iter().all(|row| row.len == 0)
    }

    /// Tokens that a row can still take. A ring never fills, but its capacity is what was asked for.
    pub fn room(&self, row: usize) -> usize {
        let row = &self.rows[row];
        (row.prefix_len() + row.capacity).saturating_sub(row.len)
    }

    /// Forgets what a row has seen.
    pub fn reset(&mut self, row: usize) {
        self.rows[row].len = 0;
        self.rows[row].prefix = None;
    }

    /// Makes `row` a continuation of all that `prefix` has seen.
    ///
    /// Panics: if `prefix` is `row` itself, or continues a row too.
    pub fn continue_from(&mut self, row: usize, prefix: usize) {
        assert!(row != prefix && self.rows[prefix].prefix.is_none(), "row {row} cannot continue row {prefix}");
        let len = self.rows[prefix].len;
        self.rows[row].len = len;
        self.rows[row].prefix = Some((prefix, len));
    }

    /// Makes `to` the same sequence as `from`: its prefix, and a copy of its own tokens.
    ///
    /// Panics: if `to` has other slots than `from`, or `from` continues `to`.
    pub fn copy_row(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        assert!(self.rows[from].prefix.is_none_or(|(prefix, _)| prefix != to), "row {from} continues row {to}");
        let (dim, kv_heads) = (self.shape.head_dim, self.shape.kv_heads);
        let [source, target] = self.rows.get_disjoint_mut([from, to]).expect("two rows of the cache");
        assert_eq!(source.slots, target.slots, "rows {from} and {to} have the same number of slots");
        let slots = source.slots;
        let filled = (source.len - source.prefix_len()).min(slots);
        for (source, target) in source.layers.iter().flatten().zip(target.layers.iter_mut().flatten()) {
            for head in 0..kv_heads {
                for slot in 0..filled {
                    target.copy_vector(head * slots + slot, source, dim);
                }
            }
        }
        (target.len, target.prefix, target.capacity) = (source.len, source.prefix, source.capacity);
    }

    /// Counts `count` more tokens of a row as seen, once every layer has them.
    ///
    /// Panics: if the row has no room for them.
    pub fn advance(&mut self, row: usize, count: usize) {
        assert!(count <= self.room(row), "row {row} has room for {} tokens, not {count}", self.room(row));
        self.rows[row].len += count;
    }

    /// Whether [`Self::rewind`] can drop `count` tokens: they are the row's own, and its ring has not turned.
    pub fn can_rewind(&self, row: usize, count: usize) -> bool {
        let row = &self.rows[row];
        let own = row.len - row.prefix_len();
        count <= own && own <= row.slots
    }

    /// Drops the last `count` tokens of a row's own.
    ///
    /// Panics: if it has fewer, or is a ring that has turned: what it dropped is gone.
    pub fn rewind(&mut self, row: usize, count: usize) {
        assert!(count == 0 || self.can_rewind(row, count), "{count} of {} tokens to drop", self.len(row));
        self.rows[row].len -= count;
    }

    /// The stored positions of `row` from `first` on, in order, as runs that lie together.
    pub(crate) fn stored(&self, row: usize, first: usize) -> Vec<Stored> {
        let mut runs = Vec::with_capacity(4);
        let this = &self.rows[row];
        if let Some((prefix, len)) = this.prefix {
            self.runs(prefix, 0, first..len, &mut runs);
        }
        self.runs(row, this.prefix_len(), first.max(this.prefix_len())..this.len, &mut runs);
        runs
    }

    /// Splits positions of a row, whose own begin at `base`, where its ring turns.
    fn runs(&self, row: usize, base: usize, positions: Range<usize>, runs: &mut Vec<Stored>) {
        let slots = self.rows[row].slots;
        let mut position = positions.start.max(positions.end.saturating_sub(slots));
        while position < positions.end {
            let slot = (position - base) % slots;
            let len = (slots - slot).min(positions.end - position);
            runs.push(Stored { row, slot, position, len });
            position += len;
        }
    }

    /// The head vectors of a run, `(len, E)`.
    pub(crate) fn read<'a>(
        &'a self,
        layer: usize,
        part: Part,
        kv_head: usize,
        run: Stored,
        buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let row = &self.rows[run.row];
        row.layers[layer][part as usize].read(kv_head * row.slots + run.slot, run.len, self.shape.head_dim, buffer)
    }

    /// Stores the keys and values of the `count` tokens that follow what `row` has seen, without counting them yet.
    ///
    /// Shapes: `packed` is `(count, (H + 2K) E)`: queries, keys, values of each token.
    pub(crate) fn store(&mut self, layer: usize, row: usize, packed: &[f32], count: usize) {
        let KvShape { kv_heads, head_dim, .. } = self.shape;
        let width = packed.len() / count.max(1);
        let row = &mut self.rows[row];
        let (len, base, slots) = (row.len, row.prefix_len(), row.slots);
        for token in count.saturating_sub(slots)..count {
            let slot = (len + token - base) % slots;
            let vectors = &packed[(token + 1) * width - 2 * kv_heads * head_dim..(token + 1) * width];
            let (keys, values) = vectors.split_at(kv_heads * head_dim);
            let [stored_keys, stored_values] = &mut row.layers[layer];
            for head in 0..kv_heads {
                let at = head * head_dim..(head + 1) * head_dim;
                stored_keys.write(head * slots + slot, &keys[at.clone()]);
                stored_values.write(head * slots + slot, &values[at]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::test_input;

    fn shape(window: Option<usize>, storage: KvStorage) -> KvShape {
        KvShape { layers: 2, kv_heads: 2, head_dim: 4, window, storage }
    }

    /// Positions of the runs that `row` shows from `first` on.
    fn positions(cache: &KvCache, row: usize, first: usize) -> Vec<usize> {
        cache.stored(row, first).into_iter().flat_map(|run| run.position..run.position + run.len).collect()
    }

    /// Stores `count` tokens whose values are functions of their position.
    fn feed(cache: &mut KvCache, row: usize, count: usize) {
        let width = (2 + 2 * 2) * 4;
        let first = cache.len(row);
        let packed: Vec<f32> = (first..first + count).flat_map(|position| test_input(width, position)).collect();
        (0..2).for_each(|layer| cache.store(layer, row, &packed, count));
        cache.advance(row, count);
    }

    #[test]
    fn what_was_stored_is_read_at_its_position_within_the_bound_of_its_storage() {
        for (storage, bound) in [(KvStorage::F32, 0.0), (KvStorage::Bf16, 0.5 / 256.0), (KvStorage::Q8, 0.5 / 254.0)] {
            for window in [None, Some(5)] {
                let mut cache = KvCache::new(shape(window, storage), &[16]);
                [3, 1, 1, 7].into_iter().for_each(|count| feed(&mut cache, 0, count));
                let mut buffer = Vec::new();
                for run in cache.stored(0, 0) {
                    for (part, column) in [(Part::Keys, 8), (Part::Values, 16)] {
                        for head in 0..2 {
                            let found = cache.read(1, part, head, run, &mut buffer).to_vec();
                            for i in 0..run.len {
                                let expected = &test_input(24, run.position + i)[column + head * 4..][..4];
                                let near =
                                    found[i * 4..][..4].iter().zip(expected).all(|(a, b)| (a - b).abs() <= bound);
                                assert!(near, "{storage:?}: {found:?}, {expected:?}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_ring_keeps_the_window_and_a_plain_row_everything() {
        let mut cache = KvCache::new(shape(Some(5), KvStorage::F32), &[100]);
        let bytes = cache.bytes();
        assert_eq!(Some(bytes), cache.shape().row_bytes(100));
        [3, 4, 9, 1].into_iter().for_each(|count| feed(&mut cache, 0, count));
        assert_eq!(positions(&cache, 0, 0), [12, 13, 14, 15, 16]);
        assert_eq!(positions(&cache, 0, 14), [14, 15, 16]);
        assert_eq!(cache.bytes(), bytes);
        let mut cache = KvCache::new(shape(None, KvStorage::F32), &[9]);
        feed(&mut cache, 0, 9);
        assert_eq!(positions(&cache, 0, 0), (0..9).collect::<Vec<_>>());
        assert_eq!(cache.room(0), 0);
    }

    #[test]
    fn a_continuation_shows_its_prefix_and_a_copy_its_own_tokens() {
        let mut cache = KvCache::new(shape(None, KvStorage::F32), &[4, 3, 3]);
        feed(&mut cache, 0, 4);
        cache.continue_from(1, 0);
        feed(&mut cache, 1, 2);
        assert_eq!(positions(&cache, 1, 0), [0, 1, 2, 3, 4, 5]);
        assert_eq!(positions(&cache, 1, 3), [3, 4, 5]);
        cache.copy_row(1, 2);
        assert_eq!(positions(&cache, 2, 0), positions(&cache, 1, 0));
        let (own, copied) = (cache.stored(1, 4)[0], cache.stored(2, 4)[0]);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert_eq!(cache.read(1, Part::Values, 1, own, &mut a), cache.read(1, Part::Values, 1, copied, &mut b));
        cache.rewind(2, 1);
        assert_eq!(positions(&cache, 2, 3), [3, 4]);
        cache.reset(2);
        assert_eq!((cache.len(2), cache.room(2)), (0, 3));
    }

    #[test]
    #[should_panic(expected = "room for 1 tokens")]
    fn more_tokens_than_were_asked_for_are_refused() {
        let mut cache = KvCache::new(shape(None, KvStorage::F32), &[3]);
        feed(&mut cache, 0, 2);
        feed(&mut cache, 0, 2);
    }
}
