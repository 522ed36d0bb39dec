//! MinHash signatures, bit for bit datatrove's.

mod disk;
mod random;

pub use disk::{DuplicateSets, SignatureWriter, find_duplicates};
pub(crate) use disk::{bucket_name, merge_bucket};
pub(crate) use random::Mt19937;

use crate::normalize::simplify;
use crate::words::{Token, tokenize_into};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use xxhash_rust::{xxh32::xxh32, xxh64::xxh64};

/// The Mersenne prime that hashes are taken modulo.
pub(crate) const PRIME: u64 = (1 << 61) - 1;

/// How a run of words becomes a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShingleHash {
    /// The first eight bytes of SHA-1, little endian: what FineWeb was made with.
    #[default]
    Sha1,
    /// xxHash64: datatrove's default.
    Xxhash,
}

/// Shape of the signatures. The chance that two documents with similarity `s` meet in a bucket is `1 - (1 - s^r)^b`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MinhashConfig {
    /// Words of a shingle.
    pub n_grams: usize,
    /// Buckets, `b`.
    pub num_buckets: usize,
    /// Hashes of a bucket, `r`.
    pub hashes_per_bucket: usize,
    /// Seed of the hash functions.
    pub seed: u32,
    /// The hash of a shingle.
    pub hash: ShingleHash,
    /// Bits of a hash: 64, or 32, of which more are equal by chance.
    pub precision: u32,
}

impl Default for MinhashConfig {
    fn default() -> Self {
        Self { n_grams: 5, num_buckets: 14, hashes_per_bucket: 8, seed: 1, hash: ShingleHash::Sha1, precision: 64 }
    }
}

/// Makes signatures.
///
/// Source: Broder 1997; datatrove's `MinhashDedupSignature`.
#[derive(Clone, Debug)]
pub struct Signer {
    config: MinhashConfig,
    a: Vec<u64>,
    b: Vec<u64>,
    tokens: Vec<Token>,
}

impl Signer {
    /// Draws the hash functions.
    ///
    /// Panics: if a size in `config` is 0.
    pub fn new(config: MinhashConfig) -> Self {
        let count = config.num_buckets * config.hashes_per_bucket;
        assert!(
            count > 0 && config.n_grams > 0,
            "a signature has at least one hash and a shingle one word: {config:?}"
        );
        let mut random = Mt19937::new(config.seed);
        let a = (0..count).map(|_| random.between(1, PRIME)).collect();
        let b = (0..count).map(|_| random.between(0, PRIME)).collect();
        Self { config, a, b, tokens: Vec::new() }
    }

    /// The shape.
    pub fn config(&self) -> &MinhashConfig {
        &self.config
    }

    /// The signature of a text, buckets one after another, in `signature`; whether it has one: shorter texts than a shingle
    /// do not.
    pub fn sign(&mut self, text: &str, signature: &mut Vec<u64>) -> bool {
        let simple = simplify(text);
        let mut tokens = std::mem::take(&mut self.tokens);
        tokens.clear();
        tokenize_into(&simple, 0, &mut tokens);
        tokens.retain(|token| !token.is_space);
        let words = tokens.iter().map(|token| token.of(&simple));
        let signed = self.sign_words(words, signature);
        self.tokens = tokens;
        signed
    }

    /// The signature of words.
    pub fn sign_words<'a>(&self, words: impl Iterator<Item = &'a str>, signature: &mut Vec<u64>) -> bool {
        signature.clear();
        signature.resize(self.a.len(), u64::MAX);
        let mut any = false;
        // Shingles wait until there are enough for one pass over the hash functions.
        let mut waiting = [0; WAITING];
        let mut count = 0;
        for_each_shingle(words, self.config.n_grams, |shingle| {
            any = true;
            waiting[count] = match (self.config.hash, self.config.precision) {
                (ShingleHash::Sha1, 32) => sha1_64(shingle) & LOW,
                (ShingleHash::Sha1, _) => sha1_64(shingle),
                (ShingleHash::Xxhash, 32) => u64::from(xxh32(shingle, 0)),
                (ShingleHash::Xxhash, _) => xxh64(shingle, 0),
            };
            count += 1;
            if count == WAITING {
                self.lower(&waiting, signature);
                count = 0;
            }
        });
        self.lower(&waiting[..count], signature);
        any
    }

    /// Lowers every hash of `signature` to the least that the shingles `xs` have.
    fn lower(&self, xs: &[u64], signature: &mut [u64]) {
        let mask = if self.config.precision == 32 { LOW } else { u64::MAX };
        // Compiled for AVX-512 besides, which has the products and minima of 64-bit integers.
        pulp::Arch::new().dispatch(Lower { xs, a: &self.a, b: &self.b, mask, signature });
    }
}

