use super::*;
use crate::Isa;
use crate::packed::{self, Format, PackedMatrix};
use crate::testing::{check_fast, test_input, wide};

/// Values of a standard normal distribution: sums of twelve even ones.
fn normal(n: usize, salt: u64) -> Vec<f32> {
    let mut state = salt;
    let mut even = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    (0..n).map(|_| (0..12).map(|_| even()).sum::<f32>() - 6.0).collect()
}

fn matrix(rows: usize, cols: usize, salt: usize) -> Int8Matrix {
    Int8Matrix::quantize(Exec::new(1), &test_input(rows * cols, salt), rows, cols)
}

fn forward_of(exec: Exec, x: &[f32], weight: &Int8Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / weight.cols() * weight.rows()];
    forward(exec, x, weight, bias, &mut y);
    y
}

fn backward_of(exec: Exec, d_y: &[f32], weight: &Int8Matrix) -> Vec<f32> {
    let mut d_x = vec![f32::NAN; d_y.len() / weight.rows().max(1) * weight.cols()];
    backward_input(exec, d_y, weight, &mut d_x);
    d_x
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Both products with `n` rows against the reference, on every instruction set and number of threads.
fn check(n: usize, rows: usize, cols: usize) {
    let weight = matrix(rows, cols, n + rows);
    let (x, bias, d_y) = (test_input(n * cols, 1), test_input(rows, 3), test_input(n * rows, 5));
    let mut want = reference::forward(&x, &weight);
    want.iter_mut().enumerate().for_each(|(at, y)| *y += f64::from(bias[at % rows]));
    let run = |exec| vec![forward_of(exec, &x, &weight, Some(&bias)), backward_of(exec, &d_y, &weight)];
    check_fast(&format!("{n} x {rows} x {cols}"), run, &[want, reference::backward_input(&d_y, &weight)], 2e-6);
}

#[test]
fn products_equal_the_reference_at_awkward_sizes() {
    for n in [0, 1, 13, 14, 15, 29] {
        for rows in [1, 3, 4, 5, 16, 17, 33, 70] {
            for cols in [1, 15, 31, 32, 33, 63, 64, 65, 67] {
                check(n, rows, cols);
            }
        }
    }
}

#[test]
fn products_equal_the_reference_around_runs_and_blocks() {
    for k in [255, 256, 257, 300, 511, 513, 2047, 2049, 2300] {
        check(3, 35, k);
        check(15, k, 35);
    }
    check(150, 200, 300);
    check(40, 700, 500);
}

#[test]
fn products_equal_the_reference_in_tiles_of_any_height() {
    for n in 1..=15 {
        check(n, 33, 9);
    }
}

/// A shared dimension so long that its activations are rounded in parts.
#[test]
fn a_long_shared_dimension_is_multiplied_whole() {
    check(70, 66, 70_001);
    check(70, 70_001, 66);
}

#[test]
fn fused_instruction_sets_have_the_same_bits_for_any_number_of_rows() {
    let (n, rows, cols) = (31, 300, 530);
    let weight = matrix(rows, cols, 4);
    let (x, d_y) = (test_input(n * cols, 1), test_input(n * rows, 2));
    let [first, others @ ..] = &[Isa::Avx2, Isa::Avx512].map(|isa| {
        let exec = Exec::new(2).with_isa(if isa.is_supported() { isa } else { Isa::detect() });
        let together = (forward_of(exec, &x, &weight, None), backward_of(exec, &d_y, &weight));
        let alone: Vec<f32> = x.chunks(cols).flat_map(|x| forward_of(exec, x, &weight, None)).collect();
        assert!(bits(&alone) == bits(&together.0), "{}", isa.name());
        let alone: Vec<f32> = d_y.chunks(rows).flat_map(|d_y| backward_of(exec, d_y, &weight)).collect();
        assert!(bits(&alone) == bits(&together.1), "{}", isa.name());
        (bits(&together.0), bits(&together.1))
    });
    assert!(others.iter().all(|other| other == first));
}

/// Both products on a path.
fn products_of(path: Path, exec: Exec, x: &[f32], d_y: &[f32], weight: &Int8Matrix, bias: &[f32]) -> Vec<u32> {
    let n = x.len() / weight.cols();
    let (mut y, mut d_x) = (vec![f32::NAN; n * weight.rows()], vec![f32::NAN; n * weight.cols()]);
    Product::new(x, n, weight, &mut y).with_bias(Some(bias)).run_on(path, exec);
    Product::new(d_y, n, weight, &mut d_x).backward().run_on(path, exec);
    y.extend(d_x);
    bits(&y)
}

/// The paths with register tiles beside plain Rust with fused operations, on one thread and on two.
fn check_paths(n: usize, rows: usize, cols: usize, x: &[f32], d_y: &[f32], w: &[f32]) {
    let exec = Exec::new(2);
    let weight = Int8Matrix::quantize(exec, w, rows, cols);
    let bias = test_input(rows, 3);
    let want = products_of(Path::Plain, exec, x, d_y, &weight, &bias);
    for path in Path::available(exec.isa()) {
        for threads in [1, 2] {
            let got = products_of(path, exec.with_threads(threads), x, d_y, &weight, &bias);
            let first = got.iter().zip(&want).position(|(got, want)| got != want);
            assert_eq!(first, None, "{n} x {rows} x {cols}, {} on {threads} threads", path.name());
        }
    }
}

#[test]
fn paths_have_the_bits_of_plain_rust_around_the_edges_of_tiles() {
    let check = |n: usize, rows: usize, cols: usize| {
        let (x, d_y, w) = (test_input(n * cols, 1), test_input(n * rows, 2), test_input(rows * cols, 4));
        check_paths(n, rows, cols, &x, &d_y, &w);
    };
    for n in [1, 2, 3, 4, 5, 6, 7, 12, 13, 19] {
        for k in [1, 3, 4, 5, 7, 8, 9, 31, 32, 33, 127, 128, 129, 131, 260] {
            for width in [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 49] {
                check(n, width, k);
            }
        }
    }
    for k in [511, 512, 513, 1023, 1025, 2047, 2049, 2300] {
        check(7, 35, k);
        check(13, k, 35);
    }
}

#[test]
fn an_instruction_set_takes_its_fastest_path() {
    for isa in Isa::available() {
        let available = Path::available(isa);
        assert!(available.is_sorted() && available[0] == Path::Plain);
        assert_eq!(Path::of(Exec::new(1).with_isa(isa)), available[available.len() - 1]);
        assert_eq!(available.contains(&Path::Avx2), matches!(isa, Isa::Avx2 | Isa::Avx512), "{}", isa.name());
        assert!(isa == Isa::Avx512 || !available.contains(&Path::Avx512Vnni), "{}", isa.name());
        #[cfg(target_arch = "x86_64")]
        if isa != Isa::Portable {
            assert_eq!(available.contains(&Path::AvxVnni), is_x86_feature_detected!("avxvnni"));
        }
    }
}

/// Integers of the largest magnitude, of one sign or alternating along either dimension, zeros, and what is not finite.
#[test]
fn paths_have_the_bits_of_plain_rust_at_extremes() {
    let (n, rows, cols) = (13, 50, 300);
    let signs: [fn(usize, usize) -> f32; 5] = [
        |_, _| 127.0,
        |_, _| -127.0,
        |_, at| if at.is_multiple_of(2) { 127.0 } else { -127.0 },
        |row, _| if row.is_multiple_of(2) { 127.0 } else { -127.0 },
        |row, _| if row.is_multiple_of(3) { 0.0 } else { -127.0 },
    ];
    let matrix = |of: fn(usize, usize) -> f32, rows: usize, cols: usize| -> Vec<f32> {
        (0..rows * cols).map(|at| of(at / cols, at % cols)).collect()
    };
    for of_x in signs {
        for of_w in signs {
            let (mut x, mut d_y) = (matrix(of_x, n, cols), matrix(of_x, n, rows));
            let mut w = matrix(of_w, rows, cols);
            check_paths(n, rows, cols, &x, &d_y, &w);
            for (i, bad) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
                (x[i * 5 * cols + 130], d_y[i * 6 * rows + i], w[i * 7 * cols + 1]) = (bad, bad, 1e-35);
            }
            w[20 * cols..21 * cols].fill(1e-31);
            check_paths(n, rows, cols, &x, &d_y, &w);
        }
    }
}

