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
        assert_eq!(Sampling { temperature: 1e-300, ..Sampling::default() }.choose(&[1.0, 2.0, 0.5], draw), 1);
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

/// [`Sampling::choose`] by sorting the vocabulary: the reference.
fn choose_by_sorting(sampling: &Sampling, logits: &[f32], draw: f64) -> u32 {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].partial_cmp(&logits[a as usize]).unwrap());
    let weight =
        |id: u32| ((f64::from(logits[id as usize]) - f64::from(logits[ids[0] as usize])) / sampling.temperature).exp();
    let mut weights: Vec<f64> = ids.iter().map(|&id| weight(id)).collect();
    if sampling.top_k > 0 {
        weights.truncate(sampling.top_k);
    }
    let enough = sampling.top_p * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let mut kept = weights.len();
    for (at, weight) in weights.iter().enumerate() {
        sum += weight;
        if sum >= enough && sampling.top_p < 1.0 {
            kept = at + 1;
            break;
        }
    }
    weights.truncate(kept);
    weights.retain(|&weight| weight >= sampling.min_p);
    let mut left = draw * weights.iter().sum::<f64>();
    for (&id, weight) in ids.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return id;
        }
    }
    ids[weights.len() - 1]
}

fn sample(sampling: &Sampling, logits: &[f32], history: &History, draw: f64) -> Sampled {
    let mut copy = logits.to_vec();
    let sampled = sampling.sample(&mut copy, history, draw);
    assert_eq!(copy, logits, "the logits are as they came");
    sampled
}

/// Logits of a vocabulary of `n` in [-6, 6), by a formula that `make_sampler.py` has too.
fn test_logits(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| (((i * 7919 + salt * 104_729) % 2003) as f32 / 2003.0 - 0.5) * 12.0).collect()
}

#[test]
fn probabilities_are_those_of_transformers() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../../../../testdata/sampler.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 20);
    let ids = |value: &serde_json::Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    for (salt, case) in cases.iter().enumerate() {
        let number = |name: &str| case[name].as_f64().unwrap();
        let bias = case["logit_bias"].as_array().unwrap();
        let sampling = Sampling {
            temperature: number("temperature"),
            top_k: case["top_k"].as_u64().unwrap() as usize,
            top_p: number("top_p"),
            min_p: number("min_p"),
            repetition_penalty: number("repetition_penalty"),
            logit_bias: bias
                .iter()
                .map(|bias| (bias[0].as_u64().unwrap() as u32, bias[1].as_f64().unwrap() as f32))
                .collect(),
            ..Sampling::default()
        };
        let logits = test_logits(64, salt);
        let history = History::new(&ids(&case["history"]));
        let expected: Vec<f64> =
            case["logprobs"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap_or(f64::NEG_INFINITY)).collect();
        let raw: Vec<f64> = case["logprobs_raw"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
        let mut seen = std::collections::HashSet::new();
        for i in 0..2000 {
            let sampled = sample(&sampling, &logits, &history, (f64::from(i) + 0.5) / 2000.0);
            let token = sampled.token as usize;
            assert!((sampled.logprob - expected[token]).abs() < 1e-5, "{case:#} {sampled:?} {}", expected[token]);
            assert!((sampled.logprob_raw - raw[token]).abs() < 1e-5, "{case:#} {sampled:?}");
            seen.insert(token);
        }
        let unseen = (0..64).filter(|token| !seen.contains(token));
        assert!(unseen.clone().all(|token| expected[token] < -7.0), "{case:#} {:?}", unseen.collect::<Vec<_>>());
    }
}

