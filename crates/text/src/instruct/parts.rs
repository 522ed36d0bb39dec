//! Training, validation and test parts of a data set, and the mixing of sources.

use crate::TextError;
use crate::rng::{Rng, hash3};
use serde::{Deserialize, Serialize};

/// How much of the data goes to training, validation and test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Shares {
    /// Numbers of items; those beyond their sum are left out.
    Counts([usize; 3]),
    /// Shares that add up to 1.
    Shares([f64; 3]),
}

impl Default for Shares {
    /// 85 % for training, 10 % for validation, 5 % for the test.
    fn default() -> Self {
        Self::Shares([0.85, 0.10, 0.05])
    }
}

impl std::str::FromStr for Shares {
    type Err = TextError;

    /// Reads `85/10/5` (percent), `0.85/0.1/0.05` (shares) or `935/110/55` (numbers): percent if the sum is 100.
    fn from_str(text: &str) -> Result<Self, TextError> {
        let bad = || TextError::Setting {
            name: "split",
            found: format!("`{text}`"),
            expected: "shares of training, validation and test such as `85/10/5`, or numbers of items".to_owned(),
        };
        let numbers: Vec<f64> =
            text.split('/').map(|part| part.trim().parse()).collect::<Result<_, _>>().map_err(|_| bad())?;
        let mut parts = [0.0; 3];
        if numbers.is_empty() || numbers.len() > 3 || numbers.iter().any(|number| number.is_nan() || *number < 0.0) {
            return Err(bad());
        }
        parts[..numbers.len()].copy_from_slice(&numbers);
        let sum: f64 = parts.iter().sum();
        if (sum - 1.0).abs() < 1e-6 {
            Ok(Self::Shares(parts))
        } else if (sum - 100.0).abs() < 1e-6 {
            Ok(Self::Shares(parts.map(|part| part / 100.0)))
        } else if parts.iter().all(|part| part.fract() == 0.0 && *part < 1e15) {
            Ok(Self::Counts(parts.map(|part| part as usize)))
        } else {
            Err(bad())
        }
    }
}

/// In which order items are taken into parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrangement {
    /// As they come.
    #[default]
    File,
    /// In an order that the seed decides.
    Shuffled(u64),
}

/// The items of each part, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// To learn from.
    pub train: Vec<usize>,
    /// To measure while training.
    pub validation: Vec<usize>,
    /// To measure at the end.
    pub test: Vec<usize>,
}

/// Divides `n` items: the first for training, the next for validation, the last for the test.
///
/// Numbers: parts end at `round(n * (sum of shares so far))`; a part with a share above 0 has at least one item where
/// there are enough. 1,100 items at 85/10/5 are 935, 110 and 55.
/// Law: no item is in two parts; with shares, each is in one.
///
/// # Errors
/// [`TextError::Setting`] if shares do not add up to 1, or numbers are more than there are, or nothing is for training.
pub fn split(n: usize, shares: Shares, arrangement: Arrangement) -> Result<Parts, TextError> {
    let counts = counts(n, shares)?;
    let mut order: Vec<usize> = (0..n).collect();
    if let Arrangement::Shuffled(seed) = arrangement {
        Rng::new(hash3(seed, n as u64, 0x5917)).shuffle(&mut order);
    }
    let mut rest = order.into_iter();
    let mut take = |count: usize| rest.by_ref().take(count).collect();
    Ok(Parts { train: take(counts[0]), validation: take(counts[1]), test: take(counts[2]) })
}

fn counts(n: usize, shares: Shares) -> Result<[usize; 3], TextError> {
    let bad = |found: String, expected: String| TextError::Setting { name: "split", found, expected };
    let shares = match shares {
        Shares::Counts(counts) => {
            let sum = counts.iter().fold(0usize, |sum, count| sum.saturating_add(*count));
            if counts[0] == 0 || sum > n {
                let expected = format!("at least one item for training, at most {n} in all");
                return Err(bad(counts.map(|count| count.to_string()).join("/"), expected));
            }
            return Ok(counts);
        }
        Shares::Shares(shares) => shares,
    };
    let sum: f64 = shares.iter().sum();
    let is_share = |share: &f64| (0.0..=1.0).contains(share);
    if !shares.iter().all(is_share) || (sum - 1.0).abs() > 1e-6 || shares[0] == 0.0 || n == 0 {
        let found = shares.map(|share| share.to_string()).join("/");
        return Err(bad(found, "shares that add up to 1, the first of them above 0".to_owned()));
    }
    let end = |share: f64| ((n as f64 * share).round() as usize).min(n);
    let (first, second) = (end(shares[0]), end(shares[0] + shares[1]));
    let mut counts = [first, second - first, n - second];
    if shares[2] == 0.0 {
        counts = [first, n - first, 0];
        if shares[1] == 0.0 {
            counts = [n, 0, 0];
        }
    }
    // A small part is not left without items: the largest gives one away, its last one only for training.
    for part in 0..3 {
        let largest = (0..3).max_by_key(|&other| counts[other]).unwrap_or(0);
        if shares[part] > 0.0 && counts[part] == 0 && counts[largest] > usize::from(part > 0) {
            counts[part] += 1;
            counts[largest] -= 1;
        }
    }
    Ok(counts)
}

