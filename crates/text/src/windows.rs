//! Training examples as windows over one long run of tokens.

use crate::{TextError, TokenStore, rng::hash3};
use std::ops::Range;

/// Windows of `context` tokens that start every `stride` tokens: window i has the inputs
/// `tokens[i * stride .. i * stride + context]` and, as targets, the same range moved by one.
///
/// Law: as many windows as `range(0, len - context, stride)` has members, so that the last target exists.
/// Source: `GPTDatasetV1` in Raschka's LLMs-from-scratch, chapter 2, <https://github.com/rasbt/LLMs-from-scratch>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    context: usize,
    stride: usize,
    count: usize,
}

impl Windows {
    /// The windows over `tokens` tokens.
    ///
    /// # Errors
    /// [`TextError::TooShort`] if there is not one window, [`TextError::Setting`] if `context` or `stride` is 0.
    pub fn new(tokens: usize, context: usize, stride: usize) -> Result<Self, TextError> {
        check_context(tokens, context)?;
        if stride == 0 {
            let expected = "at least 1 token".to_owned();
            return Err(TextError::Setting { name: "stride", found: "0".to_owned(), expected });
        }
        Ok(Self { context, stride, count: (tokens - context).div_ceil(stride) })
    }

    /// How many windows there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The length of a window's inputs, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The tokens of window `index`: `context + 1` of them, inputs and last target.
    ///
    /// # Panics
    /// If there is no such window.
    pub fn range(&self, index: usize) -> Range<usize> {
        assert!(index < self.count, "window {index} of {}", self.count);
        let start = index * self.stride;
        start..start + self.context + 1
    }

    /// Reads window `index` of `store`.
    ///
    /// Shapes: `inputs` and `targets` are `(context,)`.
    ///
    /// # Panics
    /// If they are not, or there is no such window.
    pub fn copy(&self, store: &TokenStore, index: usize, inputs: &mut [u32], targets: &mut [u32]) {
        copy_shifted(store, self.range(index).start, self.context, inputs, targets);
    }
}

/// Windows at random places, drawn anew each step: nanoGPT's `get_batch`.
///
/// The place of row `row` at step `step` is a function of `(seed, step, row)`, so a run resumes from the step number.
/// Law: starts are uniform over `0 .. len - context`.
/// Source: `get_batch` in <https://github.com/karpathy/nanoGPT/blob/master/train.py>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomWindows {
    context: usize,
    starts: usize,
    seed: u64,
}

impl RandomWindows {
    /// Random windows over `tokens` tokens.
    ///
    /// # Errors
    /// [`TextError::TooShort`] if there is not one window, [`TextError::Setting`] if `context` is 0.
    pub fn new(tokens: usize, context: usize, seed: u64) -> Result<Self, TextError> {
        check_context(tokens, context)?;
        Ok(Self { context, starts: tokens - context, seed })
    }

    /// The length of a window's inputs, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The tokens of row `row` at step `step`: `context + 1` of them.
    pub fn range(&self, step: usize, row: usize) -> Range<usize> {
        // Multiply and shift: off from uniform by less than `starts` in 2^64.
        let draw = hash3(self.seed, step as u64, row as u64);
        let start = ((u128::from(draw) * self.starts as u128) >> 64) as usize;
        start..start + self.context + 1
    }

    /// Reads row `row` of step `step` from `store`.
    ///
    /// Shapes: `inputs` and `targets` are `(context,)`.
    ///
    /// # Panics
    /// If they are not.
    pub fn copy(&self, store: &TokenStore, step: usize, row: usize, inputs: &mut [u32], targets: &mut [u32]) {
        copy_shifted(store, self.range(step, row).start, self.context, inputs, targets);
    }
}

