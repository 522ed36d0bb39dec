//! Losses of preferences, as functions of log-probabilities: the part of DPO and its relatives that knows no tensor.
//!
//! A loss of a pair depends on the model only through the log-probability of its two answers, so its gradient is two
//! numbers, and every token of an answer has that number times the gradient of its own log-probability.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Which loss a pair has. Names are TRL's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum LossType {
    /// Direct preference optimization: logistic in the margin, with `label_smoothing` for labels that may be wrong
    #[default]
    Sigmoid,
    /// Hinge of the margin, as in `SLiC`
    Hinge,
    /// Squared distance of the margin a token from `1 / (2 beta)`
    Ipo,
    /// DPO without the bias of flipped labels, of which `label_smoothing` is the share
    Robust,
    /// Each answer on its own against what the model would gain anyway
    Kto,
    /// Chosen answers as in SFT, and the log odds ratio; no reference
    Orpo,
    /// Logistic in the margin a token, less `simpo_gamma`; no reference
    Simpo,
}

impl LossType {
    /// Whether it compares the policy with a reference.
    pub fn needs_reference(self) -> bool {
        !matches!(self, Self::Orpo | Self::Simpo)
    }
}

/// What a loss is told besides log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossSettings {
    /// Which loss.
    pub loss_type: LossType,
    /// How strongly margins count: the smaller, the farther the policy may go from the reference.
    pub beta: f64,
    /// Share of labels taken to be wrong.
    pub label_smoothing: f64,
    /// Take the mean over an answer's tokens in place of the sum.
    pub average_log_prob: bool,
    /// `SimPO`'s target margin.
    pub simpo_gamma: f64,
    /// Weight of chosen answers in KTO.
    pub desirable_weight: f64,
    /// Weight of rejected answers in KTO.
    pub undesirable_weight: f64,
    /// Weight of the SFT loss of the chosen answer that is added.
    pub sft_weight: f64,
}

/// Log-probabilities of the two answers of a pair, summed over their tokens, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PairLogps {
    /// Of the better answer.
    pub chosen: f64,
    /// Of the worse one.
    pub rejected: f64,
}

/// A pair as the loss sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredPair {
    /// By the model that learns.
    pub policy: PairLogps,
    /// By the reference; zeros where there is none.
    pub reference: PairLogps,
    /// Tokens of the two answers, chosen first; above 0.
    pub tokens: [usize; 2],
    /// KTO's baseline: what the policy gains on answers to other prompts, at least 0.
    pub kl: f64,
}

/// A pair's loss and its derivatives by the policy's two summed log-probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairLoss {
    /// The loss, the SFT term included.
    pub loss: f64,
    /// The SFT term alone, before its weight.
    pub sft: f64,
    /// By the log-probability of the chosen answer.
    pub d_chosen: f64,
    /// By that of the rejected one.
    pub d_rejected: f64,
    /// `beta` times the log-ratio of the chosen answer: TRL's `rewards/chosen`.
    pub chosen_reward: f64,
    /// The same of the rejected one.
    pub rejected_reward: f64,
}

/// `ln sigmoid(z)`, without overflow.
fn log_sigmoid(z: f64) -> f64 {
    z.min(0.0) - (-z.abs()).exp().ln_1p()
}

fn sigmoid(z: f64) -> f64 {
    log_sigmoid(z).exp()
}

/// `-(1 - s) ln sigmoid(z) - s ln sigmoid(-z)` and its derivative by `z`.
fn smoothed(z: f64, smoothing: f64) -> (f64, f64) {
    let loss = -(1.0 - smoothing) * log_sigmoid(z) - smoothing * log_sigmoid(-z);
    (loss, sigmoid(z) - (1.0 - smoothing))
}

