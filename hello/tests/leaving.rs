//! How the application leaves, seen from outside.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The real binary; killed when a test fails.
struct Hello {
    child: Child,
    address: String,
}

impl Hello {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hello"))
            .args(["--listen", "127.0.0.1:0", "--id", "a"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self { child, address }
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(kill.success());
    }

    fn ask(&self, target: &str) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )?;
        Ok(stream)
    }
}

impl Drop for Hello {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_goes_on_accepting_for_two_seconds_after_sigterm_and_finishes_what_it_has() {
    let mut hello = Hello::start();
    // Three seconds of body, which is longer than it goes on accepting.
    let download = hello.ask("/download?bytes=300&rate=100").unwrap();
    let told = Instant::now();
    hello.terminate();
    let mut last_answer = told;
    while let Ok(stream) = hello.ask("/id") {
        // Before it stops, every connection that was taken is answered.
        let mut answer = String::new();
        let mut stream = stream;
        if stream.read_to_string(&mut answer).is_err() || answer.is_empty() {
            break; // Caught in the backlog when the port closed.
        }
        assert!(answer.ends_with("\r\n\r\na\n"), "{answer}");
        last_answer = Instant::now();
        assert!(told.elapsed() < Duration::from_secs(10), "it never stopped");
    }
    let accepted_for = last_answer - told;
    assert!(
        accepted_for > Duration::from_millis(1500),
        "{accepted_for:?}"
    );
    let download = read(download);
    let (_, body) = download.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "a\n".repeat(150));
    assert!(hello.child.wait().unwrap().success());
}

#[test]
fn a_download_in_a_hurry_forgets_its_rate() {
    let hello = Hello::start();
    // An hour at this rate.
    let slow = hello.ask("/download?bytes=360000&rate=100").unwrap();
    let mut hurry = TcpStream::connect(&hello.address).unwrap();
    hurry
        .write_all(b"POST /hurry HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert!(read(hurry).starts_with("HTTP/1.1 200"));
    let answer = read(slow);
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.len(), 360_000);
}
