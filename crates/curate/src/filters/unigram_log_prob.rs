//! Mean log-probability of the words, each by itself.

use crate::error::CurateError;
use crate::ledger::{Bound, RuleValue};
use crate::scratch::Scratch;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The probability of a word that the list does not have.
const UNKNOWN: f64 = 1e-9;

/// Drops documents of words that are rare or unknown.
///
/// Source: datatrove's `UnigramLogProbFilter`, which fetches a list of English words; here it is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnigramSettings {
    /// How often words occur: a CSV file whose first line is `word,count`.
    pub unigram_frequencies: PathBuf,
    /// Documents stay above this mean, in nats.
    pub logprobs_threshold: f64,
}

impl Default for UnigramSettings {
    fn default() -> Self {
        Self { unigram_frequencies: PathBuf::new(), logprobs_threshold: -10.0 }
    }
}

/// The filter with its list read.
#[derive(Debug)]
pub struct UnigramLogProbFilter {
    logprobs: HashMap<String, f64>,
    threshold: f64,
}

impl UnigramLogProbFilter {
    /// Reads the list; its path is read from `base`.
    ///
    /// Errors: if it cannot be read, the line that is no word and count, and a list without counts.
    pub fn new(settings: &UnigramSettings, base: &Path) -> Result<Self, CurateError> {
        let path = base.join(&settings.unigram_frequencies);
        let text = fs_err::read_to_string(&path).map_err(CurateError::read(&path))?;
        let wrong = |line: usize, found: String| CurateError::Json { path: path.clone(), line, found };
        let mut lines = text.lines().enumerate();
        let header = lines.next().map_or("", |(_, line)| line.trim_start_matches('\u{feff}'));
        if header != "word,count" {
            return Err(wrong(
                1,
                format!("expected `word,count`, found `{}`", header.chars().take(40).collect::<String>()),
            ));
        }
        let mut counts = HashMap::new();
        let mut total = 0.0;
        for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let parts = line.rsplit_once(',').and_then(|(word, count)| Some((word, count.trim().parse::<u64>().ok()?)));
            let Some((word, count)) = parts.filter(|(_, count)| *count > 0) else {
                let found = line.chars().take(40).collect::<String>();
                return Err(wrong(index + 1, format!("expected a word, a comma and a count above 0, found `{found}`")));
            };
            total += count as f64;
            counts.insert(word.to_owned(), count as f64);
        }
        if counts.is_empty() {
            return Err(CurateError::Format { path, found: "the list has no words".to_owned() });
        }
        counts.values_mut().for_each(|count| *count = (*count / total).ln());
        Ok(Self { logprobs: counts, threshold: settings.logprobs_threshold })
    }

    /// Mean of the logarithms of the words' probabilities, in nats; 0 for a text without words.
    pub fn logprob(&self, text: &str, scratch: &mut Scratch) -> f64 {
        let (mut sum, mut count) = (0.0, 0);
        for token in scratch.tokens(text).iter().filter(|token| !token.is_space) {
            let known = self.logprobs.get(&token.of(text).to_lowercase());
            sum += known.copied().unwrap_or_else(|| UNKNOWN.ln());
            count += 1;
        }
        if count == 0 { 0.0 } else { sum / f64::from(count) }
    }

    /// What the rule measured; a mean just at the threshold drops the document.
    pub fn rule(&self, text: &str, scratch: &mut Scratch) -> RuleValue {
        let value = self.logprob(text, scratch);
        let bound = Bound::Below(self.threshold);
        RuleValue { rule: "unigram_log_prob".into(), value, bound, dropped: value <= self.threshold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(list: &str, logprobs_threshold: f64) -> Result<UnigramLogProbFilter, CurateError> {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("words.csv"), list).unwrap();
        let settings = UnigramSettings { unigram_frequencies: "words.csv".into(), logprobs_threshold };
        UnigramLogProbFilter::new(&settings, folder.path())
    }

    #[test]
    fn the_mean_is_over_words_in_small_letters() {
        let filter = filter("word,count\nthe,60\r\nriver,30\n\na,b,10\n", -2.0).unwrap();
        let check = |text: &str, expected: f64| {
            let found = filter.logprob(text, &mut Scratch::default());
            assert!((found - expected).abs() < 1e-12, "{text:?}: {found}");
        };
        check("", 0.0);
        check("The THE\n", 0.6_f64.ln());
        check("the river", f64::midpoint(0.6_f64.ln(), 0.3_f64.ln()));
        // The full stop is a word that the list does not have.
        check("River.", f64::midpoint(0.3_f64.ln(), 1e-9_f64.ln()));
    }

    #[test]
    fn documents_of_rare_words_are_dropped() {
        // Half of all words are frequent, as in prose: theirs is a mean of -3 nats, an unknown word has -21.
        let frequent = ["i", "wish", "it", "need", "not", "have", "happened", "in", "my", "time"];
        let list = frequent.map(|word| format!("{word},50\n")).concat();
        let filter = filter(&format!("word,count\n{list}other,500\n"), -10.0).unwrap();
        let drops = |text: &str| filter.rule(text, &mut Scratch::default()).dropped;
        assert!(!drops("I wish it need not have happened in my time, said Frodo"));
        assert!(drops("Cacophony Pareidolia Serendipity"));
        assert!(!drops(""));
    }

    #[test]
    fn the_threshold_itself_drops() {
        let drops = |threshold| {
            let filter = filter("word,count\na,1\nb,1\n", threshold).unwrap();
            filter.rule("a b", &mut Scratch::default()).dropped
        };
        assert!(drops(0.5_f64.ln()));
        assert!(!drops(0.5_f64.ln() - 1e-9));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let check = |list: &str, expected: &str| {
            let error = filter(list, -10.0).unwrap_err().to_string();
            assert!(error.contains("words.csv") && error.contains(expected), "{error}");
        };
        check("the,60\n", "line 1: expected `word,count`");
        check("", "line 1");
        check("word,count\nthe,60\nriver\n", "line 3: expected a word, a comma and a count above 0, found `river`");
        check("word,count\nthe,-1\n", "line 2");
        check("word,count\nthe,0\n", "line 2");
        check("word,count\n", "no words");
    }
}
