//! The steps of a recipe, made ready, and what they do to one document.

mod barrier;
mod run;
mod shard;

pub use run::{Machine, Outcome, Progress, run};

use crate::decontaminate::Decontaminator;
use crate::document::Document;
use crate::error::CurateError;
use crate::fasttext::FastText;
use crate::filters::{TextFilter, UnigramLogProbFilter};
use crate::ftfy::FtfyFormatter;
use crate::funnel::{Funnel, Sample, StepCount};
use crate::html::{Extractor, extractor};
use crate::language::LanguageFilter;
use crate::ledger::{Bound, Reason, RuleValue};
use crate::pii::{PiiFormatter, PiiTurns};
use crate::read::read_documents;
use crate::recipe::{QualityClassifier, Sampler, Step};
use crate::scratch::Scratch;
use crate::symbol_lines::SymbolLinesFormatter;
use crate::url::UrlFilter;
use serde_json::Value;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Counts the tokens of a text; the caller's, since this crate knows no tokenizer.
pub type TokenCounter<'a> = &'a (dyn Fn(&str) -> usize + Sync);

/// A step with its lists and models loaded.
#[derive(Debug)]
pub enum Ready {
    /// By address.
    Url(UrlFilter),
    /// Pages to text.
    Html(Box<dyn Extractor>),
    /// By language.
    Language(LanguageFilter),
    /// By the text alone.
    Text(TextFilter),
    /// By a pattern.
    Regex(regex::Regex),
    /// At random.
    Sampler(Sampler),
    /// By what evaluations have.
    Decontaminate(Decontaminator),
    /// By a classifier.
    Quality(QualityClassifier, Box<FastText>),
    /// Addresses replaced.
    Pii(PiiFormatter),
    /// Lines of symbols left out.
    SymbolLines(SymbolLinesFormatter),
    /// Wrong decoding repaired.
    Ftfy(FtfyFormatter),
    /// By how frequent the words are.
    Unigrams(UnigramLogProbFilter),
}

/// Loads what `step` needs, paths from `base`; `None` for a step over all documents.
///
/// Errors: if a list or model cannot be read, or this build cannot do the step.
pub fn prepare(step: &Step, base: &Path) -> Result<Option<Ready>, CurateError> {
    Ok(Some(match step {
        Step::UrlFilter(settings) => Ready::Url(UrlFilter::new(settings, base)?),
        Step::Html(settings) => Ready::Html(extractor(settings).ok_or_else(|| CurateError::Recipe {
            found: "this build has no extractor `trafilatura`".to_owned(),
            hint: "build with `--features html`, or write `extractor = \"plain\"`".to_owned(),
        })?),
        Step::Language(settings) => Ready::Language(LanguageFilter::new(settings.clone(), base)?),
        Step::GopherRepetition(filter) => Ready::Text(TextFilter::GopherRepetition(filter.clone())),
        Step::GopherQuality(filter) => Ready::Text(TextFilter::GopherQuality(filter.clone())),
        Step::C4Quality(filter) => Ready::Text(TextFilter::C4Quality(filter.clone())),
        Step::C4Paragraph(filter) => Ready::Text(TextFilter::C4Paragraph(filter.clone())),
        Step::FinewebQuality(filter) => Ready::Text(TextFilter::FineWebQuality(filter.clone())),
        Step::Regex(filter) => Ready::Regex(regex::Regex::new(&filter.regex_exp).map_err(|error| {
            CurateError::Recipe { found: error.to_string(), hint: "see the syntax of the crate `regex`".to_owned() }
        })?),
        Step::Sampler(sampler) => Ready::Sampler(sampler.clone()),
        Step::Decontaminate(settings) => {
            let mut index = Decontaminator::new(settings.ngrams.clone());
            for file in &settings.files {
                let path = base.join(file);
                let task = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let mut add = |document: Document| {
                    index.add(&task, document.metadata.get("query").and_then(Value::as_str), &document.text);
                    Ok(())
                };
                let mut broken = None;
                read_documents(&path, &mut add, &mut |damage| broken = broken.take().or(Some(damage)))?;
                if let Some(damage) = broken {
                    return Err(CurateError::Json { path, line: damage.at as usize, found: damage.found });
                }
            }
            Ready::Decontaminate(index)
        }
        Step::QualityClassifier(settings) => {
            let model = FastText::load(&base.join(&settings.model))?;
            if !model.labels().contains(&settings.label) {
                return Err(CurateError::Recipe {
                    found: format!("the classifier has no label `{}`", settings.label),
                    hint: format!("it has {}", model.labels().join(", ")),
                });
            }
            Ready::Quality(settings.clone(), Box::new(model))
        }
        Step::Pii(formatter) => Ready::Pii(formatter.clone()),
        Step::SymbolLines(formatter) => Ready::SymbolLines(formatter.clone()),
        Step::Ftfy(formatter) => Ready::Ftfy(formatter.clone()),
        Step::UnigramLogProb(settings) => Ready::Unigrams(UnigramLogProbFilter::new(settings, base)?),
        Step::ExactDedup(_) | Step::MinhashDedup(_) | Step::SentenceDedup(_) | Step::BloomDedup(_) => return Ok(None),
    }))
}

