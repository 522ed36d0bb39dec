//! What came before, as penalties count it.

use std::collections::HashMap;

/// The tokens of a prompt and of the text generated since.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// How often each token was generated; 0 for one of the prompt alone.
    times: HashMap<u32, u32>,
}

impl History {
    /// The history of a text that goes on after `prompt`.
    pub fn new(prompt: &[u32]) -> Self {
        Self { times: prompt.iter().map(|&token| (token, 0)).collect() }
    }

    /// Counts a token that was generated.
    pub fn push(&mut self, token: u32) {
        *self.times.entry(token).or_insert(0) += 1;
    }

    /// Each token once, with how often it was generated; in no order.
    pub(super) fn tokens(&self) -> impl Iterator<Item = (u32, u32)> {
        self.times.iter().map(|(&token, &times)| (token, times))
    }
}
