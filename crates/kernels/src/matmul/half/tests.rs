//! Tests of products in mixed precision, with each kind of 16-bit floats that the machine has; where it has none, in f32.

use super::super::*;
use super::model;
use crate::exec::{HalfFormat, Precision};
use crate::packed::half::{bf16_to_f32, f32_to_bf16};
use crate::testing::test_input;

/// What is tested on this machine.
fn formats() -> Vec<Option<HalfFormat>> {
    let available: Vec<_> = HalfFormat::available().into_iter().map(Some).collect();
    if available.is_empty() { vec![None] } else { available }
}

fn mixed(format: Option<HalfFormat>, threads: usize) -> Exec {
    let exec = Exec::new(threads).with_precision(Precision::Mixed);
    format.map_or(exec, |format| exec.with_half_products(format))
}

/// What an operand of a product becomes, but for the scale of its rows.
fn rounded(format: Option<HalfFormat>, x: &[f32]) -> Vec<f32> {
    match format {
        Some(HalfFormat::Bf16) => x.iter().map(|&x| bf16_to_f32(f32_to_bf16(x))).collect(),
        Some(HalfFormat::F16) | None => x.to_vec(),
    }
}

/// `(value, sum of |a b|)` of each element of the product of what operands become: the sums that f32 comes close to, or those of the model.
fn wanted(format: Option<HalfFormat>, a: View<'_>, b: View<'_>, places: &[(usize, usize)]) -> Vec<(f64, f64)> {
    let exact = places.iter().map(|&(i, j)| element(a, b, i, j));
    if format != Some(HalfFormat::F16) {
        return exact.collect();
    }
    let sums = model::elements((a, b), 1.0, places.iter().map(|&(i, j)| (i, j, -0.0)));
    exact.zip(sums).map(|((_, size), sum)| (f64::from(sum), size)).collect()
}

fn places(m: usize, n: usize) -> Vec<(usize, usize)> {
    (0..m * n).map(|at| (at / n, at % n)).collect()
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
    formats().into_iter().for_each(|format| check_format(format, m, k, n));
}

