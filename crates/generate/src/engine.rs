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

/// Fewest tokens that all prompts must begin with to be computed once for all. Fewer are not worth that rounding then
/// depends on the other prompts.
const SHARED: usize = 32;

/// What [`Engine::run`] tells its caller: prompt and sample, and the token that came or the completion that ended.
pub(crate) struct Calls<'c> {
    /// Ends the sequence by returning true; the token is then its last.
    pub(crate) on_token: &'c mut dyn FnMut(usize, usize, u32) -> bool,
    pub(crate) on_done: &'c mut dyn FnMut(usize, usize, &Completion),
}

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
    /// The row that holds what all prompts begin with, where that is computed once.
    shared: Option<usize>,
    live: Vec<Live>,
    groups: Vec<Group>,
    next_prompt: usize,
    done: Vec<Vec<Option<Completion>>>,
}

/// How many tokens all prompts begin with that are computed once; 0 for none.
fn shared_tokens(context: usize, prompts: &[Vec<u32>], settings: &GenerateSettings) -> usize {
    let [first, rest @ ..] = prompts else { return 0 };
    if rest.is_empty() || !settings.use_cache || prompts.iter().any(|prompt| prompt.len() > context) {
        return 0;
    }
    let common = |other: &Vec<u32>| first.iter().zip(other).take_while(|(a, b)| a == b).count();
    // The last token of a prompt must be fed: its logits are wanted.
    let fed = prompts.iter().map(|prompt| prompt.len() - 1).min().unwrap_or(0);
    let shared = rest.iter().map(common).min().unwrap_or(0).min(fed);
    if shared < SHARED { 0 } else { shared }
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
        let context = model.config().context_length();
        let shared = shared_tokens(context, prompts, settings);
        let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
        let mut capacities = capacities(context, &lengths, settings);
        let places = settings.batch_size.max(1).min(prompts.len() * settings.n.max(1));
        if !settings.use_cache {
            capacities.fill(0);
        }
        let mut free_prefix_rows: Vec<usize> = (places..capacities.len()).rev().collect();
        // Rows of single completions continue a row of their own kind; those of prompts, which samples continue, are copies
        // of one among them, if there are two.
        let shared_row = match (shared, settings.n) {
            (0, _) => None,
            (_, 0 | 1) => {
                capacities.iter_mut().for_each(|capacity| *capacity -= shared.min(*capacity - 1));
                capacities.push(shared);
                Some(capacities.len() - 1)
            }
            _ if free_prefix_rows.len() > 1 => free_prefix_rows.pop(),
            _ => None,
        };
        let mut engine = Self {
            model,
            settings,
            prompts,
            cache: KvCache::new(model.config().kv_shape(settings.kv_storage), &capacities),
            free_rows: (0..places).rev().collect(),
            free_prefix_rows,
            shared: shared_row,
            live: Vec::new(),
            groups: Vec::new(),
            next_prompt: 0,
            done: prompts.iter().map(|_| (0..settings.n.max(1)).map(|_| None).collect()).collect(),
        };
        if let Some(row) = engine.shared {
            feed(model, &mut engine.cache, row, &prompts[0][..shared]);
        }
        engine
    }

    /// Bytes of its cache.
    #[cfg(test)]
    pub(crate) fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Decodes everything.
    pub(crate) fn run(mut self, calls: &mut Calls) -> Vec<Vec<Completion>> {
        while self.admit(calls) || !self.live.is_empty() {
            self.step(calls);
        }
        let completed = |completion: Option<Completion>| completion.expect("every sequence has ended");
        self.done.into_iter().map(|samples| samples.into_iter().map(completed).collect()).collect()
    }

    /// Fills the free places. Returns whether any sequence was begun.
    fn admit(&mut self, calls: &mut Calls) -> bool {
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
            if let Some(live) = self.chosen(live, logits, calls) {
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
            match self.shared {
                Some(shared) if self.settings.n > 1 => self.cache.copy_row(shared, row),
                Some(shared) => self.cache.continue_from(row, shared),
                None => {}
            }
            let seen = self.cache.len(row);
            prefill(self.model, &mut self.cache, row, &context[seen..])
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
    fn step(&mut self, calls: &mut Calls) {
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
            if let Some(live) = self.chosen(live, logits, calls) {
                self.live.push(live);
            }
        }
        for live in full {
            // The context loses its beginning: every position changes, so nothing cached is of use.
            let tokens = [self.prompts[live.prompt].as_slice(), &live.completion.tokens].concat();
            let logits = recompute(self.model, self.context(&tokens));
            if let Some(live) = self.chosen(live, logits, calls) {
                self.live.push(live);
            }
        }
        // Whoever came first stays first, whichever way the logits were computed.
        self.live.sort_by_key(|live| (live.prompt, live.sample));
    }

    /// Chooses the token after `logits`; gives the sequence back unless it has ended.
    fn chosen(&mut self, mut live: Live, mut logits: Vec<f32>, calls: &mut Calls) -> Option<Live> {
        let settings = self.settings;
        let index = live.completion.tokens.len();
        if index == settings.max_tokens {
            self.finish(live, Finish::Length, calls);
            return None;
        }
        let key = sequence_key(settings.seed, live.prompt, live.sample);
        let sampled = settings.sampling.sample(&mut logits, &live.history, uniform(key, index as u64));
        let token = sampled.token;
        if settings.stop_tokens.contains(&token) {
            live.completion.stop_token = Some(token);
            self.finish(live, Finish::Stop, calls);
            return None;
        }
        live.completion.push(&sampled);
        live.history.push(token);
        live.next = token;
        if (calls.on_token)(live.prompt, live.sample, token) {
            self.finish(live, Finish::Stop, calls);
            return None;
        }
        if index + 1 == settings.max_tokens {
            self.finish(live, Finish::Length, calls);
            return None;
        }
        Some(live)
    }

    fn finish(&mut self, live: Live, finish: Finish, calls: &mut Calls) {
        let Live { prompt, sample, row, mut completion, .. } = live;
        completion.finish = finish;
        (calls.on_done)(prompt, sample, &completion);
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

/// Feeds tokens to a row in chunks; the last chunk's hidden states, and how many there are.
fn feed(model: &Model, cache: &mut KvCache, row: usize, tokens: &[u32]) -> (Tensor<2>, usize) {
    let mut last = None;
    for chunk in tokens.chunks(CHUNK) {
        let pass = Pass::following(cache, &[(row, chunk)]);
        last = Some((model.hidden_cached(&pass, cache, &[row]), chunk.len()));
    }
    last.expect("at least one token")
}

/// Feeds a prompt to a row in chunks; the logits after it.
pub(crate) fn prefill(model: &Model, cache: &mut KvCache, row: usize, prompt: &[u32]) -> Vec<f32> {
    let (hidden, count) = feed(model, cache, row, prompt);
    model.logits_of(hidden, &[count - 1])
}

/// The logits after a sequence, all of it computed.
pub(crate) fn recompute(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let segments = Arc::new(Segments::uniform(1, tokens.len()));
    model.logits(&Pass::new(tokens.into(), segments, None), &[tokens.len() - 1])
}
