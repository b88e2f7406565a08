//! The listeners: passed in by the LISTEN_FDS protocol, or bound.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use anyhow::{Context as _, Result};
use lb_agent::{admin, config::Config};
use lb_sys::inherit::Inherited;

/// Every listener, passed in or bound.
pub(super) struct Listeners {
    pub(super) front: Vec<TcpListener>,
    pub(super) admin: Vec<TcpListener>,
    pub(super) admin_socket: std::os::unix::net::UnixListener,
    pub(super) dns_udp: Vec<UdpSocket>,
    pub(super) dns_tcp: Vec<TcpListener>,
}

impl Listeners {
    pub(super) fn bind(config: &Config, inherited: &mut Inherited) -> Result<Self> {
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
            for &address in &config.dns.listen {
                dns_udp.push(bound("[dns] listen", address, UdpSocket::bind)?);
                dns_tcp.push(bound("[dns] listen", address, TcpListener::bind)?);
            }
        }
        Ok(Self {
            // The supervisor binds them itself, once it knows that no living front already has.
            front: inherited.tcp("front").context(bad)?,
            admin,
            admin_socket: admin::bind_socket(&config.socket)?,
            dns_udp,
            dns_tcp,
        })
    }
}

fn bound<T>(
    key: &str,
    address: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<T> {
    bind(address).with_context(|| {
        format!("cannot listen on {address}; free it or set {key} to another address")
    })
}