fn check_format(format: Option<HalfFormat>, m: usize, k: usize, n: usize) {
    let (a, b, row) = (test_input(m * k, 1), test_input(k * n, 2), test_input(n, 3));
    let (rounded_a, rounded_b) = (rounded(format, &a), rounded(format, &b));
    for layout in 0..4 {
        let (a, b) = views(layout, (m, k, n), &a, &b);
        let (rounded_a, rounded_b) = views(layout, (m, k, n), &rounded_a, &rounded_b);
        let want = wanted(format, rounded_a, rounded_b, &places(m, n));
        for (onto, row) in [(Onto::Overwrite, None), (Onto::Add, None), (Onto::Overwrite, Some(&row[..]))] {
            let mut first: Option<Vec<u32>> = None;
            for threads in [1, 2, 3, 7] {
                let start = if onto == Onto::Add { 0.25 } else { f32::NAN };
                // One column of padding, which must stay as it is.
                let mut c = vec![start; m * (n + 1)];
                let out = ViewMut::strided(&mut c, m, n, n + 1);
                matmuls(mixed(format, threads), [Product { onto, row, scale: 0.5, a, b, c: out, after: None }]);
                for (index, (want, size)) in want.iter().enumerate() {
                    let found = f64::from(c[index / n * (n + 1) + index % n]);
                    let before = row.map_or(0.0, |row| f64::from(row[index % n]));
                    let before = before + if onto == Onto::Add { 0.25 } else { 0.0 };
                    let gap = (found - 0.5 * want - before).abs();
                    assert!(gap <= 1e-6 * (1.0 + size), "{format:?} {m}x{k}x{n} {layout} {onto:?}: {found} {want}");
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
    let some = [(0, 0), (13, 31), (14, 32), (69, 65), (37, 64)];
    for format in formats() {
        let (rounded_a, rounded_b) = (rounded(format, &a), rounded(format, &b));
        for layout in 0..4 {
            let (a, b) = views(layout, (m, k, n), &a, &b);
            let alone = product(mixed(format, 1), a, b);
            let (rounded_a, rounded_b) = views(layout, (m, k, n), &rounded_a, &rounded_b);
            for ((i, j), (want, size)) in some.into_iter().zip(wanted(format, rounded_a, rounded_b, &some)) {
                let gap = (f64::from(alone[i * n + j]) - want).abs();
                assert!(gap <= 1e-6 * size, "{format:?} {layout}, ({i}, {j}): {} {want}", alone[i * n + j]);
            }
            for threads in [2, 5] {
                assert!(bits(&product(mixed(format, threads), a, b)) == bits(&alone), "{threads} threads");
            }
        }
    }
}

/// Rounding an operand to bf16 costs at most 2^-8 of it, so two cost little more than 2^-7 of the sum of magnitudes; where terms
/// have one sign, that is of the result. Rounding to binary16 costs an eighth of it, but the sums of a run are rounded too.
#[test]
fn an_error_of_a_mixed_product_is_at_most_that_of_its_operands() {
    for (format, (m, k, n)) in in_each(&[(20, 700, 40), (31, 33, 50), (3, 2000, 17)]) {
        let bound = if format == Some(HalfFormat::F16) { 1.0 / 400.0 } else { 1.01 / 128.0 };
        for one_sign in [false, true] {
            let input = |len: usize, salt| -> Vec<f32> {
                test_input(len, salt).iter().map(|x| if one_sign { x.abs() } else { *x }).collect()
            };
            let (a, b) = (input(m * k, 1), input(k * n, 2));
            let (a, b) = views(2, (m, k, n), &a, &b);
            let c = product(mixed(format, 2), a, b);
            let mut mean = 0.0;
            for (index, c) in c.iter().enumerate() {
                let (want, size) = element(a, b, index / n, index % n);
                let gap = (f64::from(*c) - want) / size;
                assert!(gap.abs() <= bound, "{format:?}: {c} {want}, {size}");
                mean += gap / (m * n) as f64;
            }
            // Rounding to nearest has no direction.
            assert!(mean.abs() < 2e-4, "{format:?}: errors are {mean} on average");
        }
    }
}

/// Each of several cases with each format.
fn in_each<T: Copy>(cases: &[T]) -> impl Iterator<Item = (Option<HalfFormat>, T)> {
    formats().into_iter().flat_map(|format| cases.iter().map(move |&case| (format, case)))
}

#[test]
fn rows_of_any_scale_keep_their_precision() {
    let (m, k, n) = (16, 77, 35);
    let (mut a, b) = (test_input(m * k, 1), test_input(k * n, 2));
    let scales = [1e30, 1e-30, 0.0, 1.0, 1e37, 1e-25];
    a.chunks_mut(k).enumerate().for_each(|(i, row)| row.iter_mut().for_each(|x| *x *= scales[i % scales.len()]));
    let transposed = |x: &[f32], rows: usize, cols: usize| -> Vec<f32> {
        (0..x.len()).map(|at| x[at % rows * cols + at / rows]).collect()
    };
    let (a_t, b_t) = (transposed(&a, m, k), transposed(&b, k, n));
    for (format, layout) in in_each(&[0, 1, 2, 3]) {
        let (rounded_a, rounded_b) = (rounded(format, &a), rounded(format, &b));
        let want = wanted(format, View::new(&rounded_a, m, k), View::new(&rounded_b, k, n), &places(m, n));
        let a = if layout & 1 == 0 { &a } else { &a_t };
        let b = if layout & 2 == 0 { &b } else { &b_t };
        let (a, b) = views(layout, (m, k, n), a, b);
        for (index, (c, (want, size))) in product(mixed(format, 2), a, b).iter().zip(want).enumerate() {
            assert!((f64::from(*c) - want).abs() <= 2e-6 * size, "{format:?} {layout}, {index}: {c} {want}");
        }
    }
}

#[test]
fn what_is_not_finite_stays_so_wherever_it_is() {
    let (m, n) = (15, 33);
    for (format, k) in in_each(&[1, 2, 5, 34]) {
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
                    for (index, c) in product(mixed(format, 1), a, b).iter().enumerate() {
                        let (i, j) = (index / n, index % n);
                        let is_spoilt = at_a.is_some_and(|at| at.0 == i) || at_b.is_some_and(|at| at.1 == j);
                        assert!(
                            !is_spoilt || !c.is_finite() || rounded(format, &[bad])[0].is_finite(),
                            "{bad} {layout} {index}: {c}"
                        );
                        assert!(!is_spoilt || bad.is_nan() == c.is_nan(), "{bad} {layout} {index}: {c}");
                        assert!(
                            !is_spoilt || bad != f32::MAX || format != Some(HalfFormat::F16) || c.is_finite(),
                            "{c}"
                        );
                        assert!(is_spoilt || *c == -0.125 * k as f32, "{bad} {layout} {index}: {c}");
                    }
                }
            }
        }
    }
    // No term, no NaN: an infinity times a zero is one.
    for format in formats() {
        let c = product(mixed(format, 1), View::new(&[f32::INFINITY, 1.0], 1, 2), View::new(&[0.0, 1.0], 2, 1));
        assert!(c[0].is_nan());
    }
}

#[test]
fn an_instruction_set_without_half_products_computes_in_f32() {
    let (m, k, n) = (50, 70, 60);
    let (a, b) = (test_input(m * k, 1), test_input(k * n, 2));
    let (a, b) = views(2, (m, k, n), &a, &b);
    for isa in Isa::available() {
        let full = product(Exec::new(2).with_isa(isa), a, b);
        let mixed = Exec::new(2).with_precision(Precision::Mixed).with_isa(isa);
        let half = product(mixed, a, b);
        assert!(isa == Isa::Avx512 || isa.half_products().is_none(), "{isa:?}");
        assert_eq!(bits(&full) == bits(&half), isa.half_products().is_none(), "{isa:?}");
        assert_eq!(mixed.half_products(), isa.half_products());
        assert_eq!(Exec::new(2).with_isa(isa).half_products(), None);
        for format in HalfFormat::available() {
            let forced = Exec::new(2).with_half_products(format);
            assert_eq!(forced.half_products(), Some(format));
            assert_eq!(forced.with_precision(Precision::F32).half_products(), None);
            assert_eq!(forced.with_isa(isa).half_products(), (isa == Isa::Avx512).then_some(format));
        }
    }
}

#[test]
fn the_last_of_the_available_formats_is_chosen_and_not_called_unused() {
    assert_eq!(Isa::detect().half_products(), HalfFormat::available().last().copied());
    assert!(!Isa::unused_products().contains(&"AVX512-FP16"));
}

#[test]
fn several_mixed_products_are_the_single_ones() {
    // The last is multiplied in parts, after all of which it is finished.
    let sizes = [(768, 128, 130), (130, 300, 77), (5, 0, 40), (70, 70_001, 66)];
    let inputs = sizes.map(|(m, k, n)| (test_input(m * k, 1), test_input(k * n, 2)));
    for (format, threads) in in_each(&[1, 2, 3]) {
        let mut results = sizes.map(|(m, _, n)| vec![f32::NAN; m * n]);
        let finished = std::sync::atomic::AtomicUsize::new(0);
        let count = |rows: Range<usize>, cols: Range<usize>| {
            finished.fetch_add(rows.len() * cols.len(), std::sync::atomic::Ordering::Relaxed);
        };
        let mut left = results.iter_mut();
        let products = std::array::from_fn::<_, 4, _>(|index| {
            let ((m, _, n), (a, b)) = (sizes[index], &inputs[index]);
            let (a, b) = views(index, sizes[index], a, b);
            let c = ViewMut::new(left.next().unwrap(), m, n);
            Product { onto: Onto::Overwrite, row: None, scale: 1.0, a, b, c, after: Some(After::new(&count)) }
        });
        matmuls(mixed(format, threads), products);
        assert_eq!(finished.into_inner(), sizes.iter().map(|(m, _, n)| m * n).sum::<usize>());
        for (index, ((result, size), (a, b))) in results.iter().zip(sizes).zip(&inputs).enumerate() {
            let (a, b) = views(index, size, a, b);
            assert!(bits(result) == bits(&product(mixed(format, 1), a, b)), "product {index} on {threads} threads");
        }
    }
}

/// Rows and columns that are every second of a larger matrix.
#[test]
fn mixed_products_of_strided_operands_are_those_of_copies() {
    for (format, k) in in_each(&[37, 38]) {
        check_strided(format, 20, k, 40);
    }
}

fn check_strided(format: Option<HalfFormat>, m: usize, k: usize, n: usize) {
    let (a, b) = (test_input(4 * m * k, 1), test_input(4 * k * n, 2));
    let every_second = |data: &[f32], rows: usize, cols: usize| -> Vec<f32> {
        (0..rows * cols).map(|at| data[at / cols * 4 * cols + at % cols * 2]).collect()
    };
    let (a_copy, b_copy) = (every_second(&a, m, k), every_second(&b, k, n));
    let shape = |rows, cols| Shape { rows, cols, row_stride: 4 * cols, col_stride: 2 };
    let (a, b) = (View { data: &a, shape: shape(m, k) }, View { data: &b, shape: shape(k, n) });
    let want = product(mixed(format, 1), View::new(&a_copy, m, k), View::new(&b_copy, k, n));
    assert!(bits(&product(mixed(format, 2), a, b)) == bits(&want));
}

/// Rows and columns of every magnitude, so that halves and sums of halves are denormal, some lanes are zero, and f32 is used to its ends.
fn scaled(x: &mut [f32], row: usize) {
    for (index, row) in x.chunks_mut(row.max(1)).enumerate() {
        let scale = [1.0, 1e30, 3e-30, 0.0, 1e-38][index % 5];
        for (at, x) in row.iter_mut().enumerate() {
            *x *= scale * [1.0, 1e-3, 1e-5, 1e-7][at % 11 / 3];
        }
    }
}

/// Two that are both NaN are the same.
fn assert_same(found: &[f32], want: &[f32], what: &str) {
    assert_eq!(found.len(), want.len());
    for (index, (found, want)) in found.iter().zip(want).enumerate() {
        let is_same = found.to_bits() == want.to_bits() || found.is_nan() && want.is_nan();
        assert!(is_same, "{what}, {index}: {found:e} {want:e}");
    }
}

/// Where the CPU has products of binary16, and only there: a test that passes elsewhere has tested nothing.
fn check_model(m: usize, k: usize, n: usize) {
    if !HalfFormat::F16.is_supported() {
        return;
    }
    let exec = |threads| Exec::new(threads).with_half_products(HalfFormat::F16);
    let before = test_input(m * n, 3);
    for layout in 0..4 {
        for is_scaled in [false, true] {
            let (mut a, mut b) = (test_input(m * k, 1), test_input(k * n, 2));
            if is_scaled {
                scaled(&mut a, if layout & 1 == 0 { k } else { m });
                scaled(&mut b, if layout & 2 == 0 { n } else { k });
            }
            let (a, b) = views(layout, (m, k, n), &a, &b);
            let what = format!("{m}x{k}x{n} {layout} {is_scaled}");
            let places = places(m, n).into_iter();
            let alone = model::elements((a, b), 0.5, places.clone().map(|(i, j)| (i, j, -0.0)));
            let added = model::elements((a, b), 0.5, places.zip(&before).map(|((i, j), &before)| (i, j, before)));
            for threads in [1, 2, 7] {
                let mut c = vec![f32::NAN; m * n];
                matmul(exec(threads), Onto::Overwrite, 0.5, a, b, ViewMut::new(&mut c, m, n));
                assert_same(&c, &alone, &what);
                c.copy_from_slice(&before);
                matmul(exec(threads), Onto::Add, 0.5, a, b, ViewMut::new(&mut c, m, n));
                assert_same(&c, &added, &what);
            }
        }
    }
}

#[test]
fn products_of_binary16_are_the_models_bit_for_bit_at_awkward_sizes_where_the_cpu_has_them() {
    for m in [1, 13, 14, 15, 29] {
        for k in [1, 2, 3, 31, 33] {
            for n in [1, 15, 16, 17, 31, 32, 33] {
                check_model(m, k, n);
            }
        }
    }
    for m in 1..=15 {
        check_model(m, 9, 33);
        check_model(m, 9, 16);
    }
}

#[test]
fn products_of_binary16_are_the_models_bit_for_bit_around_the_end_of_a_run_where_the_cpu_has_them() {
    for k in [64, 126, 127, 128, 129, 130, 135, 255, 256, 257, 1023, 1024, 1025, 2049] {
        check_model(15, k, 17);
    }
}

#[test]
fn products_of_binary16_are_the_models_bit_for_bit_where_tasks_share_copies_and_the_cpu_has_them() {
    check_model(60, 150, 260);
    check_model(260, 150, 60);
    // Cut both ways.
    check_model(300, 130, 300);
    check_model(33, 1100, 70);
}

#[test]
fn what_is_not_finite_is_as_in_the_model_where_the_cpu_has_products_of_binary16() {
    if !HalfFormat::F16.is_supported() {
        return;
    }
    let (m, k, n) = (5, 140, 18);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE] {
        let (mut a, mut b) = (test_input(m * k, 1), test_input(k * n, 2));
        (a[3 * k + 130], a[k - 1], b[7 * n + 17]) = (bad, -bad, bad);
        let (a, b) = (View::new(&a, m, k), View::new(&b, k, n));
        let want = model::elements((a, b), 1.0, places(m, n).into_iter().map(|(i, j)| (i, j, -0.0)));
        assert_same(&product(Exec::new(2).with_half_products(HalfFormat::F16), a, b), &want, &bad.to_string());
    }
}

