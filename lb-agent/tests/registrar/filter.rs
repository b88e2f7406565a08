//! A filter before the engine's socket, as operators put one there: it lets through what docs/deploy.md says that the agent
//! asks for, and refuses all else.

use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// What docs/deploy.md names, without the version of the API.
pub(crate) const ALLOWED: [&str; 6] = [
    "GET /containers/<id>/json",
    "GET /containers/json",
    "GET /events",
    "GET /info",
    "GET /networks",
    "GET /version",
];

/// The filter. It ends with the process.
pub(crate) struct Filter {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<BTreeSet<String>>>,
}

impl Filter {
    /// Lets through to `engine` what comes to `listener`.
    pub(crate) fn start(listener: TcpListener, engine: PathBuf) -> Self {
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<BTreeSet<String>>>::default();
        let all = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (engine, asked) = (engine.clone(), Arc::clone(&all));
                // Whoever is gone meanwhile has its answer.
                thread::spawn(move || serve(client, &engine, &asked));
            }
        });
        Self { address, asked }
    }

    /// What was asked for so far.
    pub(crate) fn asked(&self) -> BTreeSet<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

/// One request: a second one on the same connection is never answered.
fn serve(client: TcpStream, engine: &Path, asked: &Mutex<BTreeSet<String>>) -> io::Result<()> {
    let mut head = String::new();
    let mut lines = BufReader::new(&client);
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let kind = kind(&head);
    let is_allowed = ALLOWED.contains(&kind.as_str());
    asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(kind);
    if !is_allowed {
        return (&client).write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    }
    let mut engine = UnixStream::connect(engine)?;
    engine.write_all(head.as_bytes())?;
    // A stream of events has no end but that of one of the two: the engine's is seen here, the client's at the next event.
    io::copy(&mut engine, &mut &client).map(drop)
}

/// A request without the version, the query and the id: `GET /containers/<id>/json`.
fn kind(head: &str) -> String {
    let mut words = head.split(' ');
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let path = target.split('?').next().unwrap_or_default();
    let mut parts: Vec<&str> = path.split('/').skip(1).collect();
    if parts.first().is_some_and(|part| part.starts_with("v1.")) {
        parts.remove(0);
    }
    if let ["containers", id, "json"] = parts[..]
        && id.len() == 64
    {
        parts[1] = "<id>";
    }
    format!("{method} /{}", parts.join("/"))
}
