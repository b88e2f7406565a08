use std::{
    net::{TcpListener, TcpStream},
    time::Duration,
};

use super::*;

/// A cable, and a connection over it between client and server.
fn connected(host: &Netns, machine: &Netns) -> (Cable, TcpStream, TcpStream) {
    let cable = Cable::between((host, "vm0"), (machine, "eth0")).unwrap();
    host.ip("link set vm0 up\naddr add 10.1.0.1/24 dev vm0\n")
        .unwrap();
    machine
        .ip("link set eth0 up\naddr add 10.1.0.2/24 dev eth0\n")
        .unwrap();
    let listener = host
        .enter(|| TcpListener::bind("10.1.0.1:80"))
        .unwrap()
        .unwrap();
    let to = "10.1.0.1:80".parse().unwrap();
    let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(10));
    let client = machine.enter(connect).unwrap().unwrap();
    let (server, _) = listener.accept().unwrap();
    (cable, client, server)
}

/// Says a megabyte over the connection, which arrives as it was said.
fn carries(client: &mut TcpStream, server: &mut TcpStream) {
    let said: Vec<u8> = (0..=250).cycle().take(1_000_000).collect();
    let mut heard = vec![0; said.len()];
    thread::scope(|scope| {
        scope.spawn(|| client.write_all(&said).unwrap());
        server.read_exact(&mut heard).unwrap();
    });
    assert!(heard == said);
}

#[test]
fn a_cable_carries_what_its_ends_leave_to_each_other() {
    let (host, machine) = (Netns::new("host").unwrap(), Netns::new("machine").unwrap());
    let (cable, mut client, mut server) = connected(&host, &machine);
    carries(&mut client, &mut server);
    let (there, back) = (cable.from_machine(), cable.from_host());
    assert!(there.unsummed > 10 && there.uncut > 10, "{there:?}");
    assert!(back.unsummed > 1, "{back:?}");
}

#[test]
fn a_spoiled_cable_is_slow_and_loses_what_is_then_sent_again() {
    let (host, machine) = (Netns::new("host").unwrap(), Netns::new("machine").unwrap());
    let (cable, mut client, mut server) = connected(&host, &machine);
    cable.spoil(Quality {
        takes: Duration::from_millis(50),
        ..Quality::default()
    });
    let began = Instant::now();
    client.write_all(b"?").unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(100));
    cable.spoil(Quality {
        lost: 100,
        ..Quality::default()
    });
    carries(&mut client, &mut server);
    let sent_again = || std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let counted = machine.enter(sent_again).unwrap();
    let lines: Vec<_> = counted
        .lines()
        .filter(|it| it.starts_with("Tcp:"))
        .collect();
    let place = lines[0].split(' ').position(|it| it == "RetransSegs");
    let segments = lines[1].split(' ').nth(place.unwrap()).unwrap();
    assert_ne!(segments, "0", "nothing was lost");
}
