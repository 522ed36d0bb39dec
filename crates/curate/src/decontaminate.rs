//! Leaving out training documents that contain runs of words of an evaluation.

use crate::minhash::{for_each_shingle, sha1_64};
use crate::normalize::simplify;
use crate::words::split_words;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What counts as contamination.
///
/// Source: datatrove's `NGramsDecontConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecontaminationConfig {
    /// Words of a run.
    pub n_grams: usize,
    /// Also runs within the question alone.
    pub find_query_ngrams: bool,
    /// Also runs that begin in the question and end in the answer.
    pub find_overlap_ngrams: bool,
}

impl Default for DecontaminationConfig {
    fn default() -> Self {
        Self { n_grams: 12, find_query_ngrams: false, find_overlap_ngrams: true }
    }
}

/// The runs of words of evaluations.
#[derive(Debug)]
pub struct Decontaminator {
    config: DecontaminationConfig,
    runs: HashMap<u64, u32>,
    tasks: Vec<String>,
}

/// What a document has in common with an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contamination {
    /// The run of words, normalised.
    pub ngram: String,
    /// The evaluation.
    pub task: String,
}

impl Decontaminator {
    /// An empty index.
    ///
    /// Panics: if runs have no words.
    pub fn new(config: DecontaminationConfig) -> Self {
        assert!(config.n_grams > 0, "a run has at least one word");
        Self { config, runs: HashMap::new(), tasks: Vec::new() }
    }

    /// How many runs are known.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds an example of an evaluation.
    pub fn add(&mut self, task: &str, query: Option<&str>, label: &str) {
        let index = self.tasks.iter().position(|known| known == task).unwrap_or_else(|| {
            self.tasks.push(task.to_owned());
            self.tasks.len() - 1
        });
        let n = self.config.n_grams;
        let (label, query) = (simplify(label), query.map(simplify));
        let answer = split_words(&label);
        let question = query.as_deref().map(split_words).unwrap_or_default();
        let mut add = |words: &[&str]| {
            for_each_shingle(words.iter().copied(), n, |run| {
                self.runs.insert(sha1_64(run), index as u32);
            });
        };
        add(&answer);
        if self.config.find_query_ngrams {
            add(&question);
        }
        if self.config.find_overlap_ngrams {
            // The last words of the question with the first of the answer: every run that has some of both.
            let before = &question[question.len().saturating_sub(n - 1)..];
            let after = &answer[..answer.len().min(n - 1)];
            add(&[before, after].concat());
        }
    }

    /// The first run of `text` that an evaluation has too.
    pub fn find(&self, text: &str) -> Option<Contamination> {
        if self.runs.is_empty() {
            return None;
        }
        let simple = simplify(text);
        let mut found = None;
        for_each_shingle(split_words(&simple).into_iter(), self.config.n_grams, |run| {
            if found.is_none()
                && let Some(&task) = self.runs.get(&sha1_64(run))
            {
                found = Some(Contamination {
                    ngram: String::from_utf8_lossy(run).into_owned(),
                    task: self.tasks[task as usize].clone(),
                });
            }
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: DecontaminationConfig, text: &str) -> Option<String> {
        let mut index = Decontaminator::new(config);
        index.add("sums", Some("A B C D E"), "F, G; H I J");
        index.find(text).map(|found| found.ngram)
    }

    #[test]
    fn runs_of_answer_question_and_both_are_found_as_asked() {
        let answer = DecontaminationConfig { n_grams: 4, find_query_ngrams: false, find_overlap_ngrams: false };
        let overlap = DecontaminationConfig { find_overlap_ngrams: true, ..answer.clone() };
        let query = DecontaminationConfig { find_query_ngrams: true, ..answer.clone() };
        let check = |config: &DecontaminationConfig, text: &str, run: Option<&str>| {
            assert_eq!(found(config.clone(), text).as_deref(), run, "{text}");
        };
        check(&answer, "x f g h i y", Some("f g h i"));
        check(&answer, "x F - G! h.\nJ", None);
        for text in ["c d e f", "d e f g", "e f g h"] {
            check(&overlap, text, Some(text));
            check(&answer, text, None);
            check(&query, text, None);
        }
        check(&query, "b c d e", Some("b c d e"));
        check(&overlap, "b c d e", None);
        check(&overlap, "d e f", None);
    }

    #[test]
    fn the_task_is_named() {
        let mut index = Decontaminator::new(DecontaminationConfig { n_grams: 3, ..DecontaminationConfig::default() });
        index.add("one", None, "a b c");
        index.add("two", None, "d e f");
        assert_eq!(index.find("d e f").unwrap().task, "two");
        assert_eq!(index.find("a b c").unwrap().task, "one");
        assert_eq!(index.len(), 2);
    }
}
