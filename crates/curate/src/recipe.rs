//! A recipe: which documents, which steps, in TOML.

use crate::bloom::BloomDedup;
use crate::decontaminate::DecontaminationConfig;
use crate::error::CurateError;
use crate::filters::{
    C4ParagraphFilter, C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter,
    UnigramSettings,
};
use crate::ftfy::FtfyFormatter;
use crate::html::HtmlSettings;
use crate::language::LanguageSettings;
use crate::minhash::MinhashConfig;
use crate::pii::PiiFormatter;
use crate::sentences::SentenceDedup;
use crate::symbol_lines::SymbolLinesFormatter;
use crate::url::UrlSettings;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What `cavy data curate` does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Files, folders and patterns of the input, or `-`.
    pub data: Vec<String>,
    /// Folder of the output.
    pub out: PathBuf,
    /// Memory to stay within, in megabytes: signatures that do not fit go to disk. Some 60 MB are always needed, and 60 bytes for
    /// each copy that is found.
    pub memory_mb: usize,
    /// Tokenizer whose tokens are counted and written; none for words alone.
    pub tokenizer: String,
    /// Write shuffled shards of tokens, which `pretrain` reads, besides the text.
    pub shards: bool,
    /// Seed of the shards' order.
    pub seed: u64,
    /// Samples kept of every reason.
    pub samples: usize,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            out: PathBuf::new(),
            memory_mb: 2048,
            tokenizer: String::new(),
            shards: false,
            seed: 0,
            samples: 5,
            steps: Vec::new(),
        }
    }
}

/// Leave out exact copies: of the text, or of what a field says, such as the address.
///
/// Source: datatrove's `ExactDedupConfig`, where the first two are functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExactDedup {
    /// What is compared: `text`, `id`, or a field of the metadata. A document without the field is nobody's copy.
    pub content_getter: String,
    /// A pattern that is taken out of what is compared.
    pub remove_regex: String,
    /// The field whose number decides which copy stays; empty for the first.
    pub document_priority: String,
    /// Whether the highest number stays or the lowest.
    pub keep: Keep,
    /// Write the number of copies that went as `duplicate_count` into the documents that stay.
    pub save_cluster_size: bool,
    /// Files of documents of which no copy stays, such as an older corpus; 32 bytes of memory each.
    pub index: Vec<PathBuf>,
    /// With an index, leave out its copies alone, not those among the documents.
    pub only_dedup_in_index: bool,
}

impl Default for ExactDedup {
    fn default() -> Self {
        Self {
            content_getter: "text".to_owned(),
            remove_regex: String::new(),
            document_priority: String::new(),
            keep: Keep::Highest,
            save_cluster_size: false,
            index: Vec::new(),
            only_dedup_in_index: true,
        }
    }
}

/// Which of several numbers is preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The highest.
    #[default]
    Highest,
    /// The lowest.
    Lowest,
}

/// Leave out documents with something an evaluation has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decontaminate {
    /// Files of the evaluations, JSONL: `text` is the answer, `query` the question.
    pub files: Vec<PathBuf>,
    /// What counts.
    pub ngrams: DecontaminationConfig,
}

/// Keep documents that a classifier likes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QualityClassifier {
    /// A fastText model.
    pub model: PathBuf,
    /// The label of what to keep.
    pub label: String,
    /// Documents stay from this probability on.
    pub threshold: f64,
}

impl Default for QualityClassifier {
    fn default() -> Self {
        Self { model: PathBuf::new(), label: "good".to_owned(), threshold: 0.5 }
    }
}

/// Keep documents at random.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampler {
    /// The share that stays.
    pub rate: f64,
    /// Which ones.
    pub seed: u64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { rate: 0.5, seed: 0 }
    }
}

/// Leave out documents in which a pattern is found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegexFilter {
    /// The pattern.
    pub regex_exp: String,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the settings inside are documented")]
pub enum Step {
    UrlFilter(UrlSettings),
    Html(HtmlSettings),
    Language(LanguageSettings),
    GopherRepetition(GopherRepetitionFilter),
    GopherQuality(GopherQualityFilter),
    C4Quality(C4QualityFilter),
    C4Paragraph(C4ParagraphFilter),
    FinewebQuality(FineWebQualityFilter),
    Regex(RegexFilter),
    Sampler(Sampler),
    Decontaminate(Decontaminate),
    QualityClassifier(QualityClassifier),
    ExactDedup(ExactDedup),
    MinhashDedup(MinhashConfig),
    Pii(PiiFormatter),
    SymbolLines(SymbolLinesFormatter),
    Ftfy(FtfyFormatter),
    UnigramLogProb(UnigramSettings),
    SentenceDedup(SentenceDedup),
    BloomDedup(BloomDedup),
}

/// The names of the steps, as recipes write them.
pub const STEP_NAMES: [&str; 20] = [
    "url_filter",
    "html",
    "language",
    "gopher_repetition",
    "gopher_quality",
    "c4_quality",
    "c4_paragraph",
    "fineweb_quality",
    "regex",
    "sampler",
    "decontaminate",
    "quality_classifier",
    "exact_dedup",
    "minhash_dedup",
    "pii",
    "symbol_lines",
    "ftfy",
    "unigram_log_prob",
    "sentence_dedup",
    "bloom_dedup",
];