/// The order of one pass over the items `part`, in which source `s` has `weights[s]` times its items, evenly spread
/// among those of the others: a weight of 2 has each item twice, one of 0.5 has half of them, which the seed chooses.
///
/// Law: with one source of weight 1 it is `part`. The items of a source keep their order.
pub fn mix(part: &[usize], weights: &[f64], source: impl Fn(usize) -> usize, seed: u64) -> Vec<usize> {
    let mut placed: Vec<(f64, usize, usize)> = Vec::with_capacity(part.len());
    for (number, weight) in weights.iter().enumerate() {
        let own: Vec<usize> = part.iter().copied().filter(|&index| source(index) == number).collect();
        let (whole, rest) = (weight.floor() as usize, weight.fract());
        let mut order: Vec<usize> = (0..whole).flat_map(|_| own.iter().copied()).collect();
        let extra = (rest * own.len() as f64).round() as usize;
        let mut ranked: Vec<usize> = (0..own.len()).collect();
        ranked.sort_by_key(|&at| hash3(seed, number as u64, own[at] as u64));
        let mut chosen = ranked[..extra].to_vec();
        chosen.sort_unstable();
        order.extend(chosen.into_iter().map(|at| own[at]));
        let count = order.len() as f64;
        placed.extend(order.into_iter().enumerate().map(|(at, index)| ((at as f64 + 0.5) / count, number, index)));
    }
    // Stable: the items of one source keep their order.
    placed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    placed.into_iter().map(|(_, _, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn eleven_hundred_items_are_935_110_and_55() {
        let parts = split(1100, "85/10/5".parse().unwrap(), Arrangement::File).unwrap();
        assert_eq!((parts.train.len(), parts.validation.len(), parts.test.len()), (935, 110, 55));
        assert_eq!((parts.train[934], parts.validation[0], parts.test[0]), (934, 935, 1045));
        assert_eq!(split(1100, Shares::default(), Arrangement::File).unwrap(), parts);
        let counted = split(1100, "935/110/55".parse().unwrap(), Arrangement::File).unwrap();
        assert_eq!(counted, parts);
    }

    #[test]
    fn small_parts_have_an_item_and_parts_without_a_share_none() {
        let sizes = |n, text: &str| {
            let parts = split(n, text.parse().unwrap(), Arrangement::Shuffled(1)).unwrap();
            [parts.train.len(), parts.validation.len(), parts.test.len()]
        };
        assert_eq!(sizes(3, "85/10/5"), [1, 1, 1]);
        assert_eq!(sizes(1, "85/10/5"), [1, 0, 0]);
        assert_eq!(sizes(7, "0.9/0.1"), [6, 1, 0]);
        assert_eq!(sizes(7, "100"), [7, 0, 0]);
        assert_eq!(sizes(7, "4/2/0"), [4, 2, 0]);
    }

    #[test]
    fn splits_that_make_no_sense_are_refused() {
        let message =
            |text: &str| text.parse().and_then(|shares| split(10, shares, Arrangement::File)).unwrap_err().to_string();
        insta::assert_snapshot!(message("85/x/5"), @"`split` is `85/x/5`, expected shares of training, validation and test such as `85/10/5`, or numbers of items");
        insta::assert_snapshot!(message("0.5/0.2/0.1"), @"`split` is `0.5/0.2/0.1`, expected shares of training, validation and test such as `85/10/5`, or numbers of items");
        insta::assert_snapshot!(message("9/1/1"), @"`split` is 9/1/1, expected at least one item for training, at most 10 in all");
        insta::assert_snapshot!(message("0/50/50"), @"`split` is 0/0.5/0.5, expected shares that add up to 1, the first of them above 0");
    }

    #[test]
    fn a_source_of_weight_two_comes_twice_and_one_of_a_half_every_other_time() {
        let part: Vec<usize> = (0..30).collect();
        let mixed = mix(&part, &[2.0, 0.5], |index| usize::from(index >= 10), 3);
        assert_eq!(mixed.len(), 30);
        for index in 0..10 {
            assert_eq!(mixed.iter().filter(|&&other| other == index).count(), 2);
        }
        // Evenly spread: 20 of the first and 10 of the second in every stretch of nine.
        for stretch in mixed.chunks(9).take(3) {
            assert_eq!(stretch.iter().filter(|&&index| index >= 10).count(), 3, "{mixed:?}");
        }
        let other = mix(&part, &[2.0, 0.5], |index| usize::from(index >= 10), 4);
        assert_ne!(mixed, other);
    }

    proptest! {
        #[test]
        fn every_item_is_in_one_part(n in 1usize..400, a in 1u32..100, b in 0u32..100, c in 0u32..100, seed: Option<u64>) {
            let sum = f64::from(a + b + c);
            let shares = Shares::Shares([a, b, c].map(|part| f64::from(part) / sum));
            let parts = split(n, shares, seed.map_or(Arrangement::File, Arrangement::Shuffled)).unwrap();
            prop_assert_eq!(b == 0, parts.validation.is_empty() && (b == 0 || n >= 3));
            let mut all = [parts.train.clone(), parts.validation, parts.test].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..n).collect::<Vec<_>>());
            prop_assert!(!parts.train.is_empty());
        }

        #[test]
        fn one_source_is_mixed_with_nothing(part in prop::collection::vec(0usize..100, 0..50)) {
            prop_assert_eq!(mix(&part, &[1.0], |_| 0, 9), part);
        }
    }
}