/// The bits of a hash with a precision of 32.
const LOW: u64 = u32::MAX as u64;

/// Shingles of one pass over the hash functions.
const WAITING: usize = 256;
/// Hash functions that are held in registers while shingles pass.
const LANES: usize = 16;

/// Lowers every hash to the least that the shingles have.
struct Lower<'a> {
    xs: &'a [u64],
    a: &'a [u64],
    b: &'a [u64],
    /// The bits of a hash that count.
    mask: u64,
    signature: &'a mut [u64],
}

impl pulp::WithSimd for Lower<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let (mut a, mut b) = (self.a.chunks_exact(LANES), self.b.chunks_exact(LANES));
        let mut signature = self.signature.chunks_exact_mut(LANES);
        for ((a, b), lowest) in (&mut a).zip(&mut b).zip(&mut signature) {
            let (a, b): (&[u64; LANES], &[u64; LANES]) = (a.try_into().expect("exact"), b.try_into().expect("exact"));
            let mut low: [u64; LANES] = (&*lowest).try_into().expect("exact");
            for &x in self.xs {
                for lane in 0..LANES {
                    low[lane] = low[lane].min(hash(x, a[lane], b[lane]) & self.mask);
                }
            }
            lowest.copy_from_slice(&low);
        }
        for ((&a, &b), lowest) in a.remainder().iter().zip(b.remainder()).zip(signature.into_remainder()) {
            *lowest = self.xs.iter().fold(*lowest, |low, &x| low.min(hash(x, a, b) & self.mask));
        }
    }
}

/// `(x a + b mod 2^64) mod (2^61 - 1)`: the product wraps at 2^64 before the remainder is taken, which is part of the format.
#[inline(always)]
pub(crate) fn hash(x: u64, a: u64, b: u64) -> u64 {
    let wrapped = x.wrapping_mul(a).wrapping_add(b);
    let folded = (wrapped & PRIME) + (wrapped >> 61);
    // Below the prime, the difference wraps to something large.
    folded.min(folded.wrapping_sub(PRIME))
}

/// Calls `each` with every run of `n` words, joined by spaces.
pub(crate) fn for_each_shingle<'a>(words: impl Iterator<Item = &'a str>, n: usize, mut each: impl FnMut(&[u8])) {
    let mut joined: Vec<u8> = Vec::new();
    // Where the last `n` words begin in `joined`.
    let mut starts = std::collections::VecDeque::with_capacity(n + 1);
    for word in words {
        if joined.len() > 1 << 16
            && let Some(&first) = starts.front()
        {
            joined.drain(..first);
            starts.iter_mut().for_each(|start| *start -= first);
        }
        if !starts.is_empty() {
            joined.push(b' ');
        }
        starts.push_back(joined.len());
        joined.extend_from_slice(word.as_bytes());
        if starts.len() == n {
            each(&joined[starts[0]..]);
            starts.pop_front();
            if starts.is_empty() {
                joined.clear();
            }
        }
    }
}

/// The first eight bytes of SHA-1, little endian.
pub fn sha1_64(bytes: &[u8]) -> u64 {
    let digest = Sha1::digest(bytes);
    u64::from_le_bytes(digest[..8].try_into().expect("a digest has twenty bytes"))
}

#[cfg(test)]
mod tests;
