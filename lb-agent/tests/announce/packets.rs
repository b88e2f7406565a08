//! Packets of a client without an agent, through two hosts that balance, in tunnels: whoever answers for the VIPs, flows go on.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use lb_testkit::{Netns, eventually};
use serde_json::json;

use crate::kit::{Host, LIMIT, Segment, twin};

/// The service with instances of both hosts, and the one whose instances have addresses of IPv6.
const SERVICES: [&str; 2] = ["shop", "shop6"];

/// The addresses of a host, by the services.
fn addresses(number: u8) -> [IpAddr; 2] {
    [
        format!("10.77.0.{}", 10 + number),
        format!("fd77::{}", 10 + number),
    ]
    .map(|it| it.parse().unwrap())
}

/// Two hosts that balance packets at their cards, and have an instance of each service.
fn hosts(segment: &Segment) -> [Host; 2] {
    // Programs before the stack meet packets of a wire, which have their checksums.
    let whole = |netns: &Netns| {
        let whole = || lb_sys::ethtool::offload_checksums("eth0", false);
        netns.enter(whole).unwrap().unwrap();
    };
    whole(&segment.client);
    [1, 2].map(|number| {
        let mut host = Host::new(segment, number);
        host.configure_more("[packet]\ncards = [\"eth0\"]\nxdp = \"generic\"\n");
        whole(&host.netns);
        let forward = || {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
        };
        host.netns.enter(forward).unwrap().unwrap();
        for (service, address) in SERVICES.iter().zip(addresses(number)) {
            serve(&host.netns, number, address);
            let registration = json!({
                "Node": format!("host{number}"), "Address": format!("10.77.0.{}", 10 + number),
                "Service": {"Service": service, "ID": format!("{service}-{number}"), "Address": address,
                            "Port": PORT, "Tags": ["lb_packet=tunnel", "lb_port=80"]},
            });
            segment.put("catalog/register", &registration);
        }
        host.start();
        host
    })
}

const PORT: u16 = 8080;

/// A server that answers each line with the number of its host.
fn serve(netns: &Netns, number: u8, address: IpAddr) {
    let listen = || TcpListener::bind((address, PORT)).unwrap();
    let listener = netns.enter(listen).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut stream = stream;
                while let Some(Ok(_)) = lines.next() {
                    if writeln!(stream, "{number}").is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// One flow of the client.
struct Flow {
    stream: BufReader<TcpStream>,
}

impl Flow {
    fn begin(client: &Netns, to: SocketAddr) -> std::io::Result<Self> {
        let stream = client.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(3)));
        let stream = stream.unwrap()?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let stream = BufReader::new(stream);
        Ok(Self { stream })
    }

    /// Whose instance answers.
    fn ask(&mut self) -> std::io::Result<u8> {
        writeln!(self.stream.get_mut(), "?")?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        line.trim().parse().map_err(std::io::Error::other)
    }
}

/// Begins flows until there is one to each host.
fn to_both(segment: &Segment, to: SocketAddr, said: impl Fn() -> String) -> [Flow; 2] {
    let mut found = [None, None];
    let both = eventually(LIMIT, || {
        let mut flow = Flow::begin(&segment.client, to).map_err(|error| error.to_string())?;
        let number = flow.ask().map_err(|error| error.to_string())?;
        found[usize::from(number) - 1].get_or_insert(flow);
        match found.iter().all(Option::is_some) {
            true => Ok(()),
            false => Err(format!("only {number} answers")),
        }
    });
    both.unwrap_or_else(|late| panic!("{to}: {late}\n{}", said()));
    found.map(Option::unwrap)
}

/// The line of the log with this message, once it is there.
#[track_caller]
fn await_said(host: &Host, message: &str) -> String {
    let line = eventually(LIMIT, || {
        let said = host.said();
        let line = said.lines().find(|it| it.contains(message));
        line.map(str::to_owned).ok_or(said)
    });
    line.unwrap_or_else(|late| panic!("{message} is not said: {late}"))
}

#[test]
fn flows_in_tunnels_go_on_when_another_host_takes_the_vips_over_and_both_say_how_many() {
    let segment = Segment::new();
    let hosts = hosts(&segment);
    let owner = eventually(LIMIT, || {
        let told = [hosts[0].announces(), hosts[1].announces()];
        let ready = told.contains(&Some(true)) && told.contains(&Some(false));
        let owner = told.iter().position(|it| *it == Some(true));
        owner.filter(|_| ready).ok_or(format!("{told:?}"))
    });
    let owner = owner.unwrap_or_else(|late| panic!("{late}\n{}", hosts[0].said()));
    let [mut first, mut second] = hosts;
    let (owner, other) = match owner {
        0 => (&mut first, &mut second),
        _ => (&mut second, &mut first),
    };
    for host in [&*owner, &*other] {
        for service in SERVICES {
            host.await_usable(service, 2);
        }
    }
    let vip = owner.vip("shop");
    let vip6 = twin(owner.vip("shop6"));
    let said = || owner.said();
    let mut flows = to_both(&segment, (vip, 80).into(), said);
    let mut flows6 = to_both(&segment, (vip6, 80).into(), said);
    let all = flows.iter_mut().chain(&mut flows6);
    let mut all: Vec<_> = all.collect();
    let go_on = |all: &mut [&mut Flow]| {
        for (at, flow) in all.iter_mut().enumerate() {
            let host = u8::try_from(at % 2 + 1).unwrap();
            assert_eq!(flow.ask().unwrap(), host, "flow {at}");
        }
    };
    go_on(&mut all);

    // What was sent in tunnels is known by who sent it, and all of it follows.
    let listed = owner.json(&["flows"]);
    let ways: Vec<_> = listed["packets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["way"])
        .collect();
    let [tunnel, destination] =
        ["tunnel", "destination"].map(|way| ways.iter().any(|it| **it == way));
    assert!(tunnel && destination, "{listed:#}");
    owner.terminate();
    let given_up = await_said(owner, "gave the VIPs up");
    for figure in ["elsewhere=0", "bound=0"] {
        assert!(given_up.contains(figure), "{given_up}");
    }
    let count = |line: &str, name: &str| -> u64 {
        let mut words = line.split_whitespace();
        words
            .find_map(|it| it.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {line}"))
    };
    assert!(count(&given_up, "follow") >= 4, "{given_up}");
    assert_eq!(count(&given_up, "follow"), count(&given_up, "flows"));

    other.await_line("ok", |it| it.starts_with("this host answers for "));
    // The neighbours follow when they are told.
    go_on(&mut all);
    let taken = await_said(other, "took the VIPs over");
    // Those to the host that is gone come by here now, and are not written down.
    assert!(count(&taken, "packets") >= 2, "{taken}");
    assert_eq!(count(&taken, "refused"), 0, "{taken}");
    let mut new = to_both(&segment, (vip, 80).into(), || other.said());
    for flow in &mut new {
        flow.ask().unwrap();
    }
    go_on(&mut all);
    other.terminate();
}