fn check_context(tokens: usize, context: usize) -> Result<(), TextError> {
    if context == 0 {
        let expected = "at least 1 token".to_owned();
        return Err(TextError::Setting { name: "context", found: "0".to_owned(), expected });
    }
    if tokens <= context {
        let at_most = tokens.saturating_sub(1);
        return Err(TextError::TooShort { tokens, needed: context.saturating_add(1), context, at_most });
    }
    Ok(())
}

/// Reads inputs and next-token targets that start at `start`.
fn copy_shifted(store: &TokenStore, start: usize, context: usize, inputs: &mut [u32], targets: &mut [u32]) {
    assert_eq!((inputs.len(), targets.len()), (context, context), "inputs and targets of one window");
    store.copy(start..start + context, inputs);
    targets[..context - 1].copy_from_slice(&inputs[1..]);
    store.copy(start + context..start + context + 1, &mut targets[context - 1..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count_like_python(tokens: usize, context: usize, stride: usize) -> usize {
        (0..tokens.saturating_sub(context)).step_by(stride).count()
    }

    #[test]
    fn a_window_reads_its_inputs_and_the_next_tokens() {
        let store = TokenStore::from_tokens((0..10).collect(), 10, 10).unwrap();
        let windows = Windows::new(store.len(), 4, 3).unwrap();
        assert_eq!(windows.count(), 2);
        let (mut inputs, mut targets) = ([0; 4], [0; 4]);
        windows.copy(&store, 1, &mut inputs, &mut targets);
        assert_eq!((inputs, targets), ([3, 4, 5, 6], [4, 5, 6, 7]));
    }

    #[test]
    fn a_text_shorter_than_the_context_is_told_its_length() {
        let error = Windows::new(200, 256, 256).unwrap_err();
        insta::assert_snapshot!(error.to_string(), @r"
        the text is too short: it has 200 tokens, a context of 256 needs at least 257
        hint: give more text or choose a context of at most 199
        ");
        assert!(Windows::new(256, 256, 256).is_err());
        assert_eq!(Windows::new(257, 256, 256).unwrap().count(), 1);
        assert!(RandomWindows::new(256, 256, 0).is_err());
        insta::assert_snapshot!(Windows::new(9, 4, 0).unwrap_err().to_string(), @"`stride` is 0, expected at least 1 token");
    }

    #[test]
    fn random_windows_reach_the_first_and_the_last_start_and_none_beyond() {
        let windows = RandomWindows::new(14, 4, 7).unwrap();
        let mut seen = [0usize; 10];
        for step in 0..1000 {
            for row in 0..10 {
                let range = windows.range(step, row);
                assert_eq!(range.len(), 5);
                seen[range.start] += 1;
            }
        }
        // The standard deviation of a count is 30.
        assert!(seen.iter().all(|&count| count.abs_diff(1000) < 150), "{seen:?}");
    }

    #[test]
    fn the_windows_of_a_step_do_not_depend_on_the_steps_before() {
        let windows = RandomWindows::new(100_000, 64, 1337).unwrap();
        assert_eq!(windows.range(500, 3), RandomWindows::new(100_000, 64, 1337).unwrap().range(500, 3));
        assert_ne!(windows.range(500, 3), windows.range(500, 4));
        assert_ne!(windows.range(500, 3), windows.range(501, 3));
        assert_ne!(windows.range(500, 3), RandomWindows::new(100_000, 64, 1338).unwrap().range(500, 3));
    }

    proptest! {
        #[test]
        fn there_are_as_many_windows_as_in_the_book(tokens in 0usize..600, context in 1usize..80, stride in 1usize..80) {
            let count = Windows::new(tokens, context, stride).map_or(0, |windows| windows.count());
            prop_assert_eq!(count, count_like_python(tokens, context, stride));
        }

        #[test]
        fn no_window_reaches_past_the_text(tokens in 2usize..600, context in 1usize..80, stride in 1usize..80) {
            prop_assume!(tokens > context);
            let windows = Windows::new(tokens, context, stride).unwrap();
            prop_assert!(windows.range(windows.count() - 1).end <= tokens);
        }
    }
}
