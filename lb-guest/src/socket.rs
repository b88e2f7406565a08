//! The socket hooks, by the agent's own loader: what the kernel says of each program, and flows through VIPs.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_agent::programs::{DATAGRAM_HOOKS, HOOKS};
use lb_common::{PROTO_TCP, PROTO_UDP, flag};
use lb_testkit::{eventually, guest::Figures};

use crate::{
    figures,
    system::Pins,
    table::{BPFFS, Table, Vip},
    tried::Tried,
};

/// Long for what takes milliseconds elsewhere: the processor is emulated.
const LIMIT: Duration = Duration::from_secs(20);

/// A service with backends of both families, and one with IPv4 ones alone.
const BOTH: Vip = Vip::new(7, 7);
const FOUR: Vip = Vip::new(7, 8);
/// No service has this one.
const NOBODY: Vip = Vip::new(7, 9);

const LOAD: &str = "socket hooks: load";
const ATTACH: &str = "socket hooks: attach";

/// The object of the socket hooks.
pub(crate) fn examine(tried: &mut Tried, cgroup: &Path) -> Vec<Figures> {
    // Gone at the end, and what is attached with them: the agent's program is tried on an untouched host.
    let _pins = match Pins::mount(BPFFS) {
        Ok(pins) => pins,
        Err(error) => {
            tried.note(LOAD, Err(error));
            return Vec::new();
        }
    };
    let mut programs = match Table::load(cgroup) {
        Ok(programs) => programs,
        Err(error) => {
            let said = format!("{:#}", anyhow::Error::from(error));
            tried.refused(LOAD, said);
            return Vec::new();
        }
    };
    let hooks = [&HOOKS[..], &DATAGRAM_HOOKS].concat();
    let mut figures = match figures::of(programs.ebpf(), "socket", &hooks) {
        Ok(figures) => figures,
        Err(error) => {
            tried.note(LOAD, Err(error));
            return Vec::new();
        }
    };
    tried.note(LOAD, Ok(String::new()));
    match Table::attach(programs) {
        Ok(table) => {
            tried.note(ATTACH, Ok(String::new()));
            let attached: Vec<_> = table.programs.attached().map(|(hook, _)| hook).collect();
            for program in &mut figures {
                let is_attached = attached.contains(&program.program.as_str());
                program.attached = is_attached.then(|| "cgroup link".to_owned());
            }
            flows(tried, table, cgroup);
        }
        Err(error) => tried.note(ATTACH, Err(error)),
    }
    figures
}

/// Flows of every kind.
fn flows(tried: &mut Tried, mut table: Table, cgroup: &Path) {
    let four = IpAddr::from([127, 0, 0, 2]);
    let six = IpAddr::from(Ipv6Addr::LOCALHOST);
    let kinds = [
        ("TCP to an IPv4 VIP", IpAddr::from(BOTH.four), four),
        (
            "TCP to an IPv6 VIP with IPv6 backends",
            BOTH.six.into(),
            six,
        ),
        (
            "TCP to an IPv6 VIP with IPv4 backends",
            FOUR.six.into(),
            four,
        ),
    ];
    for (name, vip, backend) in kinds {
        tried.note(name, connect(&mut table, vip, backend));
    }
    for (name, vip, backend) in [
        ("UDP to an IPv4 VIP", IpAddr::from(BOTH.four), four),
        ("UDP to an IPv6 VIP", BOTH.six.into(), six),
    ] {
        tried.note(name, ask(&mut table, vip, backend));
    }
    tried.note("a VIP that nobody has is refused at once", refuse());
    tried.note("a restart keeps flows and counts", restart(table, cgroup));
}

/// Opens a flow through `vip` to a listener on `ip`, and closes it.
fn connect(table: &mut Table, vip: IpAddr, ip: IpAddr) -> Result<String> {
    let listener = TcpListener::bind((ip, 0))?;
    let backend = listener.local_addr()?;
    serve(table, PROTO_TCP, vip, backend)?;
    let mut flow = open(vip, &listener)?;
    flow.check(vip)?;
    ensure_active(table, backend, 1)?;
    drop(flow);
    ensure_active(table, backend, 0)?;
    Ok(String::new())
}