/// The loss of one pair.
///
/// With `r = policy - reference` of an answer's log-probability, `z = beta (r_chosen - r_rejected)`:
/// - `Sigmoid`: `-(1 - s) ln sigmoid(z) - s ln sigmoid(-z)`, with label smoothing `s`;
/// - `Hinge`: `max(0, 1 - z)`;
/// - `Ipo`: `(r_chosen / n_chosen - r_rejected / n_rejected - 1 / (2 beta))^2`, `n` the number of tokens;
/// - `Robust`: `(-(1 - s) ln sigmoid(z) + s ln sigmoid(-z)) / (1 - 2 s)`;
/// - `Kto`: `w_d (1 - sigmoid(beta (r_chosen - kl))) + w_u (1 - sigmoid(beta (kl - r_rejected)))`, halved, since a pair is
///   two examples there;
/// - `Orpo`: `-p_chosen - beta ln sigmoid(o_chosen - o_rejected)`, `p` the mean log-probability of a token and
///   `o = p - ln(1 - exp p)` the log odds;
/// - `Simpo`: `-(1 - s) ln sigmoid(z') - s ln sigmoid(-z')`, `z' = beta (p_chosen - p_rejected) - gamma`.
///
/// With `average_log_prob`, an answer's log-probability is the mean over its tokens everywhere.
///
/// Law: where policy and reference agree, `Sigmoid` is ln 2 whatever `beta`; a smoothing of 0.5 prefers neither answer.
/// Source: Rafailov et al. 2023, <https://arxiv.org/abs/2305.18290>, eq. 7; Zhao et al. 2023, 2305.10425; Azar et al.
/// 2023, 2310.12036, eq. 17; Chowdhury et al. 2024, 2403.00409, eq. 9; Ethayarajh et al. 2024, 2402.01306, eq. 8; Hong et
/// al. 2024, 2403.07691, eq. 6; Meng et al. 2024, 2405.14734, eq. 6; in the forms of TRL 1.16.
pub fn pair_loss(settings: &LossSettings, pair: &ScoredPair) -> PairLoss {
    let LossSettings { beta, label_smoothing: smoothing, .. } = *settings;
    let lengths = pair.tokens.map(|tokens| tokens as f64);
    let [per_chosen, per_rejected] = if settings.average_log_prob { lengths } else { [1.0, 1.0] };
    let chosen_ratio = (pair.policy.chosen - pair.reference.chosen) / per_chosen;
    let rejected_ratio = (pair.policy.rejected - pair.reference.rejected) / per_rejected;
    let z = beta * (chosen_ratio - rejected_ratio);
    // Loss, and derivatives by the two log-probabilities as they enter it.
    let of_margin = |(loss, d_z): (f64, f64)| (loss, beta * d_z / per_chosen, -beta * d_z / per_rejected);
    let (loss, d_chosen, d_rejected) = match settings.loss_type {
        LossType::Sigmoid => of_margin(smoothed(z, smoothing)),
        LossType::Hinge => of_margin(if z < 1.0 { (1.0 - z, -1.0) } else { (0.0, 0.0) }),
        LossType::Robust => {
            let loss = -(1.0 - smoothing) * log_sigmoid(z) + smoothing * log_sigmoid(-z);
            let d_z = -(1.0 - smoothing) * sigmoid(-z) - smoothing * sigmoid(z);
            of_margin((loss / (1.0 - 2.0 * smoothing), d_z / (1.0 - 2.0 * smoothing)))
        }
        LossType::Ipo => ipo(beta, pair, lengths),
        LossType::Kto => kto(settings, [chosen_ratio, rejected_ratio], pair.kl, [per_chosen, per_rejected]),
        LossType::Orpo => orpo(beta, pair, lengths),
        LossType::Simpo => {
            let margin = pair.policy.chosen / lengths[0] - pair.policy.rejected / lengths[1];
            let (loss, d_z) = smoothed(beta * margin - settings.simpo_gamma, smoothing);
            (loss, beta * d_z / lengths[0], -beta * d_z / lengths[1])
        }
    };
    let sft = -pair.policy.chosen / lengths[0];
    PairLoss {
        loss: loss + settings.sft_weight * sft,
        sft,
        d_chosen: d_chosen - settings.sft_weight / lengths[0],
        d_rejected,
        chosen_reward: beta * chosen_ratio,
        rejected_reward: beta * rejected_ratio,
    }
}

