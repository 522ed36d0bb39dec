//! Beam search: the likeliest continuations found by keeping the best few prefixes at every length.
//!
//! Source: `_beam_search` of Hugging Face's transformers 5 (length penalty, early stopping, how many candidates), after Graves
//! 2012, <https://arxiv.org/abs/1211.3711>; the length penalty as in Wu et al. 2016,
//! <https://arxiv.org/abs/1609.08144>, in its exponential form.

use crate::engine::prefill;
use cavy_model::{KvCache, KvStorage, Model, Pass};

/// When a search ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// As soon as there are as many finished texts as beams.
    True,
    /// Once the best running beam, were it to end now, is worse than the worst of the finished.
    #[default]
    False,
    /// Once no running beam could become better, however long; with a positive length penalty, at the longest length.
    Never,
}

/// How wide and how far to search.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamSettings {
    /// Prefixes kept, `num_beams`.
    pub num_beams: usize,
    /// Finished texts returned, at most `num_beams`.
    pub num_return_sequences: usize,
    /// Most tokens of a text.
    pub max_tokens: usize,
    /// A text's score is the sum of its log-probabilities divided by its length to this power.
    pub length_penalty: f64,
    /// When to end.
    pub early_stopping: EarlyStopping,
    /// Tokens that end a text. They count to its score and length and are not part of the result.
    pub stop_tokens: Vec<u32>,
    /// How keys and values are stored.
    pub kv_storage: KvStorage,
}

impl Default for BeamSettings {
    fn default() -> Self {
        Self {
            num_beams: 4,
            num_return_sequences: 1,
            max_tokens: 64,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::False,
            stop_tokens: Vec::new(),
            kv_storage: KvStorage::F32,
        }
    }
}

/// A text that a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Sum of log-probabilities, in nats, that of the ending token included.
    pub logprob: f64,
    /// What it was ranked by.
    pub score: f64,
}

/// A prefix that is still growing.
#[derive(Clone)]
struct Beam {
    tokens: Vec<u32>,
    logprob: f64,
    /// Row of the cache that holds it.
    row: usize,
}

/// Finished texts, best first; at most as many as there are beams.
struct Finished {
    list: Vec<Hypothesis>,
    width: usize,
    length_penalty: f64,
}

impl Finished {
    fn score(&self, logprob: f64, length: usize) -> f64 {
        logprob / (length.max(1) as f64).powf(self.length_penalty)
    }

    fn add(&mut self, tokens: Vec<u32>, logprob: f64, length: usize) {
        let score = self.score(logprob, length);
        let at = self.list.partition_point(|other| other.score >= score);
        self.list.insert(at, Hypothesis { tokens, logprob, score });
        self.list.truncate(self.width);
    }

    /// Whether no running beam of `length` tokens, the best of which has `best`, can matter any more.
    fn is_enough(&self, best: f64, length: usize, settings: &BeamSettings) -> bool {
        let Some(worst) = self.list.get(self.width - 1) else { return false };
        let reachable = match settings.early_stopping {
            EarlyStopping::True => return true,
            EarlyStopping::Never if settings.length_penalty > 0.0 => self.score(best, settings.max_tokens),
            EarlyStopping::False | EarlyStopping::Never => self.score(best, length),
        };
        worst.score >= reachable
    }
}