/// What a step did to a document.
#[derive(Debug, PartialEq)]
pub enum Done {
    /// It stays as it is.
    Same,
    /// It stays, its text changed.
    Changed,
    /// It goes.
    Dropped(Reason),
}

impl Ready {
    /// Does the step. What `scratch` knows is of the document's text, before and after.
    pub fn apply(&self, document: &mut Document, scratch: &mut Scratch, turns: &mut PiiTurns) -> Done {
        let dropped = |reason: Option<Reason>| reason.map_or(Done::Same, Done::Dropped);
        match self {
            Self::Url(filter) => dropped(document.url().and_then(|url| filter.drops(url))),
            Self::Html(extractor) => {
                if !document.is_html {
                    return Done::Same;
                }
                let Some(text) = extractor.extract(&document.text, document.url()) else {
                    return Done::Dropped("no_text".into());
                };
                document.text = text;
                document.is_html = false;
                scratch.forget();
                Done::Changed
            }
            Self::Language(filter) => {
                let language = filter.identify(&document.text);
                document.metadata.insert("language".to_owned(), Value::from(language.code.as_str()));
                document.metadata.insert("language_score".to_owned(), Value::from(language.score));
                if filter.keeps(&language) { Done::Same } else { Done::Dropped("language".into()) }
            }
            Self::Text(filter) => {
                let changes = matches!(filter, TextFilter::C4Quality(_));
                match filter.drops(document, scratch) {
                    Some(reason) => Done::Dropped(reason),
                    None if changes => Done::Changed,
                    None => Done::Same,
                }
            }
            Self::Regex(pattern) => dropped(pattern.is_match(&document.text).then(|| "regex".into())),
            Self::Sampler(sampler) => {
                let draw = xxh3_64_with_seed(document.id.as_bytes(), sampler.seed) >> 11;
                dropped(((draw as f64 / (1_u64 << 53) as f64) >= sampler.rate).then(|| "sampled_out".into()))
            }
            Self::Decontaminate(index) => {
                let Some(found) = index.find(&document.text) else { return Done::Same };
                document.metadata.insert("contaminated_ngram".to_owned(), Value::from(found.ngram));
                document.metadata.insert("contaminated_task".to_owned(), Value::from(found.task));
                Done::Dropped("contaminated".into())
            }
            Self::Quality(settings, model) => {
                let score = quality(settings, model, &document.text);
                document.metadata.insert("quality".to_owned(), Value::from(score));
                dropped((score < settings.threshold).then(|| "low_quality".into()))
            }
            Self::Pii(formatter) => replace(document, scratch, formatter.format(&document.text, turns)),
            Self::SymbolLines(formatter) => replace(document, scratch, Some(formatter.format(&document.text))),
            Self::Ftfy(formatter) => replace(document, scratch, Some(formatter.format(&document.text))),
            Self::Unigrams(filter) => {
                let rule = filter.rule(&document.text, scratch);
                dropped(rule.dropped.then_some(rule.rule))
            }
        }
    }