#[test]
fn penalties_change_the_logits_as_they_say() {
    // Token 1 was in the prompt, 2 was generated twice: 2 -> 2/2, -1 -> -1*2 - 0.5 - 2*0.25; token 3 has a bias of 1.
    let sampling = Sampling {
        repetition_penalty: 2.0,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        logit_bias: vec![(3, 1.0), (99, 5.0)],
        ..Sampling::default()
    };
    let mut history = History::new(&[1, 1, 77]);
    history.push(2);
    history.push(2);
    let logits = [0.0f32, 2.0, -1.0, 0.5];
    let changed = [0.0f64, 1.0, -3.0, 1.5];
    let lse = |logits: &[f64]| logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
    let raw = lse(&logits.map(f64::from));
    for i in 0..100 {
        let sampled = sample(&sampling, &logits, &history, f64::from(i) / 100.0);
        let token = sampled.token as usize;
        assert!((sampled.logprob - (changed[token] - lse(&changed))).abs() < 1e-6, "{sampled:?}");
        assert!((sampled.logprob_raw - (f64::from(logits[token]) - raw)).abs() < 1e-6, "{sampled:?}");
    }
    let greedy = sample(&Sampling { temperature: 0.0, ..sampling }, &logits, &history, 0.3);
    assert_eq!((greedy.token, greedy.logprob), (3, 0.0));
    assert!((greedy.logprob_raw - (0.5 - raw)).abs() < 1e-6);
}

#[test]
fn the_likeliest_tokens_come_with_their_logprobs() {
    let top = top_logprobs(&[1.0, 3.0, f32::NAN, 3.0, 2.0, 3.0], 3);
    let lse = (3.0 * 3f64.exp() + 2f64.exp() + 1f64.exp()).ln();
    assert_eq!(top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 5]);
    assert!(top.iter().all(|(_, logprob)| (logprob - (3.0 - lse)).abs() < 1e-12));
    assert_eq!(top_logprobs(&[1.0, 2.0], 9).len(), 2);
    assert!(top_logprobs(&[1.0, 2.0], 0).is_empty());
}

#[test]
fn logprobs_of_logits_that_are_not_finite_are_told_too() {
    let all = [vec![f32::NAN, 1.0, f32::NEG_INFINITY], vec![0.0, f32::INFINITY, 3.0], vec![f32::NEG_INFINITY, 2.0]];
    for logits in all {
        let sampled = sample_copy(&logits);
        assert_eq!((sampled.logprob, sampled.logprob_raw), (0.0, 0.0), "{logits:?}");
    }
    assert_eq!(sample_copy(&[f32::NEG_INFINITY; 3]).token, 0);
    assert_eq!(sample_copy(&[f32::NAN; 3]).token, 0);
}

fn sample_copy(logits: &[f32]) -> Sampled {
    Sampling::default().sample(&mut logits.to_vec(), &History::default(), 0.5)
}

proptest! {
    #[test]
    fn choosing_is_as_by_sorting(
        logits in prop::collection::vec(prop_oneof![(-9i8..9).prop_map(f32::from), -9.0f32..9.0], 1..200),
        temperature in prop_oneof![0.01..0.2, 0.2..3.0f64],
        top_k in prop_oneof![Just(0), 1usize..220],
        top_p in prop_oneof![Just(1.0), 0.01..1.0f64],
        min_p in prop_oneof![Just(0.0), 0.0..1.0f64],
        draws in prop::collection::vec(0.0..1.0f64, 20),
    ) {
        let sampling = Sampling { temperature, top_k, top_p, min_p, ..Sampling::default() };
        for draw in draws {
            prop_assert_eq!(sampling.choose(&logits, draw), choose_by_sorting(&sampling, &logits, draw));
        }
    }

    #[test]
    fn without_filters_both_logprobs_are_the_models(
        logits in prop::collection::vec(-30.0f32..30.0, 1..100), draw in 0.0..1.0f64
    ) {
        let sampled = sample(&Sampling::default(), &logits, &History::default(), draw);
        prop_assert!((sampled.logprob - sampled.logprob_raw).abs() < 1e-9);
        let top = top_logprobs(&logits, logits.len());
        let sum: f64 = top.iter().map(|(_, logprob)| logprob.exp()).sum();
        prop_assert!((sum - 1.0).abs() < 1e-9);
        prop_assert!(top.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        prop_assert!(top.contains(&(sampled.token, sampled.logprob_raw)));
    }
}