/// Both ends of a flow.
struct Flow {
    client: TcpStream,
    server: TcpStream,
}

fn open(vip: IpAddr, listener: &TcpListener) -> Result<Flow> {
    let client = TcpStream::connect_timeout(&SocketAddr::new(vip, 80), LIMIT)
        .with_context(|| format!("cannot connect to {vip}"))?;
    let (server, _) = listener.accept()?;
    server.set_read_timeout(Some(LIMIT))?;
    Ok(Flow { client, server })
}

impl Flow {
    /// It carries bytes, and the client sees the address that it asked for.
    fn check(&mut self, vip: IpAddr) -> Result<()> {
        let (peer, expected) = (self.client.peer_addr()?, SocketAddr::new(vip, 80));
        ensure!(peer == expected, "the client sees {peer} for {expected}");
        self.client.write_all(b"hello")?;
        let mut heard = [0; 5];
        self.server.read_exact(&mut heard)?;
        ensure!(heard == *b"hello", "the backend heard {heard:?}");
        Ok(())
    }
}

/// Sends a datagram through `vip` to a socket on `ip`, and gets an answer from there.
fn ask(table: &mut Table, vip: IpAddr, ip: IpAddr) -> Result<String> {
    let server = UdpSocket::bind((ip, 0))?;
    serve(table, PROTO_UDP, vip, server.local_addr()?)?;
    let any: IpAddr = match vip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let client = UdpSocket::bind((any, 0))?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(LIMIT))?;
    }
    let vip = SocketAddr::new(vip, 53);
    client.send_to(b"hello", vip)?;
    let mut room = [0; 16];
    let (length, from) = server.recv_from(&mut room)?;
    server.send_to(&room[..length], from)?;
    let (length, from) = client.recv_from(&mut room)?;
    ensure!(from == vip, "the answer comes from {from} instead of {vip}");
    ensure!(room[..length] == *b"hello", "another answer came");
    Ok(String::new())
}

/// Makes `backend` the one of the service that `vip` belongs to.
fn serve(table: &mut Table, proto: u8, vip: IpAddr, backend: SocketAddr) -> Result<()> {
    let found = [BOTH, FOUR]
        .into_iter()
        .find(|it| vip == it.four || vip == it.six);
    let key = found.context("nobody has that VIP")?.key(proto);
    if backend.is_ipv4() {
        return table.put(key, 0, &[backend]);
    }
    // Sockets of IPv6 are sent to the endpoint of that family by the flag of the other one.
    table.put(key.for_v6(), 0, &[backend])?;
    table.put(key, flag::V6, &[])
}

fn refuse() -> Result<String> {
    for vip in [IpAddr::from(NOBODY.four), NOBODY.six.into()] {
        let address = SocketAddr::new(vip, 80);
        match TcpStream::connect_timeout(&address, LIMIT) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error).context("it fails in another way"),
            Ok(_) => anyhow::bail!("{vip} answers"),
        }
    }
    Ok(String::new())
}

/// Loads the programs once more, over the pins of the first ones, while a flow is open.
fn restart(mut table: Table, cgroup: &Path) -> Result<String> {
    let listener = TcpListener::bind(("127.0.0.2", 0))?;
    let backend = listener.local_addr()?;
    let vip = FOUR.four.into();
    serve(&mut table, PROTO_TCP, vip, backend)?;
    let mut flow = open(vip, &listener)?;
    drop(table);
    let table = Table::attach(Table::load(cgroup)?)?;
    flow.check(vip)?;
    ensure_active(&table, backend, 1)?;
    open(vip, &listener)?.check(vip)?;
    drop(flow);
    ensure_active(&table, backend, 0)?;
    Ok(String::new())
}

/// Waits until so many flows are open: a close may be finished by the kernel later.
fn ensure_active(table: &Table, backend: SocketAddr, flows: u64) -> Result<()> {
    let settled = eventually(LIMIT, || match table.active(backend)? {
        active if active == flows => Ok(()),
        active => anyhow::bail!("{active} flows are counted instead of {flows}"),
    });
    Ok(settled?)
}
