//! From logits to one token.
//!
//! A distribution is changed in this order: bias, penalties, temperature, top-k, top-p, min-p. Transformers does the same
//! (its processors before its warpers), so that settings mean here what they mean there: penalties act on the model's own
//! logits, whatever the temperature, and a filter sees the probabilities that are drawn from. llama.cpp by default scales
//! by the temperature after the filters.

mod bands;
mod history;

pub use history::History;

use bands::Bands;

/// How a token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it: below 1 the likely tokens gain, above 1 the unlikely ones. 0 takes the likeliest.
    pub temperature: f64,
    /// Choose among this many likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Choose among the fewest likeliest tokens whose probabilities sum to at least this; 1 for all.
    pub top_p: f64,
    /// Choose among the tokens that are at least this times as likely as the likeliest; 0 for all.
    pub min_p: f64,
    /// A token of the prompt or the text so far has its logit divided by it, or multiplied if negative; 1 for none.
    pub repetition_penalty: f64,
    /// Taken from the logit of a token that was generated before.
    pub presence_penalty: f64,
    /// Taken from the logit of a token as often as it was generated before.
    pub frequency_penalty: f64,
    /// Added to the logits of tokens.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
        }
    }
}

/// A token that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: u32,
    /// Its log-probability, in nats, by the model: `log_softmax` of the logits as they came.
    pub logprob_raw: f64,
    /// Its log-probability, in nats, in the distribution it was drawn from; 0 where the likeliest is taken.
    pub logprob: f64,
}

impl Sampling {
    /// The token whose share of the distribution `draw`, a number in `[0, 1)`, falls into, by the logits alone: bias and
    /// penalties are not applied.
    ///
    /// `softmax(logits / temperature)` over the `top_k` likeliest tokens, of which the fewest are kept that hold
    /// `top_p`, and of these the ones with at least `min_p` of the likeliest's probability. Of equal logits the smaller
    /// id is the likelier.
    ///
    /// Shapes: `logits` is `(V)`. Numbers: probabilities and their sums in f64; a NaN logit is never chosen, unless
    /// all are.
    /// Law: a token is chosen by the share of draws that equals its probability, likelier tokens by smaller draws.
    /// Sources: Fan et al. 2018 for top-k, <https://arxiv.org/abs/1805.04833>; Holtzman et al. 2020 for top-p,
    /// <https://arxiv.org/abs/1904.09751>; Nguyen et al. 2024 for min-p, <https://arxiv.org/abs/2407.01082>.
    ///
    /// Panics: if `logits` is empty.
    pub fn choose(&self, logits: &[f32], draw: f64) -> u32 {
        self.draw(logits, draw).0
    }

    /// Chooses as [`Sampling::choose`] does, after bias and penalties, and says how likely the token was. `logits` are
    /// changed on the way and are in the end as they came.
    ///
    /// Numbers: sums in f64. Law: without bias and penalties and with the default settings both log-probabilities are
    /// the same.
    /// Sources: Keskar et al. 2019 for the repetition penalty, <https://arxiv.org/abs/1909.05858>, as transformers has
    /// it; OpenAI's API reference for the others.
    ///
    /// Panics: if `logits` is empty.
    pub fn sample(&self, logits: &mut [f32], history: &History, draw: f64) -> Sampled {
        assert!(!logits.is_empty(), "a vocabulary has at least one token");
        let raw = log_sum_exp(logits);
        let changed = self.apply(logits, history);
        let (token, logprob) = self.draw(logits, draw);
        // In the reverse order, since a token may have been changed twice.
        for (id, logit) in changed.into_iter().rev() {
            logits[id] = logit;
        }
        Sampled { token, logprob_raw: logprob_of(logits[token as usize], raw), logprob }
    }

    /// Adds bias and takes penalties; returns the logits that were changed as they were before.
    fn apply(&self, logits: &mut [f32], history: &History) -> Vec<(usize, f32)> {
        let mut changed = Vec::new();
        for &(id, bias) in &self.logit_bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                changed.push((id as usize, *logit));
                *logit += bias;
            }
        }
        if self.repetition_penalty == 1.0 && self.presence_penalty == 0.0 && self.frequency_penalty == 0.0 {
            return changed;
        }
        let repetition = self.repetition_penalty as f32;
        for (id, times) in history.tokens() {
            let Some(logit) = logits.get_mut(id as usize) else { continue };
            changed.push((id as usize, *logit));
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            if times > 0 {
                *logit -= (self.presence_penalty + self.frequency_penalty * f64::from(times)) as f32;
            }
        }
        changed
    }

    /// The token, and its log-probability in the distribution it was drawn from.
    fn draw(&self, logits: &[f32], draw: f64) -> (u32, f64) {
        assert!(!logits.is_empty(), "a vocabulary has at least one token");
        let best = likeliest(logits);
        let largest = logits[best as usize];
        if self.temperature <= 0.0 || self.top_k == 1 || largest.is_nan() || largest == f32::NEG_INFINITY {
            return (best, 0.0);
        }
        let bands = Bands::new(logits, largest, self.temperature);
        let mut kept = bands.all();
        if self.top_k > 0 && self.top_k < logits.len() {
            kept = kept.shorter(bands.first(self.top_k));
        }
        if self.top_p < 1.0 {
            let enough = self.top_p * kept.weight;
            kept = kept.shorter(bands.until(|weight| weight >= enough));
        }
        if self.min_p > 0.0 {
            kept = kept.shorter(bands.at_least(self.min_p));
        }
        let drawn = draw * kept.weight;
        // Rounding may leave a rest beyond the last token; it belongs to that one.
        let place = kept.shorter(bands.until(|weight| weight > drawn));
        let (token, weight) = bands.last(place);
        (token, (weight / kept.weight).ln())
    }
}

/// The `n` likeliest tokens and their log-probabilities, in nats, by the model; of equal logits the smaller id first.
///
/// Numbers: sums in f64. NaN logits count as impossible.
pub fn top_logprobs(logits: &[f32], n: usize) -> Vec<(u32, f64)> {
    let raw = log_sum_exp(logits);
    let mut top: Vec<u32> = Vec::with_capacity(n.saturating_add(1).min(logits.len()));
    for (id, &logit) in (0u32..).zip(logits) {
        let is_full = top.len() == n;
        if logit.is_nan() || (is_full && top.last().is_none_or(|&last| logits[last as usize] >= logit)) {
            continue;
        }
        let place = top.partition_point(|&other| logits[other as usize] >= logit);
        if is_full {
            top.pop();
        }
        top.insert(place, id);
    }
    top.into_iter().map(|id| (id, logprob_of(logits[id as usize], raw))).collect()
}

/// The id of the largest logit, the smallest of equals; NaN is less than any number.
fn likeliest(logits: &[f32]) -> u32 {
    // Several at a time: one by one, each would wait for the one before.
    let (blocks, rest) = logits.as_chunks::<16>();
    let mut lanes = [f32::NAN; 16];
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, &logit)| *lane = lane.max(logit));
    }
    let largest = lanes.iter().chain(rest).copied().fold(f32::NAN, f32::max);
    logits.iter().position(|&logit| logit == largest).unwrap_or(0) as u32
}

/// `ln(sum(exp(logits)))`, as the largest logit and what the others add to it.
fn log_sum_exp(logits: &[f32]) -> (f64, f64) {
    let largest = f64::from(logits[likeliest(logits) as usize]);
    (largest, bands::total_weight(logits, largest).ln())
}

fn logprob_of(logit: f32, (largest, rest): (f64, f64)) -> f64 {
    -bands::below(largest, logit) - rest
}

#[cfg(test)]
mod tests;
