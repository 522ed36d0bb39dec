//! SentencePiece's byte-pair encoding: pieces with scores, of which the best pair is merged first.

use super::bpe::Cache;
use crate::rng::hash_bytes;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

/// What stands for a space within pieces.
pub(super) const SPACE: char = '\u{2581}';

/// What a piece of the vocabulary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// Text, which merges may lead to.
    Normal,
    /// A single byte, written `<0x0A>`, for characters without a piece.
    Byte(u8),
    /// Not text: an added token or an unused place.
    Other,
}

/// One piece, with spaces written as [`SPACE`].
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) text: Box<str>,
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

/// A vocabulary of SentencePiece's kind.
///
/// Invariant: scores of normal pieces are finite.
#[derive(Clone, Debug)]
pub(super) struct Spm {
    pieces: Vec<Piece>,
    /// The normal pieces by text.
    ids: HashMap<Box<str>, u32>,
    byte_ids: [Option<u32>; 256],
    unknown: Option<u32>,
    /// Whether a text is encoded as if a space stood before it, so that a word is the same at its beginning.
    space_prefix: bool,
    /// Whether no piece has a space behind something else. Then no merge crosses the beginning of a word, and words can
    /// be encoded one by one, which is faster and the same.
    words_apart: bool,
}

/// A character that the vocabulary cannot write, and its byte in the text.
pub(super) type Unwritable = (char, usize);

impl Spm {
    pub(super) fn new(pieces: Vec<Piece>, unknown: Option<u32>, space_prefix: bool) -> Self {
        let (mut ids, mut byte_ids, mut words_apart) = (HashMap::with_capacity(pieces.len()), [None; 256], true);
        for (piece, id) in pieces.iter().zip(0..) {
            match piece.kind {
                PieceKind::Normal => {
                    // Of two pieces with one text the first counts.
                    ids.entry(piece.text.clone()).or_insert(id);
                    words_apart &= !piece.text.trim_start_matches(SPACE).contains(SPACE);
                }
                PieceKind::Byte(byte) => byte_ids[byte as usize] = Some(id),
                PieceKind::Other => {}
            }
        }
        Self { pieces, ids, byte_ids, unknown, space_prefix, words_apart }
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The number of characters that have a piece.
    pub(super) fn single_characters(&self) -> usize {
        self.ids.keys().filter(|text| text.chars().nth(1).is_none()).count()
    }

    pub(super) fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    pub(super) fn space_prefix(&self) -> bool {
        self.space_prefix
    }

    /// A hash of pieces and settings, begun with `seed`.
    pub(super) fn fingerprint(&self, seed: u64) -> u64 {
        let mut bytes = b"spm".to_vec();
        bytes.push(u8::from(self.space_prefix));
        bytes.extend(self.unknown.map_or(u32::MAX, |id| id).to_le_bytes());
        for piece in &self.pieces {
            let kind = match piece.kind {
                PieceKind::Normal => 0u32,
                PieceKind::Byte(byte) => 1 + u32::from(byte),
                PieceKind::Other => 257,
            };
            bytes.extend([piece.text.len() as u32, kind, piece.score.to_bits()].into_iter().flat_map(u32::to_le_bytes));
            bytes.extend_from_slice(piece.text.as_bytes());
        }
        hash_bytes(seed, &bytes)
    }

    /// The bytes of piece `id`; `begins` says that it begins a text, where the space put before it is taken away again.
    pub(super) fn piece_bytes(&self, id: u32, begins: bool) -> Option<Cow<'_, [u8]>> {
        let piece = self.pieces.get(id as usize)?;
        if let PieceKind::Byte(byte) = piece.kind {
            return Some(Cow::Owned(vec![byte]));
        }
        let text = if begins && self.space_prefix {
            piece.text.strip_prefix(SPACE).unwrap_or(&piece.text)
        } else {
            &piece.text
        };
        Some(if text.contains(SPACE) {
            Cow::Owned(text.replace(SPACE, " ").into_bytes())
        } else {
            Cow::Borrowed(text.as_bytes())
        })
    }

