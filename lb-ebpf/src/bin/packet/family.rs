//! IPv4 and IPv6: what differs between them, so that the rules stand once.

use lb_common::{
    Be16, Be32, FlowHash, flow_hash4, flow_hash6,
    packet::{Flow, FlowKey4, FlowKey6, PortPair, Reply, ReplyKey4, ReplyKey6, Target, scope},
};
use lb_ebpf::packet::mapped;

use crate::maps::{
    FLOWS4, FLOWS6, HAIRPIN4, REPLIES4, REPLIES6, SOURCE4, hairpin6, pools, source6,
};

/// `BPF_NOEXIST`.
const NEW_ONLY: u64 = 1;

/// One of the two.
pub(crate) trait Family: Sized {
    /// An address as a raw integer or several, in network order.
    type Address: Copy + Eq;
    /// Key of a flow.
    type Ends: Ends<Address = Self::Address>;
    /// Key of a flow's answers.
    type Peer: Peer<Address = Self::Address>;

    /// What its endpoints have in their scope.
    const SCOPE: u8;

    /// The value of a flow.
    fn flow(ends: &Self::Ends) -> Option<*mut Flow>;
    /// Writes a new one down.
    fn add_flow(ends: &Self::Ends, flow: &Flow) -> Result<(), i32>;
    /// Forgets it.
    fn remove_flow(ends: &Self::Ends);
    /// The value of a flow's answers.
    fn reply(peer: &Self::Peer) -> Option<*mut Reply>;
    /// Writes it down, unless there is one.
    fn add_reply(peer: &Self::Peer, reply: &Reply) -> Result<(), i32>;
    /// Forgets it.
    fn remove_reply(peer: &Self::Peer);
    /// The hash of a flow.
    fn hash(ends: &Self::Ends) -> FlowHash;
    /// Whether flows may begin at such an address: who is in the pool, is this host, or has an address of one link or of a
    /// group alone can never be answered.
    fn may_begin(client: &Self::Address) -> bool;
    /// This host's own address, if it has one.
    fn own() -> Option<Self::Address>;
    /// What a client that is its own backend sees as its peer.
    fn hairpin() -> Self::Address;
    /// An address of those that maps hold for both families.
    fn narrow(wide: &[u32; 4]) -> &Self::Address;
    /// The inverse of [`Family::narrow`].
    fn widen(address: &Self::Address, wide: &mut [u32; 4]);
    /// The same as a value.
    #[inline(always)]
    fn wide(address: &Self::Address) -> [u32; 4] {
        let mut wide = [0; 4];
        Self::widen(address, &mut wide);
        wide
    }
    /// 0 if that gives these, of what maps hold for this family.
    fn differs(address: &Self::Address, wide: &[u32; 4]) -> u32;
    /// A VIP as packets of this family bear it.
    fn vip(vip: Be32) -> Self::Address;
    /// The VIP that an address stands for, if it is one of the pool.
    fn is_vip(address: &Self::Address) -> Option<Be32>;

    /// The address of a target.
    #[inline(always)]
    fn of<'a>(target: *const Target) -> &'a Self::Address {
        // SAFETY: array values live as long as the map; any bytes are integers.
        Self::narrow(unsafe { &(*target).address })
    }
}

/// A flow as its client sees it.
pub(crate) trait Ends {
    /// An address of its family.
    type Address;

    /// The key of a flow.
    fn new(client: Self::Address, client_port: Be16, vip: Be32, vip_port: Be16, proto: u8) -> Self;
    /// The client's address.
    fn client(&self) -> &Self::Address;
    /// The client's port.
    fn client_port(&self) -> Be16;
    /// The VIP.
    fn vip(&self) -> Be32;
    /// Its port.
    fn vip_port(&self) -> Be16;
    /// TCP or UDP.
    fn proto(&self) -> u8;
}

/// The same flow as its backend sees it.
pub(crate) trait Peer {
    /// An address of its family.
    type Address;

    /// The key of a flow's answers.
    fn new(
        backend: Self::Address,
        backend_port: Be16,
        local: Self::Address,
        local_port: Be16,
        proto: u8,
    ) -> Self;
    /// Makes it another flow's.
    fn set_local_port(&mut self, port: Be16);
}

/// IPv4.
pub(crate) struct V4;
/// IPv6.
pub(crate) struct V6;