/// The best texts that follow `prompt`, best first.
///
/// The prompt is computed once; beams share its keys and values.
///
/// Law: with one beam, the tokens of greedy decoding.
///
/// Panics: if `prompt` is empty or longer than the model's context, or there are no beams.
pub fn beam_search(model: &Model, prompt: &[u32], settings: &BeamSettings) -> Vec<Hypothesis> {
    let width = settings.num_beams;
    assert!(width > 0 && !prompt.is_empty(), "{width} beams after {} tokens", prompt.len());
    let context = model.config().context_length();
    assert!(prompt.len() <= context, "a prompt of {} tokens for a context of {context}", prompt.len());
    let longest = settings.max_tokens.min(context - prompt.len());
    // The prompt, and two rows a beam: the next generation is copied before the last is overwritten.
    let mut capacities = vec![longest.max(1); 2 * width];
    capacities.push(prompt.len());
    let mut cache = KvCache::new(model.config().kv_shape(settings.kv_storage), &capacities);
    let shared = 2 * width;
    let first = prefill(model, &mut cache, shared, prompt);
    (0..2 * width).for_each(|row| cache.continue_from(row, shared));
    let mut finished = Finished { list: Vec::new(), width, length_penalty: settings.length_penalty };
    let mut beams = vec![Beam { tokens: Vec::new(), logprob: 0.0, row: 0 }];
    let mut logits = first;
    let mut spare: Vec<usize> = (1..2 * width).collect();
    // Enough that, were all ends of text among the best, as many beams go on.
    let kept = width * (1 + settings.stop_tokens.len()).max(2);
    for length in 1..=longest {
        let candidates = best_candidates(&beams, &logits, kept);
        let mut next: Vec<(usize, u32, f64)> = Vec::with_capacity(width);
        for (rank, &(beam, token, logprob)) in candidates.iter().enumerate() {
            let ends = settings.stop_tokens.contains(&token);
            if !ends && length < longest {
                if next.len() < width {
                    next.push((beam, token, logprob));
                }
            } else if rank < width {
                // As in the source: an ending that is not among the best is not taken.
                let own = (!ends).then_some(token);
                let tokens = beams[beam].tokens.iter().copied().chain(own).collect();
                finished.add(tokens, logprob, length);
            }
        }
        let best = next.first().map_or(f64::NEG_INFINITY, |&(_, _, logprob)| logprob);
        if next.is_empty() || finished.is_enough(best, length, settings) {
            beams.clear();
            break;
        }
        beams = grown(&mut cache, &beams, &next, &mut spare);
        let new: Vec<(usize, &[u32])> =
            beams.iter().map(|beam| (beam.row, &beam.tokens[beam.tokens.len() - 1..])).collect();
        let rows: Vec<usize> = beams.iter().map(|beam| beam.row).collect();
        let pass = Pass::following(&cache, &new);
        let hidden = model.hidden_cached(&pass, &mut cache, &rows);
        logits = model.logits_of(hidden, &(0..rows.len()).collect::<Vec<_>>());
    }
    for beam in beams {
        let length = beam.tokens.len();
        finished.add(beam.tokens, beam.logprob, length);
    }
    finished.list.truncate(settings.num_return_sequences.max(1));
    finished.list
}

/// The beams after `next`, each in a row of its own. The first child of a beam stays in its row, the others are copies.
fn grown(cache: &mut KvCache, beams: &[Beam], next: &[(usize, u32, f64)], spare: &mut Vec<usize>) -> Vec<Beam> {
    let has_child = |parent: usize| next.iter().any(|&(beam, ..)| beam == parent);
    spare.extend(beams.iter().enumerate().filter(|&(parent, _)| !has_child(parent)).map(|(_, beam)| beam.row));
    let mut taken = vec![false; beams.len()];
    let child = |&(parent, token, logprob): &(usize, u32, f64)| {
        let row = if std::mem::replace(&mut taken[parent], true) {
            let row = spare.pop().expect("two rows a beam");
            cache.copy_row(beams[parent].row, row);
            row
        } else {
            beams[parent].row
        };
        let mut tokens = beams[parent].tokens.clone();
        tokens.push(token);
        Beam { tokens, logprob, row }
    };
    next.iter().map(child).collect()
}

/// The `count` likeliest continuations by one token: beam, token and sum of log-probabilities, best first. Of equals,
/// the earlier beam and the smaller token.
fn best_candidates(beams: &[Beam], logits: &[f32], count: usize) -> Vec<(usize, u32, f64)> {
    let vocabulary = logits.len() / beams.len();
    let mut candidates = Vec::with_capacity(beams.len() * count);
    for (index, beam) in beams.iter().enumerate() {
        let logits = &logits[index * vocabulary..(index + 1) * vocabulary];
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = logits.iter().map(|&x| f64::from(x - max).exp()).sum::<f64>().ln() + f64::from(max);
        let mut ids: Vec<u32> = (0..vocabulary as u32).collect();
        let likelier = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if count < vocabulary {
            ids.select_nth_unstable_by(count, likelier);
            ids.truncate(count);
        }
        let scored = |token: u32| (index, token, beam.logprob + f64::from(logits[token as usize]) - log_sum);
        candidates.extend(ids.into_iter().map(scored));
    }
    candidates.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)).then(a.1.cmp(&b.1)));
    candidates.truncate(count);
    candidates
}
