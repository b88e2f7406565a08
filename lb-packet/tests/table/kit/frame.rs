//! Packets as their senders mean them; `wire.rs` says how they lie on the wire.

mod wire;

use std::net::IpAddr;

use self::wire::with_ends;

/// An address of a network device.
pub(crate) type Mac = [u8; 6];

/// Flags of TCP.
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// A frame of Ethernet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    /// VLANs, outermost first.
    pub(crate) tags: Vec<u16>,
    pub(crate) ip: Ip,
}

/// A packet of IPv4 or IPv6, by its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// TTL or hop limit.
    pub(crate) hops: u8,
    /// Type of service or traffic class.
    pub(crate) class: u8,
    /// IPv4: the identification; IPv6: the flow label.
    pub(crate) id: u16,
    /// IPv4: don't fragment.
    pub(crate) whole: bool,
    /// Offset in units of eight bytes, and whether more come.
    pub(crate) fragment: Option<(u16, bool)>,
    /// IPv4 options, a multiple of four bytes.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers: which, and all but its first byte.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) body: Body,
}

/// What a packet bears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Tcp {
        source: u16,
        destination: u16,
        sequence: u32,
        acknowledged: u32,
        flags: u8,
        /// A multiple of four bytes.
        options: Vec<u8>,
        payload: Vec<u8>,
    },
    Udp {
        source: u16,
        destination: u16,
        /// IPv4 allows to do without.
        checksum: bool,
        payload: Vec<u8>,
    },
    /// ICMP or ICMPv6, after the family.
    Icmp {
        kind: u8,
        code: u8,
        /// The second word of its head.
        word: u32,
        payload: Vec<u8>,
    },
    /// A packet in a tunnel.
    Ip(Box<Ip>),
    /// Something else.
    Raw(u8, Vec<u8>),
}

impl Frame {
    /// A SYN between two addresses and ports.
    pub(crate) fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        Self::with(
            source.0,
            destination.0,
            Body::Tcp {
                source: source.1,
                destination: destination.1,
                sequence: 1000,
                acknowledged: 0,
                flags: SYN,
                options: Vec::new(),
                payload: Vec::new(),
            },
        )
    }

    /// A datagram between two addresses and ports.
    pub(crate) fn udp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        Self::with(
            source.0,
            destination.0,
            Body::Udp {
                source: source.1,
                destination: destination.1,
                checksum: true,
                payload: b"question".to_vec(),
            },
        )
    }

    /// A message of ICMP or ICMPv6.
    pub(crate) fn icmp(
        source: IpAddr,
        destination: IpAddr,
        kind: u8,
        code: u8,
        word: u32,
        payload: Vec<u8>,
    ) -> Self {
        let body = Body::Icmp {
            kind,
            code,
            word,
            payload,
        };
        Self::with(source, destination, body)
    }

    /// The reset that answers a packet of TCP: it goes back to the sender, and says nothing but that.
    pub(crate) fn reset(&self, sequence: u32, acknowledged: u32, flags: u8) -> Self {
        let Body::Tcp {
            source,
            destination,
            ..
        } = &self.ip.body
        else {
            panic!("only TCP has resets");
        };
        let (from, to) = (self.ip.destination, self.ip.source);
        let mut bytes = [destination.to_be_bytes(), source.to_be_bytes()].concat();
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(acknowledged.to_be_bytes());
        bytes.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
        let check = with_ends(from, to, 6, &bytes);
        bytes[16..18].copy_from_slice(&check.to_be_bytes());
        let mut frame = Self::with(from, to, Body::Raw(6, bytes)).made_here();
        frame.tags.clone_from(&self.tags);
        frame.macs(self.from, self.to)
    }

    /// As a program makes packets: not one of many.
    #[must_use]
    pub(crate) fn made_here(mut self) -> Self {
        self.ip.id = 0;
        self
    }

    /// Anything.
    pub(crate) fn with(source: IpAddr, destination: IpAddr, body: Body) -> Self {
        Self {
            to: [2, 0, 0, 0, 1, 1],
            from: [2, 0, 0, 0, 2, 254],
            tags: Vec::new(),
            ip: Ip {
                source,
                destination,
                hops: 64,
                class: 0,
                id: 0x1234,
                whole: true,
                fragment: None,
                options: Vec::new(),
                extensions: Vec::new(),
                body,
            },
        }
    }

    /// From another address and port. A port of 0 stays as it is.
    #[must_use]
    pub(crate) fn from(mut self, address: IpAddr, port: u16) -> Self {
        self.ip.source = address;
        if port != 0
            && let Body::Tcp { source, .. } | Body::Udp { source, .. } = &mut self.ip.body
        {
            *source = port;
        }
        self
    }

    /// To another address and port. A port of 0 stays as it is.
    #[must_use]
    pub(crate) fn to(mut self, address: IpAddr, port: u16) -> Self {
        self.ip.destination = address;
        if port != 0
            && let Body::Tcp { destination, .. } | Body::Udp { destination, .. } = &mut self.ip.body
        {
            *destination = port;
        }
        self
    }

    /// To and from other devices.
    #[must_use]
    pub(crate) fn macs(mut self, to: Mac, from: Mac) -> Self {
        (self.to, self.from) = (to, from);
        self
    }

    /// With so many hops left.
    #[must_use]
    pub(crate) fn hops(mut self, hops: u8) -> Self {
        self.ip.hops = hops;
        self
    }

    /// In a VLAN, outside of those that it is in.
    #[must_use]
    pub(crate) fn tag(mut self, tag: u16) -> Self {
        self.tags.insert(0, tag);
        self
    }

    /// With other flags of TCP; an ACK acknowledges something.
    #[must_use]
    pub(crate) fn flags(mut self, new: u8) -> Self {
        if let Body::Tcp {
            flags,
            acknowledged,
            ..
        } = &mut self.ip.body
        {
            *flags = new;
            *acknowledged = if new & ACK != 0 { 7000 } else { 0 };
        }
        self
    }

    /// With other options of TCP.
    #[must_use]
    pub(crate) fn tcp_options(mut self, new: &[u8]) -> Self {
        if let Body::Tcp { options, .. } = &mut self.ip.body {
            *options = new.to_vec();
        }
        self
    }

    /// With another payload.
    #[must_use]
    pub(crate) fn payload(mut self, new: &[u8]) -> Self {
        if let Body::Tcp { payload, .. } | Body::Udp { payload, .. } | Body::Icmp { payload, .. } =
            &mut self.ip.body
        {
            *payload = new.to_vec();
        }
        self
    }

    /// Changed in any other way.
    #[must_use]
    pub(crate) fn change(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// In a tunnel between two hosts.
    #[must_use]
    pub(crate) fn in_tunnel(mut self, source: IpAddr, destination: IpAddr) -> Self {
        let outer = Self::with(source, destination, Body::Raw(0, Vec::new())).ip;
        let inner = std::mem::replace(&mut self.ip, outer);
        self.ip.body = Body::Ip(Box::new(inner));
        self
    }
}
