//! The tokens of a distribution in the order of their likelihood, without sorting them.
//!
//! Tokens are counted and weighed in bands of likelihood. Every question about the order (where are the first `k`, where
//! is the weight `w` reached) leads to one band, and only its few tokens are sorted.

use std::cmp::Ordering;

/// A token this many nats below the likeliest weighs 1e-26 of it: all such tokens together are below the resolution of a
/// draw in f64, so that none could be chosen.
const DEPTH: f64 = 60.0;

/// Bands over `DEPTH`: with the 150 thousand tokens of a large vocabulary, a thousand in the fullest and a few in the
/// first.
const BANDS: usize = 1024;

/// How far a logit is below the largest. A NaN is infinitely far, and of infinite ones none is.
pub(super) fn below(largest: f64, logit: f32) -> f64 {
    let below = largest - f64::from(logit);
    if !below.is_nan() {
        below
    } else if logit.is_nan() {
        f64::INFINITY
    } else {
        0.0
    }
}

/// The tokens of a vocabulary, likeliest first; of equal logits the smaller id is the likelier.
pub(super) struct Bands<'a> {
    logits: &'a [f32],
    largest: f64,
    temperature: f64,
    weights: Vec<f64>,
    counts: Vec<u32>,
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
        let mut bands = Self {
            logits,
            largest: f64::from(largest),
            temperature,
            weights: vec![0.0; BANDS],
            counts: vec![0; BANDS],
        };
        for &logit in logits {
            let below = bands.below(logit);
            let band = band_of(below);
            if band < BANDS {
                bands.weights[band] += (-below).exp();
                bands.counts[band] += 1;
            }
        }
        bands
    }

    /// How many nats a token is below the likeliest.
    fn below(&self, logit: f32) -> f64 {
        below(self.largest, logit) / self.temperature
    }

    /// The tokens of one band in order, with their weights.
    fn sorted(&self, band: usize) -> Vec<(u32, f64)> {
        let mut tokens: Vec<(u32, f64)> = Vec::with_capacity(self.counts[band] as usize);
        for (id, &logit) in (0u32..).zip(self.logits) {
            let below = self.below(logit);
            if band_of(below) == band {
                tokens.push((id, (-below).exp()));
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
        let band = band_of(-share.ln()).min(BANDS - 1);
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

/// The band of a token; those too far below have none, which is told by a number of no band.
fn band_of(below: f64) -> usize {
    (below * (BANDS as f64 / DEPTH)) as usize
}
