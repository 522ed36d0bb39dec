//! Batched decoding over one cache of keys and values.
//!
//! Sequences wait until a place is free, are prefilled, and are then decoded together, one token of each a pass. A
//! sequence that ends gives its place to the next. Several samples of one prompt share the prompt's keys and values.

use crate::sampler::History;
use crate::{Completion, Finish, GenerateSettings};
use burn::tensor::Tensor;
use cavy_model::{KvCache, Model, Pass};
use cavy_ops::Segments;
use cavy_ops::kernels::random::{subkey, uniform};
use std::sync::Arc;

/// Prompt tokens of one pass: enough for fast matrix products, few enough that activations stay small.
const CHUNK: usize = 512;
/// Sequences of one decoding pass. Up to so many rows a product has the same bits whatever their number (see
/// [`cavy_ops::kernels::packed::linear`]), so that a sequence does not depend on its neighbours.
const PASS_ROWS: usize = 16;

/// A sequence that is being decoded.
struct Live {
    prompt: usize,
    sample: usize,
    row: usize,
    completion: Completion,
    history: History,
    /// The token that was sampled last and not yet fed.
    next: u32,
}

/// A prompt whose samples are being decoded.
struct Group {
    prompt: usize,
    /// The row of the cache that holds the prompt, where its samples share it.
    row: usize,
    /// Samples that have not begun.
    waiting: std::ops::Range<usize>,
    running: usize,
    /// Logits after the prompt.
    logits: Vec<f32>,
}

/// One run over a list of prompts.
pub(crate) struct Engine<'a> {
    model: &'a Model,
    settings: &'a GenerateSettings,
    prompts: &'a [Vec<u32>],
    cache: KvCache,
    free_rows: Vec<usize>,
    free_prefix_rows: Vec<usize>,
    live: Vec<Live>,
    groups: Vec<Group>,
    next_prompt: usize,
    done: Vec<Vec<Option<Completion>>>,
}

/// Tokens that a row must hold beside a shared prompt, and those of a prompt.
pub(crate) fn capacities(context: usize, prompts: &[usize], settings: &GenerateSettings) -> Vec<usize> {
    let longest = prompts.iter().copied().max().unwrap_or(0);
    let places = settings.batch_size.max(1).min(prompts.len() * settings.n.max(1));
    if settings.n > 1 {
        let mut capacities = vec![settings.max_tokens.min(context); places];
        capacities.extend(vec![longest.min(context); places.min(prompts.len())]);
        return capacities;
    }
    vec![(longest + settings.max_tokens).min(context); places]
}

impl<'a> Engine<'a> {
    pub(crate) fn new(model: &'a Model, settings: &'a GenerateSettings, prompts: &'a [Vec<u32>]) -> Self {
        let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
        let capacities = capacities(model.config().context_length(), &lengths, settings);
        let places = settings.batch_size.max(1).min(prompts.len() * settings.n.max(1));
        let capacities = if settings.use_cache { capacities } else { vec![0; capacities.len()] };
        Self {
            model,
            settings,
            prompts,
            cache: KvCache::new(model.config().kv_shape(settings.kv_storage), &capacities),
            free_rows: (0..places).rev().collect(),
            free_prefix_rows: (places..capacities.len()).rev().collect(),
            live: Vec::new(),
            groups: Vec::new(),
            next_prompt: 0,
            done: prompts.iter().map(|_| (0..settings.n.max(1)).map(|_| None).collect()).collect(),
        }
    }

    /// Decodes everything. `on_token` is called with prompt, sample and token as they come, and ends the sequence by
    /// returning true; that token is then its last.
    pub(crate) fn run(mut self, on_token: &mut dyn FnMut(usize, usize, u32) -> bool) -> Vec<Vec<Completion>> {
        while self.admit(on_token) || !self.live.is_empty() {
            self.step(on_token);
        }
        let completed = |completion: Option<Completion>| completion.expect("every sequence has ended");
        self.done.into_iter().map(|samples| samples.into_iter().map(completed).collect()).collect()
    }

    /// Fills the free places. Returns whether any sequence was begun.
    fn admit(&mut self, on_token: &mut dyn FnMut(usize, usize, u32) -> bool) -> bool {
        let mut began = false;
        while let Some(&row) = self.free_rows.last() {
            let Some(group) = self.group_with_work() else { break };
            self.free_rows.pop();
            began = true;
            let (sample, logits) = {
                let group = &mut self.groups[group];
                let sample = group.waiting.start;
                group.waiting.start += 1;
                group.running += 1;
                let last = group.waiting.is_empty();
                (sample, if last { std::mem::take(&mut group.logits) } else { group.logits.clone() })
            };
            let Group { prompt, row: prefix, .. } = self.groups[group];
            if self.settings.use_cache && prefix != row {
                self.cache.continue_from(row, prefix);
            }
            let history = History::new(&self.prompts[prompt]);
            let live = Live { prompt, sample, row, completion: Completion::default(), history, next: 0 };
            if let Some(live) = self.chosen(live, logits, on_token) {
                self.live.push(live);
            }
        }
        began
    }

    /// A group with samples that wait, begun if need be.
    fn group_with_work(&mut self) -> Option<usize> {
        if let Some(group) = self.groups.iter().position(|group| !group.waiting.is_empty()) {
            return Some(group);
        }
        if self.next_prompt == self.prompts.len() || (self.settings.n > 1 && self.free_prefix_rows.is_empty()) {
            return None;
        }
        let prompt = self.next_prompt;
        self.next_prompt += 1;
        let row = if self.settings.n > 1 { self.free_prefix_rows.pop()? } else { *self.free_rows.last()? };
        let context = self.context(&self.prompts[prompt]);
        let logits = if self.settings.use_cache {
            self.cache.reset(row);
            prefill(self.model, &mut self.cache, row, context)
        } else {
            recompute(self.model, context)
        };
        self.groups.push(Group { prompt, row, waiting: 0..self.settings.n.max(1), running: 0, logits });
        Some(self.groups.len() - 1)
    }

