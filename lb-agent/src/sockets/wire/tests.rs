use proptest::prelude::*;

use super::*;

const TCP4: Kind = Kind {
    family: AF_INET,
    protocol: TCP,
};

/// A connected one.
pub(in crate::sockets) fn udp_socket(inode: u32, peer: SocketAddr) -> Socket {
    let kind = Kind {
        family: AF_INET,
        protocol: UDP,
    };
    let raw = [0; SOCKET_ID];
    Socket {
        id: SocketId { kind, raw },
        state: ESTABLISHED,
        uid: 0,
        inode,
        local: peer,
        peer,
    }
}

/// An attribute, padded.
fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = attribute_head(length, kind).to_vec();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn record(backend: BackendId) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<Record>()];
    bytes[..8].copy_from_slice(&backend.to_bits().to_ne_bytes());
    bytes[8..16].copy_from_slice(&77_u64.to_ne_bytes());
    bytes[16..20].copy_from_slice(&[198, 18, 7, 7]);
    bytes[20..22].copy_from_slice(&80_u16.to_be_bytes());
    bytes[24..28].copy_from_slice(&[10, 0, 0, 3]);
    bytes[28..30].copy_from_slice(&8080_u16.to_be_bytes());
    bytes
}

fn storages(record: &[u8]) -> Vec<u8> {
    let mut storage = attribute_of(2, &5_u32.to_ne_bytes());
    storage.extend(attribute_of(1, &[]));
    storage.extend(attribute_of(STORAGE_MAP_VALUE, record));
    attribute_of(
        DIAG_SK_BPF_STORAGES | NESTED,
        &attribute_of(DIAG_BPF_STORAGE | NESTED, &storage),
    )
}

