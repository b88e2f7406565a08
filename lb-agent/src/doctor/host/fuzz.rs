//! The door of the fuzz targets to the kernel's tables.

use std::net::IpAddr;

/// Where something is mounted, and what kind it is.
pub(crate) fn mounts(mountinfo: &str) -> Vec<(String, String)> {
    let mounts = super::mounts(mountinfo).into_iter();
    mounts.map(|it| (it.point, it.kind)).collect()
}

/// Where the socket of a line of `/proc/net/tcp` and its like listens, if it does.
pub(crate) fn listener(protocol: &'static str, line: &str) -> Option<(IpAddr, u16)> {
    super::listener(protocol, line).map(|it| (it.ip, it.port))
}

/// What else is read of tables: VLANs, the limit of descriptors, and ports.
pub(crate) fn rest(text: &str) -> (usize, Option<u64>, bool) {
    let vlans = super::vlans(text).len();
    let limit = super::open_files(text);
    (vlans, limit, super::local_ports(text).is_some())
}
