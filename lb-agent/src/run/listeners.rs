//! The listeners: passed in by the LISTEN_FDS protocol, or bound.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::net::UnixStream,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use lb_agent::{admin, config::Config, front, vip::Pools};
use lb_sys::inherit::Inherited;
use socket2::{Domain, Socket, Type};

use super::configs::front_control;

/// Every listener, passed in or bound.
pub(super) struct Listeners {
    pub(super) front: Vec<TcpListener>,
    pub(super) front_tls: Vec<TcpListener>,
    pub(super) admin: Vec<TcpListener>,
    pub(super) admin_socket: std::os::unix::net::UnixListener,
    pub(super) dns_udp: Vec<UdpSocket>,
    pub(super) dns_tcp: Vec<TcpListener>,
}

impl Listeners {
    pub(super) fn bind(config: &Config, pools: Pools, inherited: &mut Inherited) -> Result<Self> {
        let bad = "a passed descriptor is no listener";
        let mut admin = inherited.tcp("admin").context(bad)?;
        if admin.is_empty() {
            admin.push(bound(
                "[admin] listen",
                config.admin.listen,
                TcpListener::bind,
            )?);
        }
        let (mut dns_udp, mut dns_tcp) = (
            inherited.udp("dns").context(bad)?,
            inherited.tcp("dns").context(bad)?,
        );
        if config.dns.enabled && dns_udp.is_empty() && dns_tcp.is_empty() {
            // The default has the agent's address of either family, whatever the host has.
            let missing = |it: &&SocketAddr| {
                pools.v6.is_none() && IpNet::from(config.vip.pool6.net()).contains(&it.ip())
            };
            for &address in config.dns.listen.iter().filter(|it| !missing(it)) {
                dns_udp.push(bound("[dns] listen", address, |it| {
                    early(it, Type::DGRAM).map(Into::into)
                })?);
                dns_tcp.push(bound("[dns] listen", address, |it| {
                    early(it, Type::STREAM).map(Into::into)
                })?);
            }
        }
        let mut front = inherited.tcp("front").context(bad)?;
        // A living front of an earlier agent has them already.
        let adopted = UnixStream::connect(front_control(config)).is_ok();
        let mut front_tls = inherited.tcp("front-tls").context(bad)?;
        if config.front.enabled && !adopted {
            if front.is_empty() {
                for &address in &config.front.listen {
                    front.extend(bound("[front] listen", address, front::listeners)?);
                }
            }
            let tls = config.front.tls.iter().filter(|_| front_tls.is_empty());
            let wanted: Vec<_> = tls.flat_map(|tls| &tls.listen).collect();
            for &address in wanted {
                front_tls.extend(bound("[front.tls] listen", address, front::listeners)?);
            }
        }
        Ok(Self {
            front,
            front_tls,
            admin,
            admin_socket: admin::bind_socket(&config.socket, !config.admin.allow_uids.is_empty())?,
            dns_udp,
            dns_tcp,
        })
    }
}

/// A socket at an address that may come only later: the agent's own address is put on `lo` when nothing can be
/// refused any more.
fn early(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_freebind_v6(true)?;
    }
    if kind == Type::STREAM {
        // Not delayed by connections of an earlier life.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// What the standard library uses.
const BACKLOG: i32 = 128;

fn bound<T>(
    key: &str,
    address: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<T> {
    bind(address).with_context(|| {
        format!("cannot listen on {address}; free it or set {key} to another address")
    })
}
