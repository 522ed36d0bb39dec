use super::*;
use crate::testing::{check_fast, grad_gap, test_input, wide};

fn spec(segments: &Segments, heads: Heads, window: Option<usize>, dropout: f32) -> Attention<'_> {
    let scale = 1.0 / (heads.dim() as f32).sqrt();
    Attention { heads, segments, window, scale, dropout, dropout_key: 77 }
}

/// Multi-head and grouped-query, with and without window, prefix and dropout.
fn cases() -> Vec<(Segments, Heads, Option<usize>, f32)> {
    let mut cases = Vec::new();
    for (query, kv, dim) in [(1, 1, 1), (4, 2, 8), (3, 3, 5)] {
        for window in [None, Some(1), Some(3)] {
            for dropout in [0.0, 0.3] {
                let segments = Segments::of_lengths(&[4, 1, 6])
                    .with_continuation(0, 3)
                    .with_continuation(0, 2)
                    .with_continuation(3, 4)
                    .with_continuation(5, 1)
                    .with_continuation(3, 2);
                cases.push((segments, Heads::new(query, kv, dim).unwrap(), window, dropout));
            }
        }
    }
    cases
}

#[test]
fn one_query_sees_itself_alone_and_two_mix_by_softmax() {
    let segments = Segments::of_lengths(&[2]);
    let spec = spec(&segments, Heads::new(1, 1, 1).unwrap(), None, 0.0);
    // Tokens (q, k, v): (1, 0, 10) and (1, ln 3, 20). Query 1 weighs e^0 : e^(ln 3) = 1 : 3, so 0.25 * 10 + 0.75 * 20.
    let out = reference::forward(&spec, &[1.0, 0.0, 10.0, 1.0, 3.0_f64.ln(), 20.0]);
    assert!((out[0] - 10.0).abs() < 1e-12 && (out[1] - 17.5).abs() < 1e-12, "{out:?}");
}

#[test]
fn backward_is_the_derivative_of_forward() {
    for (segments, heads, window, dropout) in cases() {
        let spec = spec(&segments, heads, window, dropout);
        let n = segments.tokens();
        let qkv: Vec<f64> = wide(&test_input(n * heads.packed_width(), 1)).iter().map(|x| 2.0 * x).collect();
        let d_out = wide(&test_input(n * heads.width(), 2));
        let loss = |qkv: &[f64]| reference::forward(&spec, qkv).iter().zip(&d_out).map(|(y, d)| y * d).sum::<f64>();
        let gap = grad_gap(loss, &qkv, &reference::backward(&spec, &d_out, &qkv));
        assert!(gap < 1e-6, "{heads:?}, window {window:?}, dropout {dropout}: {gap}");
    }
}

fn check(segments: &Segments, heads: Heads, window: Option<usize>, dropout: f32) {
    let spec = spec(segments, heads, window, dropout);
    let n = segments.tokens();
    let qkv: Vec<f32> = test_input(n * heads.packed_width(), 1).iter().map(|x| 3.0 * x).collect();
    let d_out = test_input(n * heads.width(), 2);
    let run = |exec| {
        let (mut out, mut lse) = (vec![f32::NAN; n * heads.width()], vec![f32::NAN; n * heads.query()]);
        forward(exec, &spec, &qkv, &mut out, &mut lse);
        let mut d_qkv = vec![f32::NAN; qkv.len()];
        backward(exec, &spec, &d_out, &qkv, &out, &lse, &mut d_qkv);
        vec![out, d_qkv]
    };
    let expected = [reference::forward(&spec, &wide(&qkv)), reference::backward(&spec, &wide(&d_out), &wide(&qkv))];
    check_fast("attention", run, &expected, 5e-6);
}

#[test]
fn the_fast_path_equals_the_reference() {
    for (segments, heads, window, dropout) in cases() {
        check(&segments, heads, window, dropout);
    }
}

