//! The tokens of a distribution in the order of their likelihood, without sorting them.
//!
//! Tokens are counted and weighed in bands of likelihood. Every question about the order (where are the first `k`, where
//! is the weight `w` reached) leads to one band, and only its few tokens are sorted.

use std::cmp::Ordering;
use std::sync::LazyLock;

/// Bands are 1/16 nat wide: with the 150 thousand tokens of a large vocabulary, a thousand in the fullest and a few in
/// the first. A token 64 nats below the likeliest weighs 1e-28 of it; all such tokens together are below the resolution
/// of a draw in f64, so that none could be chosen, and they have no band.
const BANDS: usize = 1024;
const BANDS_PER_NAT: f64 = 16.0;

/// So many tokens are placed at a time.
const BLOCK: usize = 64;

/// Adding it to a number below rounds that to a whole one, which the last bits of the sum then spell.
const ROUNDER: f64 = (1u64 << 52) as f64;

/// `exp(-band / 16)`; nothing for what is below the last band.
static BAND_WEIGHTS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let weights = (0..BANDS).map(|band| (-(band as f64) / BANDS_PER_NAT).exp());
    weights.chain([0.0]).collect()
});

/// How far a logit is below the largest. A NaN is infinitely far, and of infinite ones none is.
pub(super) fn below(largest: f64, logit: f32) -> f64 {
    let below = largest - f64::from(logit);
    let otherwise = if logit.is_nan() { f64::INFINITY } else { 0.0 };
    if below >= 0.0 { below } else { otherwise }
}

/// The tokens of a vocabulary, likeliest first; of equal logits the smaller id is the likelier.
pub(super) struct Bands<'a> {
    logits: &'a [f32],
    largest: f64,
    per_temperature: f64,
    weights: Vec<f64>,
    counts: Vec<u32>,
    /// The band of each token.
    band_of: Vec<u16>,
}

/// The first tokens of the order: all of the bands before `band`, and `len` of that one. `weight` is the sum of theirs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    band: usize,
    len: usize,
    pub(super) weight: f64,
}

impl Prefix {
    /// The one of the two that holds fewer tokens.
    pub(super) fn shorter(self, other: Self) -> Self {
        if (other.band, other.len) < (self.band, self.len) { other } else { self }
    }
}

impl<'a> Bands<'a> {
    /// `largest`, a number or infinity, is the largest of `logits`.
    pub(super) fn new(logits: &'a [f32], largest: f32, temperature: f64) -> Self {
        let largest = f64::from(largest);
        // One more for the tokens without a band.
        let (mut weights, mut counts) = ([0.0; BANDS + 1], [0; BANDS + 1]);
        let mut band_of = Vec::with_capacity(logits.len());
        // A temperature next to zero may have no reciprocal; the largest number does the same.
        let per_temperature = temperature.recip().min(f64::MAX);
        for block in logits.chunks(BLOCK) {
            let (bands, factors) = places(block, largest, per_temperature);
            for (&band, factor) in bands.iter().zip(factors).take(block.len()) {
                weights[usize::from(band)] += factor;
                counts[usize::from(band)] += 1;
            }
            band_of.extend_from_slice(&bands[..block.len()]);
        }
        let weights = weights.iter().zip(&**BAND_WEIGHTS).map(|(factors, weight)| factors * weight).take(BANDS);
        Self { logits, largest, per_temperature, weights: weights.collect(), counts: counts[..BANDS].to_vec(), band_of }
    }

    /// How much a token weighs against the likeliest.
    fn weight(&self, logit: f32) -> f64 {
        let (band, factor) = place(below(self.largest, logit) * self.per_temperature);
        BAND_WEIGHTS[usize::from(band)] * factor
    }

    /// The tokens of one band in order, with their weights.
    fn sorted(&self, band: usize) -> Vec<(u32, f64)> {
        let mut tokens: Vec<(u32, f64)> = Vec::with_capacity(self.counts[band] as usize);
        for (block, bands) in self.band_of.chunks(BLOCK).enumerate() {
            // Most blocks have none of the band; to see that is quick.
            if bands.iter().filter(|other| **other == band as u16).count() == 0 {
                continue;
            }
            for (id, _) in (BLOCK * block..).zip(bands).filter(|(_, other)| **other == band as u16) {
                tokens.push((id as u32, self.weight(self.logits[id])));
            }
        }
        let logit = |id: u32| self.logits[id as usize];
        // No NaN is in a band, and zero is zero whatever its sign.
        let likelier = |a: u32, b: u32| logit(b).partial_cmp(&logit(a)).unwrap_or(Ordering::Equal).then(a.cmp(&b));
        tokens.sort_unstable_by(|(a, _), (b, _)| likelier(*a, *b));
        tokens
    }

