//! A cache of keys and values changes no logits of any architecture, in whatever order and company tokens come; with
//! rounded storage they move by a bound far below what a wrong position does.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod golden;
#[path = "golden/variants.rs"]
mod variants;

use burn::tensor::Device;
use cavy_model::{Gpt2Config, KvCache, KvStorage, Model, Pass, WeightInit};
use cavy_ops::Segments;
use golden::model;
use std::sync::Arc;
use variants::VARIANTS;

const TOKENS: usize = 24;
const STORAGES: [KvStorage; 3] = [KvStorage::F32, KvStorage::Bf16, KvStorage::Q8];

/// Every architecture by name.
fn models() -> impl Iterator<Item = (&'static str, Model)> {
    let gpt2 = Gpt2Config {
        vocab_size: 61,
        context_length: 64,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 0,
        drop_rate: 0.0,
        qkv_bias: true,
        tie_word_embeddings: false,
        layer_norm_eps: 1e-5,
    };
    let gpt2 = Model::new(&gpt2.into(), WeightInit::Pytorch, 3, &Device::flex());
    VARIANTS.into_iter().map(|variant| (variant, model(variant, &Device::flex()))).chain([("gpt2", gpt2)])
}

fn ids() -> Vec<u32> {
    (0..TOKENS as u32).map(|i| (7 * i + 3) % 61).collect()
}

/// Logits at every position without a cache.
fn uncached(model: &Model, ids: &[u32]) -> Vec<f32> {
    let segments = Arc::new(Segments::uniform(1, ids.len()));
    model.logits(&Pass::new(ids.into(), segments, None), &(0..ids.len()).collect::<Vec<_>>())
}

/// Logits after the new tokens of some rows, all of them.
fn fed(model: &Model, cache: &mut KvCache, new: &[(usize, &[u32])]) -> Vec<f32> {
    let pass = Pass::following(cache, new);
    let tokens = pass.ids.len();
    let rows: Vec<usize> = new.iter().map(|&(row, _)| row).collect();
    let hidden = model.hidden_cached(&pass, cache, &rows);
    model.logits_of(hidden, &(0..tokens).collect::<Vec<_>>())
}

/// Root of the mean square of what two lists of logits differ by; NaN if any is NaN.
fn gap(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    (squares / a.len() as f64).sqrt()
}

/// How far logits move if the tokens from the middle of `ids` on stand one position too far from those before, as after a chunk
/// that was counted wrongly.
fn wrong_position(model: &Model, ids: &[u32]) -> f64 {
    let half = ids.len() / 2;
    let mut pass = Pass::new(ids.into(), Arc::new(Segments::uniform(1, ids.len())), None);
    let rows: Vec<usize> = (half..ids.len()).collect();
    let right = model.logits(&pass, &rows);
    pass.positions = (0..half as u32).chain(half as u32 + 1..=ids.len() as u32).collect();
    gap(&model.logits(&pass, &rows), &right)
}

/// How far logits may be from those without a cache: roundings of f32, or of the storage as a part of what a wrong position does.
fn bound(storage: KvStorage, wrong: f64) -> f64 {
    match storage {
        KvStorage::F32 => 1e-6,
        KvStorage::Bf16 => wrong / 20.0,
        KvStorage::Q8 => wrong / 8.0,
    }
}

#[test]
fn chunks_of_any_size_give_the_logits_of_the_whole_text() {
    for (name, model) in models() {
        let expected = uncached(&model, &ids());
        let wrong = wrong_position(&model, &ids());
        assert!(wrong > 1e-2, "{name}: a wrong position changes {wrong}");
        for storage in STORAGES {
            for chunks in [vec![TOKENS], vec![1; TOKENS], vec![5, 1, 9, 9], vec![10, 1, 1, 12]] {
                let mut cache = KvCache::new(model.config().kv_shape(storage), &[TOKENS]);
                let bytes = cache.bytes();
                let read = |cache: &mut KvCache| {
                    let mut at = 0;
                    let mut found = Vec::new();
                    for &len in &chunks {
                        found.extend(fed(&model, cache, &[(0, &ids()[at..at + len])]));
                        at += len;
                    }
                    found
                };
                let found = read(&mut cache);
                let gap = gap(&found, &expected);
                assert!(gap <= bound(storage, wrong), "{name} {storage:?} {chunks:?}: {gap}, a wrong position {wrong}");
                // Another text between the two leaves nothing behind.
                cache.reset(0);
                fed(&model, &mut cache, &[(0, &ids()[8..20])]);
                cache.reset(0);
                assert!(read(&mut cache) == found, "{name} {storage:?}: after a reset");
                assert_eq!(cache.bytes(), bytes);
            }
        }
    }
}

