//! The choice of one token, with the probability it had.

use crate::sampler::Sampling;

/// The tokens before a choice.
#[derive(Clone, Debug, Default)]
pub struct History {
    prompt: Vec<u32>,
    generated: Vec<u32>,
}

impl History {
    /// A token of the prompt.
    pub fn prompt(&mut self, token: u32) {
        self.prompt.push(token);
    }

    /// A token that was generated.
    pub fn generated(&mut self, token: u32) {
        self.generated.push(token);
    }
}

/// A chosen token.
#[derive(Clone, Copy, Debug)]
pub struct Sampled {
    /// Its id.
    pub token: u32,
    /// Its log-probability in the distribution it was drawn from.
    pub logprob: f32,
    /// Its log-probability in the model's own.
    pub raw_logprob: f32,
}

/// Chooses.
pub fn sample(sampling: &Sampling, logits: &mut [f32], _: &History, draw: f64) -> Sampled {
    let token = sampling.choose(logits, draw);
    Sampled { token, logprob: 0.0, raw_logprob: 0.0 }
}