#[test]
fn the_fast_path_equals_the_reference_across_blocks() {
    let heads = Heads::new(2, 1, 8).unwrap();
    for len in [BLOCK / 2 - 1, BLOCK / 2, BLOCK / 2 + 1, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK + 5] {
        for window in [None, Some(BLOCK), Some(BLOCK + 7)] {
            let segments = Segments::of_lengths(&[len]).with_continuation(0, BLOCK + 3).with_continuation(1, BLOCK / 2);
            check(&segments, heads, window, 0.1);
        }
    }
}

/// Short sequences alone go another way than long ones.
#[test]
fn the_fast_path_equals_the_reference_for_whole_sequences_of_any_length() {
    for (query, kv, dim) in [(2, 2, 16), (4, 2, 5)] {
        for len in [1_usize, 13, 14, 15, 64, 100, 256, 257] {
            for (window, dropout) in [(None, 0.0), (None, 0.3), (Some(len), 0.0), (Some(len.div_ceil(2)), 0.1)] {
                check(&Segments::of_lengths(&[len, 3]), Heads::new(query, kv, dim).unwrap(), window, dropout);
            }
        }
    }
}

#[test]
fn a_segment_does_not_notice_its_neighbours() {
    let heads = Heads::new(2, 2, 4).unwrap();
    let row = heads.packed_width();
    let qkv = test_input(9 * row, 5);
    let run = |segments: &Segments, qkv: &[f32]| {
        let n = segments.tokens();
        let (mut out, mut lse) = (vec![0.0; n * heads.width()], vec![0.0; n * heads.query()]);
        forward(Exec::new(2), &spec(segments, heads, None, 0.0), qkv, &mut out, &mut lse);
        out
    };
    let packed = run(&Segments::of_lengths(&[5, 4]), &qkv);
    let alone = run(&Segments::of_lengths(&[4]), &qkv[5 * row..]);
    assert_eq!(packed[5 * heads.width()..], alone);
}

#[test]
fn a_continuation_equals_the_whole_sequence() {
    let heads = Heads::new(2, 1, 4).unwrap();
    let qkv = test_input(9 * heads.packed_width(), 6);
    let run = |segments: &Segments| {
        let (mut out, mut lse) = (vec![0.0; 9 * heads.width()], vec![0.0; 9 * heads.query()]);
        forward(Exec::new(1), &spec(segments, heads, Some(6), 0.0), &qkv, &mut out, &mut lse);
        out
    };
    let whole = run(&Segments::of_lengths(&[9]));
    let split = run(&Segments::of_lengths(&[5]).with_continuation(0, 4));
    assert!(whole.iter().zip(&split).all(|(a, b)| (a - b).abs() < 1e-6));
    let chained = run(&Segments::of_lengths(&[3]).with_continuation(0, 2).with_continuation(1, 4));
    assert!(whole.iter().zip(&chained).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn the_fast_path_equals_pytorch() {
    let golden = crate::golden::Golden::read("attention");
    for (name, kv) in [("mha", 4), ("gqa", 2)] {
        let heads = Heads::new(4, kv, 8).unwrap();
        let qkv: Vec<f32> = test_input(12 * heads.packed_width(), 1).iter().map(|x| 4.0 * x).collect();
        let d_out = test_input(12 * 32, 2);
        for (kind, segments) in
            [("packed", Segments::of_lengths(&[7, 5])), ("prefix", Segments::of_lengths(&[7]).with_continuation(0, 5))]
        {
            for (window_name, window) in [("all", None), ("w3", Some(3))] {
                let spec = spec(&segments, heads, window, 0.0);
                let (mut out, mut lse) = (vec![0.0; 12 * 32], vec![0.0; 12 * 4]);
                forward(Exec::new(2), &spec, &qkv, &mut out, &mut lse);
                let mut d_qkv = vec![0.0; qkv.len()];
                backward(Exec::new(2), &spec, &d_out, &qkv, &out, &lse, &mut d_qkv);
                let case = format!("{name}_{kind}_{window_name}");
                golden.check(&format!("{case}.out"), &out, 2e-6);
                golden.check(&format!("{case}.lse"), &lse, 2e-6);
                golden.check(&format!("{case}.d_qkv"), &d_qkv, 2e-6);
            }
        }
    }
}
