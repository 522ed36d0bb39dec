//! From logits to one token.

/// How a token is chosen among its likeliest peers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it: below 1 the likely tokens gain, above 1 the unlikely ones. 0 takes the likeliest.
    pub temperature: f64,
    /// Choose among this many likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Choose among the fewest likeliest tokens whose probabilities sum to at least this; 1 for all.
    pub top_p: f64,
}

impl Default for Sampling {
    /// The model's own distribution.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0 }
    }
}

impl Sampling {
    /// The token whose share of the distribution `draw`, a number in `[0, 1)`, falls into.
    ///
    /// `softmax(logits / temperature)` over the `top_k` likeliest tokens, of which the fewest are kept that hold
    /// `top_p`. Of equal logits the smaller id is the likelier.
    ///
    /// Shapes: `logits` is `(V)`. Numbers: probabilities and their sums in f64; a NaN logit is never chosen, unless
    /// all are.
    /// Law: a token is chosen by the share of draws that equals its probability.
    /// Sources: Fan et al. 2018 for top-k, <https://arxiv.org/abs/1805.04833>; Holtzman et al. 2020 for top-p,
    /// <https://arxiv.org/abs/1904.09751>.
    ///
    /// Panics: if `logits` is empty.
    pub fn choose(&self, logits: &[f32], draw: f64) -> u32 {
        assert!(!logits.is_empty(), "a vocabulary has at least one token");
        let logit = |id: u32| if logits[id as usize].is_nan() { f32::NEG_INFINITY } else { logits[id as usize] };
        let likelier = |a: &u32, b: &u32| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b));
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let best = ids.iter().copied().min_by(likelier).unwrap_or(0);
        if self.temperature <= 0.0 || self.top_k == 1 || logit(best) == f32::NEG_INFINITY {
            return best;
        }
        if self.top_k > 0 && self.top_k < ids.len() {
            ids.select_nth_unstable_by(self.top_k - 1, likelier);
            ids.truncate(self.top_k);
        }
        // One order whatever the selection left, so that a draw always means the same token.
        ids.sort_unstable_by(likelier);
        let largest = f64::from(logit(best));
        let weight = |id: u32| {
            let below = f64::from(logit(id)) - largest; // NaN only where both are infinite: a certain token.
            if below.is_nan() { 1.0 } else { (below / self.temperature).exp() }
        };
        let mut weights: Vec<f64> = ids.iter().map(|&id| weight(id)).collect();
        if self.top_p < 1.0 {
            let enough = self.top_p * weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let missing = weights.iter().take_while(|&&weight| {
                sum += weight;
                sum < enough
            });
            let kept = missing.count() + 1;
            weights.truncate(kept);
        }
        let mut left = draw * weights.iter().sum::<f64>();
        for (&id, weight) in ids.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return id;
            }
        }
        // Rounding may leave a rest above zero; it belongs to the last token.
        ids[weights.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Shares of 1000 evenly spread draws.
    fn shares(sampling: &Sampling, logits: &[f32]) -> Vec<f64> {
        let mut shares = vec![0.0; logits.len()];
        (0..1000).for_each(|i| shares[sampling.choose(logits, (f64::from(i) + 0.5) / 1000.0) as usize] += 0.001);
        shares
    }

    fn assert_near(found: &[f64], expected: &[f64]) {
        let near = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.0021);
        assert!(near && found.len() == expected.len(), "{found:?}, expected {expected:?}");
    }

    /// Logarithms of 0.2, 0.5, 0.1 and 0.2.
    fn logits() -> Vec<f32> {
        [0.2f32, 0.5, 0.1, 0.2].map(f32::ln).to_vec()
    }

    #[test]
    fn tokens_come_by_their_probabilities() {
        assert_near(&shares(&Sampling::default(), &logits()), &[0.2, 0.5, 0.1, 0.2]);
    }

    #[test]
    fn a_temperature_of_a_half_squares_the_probabilities() {
        // 0.04, 0.25, 0.01 and 0.04 of 0.34.
        let sampling = Sampling { temperature: 0.5, ..Sampling::default() };
        assert_near(&shares(&sampling, &logits()), &[0.04 / 0.34, 0.25 / 0.34, 0.01 / 0.34, 0.04 / 0.34]);
    }

    #[test]
    fn top_k_and_top_p_keep_the_likeliest_and_the_smaller_id_of_equals() {
        let top_k = Sampling { top_k: 2, ..Sampling::default() };
        assert_near(&shares(&top_k, &logits()), &[0.2 / 0.7, 0.5 / 0.7, 0.0, 0.0]);
        let top_p = Sampling { top_p: 0.6, ..Sampling::default() };
        assert_near(&shares(&top_p, &logits()), &[0.2 / 0.7, 0.5 / 0.7, 0.0, 0.0]);
        let both = Sampling { top_k: 3, top_p: 0.79, ..Sampling::default() };
        assert_near(&shares(&both, &logits()), &[0.2 / 0.9, 0.5 / 0.9, 0.0, 0.2 / 0.9]);
    }

    #[test]
    fn a_temperature_of_zero_takes_the_likeliest() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(shares(&greedy, &logits())[1], shares(&greedy, &logits()).iter().sum::<f64>());
    }

    #[test]
    fn numbers_that_are_not_finite_do_no_harm() {
        let sampling = Sampling::default();
        for draw in [0.0, 0.5, 1.0 - f64::EPSILON] {
            assert_eq!(sampling.choose(&[f32::NAN, 1.0, f32::NEG_INFINITY], draw), 1);
            assert_eq!(sampling.choose(&[0.0, f32::INFINITY, 3.0], draw), 1);
            assert_eq!(sampling.choose(&[f32::NAN, f32::NAN], draw), 0);
            assert_eq!(Sampling { temperature: 1e-300, ..sampling }.choose(&[1.0, 2.0, 0.5], draw), 1);
        }
    }

    proptest! {
        #[test]
        fn a_token_is_among_the_k_likeliest(
            logits in prop::collection::vec(-5.0f32..5.0, 1..40), top_k in 1usize..50, draw in 0.0..1.0f64
        ) {
            let chosen = Sampling { top_k, ..Sampling::default() }.choose(&logits, draw) as usize;
            let likelier = logits.iter().filter(|&&logit| logit > logits[chosen]).count();
            prop_assert!(likelier < top_k);
        }

        #[test]
        fn a_shift_of_all_logits_changes_nothing(
            logits in prop::collection::vec(-50i8..50, 1..40), draw in 0.0..1.0f64
        ) {
            // Whole numbers and a power of two, so that the shift itself does not round.
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let shifted: Vec<f32> = logits.iter().map(|logit| logit + 64.0).collect();
            let sampling = Sampling { top_p: 0.9, ..Sampling::default() };
            prop_assert_eq!(sampling.choose(&logits, draw), sampling.choose(&shifted, draw));
        }
    }
}
