//! The clients of one host, in a process of their own, which is in the cgroup that the agent balances: new flows and requests all the
//! time, and flows that are held. What they see goes line by line to standard error, which nobody buffers.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    event::{Outcome, Seen, Try},
    moment::Moment,
};

/// Who is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name in Consul.
    pub service: String,
    /// Its virtual address.
    pub vip: Ipv4Addr,
}

/// How long a client waits. Longer than a lost packet takes to be sent again twice.
const GIVES_UP: Duration = Duration::from_secs(5);
/// The pace of each client: nothing is waited for.
const EVERY: Duration = Duration::from_millis(25);
/// The same between two words on an established flow.
const SPEAKS_EVERY: Duration = Duration::from_millis(200);
/// Clients of each service that connect, so that one that waits does not stop all.
const CONNECTS: usize = 2;
/// Flows of each service that are held.
const HOLDS: usize = 3;

/// Asks until it is ended, or nobody reads any more.
///
/// # Errors
/// When nobody reads any more.
pub fn run(targets: &[Target], front: SocketAddr) -> Result<()> {
    let (sender, seen) = channel();
    for target in targets {
        for _ in 0..CONNECTS {
            spawn(&sender, target, connect_again);
        }
        spawn(&sender, target, move |target, say| {
            request_again(target, front, say);
        });
        for _ in 0..HOLDS {
            spawn(&sender, target, hold_again);
        }
    }
    drop(sender);
    let mut out = io::stderr().lock();
    for seen in seen {
        let mut line = serde_json::to_vec(&seen)?;
        line.push(b'\n');
        out.write_all(&line).context("nobody reads any more")?;
    }
    Ok(())
}

fn spawn(
    sender: &Sender<Seen>,
    target: &Target,
    client: impl FnOnce(&Target, &Sender<Seen>) + Send + 'static,
) {
    let (sender, target) = (sender.clone(), target.clone());
    thread::spawn(move || client(&target, &sender));
}

/// Does something again and again, at its pace, as long as somebody listens.
fn again(say: &Sender<Seen>, mut ask: impl FnMut() -> Seen) {
    while say.send(ask()).is_ok() {
        thread::sleep(EVERY);
    }
}

fn connect_again(target: &Target, say: &Sender<Seen>) {
    again(say, || {
        Seen::Connect(tried(target, || greet(&connect(target)?)))
    });
}

fn request_again(target: &Target, front: SocketAddr, say: &Sender<Seen>) {
    again(say, || {
        Seen::Request(tried(target, || request(front, &target.service)))
    });
}

fn tried(target: &Target, ask: impl FnOnce() -> io::Result<String>) -> Try {
    let begun = Moment::now();
    let outcome = match ask() {
        Ok(backend) => Outcome::Reached(backend),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    Try {
        service: target.service.clone(),
        begun,
        ended: Moment::now(),
        outcome,
    }
}

fn connect(target: &Target) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&(target.vip, 80).into(), GIVES_UP)?;
    stream.set_read_timeout(Some(GIVES_UP))?;
    stream.set_write_timeout(Some(GIVES_UP))?;
    Ok(stream)
}

/// Says a line, and returns the id of the backend that answers.
fn greet(mut stream: &TcpStream) -> io::Result<String> {
    stream.write_all(b"who\n")?;
    let mut line = String::new();
    // One line is answered to one line, so nothing is read ahead and lost.
    match BufReader::new(stream).read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

/// One request to the front, on a connection of its own.
fn request(front: SocketAddr, service: &str) -> io::Result<String> {
    let host = service.replace('_', ".");
    let mut stream = TcpStream::connect_timeout(&front, GIVES_UP)?;
    stream.set_read_timeout(Some(2 * GIVES_UP))?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {host}.localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!(
            "{}: {}",
            head.lines().next().unwrap_or_default(),
            body.trim()
        ))),
    }
}

/// Holds a flow, and begins another one when it has ended. That a flow cannot begin is told by those who connect.
fn hold_again(target: &Target, say: &Sender<Seen>) {
    loop {
        let opened = Moment::now();
        let Ok((stream, backend)) = connect(target)
            .and_then(|it| Ok((greet(&it)?, it)))
            .map(|(id, it)| (it, id))
        else {
            thread::sleep(SPEAKS_EVERY);
            continue;
        };
        let why = loop {
            match greet(&stream) {
                Ok(id) if id == backend => {
                    if say.send(Seen::Echo).is_err() {
                        return;
                    }
                    thread::sleep(SPEAKS_EVERY);
                }
                Ok(id) => break format!("{id} answered"),
                Err(error) => break error.to_string(),
            }
        };
        let broken = Seen::Broken {
            service: target.service.clone(),
            backend,
            opened,
            ended: Moment::now(),
            why,
        };
        if say.send(broken).is_err() {
            return;
        }
    }
}