    /// All tokens that a draw can choose.
    pub(super) fn all(&self) -> Prefix {
        let band = self.counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        Prefix { band, len: self.counts[band] as usize, weight: self.weights.iter().sum() }
    }

    /// The `count` likeliest.
    pub(super) fn first(&self, count: usize) -> Prefix {
        let (mut left, mut weight) = (count, 0.0);
        for band in 0..BANDS {
            let here = self.counts[band] as usize;
            if here >= left {
                weight += self.sorted(band)[..left].iter().map(|(_, weight)| weight).sum::<f64>();
                return Prefix { band, len: left, weight };
            }
            left -= here;
            weight += self.weights[band];
        }
        self.all()
    }

    /// The fewest whose weight is enough; all of them if it never is.
    pub(super) fn until(&self, is_enough: impl Fn(f64) -> bool) -> Prefix {
        let mut before = 0.0;
        for band in 0..BANDS {
            if self.counts[band] > 0 && is_enough(before + self.weights[band]) {
                let mut weight = before;
                for (at, (_, more)) in self.sorted(band).into_iter().enumerate() {
                    weight += more;
                    if is_enough(weight) {
                        return Prefix { band, len: at + 1, weight };
                    }
                }
            }
            before += self.weights[band];
        }
        self.all()
    }

    /// Those that weigh at least `share`, at most 1, of the likeliest.
    pub(super) fn at_least(&self, share: f64) -> Prefix {
        let share = share.min(1.0);
        let band = usize::from(place(-share.ln()).0).min(BANDS - 1);
        let before: f64 = self.weights[..band].iter().sum();
        let kept: Vec<f64> =
            self.sorted(band).into_iter().map(|(_, weight)| weight).take_while(|&weight| weight >= share).collect();
        Prefix { band, len: kept.len(), weight: before + kept.iter().sum::<f64>() }
    }

    /// The last token of a prefix, and its weight.
    pub(super) fn last(&self, prefix: Prefix) -> (u32, f64) {
        // A prefix may end where its band begins: then its last token is in a band before.
        let band = if prefix.len > 0 {
            prefix.band
        } else {
            self.counts[..prefix.band].iter().rposition(|&count| count > 0).unwrap_or(0)
        };
        let tokens = self.sorted(band);
        tokens[if prefix.len > 0 { prefix.len } else { tokens.len() } - 1]
    }
}

/// The band of a token, `BANDS` for none, and by what its weight differs from that of the middle of the band.
fn place(below: f64) -> (u16, f64) {
    let shifted = (below * BANDS_PER_NAT).min(BANDS as f64) + ROUNDER;
    let band = shifted.to_bits() as u16;
    let x = (shifted - ROUNDER) / BANDS_PER_NAT - below;
    // exp(x) to 1e-14 for |x| up to 1/32. Far below the last band the number means nothing.
    let high = 1.0 / 6.0 + x * (1.0 / 24.0 + x * (1.0 / 120.0 + x / 720.0));
    (band, 1.0 + x * (1.0 + x * (0.5 + x * high)))
}

/// The places of a block of tokens: a loop without branches, which the compiler turns into vectors.
fn places(logits: &[f32], largest: f64, per_temperature: f64) -> ([u16; BLOCK], [f64; BLOCK]) {
    let (mut bands, mut factors) = ([0; BLOCK], [0.0; BLOCK]);
    for ((band, factor), &logit) in bands.iter_mut().zip(&mut factors).zip(logits) {
        (*band, *factor) = place(below(largest, logit) * per_temperature);
    }
    (bands, factors)
}

/// How much all tokens weigh against the likeliest: `sum(exp(logit - largest))`.
pub(super) fn total_weight(logits: &[f32], largest: f64) -> f64 {
    let weights = &**BAND_WEIGHTS;
    let mut sum = 0.0;
    for block in logits.chunks(BLOCK) {
        let (bands, factors) = places(block, largest, 1.0);
        let weigh = |(&band, &factor): (&u16, &f64)| {
            if usize::from(band) < BANDS { weights[usize::from(band)] * factor } else { 0.0 }
        };
        sum += bands.iter().zip(&factors).take(block.len()).map(weigh).sum::<f64>();
    }
    sum
}
