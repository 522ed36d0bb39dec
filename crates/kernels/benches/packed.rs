//! Speed of products straight from storage forms: GB/s of the weights' bytes, and tokens/s of all products of a model.
//!
//! A product with one row of activations reads each weight once, so the limit is the machine's memory bandwidth (`memory`
//! in the other bench), unless the matrix stays in a cache. Each product is compared with its reference first.
//!
//! Run `cargo bench -p cavy-kernels --bench packed`, or `... --bench packed -- smollm2` for some rows.

#![expect(clippy::wildcard_imports, reason = "each module of rows takes what they share")]

use cavy_kernels::packed::{
    Format, PackedMatrix, Product, backward_input, linear, linear_many, reference, rounded_activations,
};
use cavy_kernels::parallel::for_each;
use cavy_kernels::{Exec, linear as dense};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use std::hint::black_box;

const THREADS: [usize; 2] = [1, 2];

fn main() {
    divan::main();
}

/// Values in [-0.5, 0.5).
fn values(n: usize, salt: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + salt * 104_729) % 2003) as f32 / 2003.0 - 0.5).collect()
}

/// A matrix with ordinary scales and arbitrary integers.
fn matrix(format: Format, rows: usize, cols: usize, salt: usize) -> PackedMatrix {
    let len = format.bytes_of(rows, cols).expect("whole blocks");
    let mut bytes: Vec<u8> = (0..len).map(|i| ((i * 7919 + salt * 104_729) % 2003) as u8).collect();
    let halves: &[usize] = match format {
        Format::F32 | Format::F16 | Format::Bf16 => {
            let weights = values(rows * cols, salt);
            let written = PackedMatrix::quantize(Exec::new(2), format, rows, cols, &weights);
            return written.and_then(Result::ok).expect("a format that can be written");
        }
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q6K => &[208],
    };
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for &at in halves {
            block[at..at + 2].copy_from_slice(&[0x00, 0x20]);
        }
    }
    PackedMatrix::from_bytes(format, rows, cols, bytes).expect("the bytes of the format")
}

/// Panics unless the first outputs of `linear` are those of the reference.
fn check(exec: Exec, x: &[f32], weight: &PackedMatrix) {
    let cols = weight.cols();
    let n = x.len() / cols;
    let mut y = vec![f32::NAN; n * weight.rows()];
    linear(exec, x, weight, None, &mut y);
    let outputs = weight.rows().min(20);
    let w = reference::dequantize(weight.format(), &weight.bytes()[..outputs * weight.row_bytes()]);
    let w: Vec<f64> = w.into_iter().map(f64::from).collect();
    let exact: Vec<f64> = x.iter().copied().map(f64::from).collect();
    // More than 16 rows stay as they are.
    let x = if weight.format().is_quantized() && n <= 16 { rounded_activations(x) } else { exact };
    let want = dense::reference::forward(&x, &w, &vec![0.0; outputs]);
    for (index, want) in want.iter().enumerate() {
        let got = f64::from(y[index / outputs * weight.rows() + index % outputs]);
        assert!((got - want).abs() <= 1e-4 * (1.0 + want.abs()), "{weight:?}: {got}, expected {want}");
    }
}

/// The limit of decoding: reading memory that no cache holds, in the allocator's pages.
mod memory {
    use super::*;

    #[divan::bench(args = THREADS)]
    fn read(bencher: Bencher<'_, '_>, threads: usize) {
        /// Words of a task.
        const TASK: usize = 1 << 13;
        let words: Vec<u64> = (0..16 << 20).collect();
        bencher.counter(BytesCount::of_slice(&words)).bench_local(|| {
            for_each(Exec::new(threads), words.len() / TASK, |task| {
                let words = words[task * TASK..][..TASK].iter();
                black_box(words.fold(0, |sum: u64, word| sum ^ word));
            });
        });
    }
}

mod decode {
    use super::*;

    /// Inputs and outputs of SmolLM2-135M's layers; those of `Q4_K` and `Q6_K` are multiples of 256.
    const SHAPES: [(usize, usize); 3] = [(576, 1536), (1536, 576), (576, 49_152)];
    const LARGE_BLOCKS: [(usize, usize); 3] = [(512, 1536), (1536, 576), (512, 49_152)];

    fn product(bencher: Bencher<'_, '_>, format: Format, threads: usize, (cols, rows): (usize, usize)) {
        let (weight, x, mut y) = (matrix(format, rows, cols, 1), values(cols, 2), vec![0.0; rows]);
        let exec = Exec::new(threads);
        check(exec, &x, &weight);
        let bytes = BytesCount::new(weight.bytes().len());
        bencher.counter(bytes).bench_local(|| linear(exec, &x, &weight, None, &mut y));
    }

    macro_rules! rows {
        ($name:ident, $format:ident, $shapes:ident) => {
            #[divan::bench(args = $shapes, consts = THREADS)]
            fn $name<const N: usize>(bencher: Bencher<'_, '_>, shape: (usize, usize)) {
                product(bencher, Format::$format, N, shape);
            }
        };
    }
    rows!(f32, F32, SHAPES);
    rows!(f16, F16, SHAPES);
    rows!(bf16, Bf16, SHAPES);
    rows!(q8_0, Q8_0, SHAPES);
    rows!(q4_0, Q4_0, SHAPES);
    rows!(q4_1, Q4_1, SHAPES);
    rows!(q5_1, Q5_1, SHAPES);
    rows!(q4_k, Q4K, LARGE_BLOCKS);
    rows!(q6_k, Q6K, LARGE_BLOCKS);
}

