//! The guard follows HTTP/1 framing on the raw bytes that a client sends, and finds what hyper normalises
//! away before anybody can refuse it: bare LF, a fragment in the target, two framings in one message.
//!
//! It never changes a byte and never waits; [`super::wire`] feeds it. It accepts less than hyper does, and
//! whatever both accept they cut into the same messages.

/// Where the client's stream stands.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// Bytes of the lines since the head, the trailers or the chunk began.
    lines: usize,
    head: Head,
    /// Complete heads so far.
    heads: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    RequestLine,
    Fields,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
}

/// What the lines of one head say about framing.
#[derive(Debug, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
}

/// What [`Framing::scan`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// All bytes may pass, and more belong to the same request.
    Pass,
    /// The first bytes, up to here, end a request. What follows is another one only if the answer does not leave HTTP.
    End(usize),
    /// The bytes before this one may pass, it must not.
    Fault(usize, Fault),
}

/// Why the guard refuses a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A line of the head ends in LF alone. RFC 9112 section 2.2 permits it; behind another proxy it is a way
    /// to smuggle requests.
    BareLf,
    /// `#` in the request target (RFC 9112 section 3.2 has no fragment).
    Fragment,
    /// Content-Length and Transfer-Encoding in one message (RFC 9112 section 6.3).
    TwoFramings,
    /// A transfer coding other than one single `chunked` (RFC 9112 section 6.1).
    TransferEncoding,
    /// A length that is no number, or two that differ.
    ContentLength,
    /// The request line is longer than any that is passed on.
    TargetTooLong,
    /// More lines than any head has.
    HeadTooLong,
    /// A chunk or trailer that is not framed as RFC 9112 section 7.1 says.
    Chunk,
}

impl Fault {
    /// Whether it lies in a head, which hyper has then not accepted yet.
    pub(super) fn in_head(self) -> bool {
        self != Self::Chunk
    }

    /// The word in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::Fragment => "fragment",
            Self::TwoFramings => "two_framings",
            Self::TransferEncoding => "transfer_encoding",
            Self::ContentLength => "content_length",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLong => "head_too_long",
            Self::Chunk => "chunk",
        }
    }
}

/// What the client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// Between messages.
    Boundary,
    /// Part of a head has come.
    Head,
    /// Within a body.
    Body,
}

impl Framing {
    /// A stream between messages, after this many heads.
    pub(super) fn after(heads: u32) -> Self {
        Self {
            heads,
            ..Self::default()
        }
    }

    /// How many heads are complete.
    pub(super) fn heads(&self) -> u32 {
        self.heads
    }

    pub(super) fn position(&self) -> Position {
        match self.state {
            State::RequestLine if self.lines == 0 => Position::Boundary,
            State::RequestLine | State::Fields => Position::Head,
            _ => Position::Body,
        }
    }

