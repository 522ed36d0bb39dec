//! The file, little endian throughout. Every size is checked before anything is allocated.

use super::tree::Tree;
use super::{FastText, Loss, Quantizer, Rows};
use std::collections::HashMap;

type Failure = (usize, String);

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn fail<T>(&self, found: impl Into<String>) -> Result<T, Failure> {
        Err((self.at, found.into()))
    }

    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], Failure> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            return self.fail(format!("{what} needs {count} bytes, {} are left", self.bytes.len() - self.at));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn i32(&mut self, what: &str) -> Result<i32, Failure> {
        Ok(i32::from_le_bytes(self.take(4, what)?.try_into().expect("four bytes")))
    }

    fn i64(&mut self, what: &str) -> Result<i64, Failure> {
        Ok(i64::from_le_bytes(self.take(8, what)?.try_into().expect("eight bytes")))
    }

    /// A size that is not negative.
    fn size(&mut self, what: &str) -> Result<usize, Failure> {
        let size = self.i32(what)?;
        usize::try_from(size).or_else(|_| self.fail(format!("{what} is {size}")))
    }

    fn long_size(&mut self, what: &str) -> Result<usize, Failure> {
        let size = self.i64(what)?;
        usize::try_from(size).or_else(|_| self.fail(format!("{what} is {size}")))
    }

    fn flag(&mut self, what: &str) -> Result<bool, Failure> {
        match self.take(1, what)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => self.fail(format!("{what} is {other}, neither 0 nor 1")),
        }
    }

    fn floats(&mut self, count: Option<usize>, what: &str) -> Result<Vec<f32>, Failure> {
        let Some(bytes) = count.and_then(|count| count.checked_mul(4)) else {
            return self.fail(format!("{what} is too large"));
        };
        let bytes = self.take(bytes, what)?;
        Ok(bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four bytes"))).collect())
    }

    fn quantizer(&mut self, dim: usize, what: &str) -> Result<Quantizer, Failure> {
        let [found, subvectors, dsub, last_dsub] =
            [self.size(what)?, self.size(what)?, self.size(what)?, self.size(what)?];
        let covered = subvectors
            .checked_sub(1)
            .and_then(|full| full.checked_mul(dsub))
            .and_then(|full| full.checked_add(last_dsub));
        if found != dim || covered != Some(dim) || dsub == 0 || last_dsub == 0 || last_dsub > dsub {
            return self
                .fail(format!("{what} has {subvectors} parts of {dsub}, the last of {last_dsub}, for {dim} columns"));
        }
        let centroids = self.floats(dim.checked_mul(256), what)?;
        Ok(Quantizer { subvectors, dsub, last_dsub, centroids })
    }

    fn rows(&mut self, quantized: bool, dim: usize, what: &str) -> Result<Rows, Failure> {
        if !quantized {
            let (rows, columns) = (self.long_size(what)?, self.long_size(what)?);
            if columns != dim {
                return self.fail(format!("{what} has {columns} columns, the model {dim}"));
            }
            return Ok(Rows::Dense { columns, values: self.floats(rows.checked_mul(columns), what)? });
        }
        let has_norms = self.flag(what)?;
        let (rows, columns) = (self.long_size(what)?, self.long_size(what)?);
        let count = self.size(what)?;
        if columns != dim {
            return self.fail(format!("{what} has {columns} columns, the model {dim}"));
        }
        let codes = self.take(count, what)?.to_vec();
        let quantizer = self.quantizer(dim, what)?;
        if rows.checked_mul(quantizer.subvectors) != Some(count) {
            return self.fail(format!("{what} has {count} codes for {rows} rows of {} parts", quantizer.subvectors));
        }
        let norms = if has_norms {
            let codes = self.take(rows, what)?.to_vec();
            Some((codes, self.quantizer(1, what)?))
        } else {
            None
        };
        Ok(Rows::Quantized { rows, codes, quantizer, norms })
    }
}

struct Dictionary {
    words: HashMap<Vec<u8>, u32>,
    labels: Vec<String>,
    counts: Vec<i64>,
    pruned: Option<HashMap<u32, u32>>,
}

