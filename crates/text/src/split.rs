//! Keeping validation text apart from training text.

use crate::{Document, TextError, rng::hash_bytes};

/// The two sides of a split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainValidation {
    /// What the model learns from.
    pub train: Vec<Document>,
    /// What only measures it.
    pub validation: Vec<Document>,
}

/// Splits documents so that about `train_ratio` of them are for training.
///
/// One document alone is cut by [`by_characters`], so that its end is the validation text. Several are ranked by a hash
/// of `seed` and their text; the first `round(train_ratio * count)` (at least one on each side) are for training. The
/// choice does not depend on the order of the files, equal texts are neighbours in the ranking, and both sides keep
/// the corpus's order.
///
/// # Errors
/// [`TextError::Setting`] unless `0 < train_ratio < 1`.
pub fn by_fraction(documents: Vec<Document>, train_ratio: f64, seed: u64) -> Result<TrainValidation, TextError> {
    check_ratio(train_ratio)?;
    if let [document] = documents.as_slice() {
        let (train, validation) = by_characters(&document.text, train_ratio)?;
        let part = |text: &str| vec![Document { text: text.to_owned(), place: document.place.clone() }];
        return Ok(TrainValidation { train: part(train), validation: part(validation) });
    }
    let mut ranking: Vec<(u64, usize)> = documents
        .iter()
        .enumerate()
        .map(|(index, document)| (hash_bytes(seed, document.text.as_bytes()), index))
        .collect();
    ranking.sort_unstable();
    let wanted = (train_ratio * documents.len() as f64).round() as usize;
    let n_train = wanted.clamp(1, documents.len().saturating_sub(1).max(1));
    let mut is_train = vec![false; documents.len()];
    for &(_, index) in ranking.iter().take(n_train) {
        is_train[index] = true;
    }
    let mut split = TrainValidation::default();
    for (document, is_train) in documents.into_iter().zip(is_train) {
        if is_train { split.train.push(document) } else { split.validation.push(document) }
    }
    Ok(split)
}

/// Cuts one text after `int(train_ratio * characters)` characters (Unicode scalar values, as Python counts them).
///
/// Source: `split_idx` in chapter 5 of Raschka's LLMs-from-scratch, <https://github.com/rasbt/LLMs-from-scratch>.
///
/// # Errors
/// [`TextError::Setting`] unless `0 < train_ratio < 1`.
pub fn by_characters(text: &str, train_ratio: f64) -> Result<(&str, &str), TextError> {
    check_ratio(train_ratio)?;
    let split = (train_ratio * text.chars().count() as f64) as usize;
    let byte = text.char_indices().nth(split).map_or(text.len(), |(byte, _)| byte);
    Ok(text.split_at(byte))
}

fn check_ratio(train_ratio: f64) -> Result<(), TextError> {
    if train_ratio > 0.0 && train_ratio < 1.0 {
        return Ok(());
    }
    let expected = "a share between 0 and 1, such as 0.9".to_owned();
    Err(TextError::Setting { name: "train_ratio", found: train_ratio.to_string(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;
    use proptest::prelude::*;

    fn documents(texts: &[String]) -> Vec<Document> {
        let made =
            |(number, text): (usize, &String)| Document { text: text.clone(), place: Place::Made("test", number) };
        texts.iter().enumerate().map(made).collect()
    }

    #[test]
    fn one_text_is_cut_by_characters_not_bytes() {
        assert_eq!(by_characters("ääääääääbb", 0.8).unwrap(), ("ääääääää", "bb"));
        assert_eq!(by_characters("abcdefghij", 0.29).unwrap(), ("ab", "cdefghij"));
        let split = by_fraction(documents(&["0123456789".to_owned()]), 0.9, 1).unwrap();
        assert_eq!((split.train[0].text.as_str(), split.validation[0].text.as_str()), ("012345678", "9"));
    }

    #[test]
    fn a_share_outside_0_and_1_is_refused() {
        for share in [0.0, 1.0, -0.1, 90.0, f64::NAN] {
            assert!(by_characters("abc", share).is_err(), "{share}");
        }
        let message = by_characters("abc", 90.0).unwrap_err().to_string();
        insta::assert_snapshot!(message, @"`train_ratio` is 90, expected a share between 0 and 1, such as 0.9");
    }

    #[test]
    fn the_seed_decides_which_documents_validate() {
        let texts: Vec<String> = (0..200).map(|n| format!("text {n}")).collect();
        let first = by_fraction(documents(&texts), 0.9, 1).unwrap();
        assert_eq!((first.train.len(), first.validation.len()), (180, 20));
        assert_eq!(first, by_fraction(documents(&texts), 0.9, 1).unwrap());
        assert_ne!(first, by_fraction(documents(&texts), 0.9, 2).unwrap());
    }

    proptest! {
        #[test]
        fn the_two_sides_together_are_the_corpus(texts in prop::collection::vec("[a-c]{0,4}", 2..40), share in 0.01f64..0.99) {
            let split = by_fraction(documents(&texts), share, 7).unwrap();
            prop_assert!(!split.train.is_empty() && !split.validation.is_empty());
            let mut all: Vec<String> = split.train.iter().chain(&split.validation).map(|d| d.text.clone()).collect();
            let mut expected = texts;
            all.sort();
            expected.sort();
            prop_assert_eq!(all, expected);
        }

        #[test]
        fn a_cut_text_is_whole_again(text: String, share in 0.01f64..0.99) {
            let (train, validation) = by_characters(&text, share).unwrap();
            prop_assert_eq!(train.chars().count(), (share * text.chars().count() as f64) as usize);
            prop_assert_eq!(format!("{train}{validation}"), text);
        }
    }
}