type LossAndDerivatives = (f64, f64, f64);

fn ipo(beta: f64, pair: &ScoredPair, lengths: [f64; 2]) -> LossAndDerivatives {
    let chosen = (pair.policy.chosen - pair.reference.chosen) / lengths[0];
    let rejected = (pair.policy.rejected - pair.reference.rejected) / lengths[1];
    let distance = chosen - rejected - 1.0 / (2.0 * beta);
    (distance * distance, 2.0 * distance / lengths[0], -2.0 * distance / lengths[1])
}

fn kto(settings: &LossSettings, ratios: [f64; 2], kl: f64, per: [f64; 2]) -> LossAndDerivatives {
    let LossSettings { beta, desirable_weight, undesirable_weight, .. } = *settings;
    let chosen = sigmoid(beta * (ratios[0] - kl));
    let rejected = sigmoid(beta * (kl - ratios[1]));
    let loss = 0.5 * (desirable_weight * (1.0 - chosen) + undesirable_weight * (1.0 - rejected));
    let d_chosen = -0.5 * desirable_weight * beta * chosen * (1.0 - chosen) / per[0];
    let d_rejected = 0.5 * undesirable_weight * beta * rejected * (1.0 - rejected) / per[1];
    (loss, d_chosen, d_rejected)
}

fn orpo(beta: f64, pair: &ScoredPair, lengths: [f64; 2]) -> LossAndDerivatives {
    let chosen = pair.policy.chosen / lengths[0];
    let rejected = pair.policy.rejected / lengths[1];
    // ln(1 - exp p), whose derivative by p is -exp p / (1 - exp p); below a probability of 1, which no softmax passes.
    let log_rest = |p: f64| (-p.min(-f64::EPSILON).exp_m1()).ln();
    let log_odds = (chosen - log_rest(chosen)) - (rejected - log_rest(rejected));
    let d_odds = |p: f64| -1.0 / p.min(-f64::EPSILON).exp_m1();
    let d_loss = -beta * sigmoid(-log_odds);
    let d_chosen = (-1.0 + d_loss * d_odds(chosen)) / lengths[0];
    (-chosen - beta * log_sigmoid(log_odds), d_chosen, -d_loss * d_odds(rejected) / lengths[1])
}

