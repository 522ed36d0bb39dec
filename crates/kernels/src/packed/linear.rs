//! `y = x W^T + b` with `W` in its storage form.
#![expect(unsafe_code, reason = "each task has rows of its own, and calls paths of its instruction set")]

use super::activations::Activations;
use super::floats::FloatRows;
use super::format::Format;
use super::integers::IntegerRows;
use super::matrix::PackedMatrix;
use super::panels;
use super::rows::{Rows, Tasks, Weight};
use crate::exec::{Exec, Isa};
use crate::int8;
use crate::parallel::for_each;
use crate::simd::dispatch;
use std::cell::RefCell;

/// Most rows of activations for which float weights are multiplied where they are; more are worth a packed product.
const FEW_ROWS: usize = 16;
/// Most rows of activations for which quantized weights are multiplied as integers. More are those of a prompt: the f32
/// product is fast then, and the prompt is read without rounding its activations, which can turn an answer.
const FEW_QUANTIZED_ROWS: usize = 16;
/// [`FEW_ROWS`] on AVX2, where few rows are multiplied as the packed product does it: it breaks even at 64 to 96.
const FEW_ROWS_AVX2: usize = 64;

thread_local! {
    /// Kept, so that decoding allocates nothing at a token.
    static ACTIVATIONS: RefCell<Activations> = RefCell::default();
}

/// One of several products with the same activations.
#[derive(Debug)]
pub struct Product<'a> {
    /// `W`.
    pub weight: &'a PackedMatrix,
    /// `b`.
    pub bias: Option<&'a [f32]>,
    /// The result, whose old values are never read.
    pub y: &'a mut [f32],
}

/// `y = x W^T + b`.
///
/// Numbers: for quantized formats and up to 16 rows, `x` is rounded to 8 bits in runs of 32 (see
/// [`super::rounded_activations`]); integer products of a run are exact and the runs are added in order, in f32. A NaN or
/// infinity in a row of `x` makes the whole row of `y` NaN. With more rows, and for float formats, `x` stays as it is and
/// sums are f32, but with a matrix of [`PackedMatrix::quantize_rows`], see [`crate::int8`]. The bias is one more term. An `exec` that rounds activations does so for any number of rows, with scales in binary16.
/// Law: the same bits for any number of threads. Among up to 16 rows, a row of `y` has the same bits whatever the other
/// rows and their number, on AVX-512 as on AVX2; with float formats on AVX2 also among more.
/// Panics: if the lengths do not fit together.
/// Source: integer products with rounded activations as in llama.cpp, <https://github.com/ggml-org/llama.cpp>.
pub fn linear(exec: Exec, x: &[f32], weight: &PackedMatrix, bias: Option<&[f32]>, y: &mut [f32]) {
    linear_many(exec, x, &mut [Product { weight, bias, y }]);
}

