use super::*;
use crate::testing::ulps;

/// A function of lanes, with the truth in f64.
trait Function: Copy {
    /// Of two results, each of one argument.
    fn call<S: Simd>(&self, simd: S, x: S::Lanes) -> [S::Lanes; 2];
    /// Factor of the arguments.
    fn unit<S: Simd>(&self) -> f64 {
        1.0
    }
    fn truth(&self, x: f64) -> [f64; 2];
}

#[derive(Clone, Copy)]
struct Exp;
impl Function for Exp {
    #[inline(always)]
    fn call<S: Simd>(&self, simd: S, x: S::Lanes) -> [S::Lanes; 2] {
        [simd.exp_lanes(x); 2]
    }
    fn truth(&self, x: f64) -> [f64; 2] {
        [x.exp(); 2]
    }
}

#[derive(Clone, Copy)]
struct Ln;
impl Function for Ln {
    #[inline(always)]
    fn call<S: Simd>(&self, simd: S, x: S::Lanes) -> [S::Lanes; 2] {
        [simd.ln_lanes(x); 2]
    }
    fn truth(&self, x: f64) -> [f64; 2] {
        [x.ln(); 2]
    }
}

#[derive(Clone, Copy)]
struct Logistic;
impl Function for Logistic {
    #[inline(always)]
    fn call<S: Simd>(&self, simd: S, x: S::Lanes) -> [S::Lanes; 2] {
        let (s, slope) = simd.logistic_lanes(x);
        [s, slope]
    }
    fn unit<S: Simd>(&self) -> f64 {
        S::LOGISTIC_UNIT
    }
    fn truth(&self, x: f64) -> [f64; 2] {
        let s = 1.0 / (1.0 + x.exp());
        [s, s / (1.0 + (-x).exp())]
    }
}

/// Both results for each of `x`, and the factor of the arguments: whole vectors, then a part of one with `behind` in the other lanes.
struct Map<'a, F> {
    x: &'a [f32],
    behind: f32,
    function: F,
}

impl<F: Function> Kernel for Map<'_, F> {
    type Output = ([Vec<f32>; 2], f64);
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let (whole, part) = self.x.as_chunks::<LANES>();
        let mut results = [(); 2].map(|()| vec![0.0; self.x.len()]);
        for (chunk, x) in whole.iter().enumerate() {
            let y = self.function.call(simd, simd.load(x));
            for (results, y) in results.iter_mut().zip(y) {
                simd.store(y, &mut results.as_chunks_mut().0[chunk]);
            }
        }
        let y = self.function.call(simd, simd.load_part(part, simd.splat(self.behind)));
        for (results, y) in results.iter_mut().zip(y) {
            simd.store_part(y, results.as_chunks_mut::<LANES>().1);
        }
        (results, self.function.unit::<S>())
    }
}

fn map(isa: Isa, function: impl Function, x: &[f32]) -> ([Vec<f32>; 2], f64) {
    dispatch(Exec::new(1).with_isa(isa), Map { x, behind: 0.0, function })
}

fn check(function: impl Function, range: (f32, f32), bound: f64) {
    let count = 400_003;
    let x: Vec<f32> = (0..count).map(|i| range.0 + (range.1 - range.0) * (i as f32 / (count - 1) as f32)).collect();
    for isa in Isa::available() {
        let (results, unit) = map(isa, function, &x);
        for (index, results) in results.iter().enumerate() {
            for (&x, &y) in x.iter().zip(results) {
                let gap = ulps(y, function.truth(f64::from(x) / unit)[index]);
                assert!(gap <= bound, "{}, result {index}: x = {x:e}, got {y:e}, {gap} ulp", isa.name());
            }
        }
    }
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    check(Exp, (-104.0, 88.72), 2.0);
    check(Exp, (-104.0, -87.0), 2.0);
    check(Exp, (-1.0, 1.0), 2.0);
}

#[test]
fn exp_flushes_and_overflows_at_its_ends_and_keeps_nan() {
    let x = [-104.1, -1e9, -1e38, f32::NEG_INFINITY, 88.73, 1e9, 1e38, f32::INFINITY, f32::NAN, 0.0, -0.0, 1e-45];
    for isa in Isa::available() {
        let ([y, _], _) = map(isa, Exp, &x);
        assert_eq!(y[..4], [0.0; 4], "{}", isa.name());
        assert_eq!(y[4..8], [f32::INFINITY; 4], "{}", isa.name());
        assert!(y[8].is_nan(), "{}", isa.name());
        assert_eq!(y[9..], [1.0; 3], "{}", isa.name());
    }
}