fn dictionary(reader: &mut Reader) -> Result<Dictionary, Failure> {
    let (size, n_words, n_labels) =
        (reader.size("dictionary size")?, reader.size("word count")?, reader.size("label count")?);
    reader.i64("token count")?;
    let pruned_size = reader.i64("size of the pruning table")?;
    if n_words.checked_add(n_labels) != Some(size) {
        return reader.fail(format!("{size} entries are not {n_words} words and {n_labels} labels"));
    }
    let mut found = Dictionary { words: HashMap::new(), labels: Vec::new(), counts: Vec::new(), pruned: None };
    for index in 0..size {
        let rest = &reader.bytes[reader.at..];
        let Some(length) = memchr::memchr(0, rest) else { return reader.fail(format!("entry {index} has no end")) };
        let word = reader.take(length + 1, "entry")?[..length].to_vec();
        let count = reader.i64("count of an entry")?;
        match reader.take(1, "kind of an entry")?[0] {
            0 if found.words.len() < n_words && found.labels.is_empty() => {
                let row = found.words.len() as u32;
                if found.words.insert(word, row).is_some() {
                    return reader.fail(format!("entry {index} is there twice"));
                }
            }
            1 if found.labels.len() < n_labels => {
                let label = String::from_utf8_lossy(&word).into_owned();
                found.labels.push(label.strip_prefix("__label__").map_or(label.clone(), str::to_owned));
                found.counts.push(count.clamp(0, 1 << 40));
            }
            kind => return reader.fail(format!("entry {index} of kind {kind} is out of place")),
        }
    }
    if pruned_size >= 0 {
        let mut pruned = HashMap::new();
        for _ in 0..pruned_size {
            let (bucket, row) = (reader.i32("pruned bucket")?, reader.size("pruned row")?);
            pruned.insert(bucket as u32, row as u32);
        }
        found.pruned = Some(pruned);
    }
    Ok(found)
}

pub(super) fn parse(bytes: &[u8]) -> Result<FastText, Failure> {
    let mut reader = Reader { bytes, at: 0 };
    let magic = reader.i32("magic number")?;
    let version = reader.i32("version")?;
    if magic != 793_712_314 || version != 12 {
        return Err((0, format!("magic number {magic} and version {version}, not 793712314 and 12")));
    }
    let mut numbers = [0; 12];
    for number in &mut numbers {
        *number = reader.i32("argument")?;
    }
    reader.take(8, "sampling threshold")?;
    let [dim, _, _, _, _, word_ngrams, loss, model, bucket, min_n, max_n, _] = numbers;
    let loss = match loss {
        1 => Loss::Hierarchical,
        // 2 is negative sampling, of which fastText predicts with the softmax, too.
        2 | 3 => Loss::Softmax,
        4 => Loss::OneVsAll,
        other => return reader.fail(format!("loss {other} is unknown")),
    };
    let small = |value: i32, most: i32| (0..=most).contains(&value);
    if model != 3
        || !small(dim, 100_000)
        || dim == 0
        || !small(bucket, i32::MAX)
        || !small(max_n, 1000)
        || !small(min_n, 1000)
        || !small(word_ngrams, 1000)
    {
        return reader.fail(format!(
            "model {model} of {dim} columns, {bucket} buckets, runs of {min_n} to {max_n}: not a classifier"
        ));
    }
    let dictionary = dictionary(&mut reader)?;
    let quantized = reader.flag("whether the input is quantized")?;
    let dim = dim as usize;
    let input = reader.rows(quantized, dim, "input matrix")?;
    let quantized_output = reader.flag("whether the output is quantized")? && quantized;
    let output = reader.rows(quantized_output, dim, "output matrix")?;
    if input.len() < dictionary.words.len() || output.len() < dictionary.labels.len() {
        let rows = (input.len(), output.len());
        return reader.fail(format!(
            "{rows:?} rows for {} words and {} labels",
            dictionary.words.len(),
            dictionary.labels.len()
        ));
    }
    Ok(FastText {
        dim,
        min_n: min_n as usize,
        max_n: max_n as usize,
        word_ngrams: word_ngrams as usize,
        bucket: bucket as u64,
        loss,
        tree: Tree::build(&dictionary.counts),
        words: dictionary.words,
        labels: dictionary.labels,
        pruned: dictionary.pruned,
        input,
        output,
    })
}