/// [`linear`] with what rounding takes from the activations multiplied as well: for an output head, whose small differences
/// decide a token.
///
/// Numbers: of a quantized weight and few rows, `x` is split into its rounded form and the rest, which is rounded in turn:
/// 15 bits instead of 8. The weight is read once for both. Else as [`linear`].
/// Law: as [`linear`], among up to 8 rows.
/// Panics, Source: as [`linear`].
pub fn linear_exact(exec: Exec, x: &[f32], weight: &PackedMatrix, bias: Option<&[f32]>, y: &mut [f32]) {
    let (cols, rows) = (weight.cols(), weight.rows());
    let n = x.len() / cols;
    if !weight.format().is_quantized() || n == 0 || n > FEW_QUANTIZED_ROWS || exec.rounds_activations() {
        return linear(exec, x, weight, bias, y);
    }
    for (x, y) in x.chunks(FEW_QUANTIZED_ROWS / 2 * cols).zip(y.chunks_mut(FEW_QUANTIZED_ROWS / 2 * rows)) {
        let mut parts = x.to_vec();
        parts.extend(x.chunks(RUN).flat_map(rest));
        let mut products = vec![0.0; 2 * y.len()];
        linear(exec, &parts, weight, None, &mut products);
        let (rounded, rest) = products.split_at(y.len());
        for ((y, rounded), rest) in y.chunks_mut(rows).zip(rounded.chunks(rows)).zip(rest.chunks(rows)) {
            y.iter_mut().zip(rounded).zip(rest).for_each(|((y, a), b)| *y = a + b);
            if let Some(bias) = bias {
                y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
        }
    }
}

/// Activations that are rounded together.
const RUN: usize = 32;

/// What rounding a run of activations leaves over.
fn rest(run: &[f32]) -> Vec<f32> {
    let largest = run.iter().fold(0.0_f32, |largest, x| if x.abs() > largest { x.abs() } else { largest });
    let step = largest / 127.0;
    if step < f32::MIN_POSITIVE || !step.is_finite() {
        return vec![0.0; run.len()];
    }
    run.iter().map(|x| x - (x / step).round() * step).collect()
}

/// Several [`linear`] products with the same activations, which are rounded once, in one parallel region: the query, key
/// and value of attention, or gate and up of a feed-forward layer.
///
/// Numbers, Panics, Source: as [`linear`]. Law: the bits of the single products.
pub fn linear_many(exec: Exec, x: &[f32], products: &mut [Product<'_>]) {
    let Some(cols) = products.first().map(|product| product.weight.cols()) else { return };
    let n = x.len() / cols;
    for product in products.iter() {
        let (weight, rows) = (product.weight, product.weight.rows());
        let fits = weight.cols() == cols && x.len() == n * cols && product.y.len() == n * rows;
        assert!(fits, "{weight:?}, {} activations, {} results", x.len(), product.y.len());
        assert!(product.bias.is_none_or(|bias| bias.len() == rows), "a bias of {weight:?}");
    }
    if exec.rounds_activations() && products.iter().any(has_minima) && !products.iter().all(has_minima) {
        // Their activations differ.
        return products.iter_mut().for_each(|product| linear_many(exec, x, std::slice::from_mut(product)));
    }
    let rounds = n <= FEW_QUANTIZED_ROWS || exec.rounds_activations();
    let quantized = |product: &Product<'_>| product.weight.format().is_quantized() && rounds;
    let in_rows = |product: &Product<'_>| !product.weight.format().is_quantized() && are_few(exec, n);
    let mut in_place = Vec::with_capacity(products.len());
    ACTIVATIONS.with_borrow_mut(|activations| {
        if products.iter().any(quantized) {
            activations.round(exec, x, products.iter().any(has_minima));
            if products.iter().any(|product| product.weight.format().is_signed()) {
                if has_vnni(exec) {
                    activations.add_up();
                } else if n > 1 {
                    activations.widen();
                }
            }
        }
        for product in products {
            if let Some(in_rows) = product.weight.in_rows().filter(|_| n > FEW_QUANTIZED_ROWS) {
                int8::forward(exec, x, in_rows, product.bias, product.y);
            } else if quantized(product) || in_rows(product) {
                in_place.push(Tasks::new(exec.threads(), Weight::of(product.weight), product.bias, n, product.y));
            } else {
                panels::forward(exec, x, product);
            }
        }
        run_all(exec, &in_place, x, activations);
    });
}

/// `y = x W^T + b` for f32 weights and a few rows of activations, without copying the weights.
///
/// Panics: if the lengths do not fit together.
pub(crate) fn few_rows(exec: Exec, x: &[f32], weight: &[f32], bias: Option<&[f32]>, out: usize, y: &mut [f32]) {
    let weight = Weight::of_floats(weight, out);
    let n = x.len() / weight.cols;
    assert!(x.len() == n * weight.cols && bias.is_none_or(|bias| bias.len() == out), "{} activations", x.len());
    run_all(exec, &[Tasks::new(exec.threads(), weight, bias, n, y)], x, &Activations::default());
}

/// Whether a weight's blocks have minima, each of which meets the sum of a run of activations.
fn has_minima(product: &Product<'_>) -> bool {
    [Format::Q4_1, Format::Q5_1].contains(&product.weight.format())
}

/// Whether a product of float weights with `n` rows of activations is one for [`few_rows`].
pub(crate) fn are_few(exec: Exec, n: usize) -> bool {
    n <= if exec.isa() == Isa::Avx2 { FEW_ROWS_AVX2 } else { FEW_ROWS }
}

/// All tasks of some products in one region.
fn run_all(exec: Exec, products: &[Tasks<'_>], x: &[f32], activations: &Activations) {
    let n_tasks = products.iter().map(Tasks::count).sum();
    for_each(exec, n_tasks, |mut task| {
        for product in products {
            if task < product.count() {
                // SAFETY: each task runs once.
                return run(exec, &unsafe { product.rows(task) }, x, activations);
            }
            task -= product.count();
        }
    });
}

/// Whether integers are multiplied with AVX-512 and VNNI.
#[cfg(target_arch = "x86_64")]
fn has_vnni(exec: Exec) -> bool {
    exec.isa() == Isa::Avx512 && is_x86_feature_detected!("avx512vnni")
}

/// Other machines have none.
#[cfg(not(target_arch = "x86_64"))]
fn has_vnni(_: Exec) -> bool {
    false
}

fn run(exec: Exec, rows: &Rows<'_>, x: &[f32], activations: &Activations) {
    let quantized = rows.weight.format.is_quantized();
    match exec.isa() {
        // SAFETY: the machine has the instruction set of `exec`, and VNNI where integers are multiplied.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if !quantized || has_vnni(exec) => unsafe { super::avx512::product(rows, x, activations) },
        // SAFETY: the machine has the instruction set of `exec`, and the wider one has all of the narrower.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => unsafe { super::avx2::product(rows, x, activations) },
        _ if quantized => dispatch(exec, IntegerRows { rows, activations }),
        _ => dispatch(exec, FloatRows { rows, x }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::reference;
    use crate::packed::reference::dequantize as plain;
    use crate::packed::rounded_activations;
    use crate::packed::testing::{random_matrix, scale_places};
    use crate::testing::{check_fast, test_input, wide};

    /// `x W^T + b` in f64, from the activations that the format sees.
    fn expected(x: &[f32], weight: &PackedMatrix, bias: &[f32]) -> Vec<f64> {
        let few = x.len() <= FEW_QUANTIZED_ROWS * weight.cols();
        let x = if weight.format().is_quantized() && few { rounded_activations(x) } else { wide(x) };
        reference::forward(&x, &wide(&plain(weight.format(), weight.bytes())), &wide(bias))
    }

    fn check(format: Format, n: usize, cols: usize, rows: usize) {
        let weight = random_matrix(format, rows, cols, n + rows);
        let (x, bias) = (test_input(n * cols, 1), test_input(rows, 3));
        let run = |exec| {
            let mut y = vec![f32::NAN; n * rows];
            linear(exec, &x, &weight, Some(&bias), &mut y);
            vec![y]
        };
        let want = expected(&x, &weight, &bias);
        // Terms of a K block are some hundred times its sums.
        let size = want.iter().fold(1.0_f64, |size, want| size.max(want.abs()));
        check_fast(&format!("{n} x {weight:?}"), run, &[want], 1e-5 * size);
    }

    #[test]
    fn products_equal_the_reference_at_awkward_sizes() {
        for format in Format::ALL {
            // Blocks of a row: around what a path takes at a time, and beyond what it keeps in the first-level cache.
            let blocks: &[usize] = match format.block_len() {
                1 => &[1, 7, 8, 9, 255, 257, 600],
                32 => &[1, 2, 3, 24, 25, 49],
                _ => &[1, 2, 3, 4, 7],
            };
            for n in [0, 1, 2, 3, 4, 5, 6, 8, 9, 13, 16, 17, 97] {
                for blocks in blocks {
                    for rows in [1, 7, 8, 9, 16, 33] {
                        check(format, n, blocks * format.block_len(), rows);
                    }
                }
            }
        }
    }

    /// `linear` without a bias on `threads` threads.
    fn product(isa: Isa, threads: usize, x: &[f32], weight: &PackedMatrix) -> Vec<f32> {
        let mut y = vec![f32::NAN; x.len() / weight.cols() * weight.rows()];
        linear(Exec::new(threads).with_isa(isa), x, weight, None, &mut y);
        y
    }

    #[test]
    fn a_row_has_the_same_bits_whatever_the_other_rows() {
        for isa in Isa::available() {
            for format in Format::ALL {
                let cols = if format.is_quantized() { 5 * format.block_len() } else { 600 };
                let weight = random_matrix(format, 35, cols, 4);
                let most = 3 * FEW_ROWS_AVX2 + 3;
                let x = test_input(most * cols, 1);
                let alone: Vec<f32> = x.chunks(cols).flat_map(|x| product(isa, 1, x, &weight)).collect();
                let any_number = !format.is_quantized() && isa == Isa::Avx2;
                for n in (2..=if any_number { most } else { FEW_ROWS }).filter(|n| n % 30 < 20) {
                    let together = product(isa, 2, &x[..n * cols], &weight);
                    assert!(together == alone[..n * 35], "{}, {format}, {n} rows", isa.name());
                }
                if format.is_quantized() {
                    continue; // More rows see their activations as they are.
                }
                let many = product(isa, 2, &x, &weight);
                let size = alone.iter().fold(0.0_f32, |size, y| size.max(y.abs()));
                assert!(many.iter().zip(&alone).all(|(a, b)| (a - b).abs() <= 1e-6 * size), "{}, {format}", isa.name());
            }
        }
    }

    #[test]
    fn fused_instruction_sets_have_the_same_bits() {
        let fused: Vec<Isa> =
            Isa::available().into_iter().filter(|isa| [Isa::Avx2, Isa::Avx512].contains(isa)).collect();
        for format in Format::ALL {
            let cols = if format.is_quantized() { 3 * format.block_len() } else { 603 };
            let weight = random_matrix(format, 37, cols, 4);
            for n in [1, 2, 5, 9, 16] {
                let x = test_input(n * cols, 1);
                let mut results = fused.iter().map(|&isa| product(isa, 1, &x, &weight));
                let first = results.next();
                assert!(results.all(|y| Some(y) == first), "{format}, {n} rows");
            }
        }
    }

    #[test]
    fn rounding_in_every_product_is_the_same_for_any_number_of_rows_and_has_scales_of_binary16() {
        use crate::packed::half::{f16_to_f32, f32_to_f16};
        let half = |x: f32| f64::from(f16_to_f32(f32_to_f16(x)));
        for format in Format::ALL.into_iter().filter(|format| format.is_quantized()) {
            let (cols, rows, n) = (2 * format.block_len().max(64), 35, 130);
            let weight = random_matrix(format, rows, cols, 4);
            let x = test_input(n * cols, 1);
            let run = |isa: Isa, threads: usize, x: &[f32]| {
                let mut y = vec![f32::NAN; x.len() / cols * rows];
                linear(Exec::new(threads).with_isa(isa).with_rounded_activations(true), x, &weight, None, &mut y);
                y
            };
            for isa in Isa::available() {
                let alone: Vec<f32> = x.chunks(cols).flat_map(|x| run(isa, 1, x)).collect();
                assert!(run(isa, 2, &x) == alone, "{}, {format}", isa.name());
                let mut exact = vec![f32::NAN; 3 * rows];
                let exec = Exec::new(1).with_isa(isa).with_rounded_activations(true);
                linear_exact(exec, &x[..3 * cols], &weight, None, &mut exact);
                assert!(exact == alone[..3 * rows], "{}, {format}", isa.name());
            }
            // From the definition: integers, their scale in binary16, and for minima the sum of integers times the scale in binary16.
            let plain = wide(&plain(format, weight.bytes()));
            let y = run(Isa::detect(), 1, &x[..cols]);
            let has_minima = [Format::Q4_1, Format::Q5_1].contains(&format);
            let blocks: Vec<&[u8]> = weight.bytes().chunks(format.block_bytes()).collect();
            for (row, (y, w)) in y.iter().zip(plain.chunks(cols)).enumerate() {
                let (mut want, mut size) = (0.0, 0.0);
                for (run, (w, x)) in w.chunks(RUN).zip(x.chunks(RUN)).enumerate() {
                    let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                    let q: Vec<f64> = x.iter().map(|x| f64::from((x * (127.0 / largest)).round_ties_even())).collect();
                    let d = half(largest / 127.0);
                    // The second number of such a block.
                    let block = blocks[(row * cols + run * RUN) / format.block_len()];
                    let minimum = if has_minima { f16_to_f32(u16::from_le_bytes([block[2], block[3]])) } else { 0.0 };
                    let minimum = f64::from(minimum);
                    let total: f64 = q.iter().sum();
                    want += w.iter().zip(&q).map(|(w, q)| (w - minimum) * q * d).sum::<f64>();
                    want += minimum * half(largest / 127.0 * total as f32);
                    size += w.iter().map(|w| w.abs()).sum::<f64>() * f64::from(largest);
                }
                assert!((f64::from(*y) - want).abs() <= 2e-6 * size, "{format}: {y} {want}");
            }
        }
    }

    #[test]
    fn products_of_one_input_are_the_single_products() {
        for n in [1, 3, 20] {
            let cols = 512;
            let formats = [Format::Q4K, Format::F16, Format::Q8_0, Format::Q4_1];
            let weights = formats.map(|format| random_matrix(format, 50, cols, 9));
            let x = test_input(n * cols, 1);
            let mut results: Vec<Vec<f32>> = weights.iter().map(|_| vec![f32::NAN; n * 50]).collect();
            let results_mut = weights.iter().zip(&mut results);
            let mut products: Vec<_> = results_mut.map(|(weight, y)| Product { weight, bias: None, y }).collect();
            linear_many(Exec::new(2), &x, &mut products);
            for (weight, y) in weights.iter().zip(results) {
                assert_eq!(product(Isa::detect(), 2, &x, weight), y, "{n} x {weight:?}");
            }
        }
        linear_many(Exec::new(2), &[], &mut []);
    }

    #[test]
    fn a_nan_or_an_infinity_spoils_its_row_alone() {
        for format in Format::ALL {
            for bad in [f32::NAN, f32::INFINITY] {
                let cols = 2 * format.block_len();
                let weight = random_matrix(format, 20, cols, 4);
                let mut x = test_input(3 * cols, 1);
                x[cols] = bad;
                let y = product(Isa::detect(), 1, &x, &weight);
                let (before, rest) = y.split_at(20);
                let (spoilt, after) = rest.split_at(20);
                assert!(spoilt.iter().all(|y| !y.is_finite()), "{format}: {spoilt:?}");
                assert!(before.iter().chain(after).all(|y| y.is_finite()), "{format}");
            }
        }
    }

    #[test]
    fn an_error_of_rounded_activations_is_at_most_half_a_step() {
        for format in [Format::Q8_0, Format::Q4_1, Format::Q6K] {
            let cols = 512;
            let weight = random_matrix(format, 30, cols, 4);
            let x = test_input(cols, 1);
            let plain = plain(format, weight.bytes());
            for (y, w) in product(Isa::detect(), 1, &x, &weight).iter().zip(plain.chunks(cols)) {
                let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                // No |x| is above 0.5.
                let bound: f64 = w.iter().map(|w| f64::from(w.abs()) * 0.5 / 127.0 / 2.0).sum();
                assert!((f64::from(*y) - exact).abs() <= bound * 1.001, "{format}: {y}, exact {exact}");
            }
        }
    }

    #[test]
    fn the_largest_integers_do_not_overflow() {
        for format in Format::ALL.into_iter().filter(|format| format.is_quantized()) {
            for fill in [0x00, 0x80, 0xFF] {
                let (rows, cols) = (16, 2 * format.block_len());
                let mut bytes = vec![fill; rows * 2 * format.block_bytes()];
                for block in bytes.chunks_mut(format.block_bytes()) {
                    scale_places(format).iter().for_each(|&at| block[at..at + 2].copy_from_slice(&[0x00, 0x3C]));
                }
                let weight = PackedMatrix::from_bytes(format, rows, cols, bytes).unwrap();
                for x in [vec![1.0; 5 * cols], vec![-1.0; 5 * cols]] {
                    let want = expected(&x, &weight, &[0.0; 16]);
                    let size = want.iter().fold(1.0_f64, |size, want| size.max(want.abs()));
                    for isa in Isa::available() {
                        let near =
                            |got: &[f32]| got.iter().zip(&want).all(|(a, b)| (f64::from(*a) - b).abs() <= 1e-5 * size);
                        assert!(near(&product(isa, 1, &x, &weight)), "{format} of {fill:#x}, {}", isa.name());
                        assert!(near(&product(isa, 1, &x[..cols], &weight)), "{format} of {fill:#x}, one row");
                    }
                }
            }
        }
    }

    #[test]
    fn an_exact_product_keeps_what_rounding_takes() {
        for format in [Format::Q8_0, Format::Q4_1, Format::Q6K] {
            let (cols, rows) = (512, 30);
            let weight = random_matrix(format, rows, cols, 4);
            let plain = wide(&plain(format, weight.bytes()));
            for n in [1, 3, 16, 17] {
                let (x, bias) = (test_input(n * cols, 1), test_input(rows, 3));
                let want = reference::forward(&wide(&x), &plain, &wide(&bias));
                let gap =
                    |y: &[f32]| y.iter().zip(&want).map(|(y, want)| (f64::from(*y) - want).abs()).fold(0.0, f64::max);
                let (mut exact, mut rounded) = (vec![f32::NAN; n * rows], vec![f32::NAN; n * rows]);
                linear_exact(Exec::new(2), &x, &weight, Some(&bias), &mut exact);
                linear(Exec::new(2), &x, &weight, Some(&bias), &mut rounded);
                let few = n <= FEW_QUANTIZED_ROWS;
                assert!(
                    gap(&exact) < gap(&rounded) / if few { 50.0 } else { 0.5 },
                    "{format}, {n} rows: {}",
                    gap(&exact)
                );
                assert!(exact.iter().all(|y| y.is_finite()));
            }
        }
    }

    #[test]
    fn weights_need_no_alignment() {
        for format in [Format::F32, Format::Bf16, Format::Q4_1] {
            let (rows, cols) = (20, 64);
            let aligned = random_matrix(format, rows, cols, 4);
            let shifted = [&[0], aligned.bytes()].concat();
            let range = 1..shifted.len();
            let shifted = PackedMatrix::new(format, rows, cols, std::sync::Arc::new(shifted), range).unwrap();
            for n in [1, 5, 100] {
                let x = test_input(n * cols, 1);
                for isa in Isa::available() {
                    assert_eq!(product(isa, 1, &x, &aligned), product(isa, 1, &x, &shifted), "{format}, {n} rows");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "PackedMatrix(2 x 32 Q8_0), 33 activations, 2 results")]
    fn activations_that_are_no_rows_are_refused() {
        linear(Exec::new(1), &[0.0; 33], &random_matrix(Format::Q8_0, 2, 32, 1), None, &mut [0.0; 2]);
    }
}