/// Numbers whose products and sums are exact: integers up to 127, a power of two as scale.
#[test]
fn sums_of_integers_are_exact_on_every_instruction_set() {
    for sign in [1.0, -1.0] {
        let (n, rows, cols) = (15, 40, 260);
        // The largest magnitude of every run and row is 127, and most are near it.
        let integers = |len: usize, salt: usize, sign: f32| -> Vec<f32> {
            (0..len).map(|at| if at % 4 == 0 { sign * 127.0 } else { sign * ((at * 31 + salt) % 128) as f32 }).collect()
        };
        let (x, w, d_y) = (integers(n * cols, 1, sign), integers(rows * cols, 2, 1.0), integers(n * rows, 3, sign));
        let weight = Int8Matrix::quantize(Exec::new(1), &w, rows, cols);
        assert!(weight.scales().iter().all(|&scale| scale == 1.0));
        for isa in Isa::available() {
            let exec = Exec::new(2).with_isa(isa);
            for (at, y) in forward_of(exec, &x, &weight, None).iter().enumerate() {
                let terms = (0..cols).map(|p| f64::from(x[at / rows * cols + p]) * f64::from(w[at % rows * cols + p]));
                assert_eq!(f64::from(*y), terms.sum::<f64>(), "{}", isa.name());
            }
            for (at, d_x) in backward_of(exec, &d_y, &weight).iter().enumerate() {
                let terms =
                    (0..rows).map(|p| f64::from(d_y[at / cols * rows + p]) * f64::from(w[p * cols + at % cols]));
                assert_eq!(f64::from(*d_x), terms.sum::<f64>(), "{}", isa.name());
            }
        }
    }
}

