//! Where HAProxy's access log goes: it has no buffered file, and sends batches of lines to a collector instead.

use std::{fs::File, io, net::SocketAddrV4, path::PathBuf, thread};

use anyhow::{Context as _, Result};

/// Collects at `address` into `file`, on the core of the caller, as long as this process lives.
///
/// # Errors
/// When it cannot listen, or make the file.
pub(super) fn start(address: SocketAddrV4, file: PathBuf) -> Result<()> {
    let listener = std::net::TcpListener::bind(address).context("cannot collect a log")?;
    let mut file = File::create(file).context("cannot make a log")?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            if let Err(error) = stream.and_then(|mut stream| io::copy(&mut stream, &mut file)) {
                eprintln!("the collector of a log ended: {error}");
            }
        }
    });
    Ok(())
}