    /// What every rule of the step measured on a document, which is changed as if it stayed.
    pub fn explain(&self, document: &mut Document, scratch: &mut Scratch) -> Vec<RuleValue> {
        let one = |rule: &'static str, value: f64, bound: Bound| {
            vec![RuleValue { rule: rule.into(), value, bound, dropped: bound.drops(value) }]
        };
        match self {
            Self::Text(filter) => filter.explain(document, scratch),
            Self::Unigrams(filter) => vec![filter.rule(&document.text, scratch)],
            Self::Language(filter) => {
                let found = filter.identify(&document.text);
                let mut rules = one("language", found.wanted, Bound::Above(f64::INFINITY));
                rules[0].bound = Bound::Below(filter.settings().language_threshold);
                rules[0].dropped = !filter.keeps(&found);
                rules
            }
            Self::Quality(settings, model) => {
                one("low_quality", quality(settings, model, &document.text), Bound::Below(settings.threshold))
            }
            _ => match self.apply(document, scratch, &mut PiiTurns::default()) {
                Done::Dropped(reason) => {
                    vec![RuleValue { rule: reason, value: 1.0, bound: Bound::Above(0.0), dropped: true }]
                }
                Done::Changed => one("changed", 1.0, Bound::Above(1.0)),
                Done::Same => one("found", 0.0, Bound::Above(0.0)),
            },
        }
    }
}

/// Gives `document` another text, if there is one.
fn replace(document: &mut Document, scratch: &mut Scratch, text: Option<String>) -> Done {
    let Some(text) = text.filter(|text| *text != document.text) else { return Done::Same };
    document.text = text;
    scratch.forget();
    Done::Changed
}

fn quality(settings: &QualityClassifier, model: &FastText, text: &str) -> f64 {
    let index = model.labels().iter().position(|label| *label == settings.label);
    index.map_or(0.0, |index| f64::from(model.probabilities(text)[index]))
}

/// Steps between two barriers, and the counts of one shard that goes through them.
#[derive(Debug)]
pub(crate) struct Counting<'a> {
    pub(crate) funnel: Funnel,
    pub(crate) scratch: Scratch,
    turns: PiiTurns,
    tokens: Option<TokenCounterRef<'a>>,
    samples: usize,
}

/// The counter, in a form that has `Debug`.
#[derive(Clone, Copy)]
struct TokenCounterRef<'a>(TokenCounter<'a>);

impl std::fmt::Debug for TokenCounterRef<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("a function")
    }
}

impl<'a> Counting<'a> {
    pub(crate) fn new(names: &[&str], tokens: Option<TokenCounter<'a>>, samples: usize) -> Self {
        let steps = names.iter().map(|&step| StepCount { step: step.to_owned(), ..StepCount::default() }).collect();
        Self {
            funnel: Funnel { steps, ..Funnel::default() },
            scratch: Scratch::default(),
            turns: PiiTurns::default(),
            tokens: tokens.map(TokenCounterRef),
            samples,
        }
    }

    pub(crate) fn count(&mut self, document: &Document) -> usize {
        match self.tokens {
            Some(TokenCounterRef(count)) => count(&document.text),
            None => self.scratch.word_count(&document.text),
        }
    }

    /// Takes `document` through the steps, of which the first is the funnel's `first`; whether it stays, and its tokens.
    pub(crate) fn pass(&mut self, steps: &[Ready], first: usize, document: &mut Document) -> Option<usize> {
        self.scratch.forget();
        // Tokens of a page are not those of a text: they count from the extraction on.
        let mut tokens = if document.is_html { 0 } else { self.count(document) };
        for (index, step) in steps.iter().enumerate() {
            let bytes = document.text.len();
            self.funnel.steps[first + index].input.add(bytes, tokens);
            let done = step.apply(document, &mut self.scratch, &mut self.turns);
            if matches!(step, Ready::Language(_))
                && let Some(language) = document.metadata.get("language").and_then(Value::as_str)
            {
                *self.funnel.languages.entry(language.to_owned()).or_default() += 1;
            }
            match done {
                Done::Same => {}
                Done::Changed => {
                    tokens = self.count(document);
                    self.funnel.steps[first + index].changed += 1;
                }
                Done::Dropped(reason) => {
                    self.drop(first + index, &reason, document, bytes, tokens);
                    return None;
                }
            }
            self.funnel.steps[first + index].output.add(document.text.len(), tokens);
        }
        Some(tokens)
    }

    /// Counts a document that step `index` dropped.
    pub(crate) fn drop(&mut self, index: usize, reason: &str, document: &Document, bytes: usize, tokens: usize) {
        let count = self.funnel.steps[index].reasons.entry(reason.to_owned()).or_default();
        count.dropped.add(bytes, tokens);
        if count.samples.len() < self.samples {
            let text: String = document.text.chars().take(400).collect();
            count.samples.push(Sample { id: document.id.clone(), url: document.url().map(str::to_owned), text });
        }
    }
}