/// Loss of a pair of scores of a reward model, with its derivatives by both:
/// `-ln sigmoid(chosen - rejected - margin) + centering (chosen + rejected)^2`.
///
/// Law: equal scores without margin and centering give ln 2.
/// Source: Bradley and Terry 1952; Touvron et al. 2023, <https://arxiv.org/abs/2307.09288>, eq. 2 (margin); Eisenstein et
/// al. 2023, 2312.09244, eq. 2 (centering); in the form of TRL 1.16's `RewardTrainer`.
pub fn bradley_terry(chosen: f64, rejected: f64, margin: f64, centering: f64) -> (f64, f64, f64) {
    let (loss, d_z) = smoothed(chosen - rejected - margin, 0.0);
    let sum = chosen + rejected;
    (loss + centering * sum * sum, d_z + 2.0 * centering * sum, -d_z + 2.0 * centering * sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::LN_2;

    const ALL: [LossType; 7] = [
        LossType::Sigmoid,
        LossType::Hinge,
        LossType::Ipo,
        LossType::Robust,
        LossType::Kto,
        LossType::Orpo,
        LossType::Simpo,
    ];

    fn settings(loss_type: LossType) -> LossSettings {
        LossSettings {
            loss_type,
            beta: 0.1,
            label_smoothing: 0.0,
            average_log_prob: false,
            simpo_gamma: 0.5,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
            sft_weight: 0.0,
        }
    }

    fn pair() -> ScoredPair {
        ScoredPair {
            policy: PairLogps { chosen: -10.0, rejected: -14.0 },
            reference: PairLogps { chosen: -11.5, rejected: -13.0 },
            tokens: [7, 5],
            kl: 0.25,
        }
    }

    #[test]
    fn policy_and_reference_that_agree_give_ln_2() {
        for beta in [0.01, 0.1, 5.0] {
            let same = ScoredPair { reference: pair().policy, ..pair() };
            let found = pair_loss(&LossSettings { beta, ..settings(LossType::Sigmoid) }, &same);
            assert!((found.loss - LN_2).abs() < 1e-15);
            // The derivative of -ln sigmoid at 0 is -1/2.
            assert!((found.d_chosen + 0.5 * beta).abs() < 1e-15 && found.d_chosen == -found.d_rejected);
        }
        assert!((bradley_terry(1.5, 1.5, 0.0, 0.0).0 - LN_2).abs() < 1e-15);
    }

    #[test]
    fn values_are_those_worked_out_by_hand() {
        // r_chosen = 1.5, r_rejected = -1, z = 0.25; -ln sigmoid(0.25) = ln(1 + e^-0.25) = 0.575939...
        let of = |loss_type| pair_loss(&settings(loss_type), &pair());
        assert!((of(LossType::Sigmoid).loss - 0.575_939_420_4).abs() < 1e-9);
        assert!((of(LossType::Sigmoid).chosen_reward - 0.15).abs() < 1e-12);
        assert!((of(LossType::Sigmoid).rejected_reward + 0.1).abs() < 1e-12);
        assert!((of(LossType::Hinge).loss - 0.75).abs() < 1e-12);
        // 1.5 / 7 + 1 / 5 - 5 = -4.585714...
        assert!((of(LossType::Ipo).loss - 4.585_714_285_7_f64.powi(2)).abs() < 1e-8);
    }

    #[derive(Deserialize)]
    struct Golden {
        loss_type: LossType,
        beta: f64,
        label_smoothing: f64,
        simpo_gamma: f64,
        kl: f64,
        desirable_weight: f64,
        undesirable_weight: f64,
        sft_weight: f64,
        /// Log-probabilities of tokens: chosen and rejected by the policy, then by the reference.
        answers: [Vec<f64>; 4],
        loss: f64,
        d_chosen: f64,
        d_rejected: f64,
        metrics: std::collections::BTreeMap<String, f64>,
    }

    #[test]
    fn losses_and_derivatives_are_those_of_trl() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/preference.json");
        let cases: Vec<Golden> = serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap();
        assert_eq!(ALL.iter().filter(|&&one| cases.iter().any(|case| case.loss_type == one)).count(), ALL.len());
        for case in cases {
            let [chosen, rejected, ref_chosen, ref_rejected] =
                case.answers.each_ref().map(|answer| answer.iter().sum());
            let pair = ScoredPair {
                policy: PairLogps { chosen, rejected },
                reference: PairLogps { chosen: ref_chosen, rejected: ref_rejected },
                tokens: [case.answers[0].len(), case.answers[1].len()],
                kl: case.kl,
            };
            let settings = LossSettings {
                loss_type: case.loss_type,
                beta: case.beta,
                label_smoothing: case.label_smoothing,
                average_log_prob: false,
                simpo_gamma: case.simpo_gamma,
                desirable_weight: case.desirable_weight,
                undesirable_weight: case.undesirable_weight,
                sft_weight: case.sft_weight,
            };
            let found = pair_loss(&settings, &pair);
            // ORPO's odds go through f32 in TRL; the others are f64 throughout.
            let bound = if case.loss_type == LossType::Orpo { 1e-6 } else { 1e-12 };
            for (name, found, expected) in [
                ("loss", found.loss, case.loss),
                ("d_chosen", found.d_chosen, case.d_chosen),
                ("d_rejected", found.d_rejected, case.d_rejected),
                (
                    "rewards/chosen",
                    found.chosen_reward,
                    *case.metrics.get("rewards/chosen").unwrap_or(&found.chosen_reward),
                ),
                (
                    "rewards/rejected",
                    found.rejected_reward,
                    *case.metrics.get("rewards/rejected").unwrap_or(&found.rejected_reward),
                ),
            ] {
                let gap = (found - expected).abs();
                assert!(
                    gap <= bound * expected.abs().max(1.0),
                    "{:?} {name}: {found}, TRL's {expected}",
                    case.loss_type
                );
            }
        }
    }

    #[test]
    fn derivatives_are_those_of_the_loss() {
        let step = 1e-5;
        for loss_type in ALL {
            for (average_log_prob, label_smoothing, sft_weight) in
                [(false, 0.0, 0.0), (true, 0.1, 0.0), (false, 0.2, 0.3)]
            {
                let with = LossSettings { label_smoothing, average_log_prob, sft_weight, ..settings(loss_type) };
                let found = pair_loss(&with, &pair());
                let at = |chosen: f64, rejected: f64| {
                    let policy = PairLogps { chosen: -10.0 + chosen, rejected: -14.0 + rejected };
                    pair_loss(&with, &ScoredPair { policy, ..pair() }).loss
                };
                let by_chosen = (at(step, 0.0) - at(-step, 0.0)) / (2.0 * step);
                let by_rejected = (at(0.0, step) - at(0.0, -step)) / (2.0 * step);
                for (numeric, exact) in [(by_chosen, found.d_chosen), (by_rejected, found.d_rejected)] {
                    let gap = (numeric - exact).abs() / (1e-3 + numeric.abs() + exact.abs());
                    assert!(gap < 1e-6, "{loss_type:?}: {exact}, numerically {numeric}");
                }
            }
        }
        let at = |a: f64, b: f64| bradley_terry(0.7 + a, -0.4 + b, 0.3, 0.05).0;
        let (_, d_chosen, d_rejected) = bradley_terry(0.7, -0.4, 0.3, 0.05);
        assert!(((at(step, 0.0) - at(-step, 0.0)) / (2.0 * step) - d_chosen).abs() < 1e-8);
        assert!(((at(0.0, step) - at(0.0, -step)) / (2.0 * step) - d_rejected).abs() < 1e-8);
    }

    #[test]
    fn a_smoothing_of_one_half_prefers_neither_answer() {
        let half = LossSettings { label_smoothing: 0.5, ..settings(LossType::Sigmoid) };
        let swapped = |pair: ScoredPair| {
            let swap = |of: PairLogps| PairLogps { chosen: of.rejected, rejected: of.chosen };
            ScoredPair { policy: swap(pair.policy), reference: swap(pair.reference), ..pair }
        };
        let (one, other) = (pair_loss(&half, &pair()), pair_loss(&half, &swapped(pair())));
        assert!((one.loss - other.loss).abs() < 1e-12);
        assert!((one.d_chosen - other.d_rejected).abs() < 1e-12);
        let same = ScoredPair { reference: pair().policy, ..pair() };
        assert_eq!(pair_loss(&half, &same).d_chosen, 0.0);
    }

    #[test]
    fn margins_of_thousands_stay_finite() {
        for loss_type in ALL {
            for sign in [-1.0, 1.0] {
                let policy = PairLogps { chosen: -5e4 * (1.0 + sign), rejected: -5e4 * (1.0 - sign) };
                let found = pair_loss(&settings(loss_type), &ScoredPair { policy, ..pair() });
                assert!(
                    found.loss.is_finite() && found.d_chosen.is_finite() && found.d_rejected.is_finite(),
                    "{loss_type:?}"
                );
            }
        }
    }
}
