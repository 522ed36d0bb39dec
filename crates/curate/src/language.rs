//! Which language a text is in.

use crate::error::CurateError;
use crate::fasttext::FastText;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Keeps documents in the wanted languages.
///
/// Source: datatrove's `LanguageFilter`. Note that without `languages` it keeps every language that is certain enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LanguageSettings {
    /// Codes as the model writes them; empty for any.
    pub languages: Vec<String>,
    /// A document stays if a wanted language is more likely than this.
    pub language_threshold: f64,
    /// Only write the language into the metadata.
    pub label_only: bool,
    /// A fastText model such as lid.176.ftz; without one the embedded trigram model answers.
    pub model: Option<PathBuf>,
}

impl Default for LanguageSettings {
    fn default() -> Self {
        Self { languages: Vec::new(), language_threshold: 0.65, label_only: false, model: None }
    }
}

/// The model behind the filter.
#[derive(Debug)]
enum Model {
    FastText(Box<FastText>),
    /// The crate `whatlang`: 69 languages by script and trigrams.
    Embedded,
}

/// Identifies languages.
#[derive(Debug)]
pub struct LanguageFilter {
    settings: LanguageSettings,
    model: Model,
}

/// What the filter found.
#[derive(Clone, Debug, PartialEq)]
pub struct Language {
    /// The most likely language.
    pub code: String,
    /// Its probability (the embedded model's own certainty).
    pub score: f64,
    /// The highest probability of a wanted language.
    pub wanted: f64,
}

impl LanguageFilter {
    /// Loads the model; its path is read from `base`.
    ///
    /// Errors: those of [`FastText::load`].
    pub fn new(settings: LanguageSettings, base: &Path) -> Result<Self, CurateError> {
        let model = match &settings.model {
            Some(path) => Model::FastText(Box::new(FastText::load(&base.join(path))?)),
            None => Model::Embedded,
        };
        Ok(Self { settings, model })
    }

    /// The settings.
    pub fn settings(&self) -> &LanguageSettings {
        &self.settings
    }

    /// The language of `text`.
    pub fn identify(&self, text: &str) -> Language {
        let wants = |code: &str| {
            self.settings.languages.is_empty() || self.settings.languages.iter().any(|wanted| wanted == code)
        };
        match &self.model {
            Model::FastText(model) => {
                let probabilities = model.probabilities(text);
                let pairs = || model.labels().iter().zip(&probabilities);
                let best = pairs().fold(("unknown", 0.0), |best, (code, &p)| if p > best.1 { (code, p) } else { best });
                let wanted = pairs().filter(|(code, _)| wants(code)).map(|(_, &p)| p).fold(0.0, f32::max);
                Language { code: best.0.to_owned(), score: f64::from(best.1), wanted: f64::from(wanted) }
            }
            Model::Embedded => match whatlang::detect(text) {
                Some(found) => {
                    let code = two_letters(found.lang().code());
                    let score = found.confidence();
                    Language { code: code.to_owned(), score, wanted: if wants(code) { score } else { 0.0 } }
                }
                None => Language { code: "unknown".to_owned(), score: 0.0, wanted: 0.0 },
            },
        }
    }

    /// Whether a document of this language stays.
    pub fn keeps(&self, language: &Language) -> bool {
        self.settings.label_only || language.wanted > self.settings.language_threshold
    }
}

/// The embedded model's three letters as the two that fastText writes, where there are two.
fn two_letters(code: &str) -> &str {
    const PAIRS: [(&str, &str); 44] = [
        ("eng", "en"),
        ("fra", "fr"),
        ("deu", "de"),
        ("spa", "es"),
        ("por", "pt"),
        ("ita", "it"),
        ("nld", "nl"),
        ("rus", "ru"),
        ("ukr", "uk"),
        ("pol", "pl"),
        ("ces", "cs"),
        ("slk", "sk"),
        ("ron", "ro"),
        ("hun", "hu"),
        ("swe", "sv"),
        ("dan", "da"),
        ("nob", "no"),
        ("fin", "fi"),
        ("est", "et"),
        ("lav", "lv"),
        ("lit", "lt"),
        ("tur", "tr"),
        ("ell", "el"),
        ("bul", "bg"),
        ("srp", "sr"),
        ("hrv", "hr"),
        ("slv", "sl"),
        ("mkd", "mk"),
        ("cat", "ca"),
        ("lat", "la"),
        ("epo", "eo"),
        ("cmn", "zh"),
        ("jpn", "ja"),
        ("kor", "ko"),
        ("vie", "vi"),
        ("ind", "id"),
        ("ara", "ar"),
        ("heb", "he"),
        ("pes", "fa"),
        ("hin", "hi"),
        ("ben", "bn"),
        ("tam", "ta"),
        ("tha", "th"),
        ("afr", "af"),
    ];
    PAIRS.iter().find(|(three, _)| *three == code).map_or(code, |(_, two)| two)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_model_tells_the_frequent_languages_apart() {
        let settings = LanguageSettings { languages: vec!["en".into(), "it".into()], ..LanguageSettings::default() };
        let filter = LanguageFilter::new(settings, Path::new("")).unwrap();
        let check = |text: &str, code: &str, keeps: bool| {
            let language = filter.identify(text);
            assert_eq!((language.code.as_str(), filter.keeps(&language)), (code, keeps), "{text:?} {language:?}");
        };
        check(
            "I wish it need not have happened in my time, said Frodo. So do I, said Gandalf, and so do all who live to see such times.",
            "en",
            true,
        );
        check(
            "Un magicien n'est jamais en retard Frodon Sacquet. Pas plus qu'il est en avance. Il arrive précisément à l'heure prévue.",
            "fr",
            false,
        );
        check(
            "Molti tra i vivi meritano la morte. E parecchi che sono morti avrebbero meritato la vita. Sei forse tu in grado di dargliela?",
            "it",
            true,
        );
        check("12345 67890", "unknown", false);
    }
}