#[test]
fn quantizing_is_off_by_at_most_half_a_scale_and_keeps_what_is_not_finite() {
    let (rows, cols) = (37, 500);
    let mut weight = test_input(rows * cols, 1);
    weight
        .chunks_mut(cols)
        .enumerate()
        .for_each(|(row, w)| w.iter_mut().for_each(|w| *w *= 10_f32.powi(row as i32 - 18)));
    weight[3 * cols..4 * cols].fill(0.0);
    weight[5 * cols + 7] = f32::INFINITY;
    weight[6 * cols + 499] = f32::NAN;
    let matrix = Int8Matrix::quantize(Exec::new(2), &weight, rows, cols);
    assert_eq!((matrix.rows(), matrix.cols(), matrix.quants().len()), (rows, cols, rows * cols));
    assert_eq!(matrix.scales()[3], 0.0);
    let mut back = vec![f32::INFINITY; rows * cols];
    matrix.dequantize(Exec::new(2), &mut back);
    for (row, (back, w)) in back.chunks(cols).zip(weight.chunks(cols)).enumerate() {
        let largest = w.iter().fold(0.0_f32, |largest, w| largest.max(w.abs()));
        for (back, w) in back.iter().zip(w) {
            match row {
                5 | 6 => assert!(back.is_nan()),
                3 => assert_eq!(*back, 0.0),
                _ => assert!((back - w).abs() <= largest / 254.0 * 1.0001, "row {row}: {back} {w}"),
            }
        }
    }
    let alone = Int8Matrix::quantize(Exec::new(1), &weight, rows, cols);
    assert!(alone.quants() == matrix.quants() && bits(alone.scales()) == bits(matrix.scales()));
}

#[test]
fn what_is_not_finite_spoils_its_row_alone() {
    let (n, rows, cols) = (16, 35, 600);
    for isa in Isa::available() {
        let exec = Exec::new(1).with_isa(isa);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (i, part) in [(0, 0.0), (14, 0.5), (15, 1.0)] {
                let weight = matrix(rows, cols, 4);
                let mut x = test_input(n * cols, 1);
                x[i * cols + (part * (cols - 1) as f32) as usize] = bad;
                for (at, y) in forward_of(exec, &x, &weight, None).iter().enumerate() {
                    assert_eq!(y.is_nan(), at / rows == i, "{bad} in row {i}, {}", isa.name());
                }
                let mut d_y = test_input(n * rows, 1);
                d_y[i * rows + (part * (rows - 1) as f32) as usize] = bad;
                for (at, d_x) in backward_of(exec, &d_y, &weight).iter().enumerate() {
                    assert_eq!(d_x.is_nan(), at / cols == i, "{bad} in row {i}, {}", isa.name());
                }
                // A bad weight spoils its output, and the gradient of every input.
                let mut w = test_input(rows * cols, 4);
                w[(7 + i) * cols + 5] = bad;
                let weight = Int8Matrix::quantize(exec, &w, rows, cols);
                for (at, y) in forward_of(exec, &test_input(n * cols, 1), &weight, None).iter().enumerate() {
                    assert_eq!(y.is_nan(), at % rows == 7 + i, "{bad} in weight row {}, {}", 7 + i, isa.name());
                }
                assert!(backward_of(exec, &test_input(n * rows, 1), &weight).iter().all(|d_x| d_x.is_nan()));
            }
        }
    }
}

