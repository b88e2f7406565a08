//! `[packet]`: the devices at which packets are balanced, and what this host is to others there.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use super::{Given, RawConfig, resolve::Judge};

/// The packet path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The network devices at which packets from other hosts are balanced.
    pub cards: Vec<String>,
    /// The host's side of devices whose clients the socket hooks cannot see.
    pub clients: Vec<Pattern>,
    /// Where the programs of the cards run.
    pub xdp: Xdp,
    /// This host's address for what it sends in its own name; the first global one of the first card if absent.
    pub source: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub source6: Option<Ipv6Addr>,
    /// The ports that it sends from there.
    pub ports: RangeInclusive<u16>,
    /// Hosts whose tunnels are taken, beside those that instances run on.
    pub hosts: BTreeSet<IpAddr>,
}

/// Where the programs of the cards run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Xdp {
    /// In the driver if it can do that, else before the stack.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// Before the stack, which every device can do.
    Generic,
    /// Nowhere: only backends of this host are reached from a card.
    Off,
}

impl Xdp {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        }
    }
}

/// The name of a device, or how the names of several begin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// This one.
    Name(String),
    /// All that begin so.
    Begin(String),
}

impl Pattern {
    /// Whether it means the device `name`.
    pub fn means(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Begin(begin) => name.starts_with(begin.as_str()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Begin(begin) => write!(f, "{begin}*"),
        }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('*') {
            // Every device of the host, its card and `lo` included, is nobody's wish.
            Some("") => Err("write how the names begin, such as `veth*`".to_owned()),
            Some(begin) => device(begin).map(Self::Begin),
            None => device(text).map(Self::Name),
        }
    }
}

pub(super) fn resolve(raw: &RawConfig, judge: &mut Judge<'_>) -> Option<Packet> {
    let asked = raw.packet.is_some() || raw.packet_cards.is_some() || raw.packet_clients.is_some();
    let (source, source6) = (raw.packet_source.as_ref(), raw.packet_source6.as_ref());
    let packet = Packet {
        cards: judge.list(&raw.packet_cards, Vec::new(), device),
        clients: judge.list(&raw.packet_clients, Vec::new(), Pattern::from_str),
        xdp: judge.text(&raw.packet_xdp, Xdp::Auto, xdp),
        source: source.map(|_| {
            judge.text(
                &raw.packet_source,
                Ipv4Addr::UNSPECIFIED,
                address::<Ipv4Addr>,
            )
        }),
        source6: source6.map(|_| {
            judge.text(
                &raw.packet_source6,
                Ipv6Addr::UNSPECIFIED,
                address::<Ipv6Addr>,
            )
        }),
        ports: judge.text(&raw.packet_ports, PORTS, ports),
        hosts: judge
            .list(&raw.packet_hosts, Vec::new(), address::<IpAddr>)
            .into_iter()
            .collect(),
    };
    if let Some(given) = &raw.packet_cards {
        twice(given, &packet, judge);
    }
    asked.then_some(packet)
}

/// A device has one role.
fn twice(given: &Given<Vec<String>>, packet: &Packet, judge: &mut Judge<'_>) {
    for card in &packet.cards {
        if let Some(pattern) = packet.clients.iter().find(|it| it.means(card)) {
            judge.wrong(
                given,
                &format!("`{card}` is among the `clients` as well (`{pattern}`); a device is either a card or a client's"),
            );
        }
    }
}

/// What the kernel takes for the name of a device (dev_valid_name).
fn device(text: &str) -> Result<String, String> {
    let odd = |c: char| c == '/' || c == ':' || c == '*' || c.is_whitespace() || c.is_control();
    let good = !text.is_empty() && text.len() < IFNAMSIZ && !text.contains(odd);
    match text {
        "lo" => {
            Err("nothing of others comes by `lo`; write a network device, such as eth0".to_owned())
        }
        "." | ".." => Err(NO_DEVICE.to_owned()),
        _ if good => Ok(text.to_owned()),
        _ => Err(NO_DEVICE.to_owned()),
    }
}

fn xdp(text: &str) -> Result<Xdp, String> {
    [Xdp::Auto, Xdp::Native, Xdp::Generic, Xdp::Off]
        .into_iter()
        .find(|it| it.as_str() == text)
        .ok_or_else(|| "write auto, native, generic or off".to_owned())
}