/// Packing needs no instruction that is new with products of binary16.
#[cfg(target_arch = "x86_64")]
#[test]
fn operands_are_scaled_and_rounded_as_in_the_model_where_the_cpu_has_products_of_bf16() {
    use super::super::avx512::{MR, NR};
    use super::{f16::F16, pack};
    if !HalfFormat::Bf16.is_supported() {
        return;
    }
    for (lanes, steps) in [(1, 1), (14, 33), (15, 32), (33, 31), (40, 70), (16, 17), (47, 200), (3, 0)] {
        let mut x = test_input(4 * lanes * steps, 1);
        scaled(&mut x, steps);
        if steps > 31 {
            (x[0], x[7 * steps], x[9 * steps + 30]) = (f32::NAN, f32::NEG_INFINITY, f32::MAX);
        }
        let shapes = [(steps, 1), (1, lanes), (2 * steps, 2)];
        for (row_stride, col_stride) in shapes {
            let view = View { data: &x, shape: Shape { rows: lanes, cols: steps, row_stride, col_stride } };
            for width in [MR, NR] {
                let words = 1 + steps.div_ceil(2);
                let mut out = vec![u32::MAX; lanes.next_multiple_of(width) * words];
                let flushed = crate::parallel::Denormals::flushed();
                // SAFETY: there is room for these lanes, and the machine has the instructions.
                unsafe {
                    let pack = if width == MR { pack::pack::<MR, F16> } else { pack::pack::<NR, F16> };
                    pack(view, 0..lanes, 0..steps, out.as_mut_ptr());
                }
                drop(flushed);
                for lane in 0..lanes {
                    let want = model::Lane::new((0..steps).map(|p| view.at(lane, p)));
                    let word = |word: usize| out[lane / width * width * words + word * width + lane % width];
                    assert_eq!(f32::from_bits(word(0)), want.exponent as f32, "{lanes} {steps} {lane}");
                    for step in 0..words * 2 - 2 {
                        let half = (word(1 + step / 2) >> (16 * (step % 2))) as u16;
                        let want = want.halves.get(step).copied().unwrap_or(0);
                        let is_nan = |half: u16| half & 0x7FFF > 0x7C00;
                        assert!(half == want || is_nan(half) && is_nan(want), "{lanes} {steps} {lane} {step}");
                    }
                }
            }
        }
    }
}
