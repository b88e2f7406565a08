//! Reading an answer: its head, and as many bytes as `Content-Length` says. Pure.

use std::io;

/// An answer that is being read.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// The part of the head that has come, as long as it is not whole.
    head: Vec<u8>,
    /// How much is missing, once that is known.
    missing: Option<usize>,
}

impl Reply {
    /// Bytes without a head.
    pub(super) fn of_bytes(length: usize) -> Self {
        Self {
            head: Vec::new(),
            missing: Some(length),
        }
    }

    /// Takes what was read; whether the answer is whole.
    ///
    /// # Errors
    /// When it says anything but that all is well, or is longer than it says.
    pub(super) fn take(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut body = bytes.len();
        let missing = match self.missing {
            Some(missing) => missing,
            None => {
                // Mostly the head comes whole, and is not copied.
                let before = self.head.len();
                if before > 0 {
                    self.head.extend_from_slice(bytes);
                }
                let head = if before > 0 { &self.head } else { bytes };
                let Some(end) = head_end(head) else {
                    if before == 0 {
                        self.head.extend_from_slice(bytes);
                    }
                    return Ok(false);
                };
                body = head.len() - end;
                body_length(&head[..end])?
            }
        };
        let missing = missing
            .checked_sub(body)
            .ok_or_else(|| io::Error::other("more came than the answer's length"))?;
        self.missing = Some(missing);
        Ok(missing == 0)
    }
}

/// Where the head ends.
pub(super) fn head_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(end + 4)
}

/// The length of the body, by the head.
fn body_length(head: &[u8]) -> io::Result<usize> {
    let mut lines = head.split(|&byte| byte == b'\n');
    let status = lines.next().unwrap_or_default();
    let refused = || {
        let status = String::from_utf8_lossy(status);
        io::Error::other(format!("the answer is {}", status.trim_end()))
    };
    match status.split(|&byte| byte == b' ').nth(1) {
        Some(b"200") => {}
        Some(b"101") => return Ok(0),
        _ => return Err(refused()),
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(LENGTH.len())?;
        if !name.eq_ignore_ascii_case(LENGTH) {
            return None;
        }
        std::str::from_utf8(value).ok()?.trim().parse().ok()
    });
    length.ok_or_else(|| io::Error::other("the answer does not say how long it is"))
}

const LENGTH: &[u8] = b"content-length:";

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH: 5\r\n\r\nhello";

    #[test]
    fn an_answer_is_whole_with_its_last_byte_however_it_is_cut() {
        for cut in 0..ANSWER.len() {
            let mut reply = Reply::default();
            assert!(!reply.take(&ANSWER[..cut]).unwrap(), "{cut}");
            assert!(reply.take(&ANSWER[cut..]).unwrap(), "{cut}");
        }
        let mut reply = Reply::default();
        let (last, before) = ANSWER.split_last().unwrap();
        assert!(before.iter().all(|&byte| !reply.take(&[byte]).unwrap()));
        assert!(reply.take(&[*last]).unwrap());
    }

    #[test]
    fn what_is_no_whole_good_answer_is_refused() {
        for bad in [
            &b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        ] {
            assert!(Reply::default().take(bad).is_err());
        }
    }

    #[test]
    fn a_switch_of_protocols_has_no_body_and_bytes_have_no_head() {
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        assert!(Reply::default().take(switch).unwrap());
        let mut bytes = Reply::of_bytes(3);
        assert!(!bytes.take(b"ab").unwrap());
        assert!(bytes.take(b"c").unwrap());
    }
}