#[test]
fn ln_is_within_two_units_in_the_last_place() {
    for range in [(1e-45, 1e-37), (0.01, 1.0), (0.4, 2.1), (0.99, 1.01), (1.0, 300.0), (1.0, 3.4e38)] {
        check(Ln, range, 2.0);
    }
    for isa in Isa::available() {
        let ([y, _], _) = map(isa, Ln, &[1.0, f32::INFINITY, 0.0, f32::NAN, -1.0, f32::NEG_INFINITY]);
        assert_eq!(y[..3], [0.0, f32::INFINITY, f32::NEG_INFINITY], "{}", isa.name());
        assert!(y[3..].iter().all(|y| y.is_nan()), "{}", isa.name());
    }
}

#[test]
fn neither_tail_of_the_logistic_function_cancels() {
    check(Logistic, (-80.0, 80.0), 6.0);
    check(Logistic, (-2.0, 2.0), 6.0);
    for isa in Isa::available() {
        let ([s, slope], _) = map(isa, Logistic, &[-1e30, f32::NEG_INFINITY, 1e30, f32::INFINITY, 0.0, f32::NAN]);
        assert_eq!(s[..5], [1.0, 1.0, 0.0, 0.0, 0.5], "{}", isa.name());
        assert_eq!(slope[..5], [0.0, 0.0, 0.0, 0.0, 0.25], "{}", isa.name());
        assert!(s[5].is_nan() && slope[5].is_nan(), "{}", isa.name());
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// A number's result depends neither on its lane, nor on the other lanes, nor on whether the vector is full.
fn check_lanes(function: impl Function) {
    let x: Vec<f32> = (0..LANES).map(|i| (i as f32 - 7.3) * 11.9).chain([f32::INFINITY, f32::NAN, -1e9]).collect();
    for isa in Isa::available() {
        let ([alone, slopes], _) = map(isa, function, &x);
        for first in 0..x.len() {
            for last in first..=x.len() {
                for behind in [0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let part = Map { x: &x[first..last], behind, function };
                    let ([y, d], _) = dispatch(Exec::new(1).with_isa(isa), part);
                    let is_same = bits(&y) == bits(&alone[first..last]) && bits(&d) == bits(&slopes[first..last]);
                    assert!(is_same, "{}, {first}..{last} before {behind}", isa.name());
                }
            }
        }
    }
}

#[test]
fn lanes_and_parts_of_lanes_have_the_same_results() {
    check_lanes(Exp);
    check_lanes(Ln);
    check_lanes(Logistic);
}

struct Choices;
impl Kernel for Choices {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let index: [f32; LANES] = std::array::from_fn(|i| i as f32);
        let (x, other) = (index.map(|i| i + 100.0), index.map(|_| f32::NAN));
        let mut y = [0.0; LANES];
        for from in 0..=LANES + 1 {
            for to in 0..=LANES + 1 {
                let ends = [from, to].map(|end| simd.splat(end as f32));
                simd.store(simd.between(simd.load(&index), ends, simd.load(&x), simd.load(&other)), &mut y);
                for lane in 0..LANES {
                    let is_in = lane >= from && lane < to;
                    assert!(if is_in { y[lane] == x[lane] } else { y[lane].is_nan() }, "{lane} of {from}..{to}");
                }
            }
        }
        for (a, b, larger) in [(1.0, 2.0, 2.0), (2.0, 1.0, 2.0), (3.0, f32::NAN, 3.0), (f32::NEG_INFINITY, -1.0, -1.0)]
        {
            simd.store(simd.larger(simd.splat(a), simd.splat(b)), &mut y);
            assert_eq!(y, [larger; LANES], "{a}, {b}");
        }
        simd.store(simd.larger(simd.splat(f32::NAN), simd.splat(3.0)), &mut y);
        assert!(y.iter().all(|y| y.is_nan()));
    }
}

#[test]
fn choices_are_by_lane() {
    for isa in Isa::available() {
        dispatch(Exec::new(1).with_isa(isa), Choices);
    }
}
