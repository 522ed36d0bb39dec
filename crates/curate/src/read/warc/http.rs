//! The page in an HTTP response.

use std::borrow::Cow;
use std::io::Read;

/// Most bytes that a compressed page may have.
const LARGEST: u64 = 1 << 26;

/// The content type and the body, without chunks and compression.
pub(super) fn payload(block: &[u8]) -> (Option<String>, Cow<'_, [u8]>) {
    let end = memchr::memmem::find(block, b"\r\n\r\n").map(|at| (at, at + 4));
    let Some((header_end, body)) = end.or_else(|| memchr::memmem::find(block, b"\n\n").map(|at| (at, at + 2))) else {
        return (None, Cow::Borrowed(&[]));
    };
    let head = String::from_utf8_lossy(&block[..header_end]);
    let header = |name: &str| {
        let found = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(known, _)| known.trim().eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let mut body = Cow::Borrowed(&block[body..]);
    if header("Transfer-Encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked")) {
        // Some archives keep the header of a body that they have already put together.
        if let Some(whole) = unchunk(&body) {
            body = Cow::Owned(whole);
        }
    }
    if header("Content-Encoding").is_some() && body.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        if flate2::read::MultiGzDecoder::new(&*body).take(LARGEST).read_to_end(&mut plain).is_ok() {
            body = Cow::Owned(plain);
        }
    }
    (header("Content-Type"), body)
}

/// The body without its chunks; `None` if it has none.
fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = memchr::memchr(b'\n', body)?;
        let line = std::str::from_utf8(&body[..end]).ok()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).ok()?;
        body = &body[end + 1..];
        if size == 0 {
            return Some(whole);
        }
        let chunk = body.get(..size)?;
        whole.extend_from_slice(chunk);
        body = body[size..].strip_prefix(b"\r\n").or_else(|| body[size..].strip_prefix(b"\n"))?;
    }
}

/// Whether a page without a type begins like HTML.
pub(super) fn looks_like_html(payload: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&payload[..payload.len().min(1024)]).to_ascii_lowercase();
    ["<!doctype html", "<html", "<head", "<body"].iter().any(|tag| start.contains(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together_and_wrong_ones_left_alone() {
        let page = |body: &str| {
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/html; charset=x\r\n\r\n{body}")
                .into_bytes()
        };
        let check = |body: &str, expected: &str| {
            let block = page(body);
            let (kind, found) = payload(&block);
            assert_eq!((kind.as_deref(), &*found), (Some("text/html; charset=x"), expected.as_bytes()));
        };
        check("5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n", "hello world");
        check("not chunked", "not chunked");
        check("ff\r\nshort\r\n", "ff\r\nshort\r\n");
    }
}