fn message_of(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(payload);
    let mut bytes = with_length(bytes);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn socket_of(family: u8, local: [u8; 16], peer: [u8; 16], attributes: &[u8]) -> Vec<u8> {
    let mut bytes = vec![family, ESTABLISHED, 0, 0];
    bytes.extend(4000_u16.to_be_bytes());
    bytes.extend(8080_u16.to_be_bytes());
    bytes.extend(local);
    bytes.extend(peer);
    bytes.extend([0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    for number in [0_u32, 0, 0, 1000, 4711] {
        bytes.extend(number.to_ne_bytes());
    }
    // One that is not asked for comes before.
    bytes.extend(attribute_of(8, &[0]));
    bytes.extend(attributes);
    message_of(SOCK_DIAG_BY_FAMILY, &bytes)
}

fn four(last: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&[10, 0, 0, last]);
    bytes
}

fn read(bytes: &[u8]) -> Vec<Result<Message, Malformed>> {
    messages(bytes, TCP).collect()
}

const ID: BackendId = BackendId {
    index: 3,
    generation: 9,
};

#[track_caller]
fn found(bytes: &[u8]) -> Found {
    match read(bytes)[..] {
        [Ok(Message::Found(found))] => found,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_socket_with_a_record_is_found_with_what_it_takes_to_end_it() {
    let bytes = socket_of(AF_INET, four(2), four(3), &storages(&record(ID)));
    let found = found(&bytes);
    let socket = found.socket;
    assert_eq!(socket.local, "10.0.0.2:4000".parse().unwrap());
    assert_eq!(socket.peer, "10.0.0.3:8080".parse().unwrap());
    assert_eq!((socket.uid, socket.inode), (1000, 4711));
    assert_eq!(
        found.origin,
        Origin {
            backend: ID,
            start_ns: 77,
            vip: Ipv4Addr::new(198, 18, 7, 7),
            vip_port: 80,
            address: "10.0.0.3:8080".parse().unwrap(),
        }
    );
    let order = destroy(&socket.id);
    assert_eq!(order.len(), MESSAGE_HEAD + 8 + SOCKET_ID);
    assert_eq!(order[16..18], [AF_INET, TCP]);
    // As the kernel sent it, cookie included.
    assert_eq!(order[24..], bytes[20..68]);
}

#[test]
fn a_socket_without_a_record_or_whose_flow_is_over_is_none_of_ours() {
    let over = storages(&record(BackendId::default()));
    for attributes in [vec![], attribute_of(DIAG_SK_BPF_STORAGES, &[]), over] {
        let bytes = socket_of(AF_INET, four(2), four(3), &attributes);
        assert_eq!(read(&bytes), [Ok(Message::Other)]);
    }
}

#[test]
fn a_udp_socket_without_a_record_may_have_one_all_the_same() {
    let bytes = socket_of(AF_INET, four(2), four(3), &[]);
    match messages(&bytes, UDP).collect::<Vec<_>>()[..] {
        [Ok(Message::Untold(socket))] => {
            assert_eq!(socket.peer, "10.0.0.3:8080".parse().unwrap());
            assert_eq!(socket.inode, 4711);
        }
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn an_ipv6_socket_is_read_in_full_and_one_that_talks_ipv4_as_ipv4() {
    let six = |address: &str| address.parse::<Ipv6Addr>().unwrap().octets();
    let to = |form: Form, peer: [u8; 16]| {
        let mut long = record(ID);
        long[24..28].copy_from_slice(&peer[12..]);
        long[40..44].copy_from_slice(&(form as u32).to_ne_bytes());
        long[44..56].copy_from_slice(&peer[..12]);
        long
    };
    for peer in ["fd00::a00:3", "::1"] {
        let long = storages(&to(Form::V6, six(peer)));
        let flow = found(&socket_of(AF_INET6, six("::2"), six(peer), &long));
        assert_eq!(flow.socket.peer, format!("[{peer}]:8080").parse().unwrap());
        assert_eq!(flow.origin.address, flow.socket.peer);
    }

    let (local, peer) = (six("::ffff:10.0.0.2"), six("::ffff:10.0.0.3"));
    for record in [record(ID), to(Form::Mapped, peer)] {
        let bytes = socket_of(AF_INET6, local, peer, &storages(&record));
        let flow = found(&bytes);
        assert_eq!(flow.socket.peer, "10.0.0.3:8080".parse().unwrap());
        assert_eq!(flow.origin.address, flow.socket.peer);
    }
}

#[test]
fn the_end_carries_the_kernels_error() {
    let done = message_of(NLMSG_DONE, &0_i32.to_ne_bytes());
    let error = message_of(NLMSG_ERROR, &(-95_i32).to_ne_bytes());
    assert_eq!(read(&done), [Ok(Message::End(0))]);
    assert_eq!(read(&error), [Ok(Message::End(95))]);
    let both = [socket_of(AF_INET, four(2), four(3), &[]), done].concat();
    assert_eq!(read(&both), [Ok(Message::Other), Ok(Message::End(0))]);
}

#[test]
fn a_question_asks_for_the_map_and_for_no_listener() {
    let question = list(TCP4, 42);
    assert_eq!(u32_at(&question, 0), Some(84));
    assert_eq!(question.len(), 84);
    let states = u32_at(&question, 20).unwrap();
    assert_eq!(states & (1 << LISTEN), 0);
    assert_ne!(states & (1 << ESTABLISHED), 0);
    let nest = attribute(&question[72..], REQ_SK_BPF_STORAGES).unwrap();
    let map = attribute(nest.unwrap(), STORAGE_REQ_MAP_FD).unwrap();
    assert_eq!(map, Some(&42_u32.to_ne_bytes()[..]));
}

#[test]
fn what_is_cut_short_is_told_at_every_length() {
    let whole = socket_of(AF_INET, four(2), four(3), &storages(&record(ID)));
    for length in 1..whole.len() {
        assert_eq!(read(&whole[..length]), [Err(Malformed)], "{length}");
    }
    // A record of another size, inside well-formed messages.
    let short = storages(&record(ID)[..48]);
    let bytes = socket_of(AF_INET, four(2), four(3), &short);
    assert_eq!(read(&bytes), [Err(Malformed)]);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_run_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(messages(&bytes, TCP).count() <= 1 + bytes.len() / 16);
    }

    #[test]
    fn no_changed_byte_makes_it_panic(at in 0_usize..200, byte in any::<u8>()) {
        let mut bytes = socket_of(AF_INET, four(2), four(3), &storages(&record(ID)));
        let at = at % bytes.len();
        bytes[at] = byte;
        prop_assert!(messages(&bytes, TCP).count() <= 1 + bytes.len() / 16);
    }
}