macro_rules! family {
    (
        $family:ty, $address:ty, $ends:ty, $peer:ty,
        scope: $scope:expr, flows: $flows:ident, replies: $replies:ident, hash: $hash:ident,
        $($rest:item)*
    ) => {
        impl Ends for $ends {
            type Address = $address;

            #[inline(always)]
            fn new(
                client: $address,
                client_port: Be16,
                vip: Be32,
                vip_port: Be16,
                proto: u8,
            ) -> Self {
                Self::new(client, client_port, vip, vip_port, proto)
            }

            #[inline(always)]
            fn client(&self) -> &$address {
                &self.client
            }

            #[inline(always)]
            fn client_port(&self) -> Be16 {
                self.ports.first()
            }

            #[inline(always)]
            fn vip(&self) -> Be32 {
                self.vip
            }

            #[inline(always)]
            fn vip_port(&self) -> Be16 {
                self.ports.second()
            }

            #[inline(always)]
            #[expect(
                clippy::cast_possible_truncation,
                reason = "it was made of eight bits"
            )]
            fn proto(&self) -> u8 {
                self.proto as u8
            }
        }

        impl Peer for $peer {
            type Address = $address;

            #[inline(always)]
            fn new(
                backend: $address,
                backend_port: Be16,
                local: $address,
                local_port: Be16,
                proto: u8,
            ) -> Self {
                Self::new(backend, backend_port, local, local_port, proto)
            }

            #[inline(always)]
            fn set_local_port(&mut self, port: Be16) {
                self.ports = PortPair::new(self.ports.first(), port);
            }
        }

        impl Family for $family {
            type Address = $address;
            type Ends = $ends;
            type Peer = $peer;
            const SCOPE: u8 = $scope;

            #[inline(always)]
            fn flow(ends: &$ends) -> Option<*mut Flow> {
                $flows.get_ptr_mut(ends)
            }

            #[inline(always)]
            fn add_flow(ends: &$ends, flow: &Flow) -> Result<(), i32> {
                $flows.insert(ends, flow, 0)
            }

            #[inline(always)]
            fn remove_flow(ends: &$ends) {
                // Gone already: just as well.
                let _ = $flows.remove(ends);
            }

            #[inline(always)]
            fn reply(peer: &$peer) -> Option<*mut Reply> {
                $replies.get_ptr_mut(peer)
            }

            #[inline(always)]
            fn add_reply(peer: &$peer, reply: &Reply) -> Result<(), i32> {
                $replies.insert(peer, reply, NEW_ONLY)
            }

            #[inline(always)]
            fn remove_reply(peer: &$peer) {
                let _ = $replies.remove(peer);
            }

            #[inline(always)]
            fn hash(ends: &$ends) -> FlowHash {
                $hash(
                    ends.client,
                    ends.client_port(),
                    ends.vip,
                    ends.vip_port(),
                    ends.proto(),
                )
            }

            $($rest)*
        }
    };
}

family! {
    V4, Be32, FlowKey4, ReplyKey4,
    scope: 0, flows: FLOWS4, replies: REPLIES4, hash: flow_hash4,

    #[inline(always)]
    fn may_begin(client: &Be32) -> bool {
        let network = client.host() >> 24;
        network != 0
            && network != 127
            && network < 224
            && !pools().holds(client.raw())
            && client.raw() != SOURCE4.load()
            && client.raw() != HAIRPIN4.load()
    }

    #[inline(always)]
    fn own() -> Option<Be32> {
        let own = SOURCE4.load();
        (own != 0).then_some(Be32::from_raw(own))
    }

    #[inline(always)]
    fn hairpin() -> Be32 {
        Be32::from_raw(HAIRPIN4.load())
    }

    #[inline(always)]
    fn narrow(wide: &[u32; 4]) -> &Be32 {
        // SAFETY: it is an integer in another type.
        unsafe { &*(&raw const wide[3]).cast() }
    }

    #[inline(always)]
    fn widen(address: &Be32, wide: &mut [u32; 4]) {
        *wide = mapped(*address);
    }

    #[inline(always)]
    fn differs(address: &Be32, wide: &[u32; 4]) -> u32 {
        wide[3] ^ address.raw()
    }

    #[inline(always)]
    fn vip(vip: Be32) -> Be32 {
        vip
    }

    #[inline(always)]
    fn is_vip(address: &Be32) -> Option<Be32> {
        pools().holds(address.raw()).then_some(*address)
    }
}

family! {
    V6, [u32; 4], FlowKey6, ReplyKey6,
    scope: scope::V6, flows: FLOWS6, replies: REPLIES6, hash: flow_hash6,

    #[inline(always)]
    fn may_begin(client: &[u32; 4]) -> bool {
        let first = u32::from_be(client[0]);
        first >> 24 != 0xff
            && first >> 22 != 0xfe80 >> 6
            && client[0] | client[1] | client[2] != 0
            && !pools().holds_v6(*client)
            && *client != source6()
            && *client != hairpin6()
    }

    #[inline(always)]
    fn own() -> Option<[u32; 4]> {
        let own = source6();
        (own[0] | own[1] | own[2] | own[3] != 0).then_some(own)
    }

    #[inline(always)]
    fn hairpin() -> [u32; 4] {
        hairpin6()
    }

    #[inline(always)]
    fn narrow(wide: &[u32; 4]) -> &[u32; 4] {
        wide
    }

    #[inline(always)]
    fn widen(address: &[u32; 4], wide: &mut [u32; 4]) {
        *wide = *address;
    }

    #[inline(always)]
    fn differs(address: &[u32; 4], wide: &[u32; 4]) -> u32 {
        (address[0] ^ wide[0])
            | (address[1] ^ wide[1])
            | (address[2] ^ wide[2])
            | (address[3] ^ wide[3])
    }

    #[inline(always)]
    fn vip(vip: Be32) -> [u32; 4] {
        pools().written(vip.raw(), true)
    }

    #[inline(always)]
    fn is_vip(address: &[u32; 4]) -> Option<Be32> {
        let pools = pools();
        // Beyond the IPv4 pool nobody has an address.
        (pools.holds_v6(*address) && address[3] & pools.mask == 0)
            .then(|| Be32::from_raw(pools.prefix | address[3]))
    }
}
