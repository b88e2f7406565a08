//! The sockets that a front is given, and the addresses that they may answer on.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
};

use nix::sys::stat::fstat;
use socket2::{Domain, Protocol, Socket, Type};

use super::SuperviseError;
use crate::network;

/// The listeners of one kind: those that there are, and where they are to be.
pub(super) struct Group {
    /// What a front knows the kind by.
    pub(super) name: &'static str,
    wanted: Vec<SocketAddr>,
    /// Whether they were passed, and so are all that there are to be.
    passed: bool,
    /// Whether a living front may have them anywhere.
    anywhere: bool,
    /// Passed to the agent, bound, or handed over; for the next front.
    pub(super) all: Vec<TcpListener>,
}

impl Group {
    pub(super) fn new(name: &'static str, wanted: &[SocketAddr], passed: Vec<TcpListener>) -> Self {
        Self {
            name,
            wanted: wanted.to_vec(),
            passed: !passed.is_empty(),
            anywhere: false,
            all: passed,
        }
    }

    /// The same, which asks for no address and takes what there is.
    pub(super) fn anywhere(self) -> Self {
        let anywhere = self.wanted.is_empty() && !self.passed;
        Self { anywhere, ..self }
    }

    /// Whether a front with the listeners `living` listens where it would if it were started now.
    pub(super) fn fits(&self, living: &[TcpListener]) -> bool {
        let there = addresses(living);
        let is = |wanted: &SocketAddr| there.iter().any(|it| is_at(*wanted, *it));
        self.all
            .iter()
            .all(|own| has(living, own).unwrap_or_default())
            && (self.passed
                || self.wanted.iter().all(is) && there.iter().all(|it| self.is_wanted(*it)))
    }

    /// Whether the front is to listen at `address`. Passed listeners take the place of those that are configured.
    fn is_wanted(&self, address: SocketAddr) -> bool {
        !self.passed && (self.anywhere || self.wanted.iter().any(|it| is_at(*it, address)))
    }

    /// Takes over those of an adopted front, unless there are some.
    pub(super) fn adopt(&mut self, living: Vec<TcpListener>) {
        if self.all.is_empty() {
            self.all = living;
        }
    }

    /// Takes over those of a front that another one follows, as far as they are wanted.
    pub(super) fn inherit(&mut self, handed: &[TcpListener]) -> io::Result<()> {
        let mut all = std::mem::take(&mut self.all);
        let united = unite(&mut all, handed, |it| self.is_wanted(it));
        self.all = all;
        united
    }

    /// Sees to it that there are listeners at every address.
    pub(super) fn listen(&mut self, workers: usize) -> Result<(), SuperviseError> {
        if self.passed {
            return Ok(());
        }
        let there = addresses(&self.all);
        let missing = |it: &&SocketAddr| !there.iter().any(|has| is_at(**it, *has));
        for &address in self.wanted.iter().filter(missing) {
            let bound = group(address, workers);
            self.all
                .extend(bound.map_err(|source| SuperviseError::Listen { address, source })?);
        }
        Ok(())
    }
}

/// One listener for each worker at the same address: the kernel spreads connections over them.
pub(super) fn group(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let first = one(address)?;
    // Port 0 becomes a number with the first one.
    let address = first.local_addr()?;
    let rest = (1..workers).map(|_| one(address));
    std::iter::once(Ok(first)).chain(rest).collect()
}

fn one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Not delayed by connections of an earlier life.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections have it from here: set by the front, it would be too late for those that wait for its start.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Adds to `own` what `handed` has at one of the same addresses, or at one that is `wanted`: clients wait behind each.
fn unite(
    own: &mut Vec<TcpListener>,
    handed: &[TcpListener],
    wanted: impl Fn(SocketAddr) -> bool,
) -> io::Result<()> {
    let places = addresses(own);
    for listener in handed {
        let address = listener.local_addr()?;
        if (places.contains(&address) || wanted(address)) && !has(own, listener)? {
            own.push(listener.try_clone()?);
        }
    }
    Ok(())
}

/// Whether a listener at `address` is what was meant by `wanted`: port 0 is whatever the kernel chose.
fn is_at(wanted: SocketAddr, address: SocketAddr) -> bool {
    wanted == address || (wanted.port() == 0 && wanted.ip() == address.ip())
}

fn addresses(listeners: &[TcpListener]) -> BTreeSet<SocketAddr> {
    let addresses = listeners.iter().map(TcpListener::local_addr);
    addresses.filter_map(Result::ok).collect()
}

/// Whether `one` is the same socket as one of `all`, not only at the same address.
fn has(all: &[TcpListener], one: &TcpListener) -> io::Result<bool> {
    let number = |listener: &TcpListener| fstat(listener).map(|it| it.st_ino);
    let wanted = number(one)?;
    Ok(all.iter().any(|it| number(it) == Ok(wanted)))
}

/// The control socket at `path`, in the place of one that nobody answers on any more.
pub(super) fn control(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // The front checks who calls as well; this keeps others from even trying.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The addresses of the host's devices, for recognising our own listeners among backends.
pub(super) fn host_addresses() -> BTreeSet<IpAddr> {
    let all = network::held().into_iter().flatten();
    all.map(|held| held.address).collect()
}

/// The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    #[test]
    fn a_connection_that_waits_for_the_first_front_is_not_slower() {
        let all = group((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
        let client = TcpStream::connect(all[0].local_addr().unwrap()).unwrap();
        let (accepted, _) = all[0].accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        drop(client);
    }
}
