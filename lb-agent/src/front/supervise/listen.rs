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
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Adds to `own` what `handed` has at one of the same addresses, or at one that is `wanted`: clients wait behind each.
pub(super) fn unite(
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
pub(super) fn is_at(wanted: SocketAddr, address: SocketAddr) -> bool {
    wanted == address || (wanted.port() == 0 && wanted.ip() == address.ip())
}

pub(super) fn addresses(listeners: &[TcpListener]) -> BTreeSet<SocketAddr> {
    let addresses = listeners.iter().map(TcpListener::local_addr);
    addresses.filter_map(Result::ok).collect()
}

/// Whether `one` is the same socket as one of `all`, not only at the same address.
pub(super) fn has(all: &[TcpListener], one: &TcpListener) -> io::Result<bool> {
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
    let Ok(devices) = nix::ifaddrs::getifaddrs() else {
        return BTreeSet::new();
    };
    let address = |device: nix::ifaddrs::InterfaceAddress| {
        let address = device.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    };
    devices.filter_map(address).collect()
}

/// The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