/// `d_x = d_y W` of 512 rows; items are multiply-adds.
mod backward {
    use super::*;

    const N: usize = 512;

    #[divan::bench(args = THREADS, consts = [true, false])]
    fn input<const QUANTIZED: bool>(bencher: Bencher<'_, '_>, threads: usize) {
        let (cols, rows) = (576, 1536);
        let weight = matrix(if QUANTIZED { Format::Q4_1 } else { Format::F32 }, rows, cols, 1);
        let (d_y, mut d_x) = (values(N * rows, 2), vec![0.0; N * cols]);
        let exec = Exec::new(threads);
        bencher.counter(ItemsCount::new(N * rows * cols)).bench_local(|| backward_input(exec, &d_y, &weight, &mut d_x));
    }
}

/// All products of SmolLM2-135M: matrices in one format, the output head in another.
mod smollm2 {
    use super::*;

    const D: usize = 576;
    const KV: usize = 192;
    const F: usize = 1536;
    const V: usize = 49_152;

    struct Layer {
        query: PackedMatrix,
        key: PackedMatrix,
        value: PackedMatrix,
        output: PackedMatrix,
        gate: PackedMatrix,
        up: PackedMatrix,
        down: PackedMatrix,
    }

    impl Layer {
        fn new(format: Format, salt: usize) -> Self {
            let matrix = |rows, cols| matrix(format, rows, cols, salt);
            let (query, key, value, output) = (matrix(D, D), matrix(KV, D), matrix(KV, D), matrix(D, D));
            Self { query, key, value, output, gate: matrix(F, D), up: matrix(F, D), down: matrix(D, F) }
        }
    }

    struct Buffers {
        hidden: Vec<f32>,
        query: Vec<f32>,
        key: Vec<f32>,
        value: Vec<f32>,
        gate: Vec<f32>,
        up: Vec<f32>,
        logits: Vec<f32>,
    }

    fn product<'a>(weight: &'a PackedMatrix, y: &'a mut [f32]) -> Product<'a> {
        Product { weight, bias: None, y }
    }

    /// The products of `n` tokens, in a model's order; the head's for the last token alone.
    fn tokens(exec: Exec, layers: &[Layer], head: &PackedMatrix, n: usize, buffers: &mut Buffers) {
        let Buffers { hidden, query, key, value, gate, up, logits } = buffers;
        for layer in layers {
            let mut products = [product(&layer.query, query), product(&layer.key, key), product(&layer.value, value)];
            linear_many(exec, hidden, &mut products);
            linear(exec, query, &layer.output, None, hidden);
            linear_many(exec, hidden, &mut [product(&layer.gate, gate), product(&layer.up, up)]);
            linear(exec, gate, &layer.down, None, hidden);
        }
        linear(exec, &hidden[(n - 1) * D..], head, None, logits);
    }

    fn run(bencher: Bencher<'_, '_>, format: Format, head: Format, threads: usize, n: usize) {
        let exec = Exec::new(threads);
        let layers: Vec<Layer> = (0..30).map(|layer| Layer::new(format, layer)).collect();
        let head = matrix(head, V, D, 31);
        check(exec, &values(n * D, 1), &layers[0].query);
        let zeros = |width| vec![0.0; n * width];
        let mut buffers = Buffers {
            hidden: values(n * D, 1),
            query: zeros(D),
            key: zeros(KV),
            value: zeros(KV),
            gate: zeros(F),
            up: zeros(F),
            logits: vec![0.0; V],
        };
        bencher.counter(ItemsCount::new(n)).bench_local(|| tokens(exec, &layers, &head, n, &mut buffers));
    }

    /// Items are tokens.
    #[divan::bench(args = THREADS)]
    fn decode_q4_1(bencher: Bencher<'_, '_>, threads: usize) {
        run(bencher, Format::Q4_1, Format::Q8_0, threads, 1);
    }

    #[divan::bench(args = THREADS)]
    fn decode_bf16(bencher: Bencher<'_, '_>, threads: usize) {
        run(bencher, Format::Bf16, Format::Bf16, threads, 1);
    }

    #[divan::bench(args = THREADS)]
    fn batch_of_8_q4_1(bencher: Bencher<'_, '_>, threads: usize) {
        run(bencher, Format::Q4_1, Format::Q8_0, threads, 8);
    }

    #[divan::bench(args = THREADS, sample_count = 10)]
    fn prefill_512_q4_1(bencher: Bencher<'_, '_>, threads: usize) {
        run(bencher, Format::Q4_1, Format::Q8_0, threads, 512);
    }

    #[divan::bench(args = THREADS, sample_count = 10)]
    fn prefill_512_q8_0(bencher: Bencher<'_, '_>, threads: usize) {
        run(bencher, Format::Q8_0, Format::Q8_0, threads, 512);
    }

    #[divan::bench(args = THREADS, sample_count = 10)]
    fn prefill_512_bf16(bencher: Bencher<'_, '_>, threads: usize) {
        run(bencher, Format::Bf16, Format::Bf16, threads, 512);
    }
}