#[test]
fn rows_of_any_scale_keep_their_precision_and_zeros_are_exact() {
    let (n, rows, cols) = (16, 35, 300);
    let weight = matrix(rows, cols, 4);
    let scales = [1e30, 1e-20, 0.0, 1.0, -1e25];
    let (mut x, mut d_y) = (test_input(n * cols, 1), test_input(n * rows, 2));
    x.chunks_mut(cols).enumerate().for_each(|(i, x)| x.iter_mut().for_each(|x| *x *= scales[i % 5]));
    d_y.chunks_mut(rows).enumerate().for_each(|(i, d)| d.iter_mut().for_each(|d| *d *= scales[i % 5]));
    for isa in Isa::available() {
        let exec = Exec::new(2).with_isa(isa);
        let near = |got: &[f32], want: &[f64], width: usize| {
            for (i, (got, want)) in got.chunks(width).zip(want.chunks(width)).enumerate() {
                let size = want.iter().fold(0.0_f64, |size, want| size.max(want.abs()));
                for (got, want) in got.iter().zip(want) {
                    assert!((f64::from(*got) - want).abs() <= 2e-6 * size, "row {i}, {}: {got} {want}", isa.name());
                }
            }
        };
        near(&forward_of(exec, &x, &weight, None), &reference::forward(&x, &weight), rows);
        near(&backward_of(exec, &d_y, &weight), &reference::backward_input(&d_y, &weight), cols);
    }
}

/// Root mean square of the errors against the product of what was rounded, over that of the product.
fn error(got: &[f32], want: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let errors: f64 = got.iter().zip(want).map(|(got, want)| square(f64::from(*got) - want)).sum();
    (errors / want.iter().map(|want| square(*want)).sum::<f64>()).sqrt()
}

/// The table in the head of `int8.rs`.
#[test]
fn errors_on_random_data_are_those_of_the_table() {
    let (n, rows, cols) = (40, 64, 3072);
    let (x, w) = (normal(n * cols, 1), normal(rows * cols, 2));
    let mut outliers = x.clone();
    outliers.iter_mut().enumerate().filter(|(at, _)| at % cols % 100 == 7).for_each(|(_, x)| *x *= 20.0);
    // The gradient is that of a layer with as many outputs as the other has inputs.
    let w_t: Vec<f32> = (0..w.len()).map(|at| w[at % rows * cols + at / rows]).collect();
    let exact = |x: &[f32]| crate::linear::reference::forward(&wide(x), &wide(&w), &[0.0; 64]);
    let exact_gradient = crate::linear::reference::backward(&wide(&x), &vec![0.0; n * rows], &wide(&w_t), cols).0;
    let exec = Exec::new(1);
    let (weight, transposed) =
        (Int8Matrix::quantize(exec, &w, rows, cols), Int8Matrix::quantize(exec, &w_t, cols, rows));
    let packed = |w: &[f32], rows: usize| {
        let bytes = packed::quantize(exec, Format::Q8_0, w).unwrap();
        PackedMatrix::from_bytes(Format::Q8_0, rows, w.len() / rows, bytes).unwrap()
    };
    let (q8_0, q8_0_transposed) = (packed(&w, rows), packed(&w_t, cols));
    let of_q8_0 = |x: &[f32], is_rounded: bool| {
        let mut y = vec![f32::NAN; n * rows];
        if is_rounded {
            packed::linear(exec.with_rounded_activations(true), x, &q8_0, None, &mut y);
        } else {
            packed::linear_unrounded(exec, x, &q8_0, None, &mut y);
        }
        y
    };
    let mut d_x = vec![f32::NAN; n * rows];
    packed::backward_input(exec, &x, &q8_0_transposed, &mut d_x);
    let found = [
        error(&forward_of(exec, &x, &weight, None), &exact(&x)),
        error(&backward_of(exec, &x, &transposed), &exact_gradient),
        error(&forward_of(exec, &outliers, &weight, None), &exact(&outliers)),
        error(&of_q8_0(&x, true), &exact(&x)),
        error(&of_q8_0(&outliers, true), &exact(&outliers)),
        error(&of_q8_0(&x, false), &exact(&x)),
        error(&d_x, &exact_gradient),
        error(&of_q8_0(&outliers, false), &exact(&outliers)),
    ];
    let table = [0.0101, 0.0091, 0.0227, 0.0074, 0.0125, 0.0053, 0.0052, 0.0054];
    assert!(found.iter().zip(table).all(|(found, table)| (found / table - 1.0).abs() < 0.05), "{found:?}");
}

#[test]
#[should_panic(expected = "Int8Matrix(2 x 3), 7 activations, 4 results")]
fn activations_that_are_no_rows_are_refused() {
    forward(Exec::new(1), &[0.0; 7], &matrix(2, 3, 1), None, &mut [0.0; 4]);
}

#[test]
fn empty_products_are_empty_or_zero() {
    let weight = Int8Matrix::quantize(Exec::new(1), &[], 0, 3);
    let mut d_x = [f32::NAN; 3];
    backward_input(Exec::new(2), &[], &weight, &mut d_x);
    assert_eq!(d_x, [0.0; 3]);
}
