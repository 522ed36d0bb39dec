//! The filters of FineWeb, with datatrove's names, thresholds, order of rules and reasons.

mod c4;
mod fineweb;
mod gopher_quality;
mod gopher_repetition;
mod unigram_log_prob;

pub use c4::{C4ParagraphFilter, C4QualityFilter};
pub use fineweb::FineWebQualityFilter;
pub use gopher_quality::GopherQualityFilter;
pub use gopher_repetition::GopherRepetitionFilter;
pub use unigram_log_prob::{UnigramLogProbFilter, UnigramSettings};

use crate::document::Document;
use crate::ledger::{Account, FirstDrop, Reason, RuleValue};
use crate::scratch::Scratch;
use std::ops::ControlFlow;
use xxhash_rust::xxh3::xxh3_64;

/// One of the filters that look at the text alone.
#[derive(Clone, Debug, PartialEq)]
pub enum TextFilter {
    /// Repeated lines, paragraphs and runs of words.
    GopherRepetition(GopherRepetitionFilter),
    /// Length, symbols, bullets, stop words.
    GopherQuality(GopherQualityFilter),
    /// Lines and documents that C4 leaves out; changes the text.
    C4Quality(C4QualityFilter),
    /// At least three long lines.
    C4Paragraph(C4ParagraphFilter),
    /// Punctuation, short and repeated lines.
    FineWebQuality(FineWebQualityFilter),
}

impl TextFilter {
    /// `None` if the document stays (the text may be changed), else why it is dropped.
    ///
    /// What `scratch` knows must be of this document's text.
    pub fn drops(&self, document: &mut Document, scratch: &mut Scratch) -> Option<Reason> {
        let flow = match self {
            Self::GopherRepetition(filter) => filter.check(&document.text, scratch, &mut FirstDrop),
            Self::GopherQuality(filter) => filter.check(&document.text, scratch, &mut FirstDrop),
            Self::C4Quality(filter) => filter.check(document, scratch, &mut FirstDrop),
            Self::C4Paragraph(filter) => filter.check(&document.text, &mut FirstDrop),
            Self::FineWebQuality(filter) => filter.check(&document.text, scratch, &mut FirstDrop),
        };
        match flow {
            ControlFlow::Break(reason) => Some(reason),
            ControlFlow::Continue(()) => None,
        }
    }

    /// What every rule measured. The text is changed as if the document stayed.
    pub fn explain(&self, document: &mut Document, scratch: &mut Scratch) -> Vec<RuleValue> {
        let mut account = Account::default();
        // An account never stops a filter.
        let _ = match self {
            Self::GopherRepetition(filter) => filter.check(&document.text, scratch, &mut account),
            Self::GopherQuality(filter) => filter.check(&document.text, scratch, &mut account),
            Self::C4Quality(filter) => filter.check(document, scratch, &mut account),
            Self::C4Paragraph(filter) => filter.check(&document.text, &mut account),
            Self::FineWebQuality(filter) => filter.check(&document.text, scratch, &mut account),
        };
        account.rules
    }
}

/// FineWeb's four in its order: repetition, quality, C4 without the rule on terminal punctuation, its own.
pub fn fineweb_filters() -> [TextFilter; 4] {
    [
        TextFilter::GopherRepetition(GopherRepetitionFilter::default()),
        TextFilter::GopherQuality(GopherQualityFilter::default()),
        TextFilter::C4Quality(C4QualityFilter { filter_no_terminal_punct: false, ..C4QualityFilter::default() }),
        TextFilter::FineWebQuality(FineWebQualityFilter::default()),
    ]
}

/// `part / whole`, 0 where there is no whole: datatrove fails there.
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Elements, repeated elements and characters in these; a repeat is any occurrence after the first.
struct Repeats {
    elements: usize,
    repeated: usize,
    chars: usize,
}

fn find_duplicates<'a>(parts: impl Iterator<Item = &'a str>, scratch: &mut Scratch) -> Repeats {
    scratch.seen.clear();
    let mut repeats = Repeats { elements: 0, repeated: 0, chars: 0 };
    for part in parts {
        repeats.elements += 1;
        if !scratch.seen.insert(xxh3_64(part.as_bytes())) {
            repeats.repeated += 1;
            repeats.chars += crate::lines::char_count(part);
        }
    }
    repeats
}

#[cfg(test)]
mod tests;