impl Step {
    /// The step's name in recipes.
    pub fn name(&self) -> &'static str {
        let index = match self {
            Self::UrlFilter(_) => 0,
            Self::Html(_) => 1,
            Self::Language(_) => 2,
            Self::GopherRepetition(_) => 3,
            Self::GopherQuality(_) => 4,
            Self::C4Quality(_) => 5,
            Self::C4Paragraph(_) => 6,
            Self::FinewebQuality(_) => 7,
            Self::Regex(_) => 8,
            Self::Sampler(_) => 9,
            Self::Decontaminate(_) => 10,
            Self::QualityClassifier(_) => 11,
            Self::ExactDedup(_) => 12,
            Self::MinhashDedup(_) => 13,
            Self::Pii(_) => 14,
            Self::SymbolLines(_) => 15,
            Self::Ftfy(_) => 16,
            Self::UnigramLogProb(_) => 17,
            Self::SentenceDedup(_) => 18,
            Self::BloomDedup(_) => 19,
        };
        STEP_NAMES[index]
    }

    /// Whether the step has to see all documents before it can pass any on.
    pub fn is_barrier(&self) -> bool {
        matches!(self, Self::ExactDedup(_) | Self::MinhashDedup(_) | Self::SentenceDedup(_) | Self::BloomDedup(_))
    }
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// Errors: what is wrong with it and where.
    pub fn parse(text: &str) -> Result<Self, CurateError> {
        let recipe: Self = toml::from_str(text).map_err(|error| {
            let found = error.to_string();
            let hint = format!("steps are {}; their keys are datatrove's", STEP_NAMES.join(", "));
            CurateError::Recipe { found: format!("the recipe does not parse: {}", found.trim_end()), hint }
        })?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Whether the values make sense.
    ///
    /// Errors: the first that does not.
    pub fn check(&self) -> Result<(), CurateError> {
        let wrong = |found: String, hint: &str| Err(CurateError::Recipe { found, hint: hint.to_owned() });
        for step in &self.steps {
            match step {
                Step::MinhashDedup(config)
                    if config.n_grams == 0 || config.num_buckets == 0 || config.hashes_per_bucket == 0 =>
                {
                    return wrong(
                        "a size of `minhash_dedup` is 0".into(),
                        "datatrove's are n_grams 5, num_buckets 14, hashes_per_bucket 8",
                    );
                }
                Step::MinhashDedup(config) if ![32, 64].contains(&config.precision) => {
                    return wrong(format!("`precision` is {}", config.precision), "hashes have 32 or 64 bits");
                }
                Step::Sampler(sampler) if !(0.0..=1.0).contains(&sampler.rate) => {
                    return wrong(
                        format!("`rate` is {}", sampler.rate),
                        "the share of documents that stays is from 0 to 1",
                    );
                }
                Step::Regex(RegexFilter { regex_exp: pattern })
                | Step::ExactDedup(ExactDedup { remove_regex: pattern, .. }) => {
                    if let Err(error) = regex::Regex::new(pattern) {
                        return wrong(
                            format!("`{pattern}` of `{}` is no pattern: {error}", step.name()),
                            "see the syntax of the crate `regex`",
                        );
                    }
                }
                Step::SentenceDedup(settings) if settings.n_sentences == 0 => {
                    return wrong("`n_sentences` is 0".into(), "datatrove's is 3");
                }
                Step::BloomDedup(settings) if settings.m_bytes == 0 || settings.k == 0 || settings.n_grams == 0 => {
                    return wrong("a size of `bloom_dedup` is 0".into(), "datatrove's are k 7, n_grams 13");
                }
                Step::Decontaminate(step) if step.ngrams.n_grams == 0 => {
                    return wrong("`n_grams` is 0".into(), "datatrove's is 12");
                }
                Step::GopherRepetition(filter)
                    if filter.top_n_grams.iter().chain(&filter.dup_n_grams).any(|(n, _)| *n == 0) =>
                {
                    return wrong("a run of 0 words".into(), "runs have at least one word");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_with_datatroves_keys() {
        let text = "data = [\"crawl/*.warc.gz\"]\nmemory_mb = 100\n[[steps]]\nstep = \"c4_quality\"\nfilter_no_terminal_punct = false\n\
                    [[steps]]\nstep = \"minhash_dedup\"\nnum_buckets = 9\n[[steps]]\nstep = \"gopher_repetition\"\ntop_n_grams = [[2, 0.5]]\n";
        let recipe = Recipe::parse(text).unwrap();
        assert_eq!(
            recipe.steps.iter().map(Step::name).collect::<Vec<_>>(),
            ["c4_quality", "minhash_dedup", "gopher_repetition"]
        );
        assert_eq!(recipe.steps[1], Step::MinhashDedup(MinhashConfig { num_buckets: 9, ..MinhashConfig::default() }));
        assert_eq!(Recipe::parse(&toml::to_string(&recipe).unwrap()).unwrap(), recipe);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_place() {
        let check = |text: &str, expected: &str| {
            let error = Recipe::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("dta = []", "dta");
        check("[[steps]]\nstep = \"c4\"\n", "c4_quality");
        check("[[steps]]\nstep = \"c4_quality\"\nmin_sentences = 3\n", "min_sentences");
        check("[[steps]]\nstep = \"minhash_dedup\"\nnum_buckets = 0\n", "num_buckets 14");
        check("[[steps]]\nstep = \"minhash_dedup\"\nprecision = 16\n", "32 or 64 bits");
        check("[[steps]]\nstep = \"regex\"\nregex_exp = \"(\"\n", "no pattern");
        check("[[steps]]\nstep = \"exact_dedup\"\nremove_regex = \"(\"\n", "`(` of `exact_dedup` is no pattern");
        check("[[steps]]\nstep = \"sentence_dedup\"\nn_sentences = 0\n", "n_sentences");
        check("[[steps]]\nstep = \"bloom_dedup\"\nm_bytes = 0\n", "bloom_dedup");
    }
}
