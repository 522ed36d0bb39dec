//! Tests of products in mixed precision, whatever 16-bit floats the machine has.

use super::*;
use crate::exec::Precision;
use crate::packed::half::{bf16_to_f32, f32_to_bf16};
use crate::testing::test_input;

fn mixed(threads: usize) -> Exec {
    Exec::new(threads).with_precision(Precision::Mixed)
}

/// What an operand of a product becomes on this machine.
fn rounded(x: &[f32]) -> Vec<f32> {
    match Isa::detect().half_products() {
        Some(HalfFormat::Bf16) => x.iter().map(|&x| bf16_to_f32(f32_to_bf16(x))).collect(),
        None => x.to_vec(),
    }
}

/// The four layouts of two operands of `m x k` and `k x n`.
fn views<'a>(layout: usize, (m, k, n): (usize, usize, usize), a: &'a [f32], b: &'a [f32]) -> (View<'a>, View<'a>) {
    let a = if layout & 1 == 0 { View::new(a, m, k) } else { View::new(a, k, m).t() };
    let b = if layout & 2 == 0 { View::new(b, k, n) } else { View::new(b, n, k).t() };
    (a, b)
}

/// `(sum of a b, sum of |a b|)` of one element, in f64.
fn element(a: View<'_>, b: View<'_>, i: usize, j: usize) -> (f64, f64) {
    let terms = (0..a.shape.cols).map(|p| f64::from(a.at(i, p)) * f64::from(b.at(p, j)));
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

fn product(exec: Exec, a: View<'_>, b: View<'_>) -> Vec<f32> {
    let (m, n) = (a.shape.rows, b.shape.cols);
    let mut c = vec![f32::NAN; m * n];
    matmul(exec, Onto::Overwrite, 1.0, a, b, ViewMut::new(&mut c, m, n));
    c
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Every layout, number of threads and way to add up against the product of the rounded operands in f64.
fn check(m: usize, k: usize, n: usize) {
    let (a, b, row) = (test_input(m * k, 1), test_input(k * n, 2), test_input(n, 3));
    let (rounded_a, rounded_b) = (rounded(&a), rounded(&b));
    for layout in 0..4 {
        let (a, b) = views(layout, (m, k, n), &a, &b);
        let (rounded_a, rounded_b) = views(layout, (m, k, n), &rounded_a, &rounded_b);
        let want: Vec<_> = (0..m * n).map(|at| element(rounded_a, rounded_b, at / n, at % n)).collect();
        for (onto, row) in [(Onto::Overwrite, None), (Onto::Add, None), (Onto::Overwrite, Some(&row[..]))] {
            let mut first: Option<Vec<u32>> = None;
            for threads in [1, 2, 3, 7] {
                let start = if onto == Onto::Add { 0.25 } else { f32::NAN };
                // One column of padding, which must stay as it is.
                let mut c = vec![start; m * (n + 1)];
                let out = ViewMut::strided(&mut c, m, n, n + 1);
                matmuls(mixed(threads), [Product { onto, row, scale: 0.5, a, b, c: out, after: None }], 0, |_| ());
                for (index, (want, size)) in want.iter().enumerate() {
                    let found = f64::from(c[index / n * (n + 1) + index % n]);
                    let before = row.map_or(0.0, |row| f64::from(row[index % n]));
                    let before = before + if onto == Onto::Add { 0.25 } else { 0.0 };
                    let gap = (found - 0.5 * want - before).abs();
                    assert!(gap <= 1e-6 * (1.0 + size), "{m}x{k}x{n} {layout} {onto:?}: {found} {want}");
                }
                assert!((0..m).all(|i| c[i * (n + 1) + n].to_bits() == start.to_bits()), "padding written");
                let found: Vec<u32> = bits(&c);
                assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{m}x{k}x{n} on {threads} threads");
            }
        }
    }
}

#[test]
fn mixed_products_equal_those_of_rounded_operands_at_awkward_sizes() {
    for m in [0, 1, 13, 14, 15, 29] {
        for k in [0, 1, 2, 3, 15, 17, 31, 32, 33, 65] {
            for n in [0, 1, 15, 16, 17, 31, 32, 33] {
                check(m, k, n);
            }
        }
    }
}

#[test]
fn mixed_products_equal_those_of_rounded_operands_in_tiles_of_any_height() {
    for m in 1..=15 {
        check(m, 9, 33);
    }
}

#[test]
fn mixed_products_equal_those_of_rounded_operands_beyond_every_block_size() {
    check(200, 300, 270);
    check(3, 1023, 40);
    check(17, 1025, 33);
    check(15, 2050, 70);
    // Cut by columns, by rows and both ways.
    check(60, 150, 700);
    check(700, 150, 60);
    check(300, 130, 300);
    // Several blocks of columns in a task.
    check(600, 900, 290);
}

/// A shared dimension so long that copies of it are made in parts.
#[test]
fn a_long_shared_dimension_is_multiplied_whole() {
    let (m, k, n) = (70, 70_001, 66);
    let (a, b) = (test_input(m * k, 1), test_input(k * n, 2));
    let (rounded_a, rounded_b) = (rounded(&a), rounded(&b));
    for layout in 0..4 {
        let (a, b) = views(layout, (m, k, n), &a, &b);
        let alone = product(mixed(1), a, b);
        let (a64, b64) = views(layout, (m, k, n), &rounded_a, &rounded_b);
        for (i, j) in [(0, 0), (13, 31), (14, 32), (69, 65), (37, 64)] {
            let (want, size) = element(a64, b64, i, j);
            let gap = (f64::from(alone[i * n + j]) - want).abs();
            assert!(gap <= 1e-6 * size, "{layout}, ({i}, {j}): {} {want}", alone[i * n + j]);
        }
        for threads in [2, 5] {
            assert!(bits(&product(mixed(threads), a, b)) == bits(&alone), "{threads} threads");
        }
    }
}

/// Rounding an operand costs at most 2^-8 of it, so two cost little more than 2^-7 of the sum of magnitudes; where terms
/// have one sign, that is of the result.
#[test]
fn an_error_of_a_mixed_product_is_at_most_that_of_its_operands() {
    for (m, k, n) in [(20, 700, 40), (31, 33, 50), (3, 2000, 17)] {
        for one_sign in [false, true] {
            let input = |len: usize, salt| -> Vec<f32> {
                test_input(len, salt).iter().map(|x| if one_sign { x.abs() } else { *x }).collect()
            };
            let (a, b) = (input(m * k, 1), input(k * n, 2));
            let (a, b) = views(2, (m, k, n), &a, &b);
            let c = product(mixed(2), a, b);
            let mut mean = 0.0;
            for (index, c) in c.iter().enumerate() {
                let (want, size) = element(a, b, index / n, index % n);
                let gap = (f64::from(*c) - want) / size;
                assert!(gap.abs() <= 1.01 / 128.0, "{c} {want}, {size}");
                mean += gap / (m * n) as f64;
            }
            // Rounding to nearest has no direction.
            assert!(mean.abs() < 2e-4, "errors are {mean} on average");
        }
    }
}

#[test]
fn rows_of_any_scale_keep_their_precision() {
    let (m, k, n) = (16, 77, 35);
    let (mut a, b) = (test_input(m * k, 1), test_input(k * n, 2));
    let scales = [1e30, 1e-30, 0.0, 1.0, 1e37, 1e-25];
    a.chunks_mut(k).enumerate().for_each(|(i, row)| row.iter_mut().for_each(|x| *x *= scales[i % scales.len()]));
    let (rounded_a, rounded_b) = (rounded(&a), rounded(&b));
    let transposed = |x: &[f32], rows: usize, cols: usize| -> Vec<f32> {
        (0..x.len()).map(|at| x[at % rows * cols + at / rows]).collect()
    };
    let (a_t, b_t) = (transposed(&a, m, k), transposed(&b, k, n));
    let (want_a, want_b) = (View::new(&rounded_a, m, k), View::new(&rounded_b, k, n));
    for layout in 0..4 {
        let a = if layout & 1 == 0 { &a } else { &a_t };
        let b = if layout & 2 == 0 { &b } else { &b_t };
        let (a, b) = views(layout, (m, k, n), a, b);
        for (index, c) in product(mixed(2), a, b).iter().enumerate() {
            let (want, size) = element(want_a, want_b, index / n, index % n);
            assert!((f64::from(*c) - want).abs() <= 2e-6 * size, "{layout}, {index}: {c} {want}");
        }
    }
}

#[test]
fn what_is_not_finite_stays_so_wherever_it_is() {
    let (m, n) = (15, 33);
    for k in [1, 2, 5, 34] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            for (at_a, at_b) in
                [(Some((14, k - 1)), None), (Some((3, 0)), None), (None, Some((k - 1, 32))), (None, Some((k / 2, 7)))]
            {
                for layout in 0..4 {
                    let (mut a, mut b) = (vec![0.5; m * k], vec![-0.25; k * n]);
                    if let Some((i, p)) = at_a {
                        a[if layout & 1 == 0 { i * k + p } else { p * m + i }] = bad;
                    }
                    if let Some((p, j)) = at_b {
                        b[if layout & 2 == 0 { p * n + j } else { j * k + p }] = bad;
                    }
                    let (a, b) = views(layout, (m, k, n), &a, &b);
                    for (index, c) in product(mixed(1), a, b).iter().enumerate() {
                        let (i, j) = (index / n, index % n);
                        let is_spoilt = at_a.is_some_and(|at| at.0 == i) || at_b.is_some_and(|at| at.1 == j);
                        assert!(
                            !is_spoilt || !c.is_finite() || rounded(&[bad])[0].is_finite(),
                            "{bad} {layout} {index}: {c}"
                        );
                        assert!(!is_spoilt || bad.is_nan() == c.is_nan(), "{bad} {layout} {index}: {c}");
                        assert!(is_spoilt || *c == -0.125 * k as f32, "{bad} {layout} {index}: {c}");
                    }
                }
            }
        }
    }
    // No term, no NaN: an infinity times a zero is one.
    let c = product(mixed(1), View::new(&[f32::INFINITY, 1.0], 1, 2), View::new(&[0.0, 1.0], 2, 1));
    assert!(c[0].is_nan());
}