    /// Adds the ids of `text` to `ids`. `cache` remembers words.
    ///
    /// Errors: a character that has neither a piece nor bytes, in a vocabulary without an unknown token.
    pub(super) fn encode(&self, text: &str, cache: &mut Cache, ids: &mut Vec<u32>) -> Result<(), Unwritable> {
        if text.is_empty() {
            return Ok(());
        }
        let mut written = String::with_capacity(text.len() + text.len() / 2 + SPACE.len_utf8());
        if self.space_prefix {
            written.push(SPACE);
        }
        written.extend(text.chars().map(|character| if character == ' ' { SPACE } else { character }));
        let encoded = if self.words_apart {
            words(&written).try_for_each(|word| cache.encode(word, ids, |ids| self.merge(word, ids)))
        } else {
            self.merge(&written, ids)
        };
        encoded.map_err(|character| (character, text.find(character).unwrap_or_default()))
    }

    /// Adds the ids of one word to `ids`: again and again the neighbours whose merged piece has the best score are
    /// merged, the leftmost of equals first.
    ///
    /// Errors: a character that cannot be written.
    /// Source: `llm_tokenizer_spm` in <https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp>; the same
    /// as the loop of `encode` in <https://github.com/karpathy/llama2.c/blob/master/run.c>, in n log n.
    fn merge(&self, word: &str, ids: &mut Vec<u32>) -> Result<(), char> {
        let mut symbols: Vec<Symbol> = word
            .char_indices()
            .zip(0usize..)
            .map(|((start, character), at)| Symbol {
                start,
                end: start + character.len_utf8(),
                before: at.wrapping_sub(1),
                next: at + 1,
            })
            .collect();
        let n = symbols.len();
        let candidate = |symbols: &[Symbol], left: usize, right: usize| {
            let (start, end) = (symbols[left].start, symbols[right].end);
            let id = *self.ids.get(&word[start..end])?;
            Some(Candidate { score: self.pieces[id as usize].score, left, right, end })
        };
        let mut candidates: BinaryHeap<Candidate> =
            (1..n).filter_map(|right| candidate(&symbols, right - 1, right)).collect();
        while let Some(Candidate { left, right, end, .. }) = candidates.pop() {
            // Stale if one of the two has been merged since: then they are gone, apart or longer.
            if symbols[left].end == symbols[left].start || symbols[left].next != right || symbols[right].end != end {
                continue;
            }
            symbols[left].end = end;
            symbols[left].next = symbols[right].next;
            symbols[right].end = symbols[right].start;
            let (before, next) = (symbols[left].before, symbols[left].next);
            if next < n {
                symbols[next].before = left;
                candidates.extend(candidate(&symbols, left, next));
            }
            if before < n {
                candidates.extend(candidate(&symbols, before, left));
            }
        }
        let mut at = 0;
        let mut run_of_unknown = false;
        while at < n {
            let text = &word[symbols[at].start..symbols[at].end];
            let unknown = match self.ids.get(text) {
                Some(&id) => {
                    ids.push(id);
                    false
                }
                None => self.write_bytes(text, run_of_unknown, ids)?,
            };
            run_of_unknown = unknown;
            at = symbols[at].next;
        }
        Ok(())
    }

    /// Adds the bytes of a character without a piece to `ids`, or the unknown token, once for a run of such characters;
    /// says whether it was the latter.
    fn write_bytes(&self, text: &str, run_of_unknown: bool, ids: &mut Vec<u32>) -> Result<bool, char> {
        let bytes: Option<Vec<u32>> = text.bytes().map(|byte| self.byte_ids[byte as usize]).collect();
        if let Some(bytes) = bytes {
            ids.extend(bytes);
            return Ok(false);
        }
        let unknown = self.unknown.ok_or_else(|| text.chars().next().unwrap_or_default())?;
        if !run_of_unknown {
            ids.push(unknown);
        }
        Ok(true)
    }
}

/// The words of a written text: each begins with the spaces before it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let spaces = rest.len() - rest.trim_start_matches(SPACE).len();
        let end = rest[spaces..].find(SPACE).map_or(rest.len(), |at| spaces + at);
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

/// A run of the word's bytes that is one symbol; empty once it is merged into another.
struct Symbol {
    start: usize,
    end: usize,
    before: usize,
    next: usize,
}

/// Two neighbours whose bytes together are a piece.
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    /// Where `right` ended when the two met.
    end: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}