#[test]
fn rows_of_unequal_length_and_continuations_of_one_prompt_are_as_if_alone() {
    for (name, model) in models() {
        let texts: [Vec<u32>; 3] = [ids()[..11].to_vec(), ids()[3..7].to_vec(), ids()[5..21].to_vec()];
        let (left, right) = ([40, 41], [50, 51]);
        let alone = [
            texts[0].clone(),
            [&ids()[..9], &left].concat(),
            texts[1].clone(),
            texts[2].clone(),
            [&ids()[..9], &right].concat(),
        ];
        let wrong = wrong_position(&model, &ids());
        for storage in STORAGES {
            // Row 3 is the prompt that rows 4 and 5 continue.
            let mut cache = KvCache::new(model.config().kv_shape(storage), &[16, 16, 16, 9, 4, 4]);
            let bytes = cache.bytes();
            let first: Vec<(usize, &[u32])> =
                texts.iter().enumerate().map(|(row, text)| (row, &text[..text.len() - 1])).collect();
            fed(&model, &mut cache, &first);
            fed(&model, &mut cache, &[(3, &ids()[..9])]);
            [4, 5].into_iter().for_each(|row| cache.continue_from(row, 3));
            fed(&model, &mut cache, &[(4, &left[..1]), (5, &right[..1])]);
            let new: [(usize, &[u32]); 5] =
                [(0, &texts[0][10..]), (4, &left[1..]), (1, &texts[1][3..]), (2, &texts[2][15..]), (5, &right[1..])];
            let mut found = fed(&model, &mut cache, &new);
            let vocab = found.len() / new.len();
            // A row that continued another and is taken anew continues nothing.
            cache.reset(4);
            fed(&model, &mut cache, &[(4, &texts[1][..2])]);
            found.extend(&fed(&model, &mut cache, &[(4, &texts[1][2..])])[vocab..]);
            for (found, text) in found.chunks_exact(vocab).zip(alone.iter().chain([&texts[1]])) {
                let expected = uncached(&model, text);
                let gap = gap(found, &expected[expected.len() - vocab..]);
                assert!(gap <= bound(storage, wrong), "{name} {storage:?}: {gap}, a wrong position {wrong}");
            }
            assert_eq!(cache.bytes(), bytes);
        }
    }
}

#[test]
fn a_decoded_row_has_the_same_bits_whatever_its_neighbours() {
    for (name, model) in models() {
        for storage in STORAGES {
            let shape = model.config().kv_shape(storage);
            let mut alone = KvCache::new(shape, &[TOKENS]);
            let mut expected = fed(&model, &mut alone, &[(0, &ids()[..6])]);
            // Row 1 is the same text, beside rows that begin, end and are taken anew at other times.
            let mut cache = KvCache::new(shape, &[TOKENS, TOKENS, TOKENS]);
            let mut found = fed(&model, &mut cache, &[(1, &ids()[..6])]);
            fed(&model, &mut cache, &[(0, &[9, 8, 7, 6, 5, 4, 3, 2, 1])]);
            let vocab = expected.len() / 6;
            for (step, token) in ids()[6..].iter().enumerate() {
                expected.extend(fed(&model, &mut alone, &[(0, std::slice::from_ref(token))]));
                let other = [step as u32 % 61];
                let mut new: Vec<(usize, &[u32])> = vec![(0, &other), (1, std::slice::from_ref(token)), (2, &other)];
                if step % 5 == 2 {
                    new.remove(2);
                    cache.reset(2);
                }
                if step == 9 {
                    cache.reset(0);
                }
                let logits = fed(&model, &mut cache, &new);
                found.extend(&logits[vocab..2 * vocab]);
            }
            assert!(found == expected, "{name} {storage:?}: gap {}", gap(&found, &expected));
        }
    }
}
