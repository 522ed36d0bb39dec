//! Tokens that stand in a text as they are written: they are found before anything else is cut or merged.

use aho_corasick::{AhoCorasick, MatchKind};
use std::collections::HashMap;
use std::ops::Range;

/// What an added token is; it decides who may write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A control token (`<|im_end|>`): found only where a text may hold control tokens.
    Special,
    /// A word of its own (`<think>`): found in any text.
    UserDefined,
    /// A place in the vocabulary that no text leads to.
    Unused,
}

/// The added tokens of a vocabulary.
///
/// Invariant: no two share an id, and none that is found is empty.
#[derive(Debug)]
pub(super) struct AddedTokens {
    /// Special tokens with their ids, longest first.
    specials: Vec<(String, u32)>,
    others: Vec<(String, u32, Kind)>,
    texts: HashMap<u32, String>,
    /// Finds what counts where special tokens do, and where they do not.
    everywhere: Finder,
    ordinary: Finder,
}

impl AddedTokens {
    pub(super) fn new(tokens: impl IntoIterator<Item = (String, u32, Kind)>) -> Self {
        let (mut specials, mut others) = (Vec::new(), Vec::new());
        for (text, id, kind) in tokens {
            if kind == Kind::Special {
                specials.push((text, id));
            } else {
                others.push((text, id, kind));
            }
        }
        specials.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        others.sort_by_key(|(_, id, _)| *id);
        let words = || others.iter().filter(|(_, _, kind)| *kind == Kind::UserDefined).map(|(text, id, _)| (text, id));
        let ordinary = Finder::new(words());
        let everywhere = Finder::new(specials.iter().map(|(text, id)| (text, id)).chain(words()));
        let all = specials.iter().map(|(text, id)| (text, id)).chain(others.iter().map(|(text, id, _)| (text, id)));
        let texts = all.map(|(text, id)| (*id, text.clone())).collect();
        Self { specials, others, texts, everywhere, ordinary }
    }

    /// The special tokens and their ids, longest first.
    pub(super) fn specials(&self) -> &[(String, u32)] {
        &self.specials
    }

    /// All of them by id.
    pub(super) fn all(&self) -> Vec<(&str, u32, Kind)> {
        let specials = self.specials.iter().map(|(text, id)| (text.as_str(), *id, Kind::Special));
        let others = self.others.iter().map(|(text, id, kind)| (text.as_str(), *id, *kind));
        let mut all: Vec<_> = specials.chain(others).collect();
        all.sort_by_key(|(_, id, _)| *id);
        all
    }

    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.texts.get(&id).map(String::as_str)
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        let special = self.specials.iter().find(|(known, _)| known == text).map(|(_, id)| *id);
        special.or_else(|| self.others.iter().find(|(known, _, _)| known == text).map(|(_, id, _)| *id))
    }

    /// Where the first added token in `text` stands from byte `from` on, and which it is: of those that begin at one
    /// place the longest.
    pub(super) fn find(&self, text: &str, from: usize, with_specials: bool) -> Option<(Range<usize>, u32)> {
        let finder = if with_specials { &self.everywhere } else { &self.ordinary };
        let found = finder.automaton.as_ref()?.find(aho_corasick::Input::new(text).range(from..))?;
        Some((found.range(), finder.ids[found.pattern().as_usize()]))
    }
}

/// Finds texts in one pass, however many they are.
#[derive(Debug)]
struct Finder {
    automaton: Option<AhoCorasick>,
    /// The token of each text.
    ids: Vec<u32>,
}

impl Finder {
    fn new<'a>(tokens: impl Iterator<Item = (&'a String, &'a u32)>) -> Self {
        let (texts, ids): (Vec<&str>, Vec<u32>) =
            tokens.filter(|(text, _)| !text.is_empty()).map(|(text, id)| (text.as_str(), *id)).unzip();
        let automaton = (!texts.is_empty()).then(|| {
            let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts);
            built.expect("a vocabulary's special tokens are far below the limits of an automaton")
        });
        Self { automaton, ids }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_found_and_of_those_at_one_place_the_longest() {
        let tokens =
            [("<a>", Kind::Special), ("<a>b", Kind::UserDefined), ("b", Kind::UserDefined), ("c", Kind::Unused)];
        let added = AddedTokens::new(tokens.into_iter().zip(7..).map(|((text, kind), id)| (text.to_owned(), id, kind)));
        assert_eq!(added.find("cc<a>bb", 0, true), Some((2..6, 8)));
        assert_eq!(added.find("cc<a>cb", 0, true), Some((2..5, 7)));
        assert_eq!(added.find("cc<a>cb", 0, false), Some((6..7, 9)));
        assert_eq!(added.find("cc<a>bb", 3, true), Some((5..6, 9)));
        assert_eq!(added.find("c", 0, true), None);
        assert_eq!((added.text(10), added.id("c"), added.text(6)), (Some("c"), Some(10), None));
    }
}