#[test]
fn an_instruction_set_without_half_products_computes_in_f32() {
    let (m, k, n) = (50, 70, 60);
    let (a, b) = (test_input(m * k, 1), test_input(k * n, 2));
    let (a, b) = views(2, (m, k, n), &a, &b);
    for isa in Isa::available() {
        let full = product(Exec::new(2).with_isa(isa), a, b);
        let half = product(mixed(2).with_isa(isa), a, b);
        assert!(isa == Isa::Avx512 || isa.half_products().is_none(), "{isa:?}");
        assert_eq!(bits(&full) == bits(&half), isa.half_products().is_none(), "{isa:?}");
        assert_eq!(mixed(2).with_isa(isa).half_products(), isa.half_products());
        assert_eq!(Exec::new(2).with_isa(isa).half_products(), None);
    }
}

#[test]
fn several_mixed_products_and_tasks_are_the_single_ones() {
    // The last is multiplied in parts, beside which the tasks run once.
    let sizes = [(768, 128, 130), (130, 300, 77), (5, 0, 40), (70, 70_001, 66)];
    let inputs = sizes.map(|(m, k, n)| (test_input(m * k, 1), test_input(k * n, 2)));
    for threads in [1, 2, 3] {
        let mut results = sizes.map(|(m, _, n)| vec![f32::NAN; m * n]);
        let mut seen = [0_u8; 9];
        let shared = SharedMut::new(&mut seen);
        let mut left = results.iter_mut();
        let products = std::array::from_fn::<_, 4, _>(|index| {
            let ((m, _, n), (a, b)) = (sizes[index], &inputs[index]);
            let (a, b) = views(index, sizes[index], a, b);
            let c = ViewMut::new(left.next().unwrap(), m, n);
            Product { onto: Onto::Overwrite, row: None, scale: 1.0, a, b, c, after: None }
        });
        // SAFETY: each task has a place of its own.
        matmuls(mixed(threads), products, 9, |index| unsafe { shared.slice(index, 1)[0] += 1 });
        assert_eq!(seen, [1; 9]);
        for (index, ((result, size), (a, b))) in results.iter().zip(sizes).zip(&inputs).enumerate() {
            let (a, b) = views(index, size, a, b);
            assert!(bits(result) == bits(&product(mixed(1), a, b)), "product {index} on {threads} threads");
        }
    }
}

/// Rows and columns that are every second of a larger matrix.
#[test]
fn mixed_products_of_strided_operands_are_those_of_copies() {
    for k in [37, 38] {
        check_strided(20, k, 40);
    }
}

fn check_strided(m: usize, k: usize, n: usize) {
    let (a, b) = (test_input(4 * m * k, 1), test_input(4 * k * n, 2));
    let every_second = |data: &[f32], rows: usize, cols: usize| -> Vec<f32> {
        (0..rows * cols).map(|at| data[at / cols * 4 * cols + at % cols * 2]).collect()
    };
    let (a_copy, b_copy) = (every_second(&a, m, k), every_second(&b, k, n));
    let shape = |rows, cols| Shape { rows, cols, row_stride: 4 * cols, col_stride: 2 };
    let (a, b) = (View { data: &a, shape: shape(m, k) }, View { data: &b, shape: shape(k, n) });
    let want = product(mixed(1), View::new(&a_copy, m, k), View::new(&b_copy, k, n));
    assert!(bits(&product(mixed(2), a, b)) == bits(&want));
}