    /// Reads on, up to the end of one request. After a [`Scan::Fault`] there is no going on; after [`Scan::End`] the
    /// caller scans the rest, if it is still HTTP, in another call.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if let State::Body(left) | State::ChunkData(left) = self.state {
                let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                at += taken;
                self.advance(left - taken as u64);
            } else {
                let end = rest.iter().position(|&byte| byte == b'\n');
                let taken = end.map_or(rest.len(), |end| end + 1);
                let limit = match self.state {
                    State::RequestLine => REQUEST_LINE_LIMIT,
                    _ => LINES_LIMIT,
                };
                let room = limit - self.lines;
                if taken > room {
                    return Scan::Fault(at + room, self.too_long());
                }
                self.lines += taken;
                at += taken;
                if end.is_none() {
                    self.line.extend_from_slice(rest);
                } else if let Err(fault) = self.line(&rest[..taken]) {
                    return Scan::Fault(at - 1, fault);
                }
            }
            if self.position() == Position::Boundary {
                return Scan::End(at);
            }
        }
        Scan::Pass
    }

    /// Takes note that `left` bytes of the body, or of the chunk, are still to come.
    fn advance(&mut self, left: u64) {
        self.state = match (self.state, left) {
            (State::Body(_), 0) => State::RequestLine,
            (State::Body(_), _) => State::Body(left),
            (_, 0) => State::ChunkEnd,
            (_, _) => State::ChunkData(left),
        };
    }

    /// A line whose end is `last`, with its LF.
    fn line(&mut self, last: &[u8]) -> Result<(), Fault> {
        if self.line.is_empty() {
            return self.whole_line(last);
        }
        // Not kept for the next one: few lines come in pieces, and a connection lives for long.
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(last);
        self.whole_line(&line)
    }

    fn whole_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let text = line.strip_suffix(b"\r\n").ok_or(match self.state {
            State::RequestLine | State::Fields => Fault::BareLf,
            _ => Fault::Chunk,
        })?;
        match self.state {
            // Empty lines before a request are legal (RFC 9112 section 2.2).
            State::RequestLine if text.is_empty() => {}
            State::RequestLine => {
                let target = text.split(|&byte| byte == b' ').nth(1);
                if target.is_some_and(|target| target.contains(&b'#')) {
                    return Err(Fault::Fragment);
                }
                self.head = Head::default();
                self.state = State::Fields;
            }
            State::Fields if text.is_empty() => self.end_head()?,
            State::Fields => self.head.field(text)?,
            State::ChunkSize => self.chunk(text)?,
            State::ChunkEnd if text.is_empty() => self.begin_lines(State::ChunkSize),
            State::ChunkEnd => return Err(Fault::Chunk),
            State::Trailers if text.is_empty() => self.begin_lines(State::RequestLine),
            State::Trailers | State::Body(_) | State::ChunkData(_) => {}
        }
        Ok(())
    }

    fn end_head(&mut self) -> Result<(), Fault> {
        let next = match (self.head.chunked, self.head.length) {
            (true, Some(_)) => return Err(Fault::TwoFramings),
            (true, None) => State::ChunkSize,
            (false, None | Some(0)) => State::RequestLine,
            (false, Some(length)) => State::Body(length),
        };
        self.heads = self.heads.wrapping_add(1);
        self.begin_lines(next);
        Ok(())
    }

    fn chunk(&mut self, text: &[u8]) -> Result<(), Fault> {
        let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let (size, rest) = text.split_at(digits.count());
        // A space after the size is accepted, as hyper does; the backend sees chunks of our own.
        if !matches!(rest.first(), None | Some(b' ' | b'\t' | b';')) {
            return Err(Fault::Chunk);
        }
        let size = std::str::from_utf8(size).map_err(|_| Fault::Chunk)?;
        match u64::from_str_radix(size, 16).map_err(|_| Fault::Chunk)? {
            0 => self.begin_lines(State::Trailers),
            size => self.begin_lines(State::ChunkData(size)),
        }
        Ok(())
    }

    fn begin_lines(&mut self, state: State) {
        self.state = state;
        self.lines = 0;
    }

    fn too_long(&self) -> Fault {
        match self.state {
            State::RequestLine => Fault::TargetTooLong,
            State::Fields => Fault::HeadTooLong,
            _ => Fault::Chunk,
        }
    }
}

impl Head {
    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        let mut parts = line.splitn(2, |&byte| byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            return Ok(()); // Not a field: hyper refuses it.
        };
        let value = value.trim_ascii();
        // The lengths sort out nearly every field before a comparison.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value)?,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::TransferEncoding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        // `parse` would accept a plus sign.
        let digits = value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(value).ok().filter(|_| digits);
        let length = text.and_then(|text| text.parse().ok());
        let length = length.ok_or(Fault::ContentLength)?;
        // The same length twice is legal (RFC 9112 section 6.3).
        if self
            .length
            .replace(length)
            .is_some_and(|before| before != length)
        {
            return Err(Fault::ContentLength);
        }
        Ok(())
    }
}

/// The longest target that is passed on, with room for method, authority and version.
const REQUEST_LINE_LIMIT: usize = 9 * 1024;

/// Above hyper's own limits in every place, so that its answer (431) comes first.
const LINES_LIMIT: usize = 64 * 1024;

#[cfg(test)]
mod tests;
