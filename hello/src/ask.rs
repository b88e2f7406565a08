//! `ask URL`: one question to another component, for an image without a shell. It knows nothing of any load balancer: the
//! C library finds the address, and `connect()` is what the hooks see.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    process::ExitCode,
    time::Duration,
};

/// Asks, and prints the answer.
pub(crate) fn ask(url: Option<String>) -> ExitCode {
    let Some(question) = url.as_deref().and_then(Question::parse) else {
        eprintln!("usage: ask http://HOST[:PORT]/PATH | ask tcp://HOST:PORT");
        return ExitCode::from(2);
    };
    match question.put() {
        Ok((true, answer)) => {
            print!("{answer}");
            ExitCode::SUCCESS
        }
        Ok((false, answer)) => {
            eprint!("ask: {answer}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("ask: {}: {error}", question.place);
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Question<'u> {
    /// Host and port.
    place: String,
    /// Of HTTP: `None` where the server speaks first.
    request: Option<(&'u str, &'u str)>,
}

impl<'u> Question<'u> {
    fn parse(url: &'u str) -> Option<Self> {
        if let Some(place) = url.strip_prefix("tcp://") {
            place.rsplit_once(':')?.1.parse::<u16>().ok()?;
            return Some(Self {
                place: place.to_owned(),
                request: None,
            });
        }
        let rest = url.strip_prefix("http://")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        let place = match host.contains(':') {
            true => host.to_owned(),
            false => format!("{host}:80"),
        };
        Some(Self {
            place,
            request: Some((host, path)),
        })
    }

    /// The answer, and whether it is a good one.
    fn put(&self) -> io::Result<(bool, String)> {
        let mut stream = TcpStream::connect(&self.place)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        if let Some((host, path)) = self.request {
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            )?;
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if self.request.is_none() {
            return Ok((true, answer));
        }
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        Ok(match head.starts_with("HTTP/1.1 200 ") {
            true => (true, body.to_owned()),
            false => (
                false,
                format!("{}\n", head.lines().next().unwrap_or_default()),
            ),
        })
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_place_and_what_to_ask_for() {
        let place = |url| Question::parse(url).map(|it| (it.place, it.request));
        let at = |place: &str, request| Some((place.to_owned(), request));
        assert_eq!(place("http://b"), at("b:80", Some(("b", "/"))));
        assert_eq!(
            place("http://b:8080/x?y"),
            at("b:8080", Some(("b:8080", "/x?y")))
        );
        assert_eq!(place("tcp://b.line:7000"), at("b.line:7000", None));
        for wrong in ["b", "tcp://b", "tcp://b:x", "https://b"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }
}
