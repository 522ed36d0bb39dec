//! A conversation that keeps what it has computed.

use crate::engine::prefill;
use crate::sampler::History;
use crate::{Completion, Finish, GenerateSettings, KvStorage};
use cavy_model::{KvCache, Model, Pass};
use cavy_ops::kernels::random::uniform;

/// The keys and values of one conversation. Each answer computes only what is new since the last.
#[derive(Debug)]
pub struct Chat {
    cache: KvCache,
    /// The tokens whose keys and values the cache holds.
    seen: Vec<u32>,
    longest: usize,
}

impl Chat {
    /// An empty conversation of at most `longest` tokens.
    pub fn new(model: &Model, longest: usize, storage: KvStorage) -> Self {
        Self { cache: KvCache::new(model.config().kv_shape(storage), &[longest]), seen: Vec::new(), longest }
    }

    /// Most tokens of the conversation.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Keeps of what the cache holds the part that `ids` begin with, but for their last token, which must be fed.
    fn keep_common(&mut self, ids: &[u32]) {
        let common = self.seen.iter().zip(&ids[..ids.len() - 1]).take_while(|(a, b)| a == b).count();
        let dropped = self.seen.len() - common;
        if dropped > 0 && !self.cache.can_rewind(0, dropped) {
            self.cache.reset(0);
            self.seen.clear();
            return;
        }
        self.cache.rewind(0, dropped);
        self.seen.truncate(common);
    }

    /// The answer to a conversation whose tokens are `ids`. `on_token` is called with each token and ends the answer by
    /// returning true. The number of samples and the size of a batch in `settings` mean nothing here.
    ///
    /// Law: the answer that [`crate::generate`] gives to the same prompt.
    ///
    /// Panics: if `ids` is empty, or there is no room for it and the answer.
    pub fn answer(
        &mut self,
        model: &Model,
        ids: &[u32],
        settings: &GenerateSettings,
        on_token: &mut dyn FnMut(u32) -> bool,
    ) -> Completion {
        assert!(!ids.is_empty() && ids.len() + settings.max_tokens <= self.longest, "{} tokens", ids.len());
        if settings.use_cache {
            self.keep_common(ids);
        } else {
            self.cache.reset(0);
            self.seen.clear();
        }
        let mut completion = Completion::default();
        let mut history = History::new(ids);
        let mut logits = prefill(model, &mut self.cache, 0, &ids[self.seen.len()..]);
        self.seen = ids.to_vec();
        for index in 0..settings.max_tokens {
            let sampled = settings.sampling.sample(&mut logits, &history, uniform(settings.seed, index as u64));
            if settings.stop_tokens.contains(&sampled.token) {
                completion.finish = Finish::Stop;
                completion.stop_token = Some(sampled.token);
                break;
            }
            completion.push(&sampled);
            history.push(sampled.token);
            if on_token(sampled.token) {
                completion.finish = Finish::Stop;
                break;
            }
            if index + 1 < settings.max_tokens {
                let new = [(0, std::slice::from_ref(&sampled.token))];
                let hidden = model.hidden_cached(&Pass::following(&self.cache, &new), &mut self.cache, &[0]);
                self.seen.push(sampled.token);
                logits = model.logits_of(hidden, &[0]);
            }
        }
        completion
    }
}
