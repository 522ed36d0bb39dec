//! The tokens that have a part of their own: which begin a text, end it, fill it up or stand for the unknown.

/// Ids of tokens with a part of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<u32>,
    /// End a text or a turn: generation stops at any of them.
    pub eos: Vec<u32>,
    /// Fills up rows of a batch.
    pub pad: Option<u32>,
    /// Stands for what the vocabulary cannot write.
    pub unk: Option<u32>,
    /// Whether a prompt without a chat template begins with `bos`.
    pub add_bos: bool,
}