    /// Whether a row can take one more token at a position that the model knows.
    fn has_room(&self, row: usize) -> bool {
        let known = self.cache.len(row) < self.model.config().context_length();
        self.settings.use_cache && known && self.cache.room(row) > 0
    }

    /// The end of a sequence that is longer than the model knows.
    fn context<'t>(&self, tokens: &'t [u32]) -> &'t [u32] {
        &tokens[tokens.len().saturating_sub(self.model.config().context_length())..]
    }

    /// Feeds the last token of every live sequence and chooses the next ones.
    fn step(&mut self, on_token: &mut dyn FnMut(usize, usize, u32) -> bool) {
        if self.live.is_empty() {
            return;
        }
        let (fits, full): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.live).into_iter().partition(|live| self.has_room(live.row));
        let mut logits = Vec::new();
        for together in fits.chunks(PASS_ROWS) {
            let new: Vec<(usize, &[u32])> =
                together.iter().map(|live| (live.row, std::slice::from_ref(&live.next))).collect();
            let rows: Vec<usize> = new.iter().map(|&(row, _)| row).collect();
            let pass = Pass::following(&self.cache, &new);
            let hidden = self.model.hidden_cached(&pass, &mut self.cache, &rows);
            logits.extend(self.model.logits_of(hidden, &(0..rows.len()).collect::<Vec<_>>()));
        }
        let vocabulary = logits.len() / fits.len().max(1);
        for (index, live) in fits.into_iter().enumerate() {
            let logits = logits[index * vocabulary..(index + 1) * vocabulary].to_vec();
            if let Some(live) = self.chosen(live, logits, on_token) {
                self.live.push(live);
            }
        }
        for live in full {
            // The context loses its beginning: every position changes, so nothing cached is of use.
            let tokens = [self.prompts[live.prompt].as_slice(), &live.completion.tokens].concat();
            let logits = recompute(self.model, self.context(&tokens));
            if let Some(live) = self.chosen(live, logits, on_token) {
                self.live.push(live);
            }
        }
        // Whoever came first stays first, whichever way the logits were computed.
        self.live.sort_by_key(|live| (live.prompt, live.sample));
    }

    /// Chooses the token after `logits`; gives the sequence back unless it has ended.
    fn chosen(
        &mut self,
        mut live: Live,
        mut logits: Vec<f32>,
        on_token: &mut dyn FnMut(usize, usize, u32) -> bool,
    ) -> Option<Live> {
        let settings = self.settings;
        let index = live.completion.tokens.len();
        if index == settings.max_tokens {
            self.finish(live, Finish::Length);
            return None;
        }
        let key = sequence_key(settings.seed, live.prompt, live.sample);
        let sampled = settings.sampling.sample(&mut logits, &live.history, uniform(key, index as u64));
        let token = sampled.token;
        if settings.stop_tokens.contains(&token) {
            live.completion.stop_token = Some(token);
            self.finish(live, Finish::Stop);
            return None;
        }
        live.completion.push(&sampled);
        live.history.push(token);
        live.next = token;
        if on_token(live.prompt, live.sample, token) {
            self.finish(live, Finish::Stop);
            return None;
        }
        if index + 1 == settings.max_tokens {
            self.finish(live, Finish::Length);
            return None;
        }
        Some(live)
    }

    fn finish(&mut self, live: Live, finish: Finish) {
        let Live { prompt, sample, row, mut completion, .. } = live;
        completion.finish = finish;
        self.done[prompt][sample] = Some(completion);
        self.cache.reset(row);
        self.free_rows.push(row);
        let group = self.groups.iter().position(|group| group.prompt == prompt).expect("the sequence's group");
        self.groups[group].running -= 1;
        if self.groups[group].running == 0 && self.groups[group].waiting.is_empty() {
            let group = self.groups.swap_remove(group);
            if self.settings.n > 1 {
                self.cache.reset(group.row);
                self.free_prefix_rows.push(group.row);
            }
        }
    }
}

/// The key of a sequence's random numbers. The first sample of the first prompt has the seed itself.
fn sequence_key(seed: u64, prompt: usize, sample: usize) -> u64 {
    if (prompt, sample) == (0, 0) { seed } else { subkey(subkey(seed, prompt as u64), sample as u64) }
}

/// Feeds a prompt to a row in chunks; the logits after it.
pub(crate) fn prefill(model: &Model, cache: &mut KvCache, row: usize, prompt: &[u32]) -> Vec<f32> {
    let mut last: Option<(Tensor<2>, usize)> = None;
    for chunk in prompt.chunks(CHUNK) {
        let pass = Pass::following(cache, &[(row, chunk)]);
        last = Some((model.hidden_cached(&pass, cache, &[row]), chunk.len() - 1));
    }
    let (hidden, row) = last.expect("a prompt has at least one token");
    model.logits_of(hidden, &[row])
}

/// The logits after a sequence, all of it computed.
pub(crate) fn recompute(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let segments = Arc::new(Segments::uniform(1, tokens.len()));
    model.logits(&Pass::new(tokens.into(), segments, None), &[tokens.len() - 1])
}
