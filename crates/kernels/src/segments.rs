//! How sequences lie on the one packed token axis.

/// One run of tokens on the packed axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of its first token on the packed axis.
    pub start: usize,
    /// Number of tokens.
    pub len: usize,
    /// Position of its first token in its sequence: 0, or the length of the prefix it continues.
    pub position: usize,
    /// The earlier segment that this one continues, such as the prompt shared by several answers.
    pub prefix: Option<usize>,
}

/// The segments of a batch. Invariant: they tile the token axis in order, and a prefix is an earlier segment that is
/// continued whole, so kernels check nothing again. Prefixes may have prefixes: segments are trees of shared beginnings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    list: Vec<Segment>,
    tokens: usize,
}

impl Segments {
    /// Independent sequences of these lengths, one after the other, each from position 0.
    pub fn of_lengths(lengths: &[usize]) -> Self {
        let mut start = 0;
        let list = lengths
            .iter()
            .map(|&len| {
                start += len;
                Segment { start: start - len, len, position: 0, prefix: None }
            })
            .collect();
        Self { list, tokens: start }
    }

    /// `count` sequences of `len` tokens each.
    pub fn uniform(count: usize, len: usize) -> Self {
        Self::of_lengths(&vec![len; count])
    }

    /// The same, after one more sequence of its own, from position 0.
    #[must_use]
    pub fn with_segment(mut self, len: usize) -> Self {
        self.list.push(Segment { start: self.tokens, len, position: 0, prefix: None });
        self.tokens += len;
        self
    }

    /// The same, after one more segment that continues segment `prefix`.
    ///
    /// Panics: if `prefix` is no segment.
    #[must_use]
    pub fn with_continuation(mut self, prefix: usize, len: usize) -> Self {
        let position = self.list[prefix].position + self.list[prefix].len;
        self.list.push(Segment { start: self.tokens, len, position, prefix: Some(prefix) });
        self.tokens += len;
        self
    }

    /// The segments in order.
    pub fn list(&self) -> &[Segment] {
        &self.list
    }

    /// Tokens on the packed axis.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Segment `index` and what it continues, the last first.
    pub fn chain(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(index), |&segment| self.list[segment].prefix)
    }

    /// For every segment, the one that its sequence begins with.
    pub fn roots(&self) -> Vec<usize> {
        let mut roots: Vec<usize> = Vec::with_capacity(self.list.len());
        for (index, segment) in self.list.iter().enumerate() {
            roots.push(segment.prefix.map_or(index, |prefix| roots[prefix]));
        }
        roots
    }

    /// The position of every token in its sequence.
    pub fn positions(&self) -> Vec<u32> {
        self.list.iter().flat_map(|s| s.position as u32..(s.position + s.len) as u32).collect()
    }
}
