//! The smallest client of HTTP: one request on a connection of its own.

use std::{
    io::{self, Read, Write},
    str,
};

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status, such as 200.
    pub status: u16,
    /// The status line and the fields.
    pub head: String,
    /// What follows.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = fields.find(|(it, _)| it.eq_ignore_ascii_case(name))?;
        Some(value.trim())
    }

    /// The body as text.
    ///
    /// # Errors
    /// When it is none.
    pub fn text(self) -> io::Result<String> {
        String::from_utf8(self.body).map_err(io::Error::other)
    }

    /// The answer, if its status is 200.
    ///
    /// # Errors
    /// Says what was answered instead.
    pub fn accepted(self) -> io::Result<Self> {
        if self.status == 200 {
            return Ok(self);
        }
        let said = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]);
        Err(io::Error::other(format!("{}\n{said}", self.head)))
    }

    fn read(mut bytes: Vec<u8>) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let body = bytes.split_off(end + 4);
        let head = str::from_utf8(&bytes[..end]).ok()?;
        Some(Self {
            status: head.split(' ').nth(1)?.parse().ok()?,
            head: head.to_owned(),
            body,
        })
    }
}

/// Asks on a fresh connection, in HTTP/1.0, whose answers end with the connection.
///
/// # Errors
/// When the connection fails, or ends before an answer has begun.
pub fn ask(
    mut connection: impl Read + Write,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<Answer> {
    let length = body.len();
    write!(
        connection,
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes)?;
    Answer::read(bytes).ok_or_else(|| {
        let what = format!("the answer to {method} {path} ended before its head did");
        io::Error::new(io::ErrorKind::UnexpectedEof, what)
    })
}

#[cfg(test)]
mod tests {
    use std::{io::BufRead as _, net::TcpListener, thread};

    use super::*;

    /// What a server that says `answer` is asked, and what is understood of that.
    fn asked(answer: &'static str) -> (String, io::Result<Answer>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut lines = io::BufReader::new(&client).lines().map(Result::unwrap);
            let head: Vec<_> = lines.by_ref().take_while(|it| !it.is_empty()).collect();
            client.write_all(answer.as_bytes()).unwrap();
            head.join("\n")
        });
        let client = std::net::TcpStream::connect(address).unwrap();
        let answer = ask(client, "GET", "/it", "");
        (server.join().unwrap(), answer)
    }

    #[test]
    fn a_request_is_answered_until_the_connection_ends() {
        let (head, answer) = asked("HTTP/1.0 200 OK\r\nX-Index: 7\r\n\r\nall\r\n\r\nof it");
        assert_eq!(head, "GET /it HTTP/1.0\nHost: localhost\nContent-Length: 0");
        let answer = answer.unwrap().accepted().unwrap();
        assert_eq!(answer.field("x-index"), Some("7"));
        assert_eq!(answer.field("X"), None);
        assert_eq!(answer.text().unwrap(), "all\r\n\r\nof it");
    }

    #[test]
    fn another_status_and_half_a_head_are_told() {
        let (_, answer) = asked("HTTP/1.0 404 Not Found\r\n\r\nno such thing");
        let error = answer.unwrap().accepted().unwrap_err().to_string();
        assert_eq!(error, "HTTP/1.0 404 Not Found\nno such thing");
        let (_, answer) = asked("HTTP/1.0 200 OK\r\nX-In");
        assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
