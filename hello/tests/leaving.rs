//! How the application leaves, and how it is broken, seen from outside.
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
    /// Where it listens: with HTTP last.
    address: String,
    lines: Vec<String>,
}

impl Hello {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hello"))
            .args(["--listen", "127.0.0.1:0", "--id", "a"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = Vec::new();
        for line in output.lines().map(Result::unwrap) {
            lines.push(line.rsplit(' ').next().unwrap().to_owned());
            if line.contains("listening") {
                break;
            }
        }
        let address = lines.pop().unwrap();
        Self {
            child,
            address,
            lines,
        }
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
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
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
fn without_notice_it_accepts_nobody_after_sigterm_and_finishes_what_it_has() {
    let mut hello = Hello::start_with(&["--notice", "0"]);
    // An hour at this rate: it is the reader who ends it.
    let download = hello.ask("/download?bytes=360000&rate=100").unwrap();
    hello.terminate();
    let told = Instant::now();
    while TcpStream::connect(&hello.address).is_ok() {
        assert!(told.elapsed() < Duration::from_secs(1), "it goes on");
    }
    assert_eq!(hello.child.try_wait().unwrap(), None);
    drop(download);
    assert!(hello.child.wait().unwrap().success());
}

#[test]
fn a_killed_worker_fails_the_pages_and_not_the_port() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, program: &str| {
        let place = folder.path().join(name);
        std::os::unix::fs::symlink(program, &place).unwrap();
        place.into_os_string().into_string().unwrap()
    };
    // Nobody else on this machine has this name. `cat` lives for as long as its input, as the real worker does.
    let name = format!("lbw-{}", std::process::id());
    let worker = place(&name, "/bin/cat");
    let pkill = place("pkill", env!("CARGO_BIN_EXE_hello"));
    let hello = Hello::start_with(&["--worker", &worker]);
    assert!(read(hello.ask("/").unwrap()).starts_with("HTTP/1.1 200"));
    let kill = |name: &str| Command::new(&pkill).arg(name).status().unwrap().code();
    assert_eq!(kill("lbw-nobody"), Some(1));
    assert_eq!(kill(&name), Some(0));
    let told = Instant::now();
    while !read(hello.ask("/").unwrap()).starts_with("HTTP/1.1 502") {
        assert!(told.elapsed() < Duration::from_secs(10), "it goes on");
    }
    assert!(read(hello.ask("/logo.png").unwrap()).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_client_asks_in_both_protocols() {
    let folder = tempfile::tempdir().unwrap();
    let ask = folder.path().join("ask");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hello"), &ask).unwrap();
    let hello = Hello::start_with(&["--line", "127.0.0.1:0"]);
    let line = hello.lines[0].clone();
    let ask = |url: &str| {
        let output = Command::new(&ask).arg(url).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    assert_eq!(
        ask(&format!("http://{}/id", hello.address)),
        (true, "a\n".into())
    );
    assert_eq!(ask(&format!("tcp://{line}")), (true, "a\n".into()));
    let (fine, said) = ask(&format!("http://{}/download", hello.address));
    assert!(!fine && said.contains("400"), "{said}");
    drop(hello);
    let (fine, said) = ask(&format!("tcp://{line}"));
    assert!(!fine && said.contains("refused"), "{said}");
}

#[test]
fn a_worker_goes_with_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let worker = folder.path().join("php-fpm");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hello"), &worker).unwrap();
    let mut worker = Command::new(worker).stdin(Stdio::piped()).spawn().unwrap();
    assert_eq!(worker.try_wait().unwrap(), None);
    drop(worker.stdin.take());
    assert!(worker.wait().unwrap().success());
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