/// An address that packets can be sent from and to.
fn address<A: FromStr + Copy + Into<IpAddr>>(text: &str) -> Result<A, String> {
    let remedy = "write an address of a host, such as 192.0.2.7";
    let address: A = text.parse().map_err(|_| remedy.to_owned())?;
    let ip: IpAddr = address.into();
    let nobody = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    match nobody || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        true => Err(remedy.to_owned()),
        false => Ok(address),
    }
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let range = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    match range {
        Some((first, last))
            if first >= LOWEST_PORT && last > first && last - first >= FEWEST - 1 =>
        {
            Ok(first..=last)
        }
        _ => Err(format!(
            "write the first and the last of at least {FEWEST} ports from {LOWEST_PORT} on, such as 61000-65535"
        )),
    }
}

/// Above what Linux gives to sockets that ask for no port.
pub(super) const PORTS: RangeInclusive<u16> = 61_000..=65_535;
/// Below are the ports of services.
const LOWEST_PORT: u16 = 1024;
/// Eight are tried for a flow; with fewer than this they are soon the same.
const FEWEST: u16 = 64;
/// With the byte that ends it.
const IFNAMSIZ: usize = 16;
const NO_DEVICE: &str = "write the name of a network device, such as eth0";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::tests::World;

    #[test]
    fn without_the_table_and_the_flags_there_is_no_packet_path() {
        let (config, _) = World::new().load_with_origins().unwrap();
        assert_eq!(config.packet, None);
        for text in ["[packet]\n", "[packet]\ncards = [\"eth0\"]\n"] {
            let (config, _) = World::new().toml(text).load_with_origins().unwrap();
            assert!(config.packet.is_some(), "{text}");
        }
    }

    #[test]
    fn each_key_is_read() {
        let world = World::new().toml(
            "[packet]\ncards = [\"eth0\", \"eth1\"]\nclients = [\"tap0\", \"veth*\"]\nxdp = \"generic\"\n\
             source = \"192.0.2.7\"\nsource6 = \"2001:db8::7\"\nports = \"20000-29999\"\nhosts = [\"192.0.2.8\", \"2001:db8::8\"]\n",
        );
        let (config, _) = world.load_with_origins().unwrap();
        let packet = config.packet.unwrap();
        assert_eq!(packet.cards, ["eth0", "eth1"]);
        let means = |name: &str| packet.clients.iter().any(|it| it.means(name));
        assert!(means("tap0") && means("veth12ab") && !means("tap01") && !means("vet"));
        assert_eq!(packet.xdp, Xdp::Generic);
        assert_eq!(packet.source, Some([192, 0, 2, 7].into()));
        assert_eq!(packet.source6, "2001:db8::7".parse().ok());
        assert_eq!(packet.ports, 20_000..=29_999);
        assert_eq!(packet.hosts.len(), 2);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let world = World::new().toml(
            "[packet]\ncards = [\"eth0\", \"lo\"]\nclients = [\"*\", \"eth*\", \"a name\"]\nxdp = \"fast\"\n\
             source = \"127.0.0.1\"\nsource6 = \"192.0.2.7\"\nports = \"80-90\"\nhosts = [\"ff02::1\"]\n",
        );
        let mistakes = world.load_with_origins().unwrap_err().mistakes;
        let told = mistakes.join("\n");
        for part in [
            "`lo`: nothing of others",
            "`*`: write how the names begin",
            "`a name`: write the name of a network device",
            "`fast`: write auto, native, generic or off",
            "`127.0.0.1`: write an address",
            "`192.0.2.7`: write an address",
            "`80-90`: write the first and the last of at least 64 ports",
            "`ff02::1`: write an address",
            "`eth0` is among the `clients` as well (`eth*`)",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert_eq!(mistakes.len(), 9, "{told}");
    }

    #[test]
    fn a_range_of_ports_has_a_beginning_an_end_and_enough_between() {
        assert_eq!(ports("61000-65535"), Ok(PORTS));
        assert_eq!(ports("1024 - 1087"), Ok(1024..=1087));
        for wrong in ["", "1024", "1024-1086", "1023-9000", "9000-1024", "1-70000"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }
}
