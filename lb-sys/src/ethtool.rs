//! What `ethtool` asks of a network device, by `SIOCETHTOOL` (`include/uapi/linux/ethtool.h`).

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GRXCSUM: u32 = 0x14;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct Driver {
    command: u32,
    name: [u8; 32],
    rest: [u8; 160],
}

const _: () = assert!(size_of::<Driver>() == 196);

/// What the kernel reads and writes for a command, which is its first field.
///
/// # Safety
/// It has the layout and the size that its command has, and any bytes are a value of it.
unsafe trait Asked {}

// SAFETY: two integers, as all commands take them that get or set one value.
unsafe impl Asked for Value {}
// SAFETY: as its comment says; integers and bytes alone.
unsafe impl Asked for Driver {}

/// Whether the device joins received packets into larger ones before anybody sees them (LRO).
///
/// # Errors
/// When there is no such device in the caller's network namespace, or it does not tell.
pub fn joins_received(device: &str) -> io::Result<bool> {
    Ok(get(device, ETHTOOL_GFLAGS)? & ETH_FLAG_LRO != 0)
}

/// Whether the device takes the tags of VLANs out of received packets and tells them beside.
///
/// # Errors
/// As [`joins_received`].
pub fn takes_out_tags(device: &str) -> io::Result<bool> {
    Ok(get(device, ETHTOOL_GFLAGS)? & ETH_FLAG_RXVLAN != 0)
}

/// Whether the device sees to the checksums of received packets.
///
/// # Errors
/// As [`joins_received`].
pub fn checks_received(device: &str) -> io::Result<bool> {
    Ok(get(device, ETHTOOL_GRXCSUM)? != 0)
}

/// The name of the device's driver.
///
/// # Errors
/// As [`joins_received`].
pub fn driver(device: &str) -> io::Result<String> {
    let mut driver = Driver {
        command: ETHTOOL_GDRVINFO,
        name: [0; 32],
        rest: [0; 160],
    };
    ask(device, &mut driver)?;
    let name = driver.name.split(|it| *it == 0).next();
    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
}

fn get(device: &str, command: u32) -> io::Result<u32> {
    let mut value = Value { command, data: 0 };
    ask(device, &mut value)?;
    Ok(value.data)
}

/// Says whether checksums of packets that leave by the device may be left to it.
///
/// # Errors
/// When there is no such device in the caller's network namespace, or the caller may not.
pub fn offload_checksums(device: &str, offload: bool) -> io::Result<()> {
    let mut value = Value {
        command: ETHTOOL_STXCSUM,
        data: offload.into(),
    };
    ask(device, &mut value)
}

fn ask<T: Asked>(device: &str, value: &mut T) -> io::Result<()> {
    let socket: OwnedFd = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut name = [0; libc::IFNAMSIZ];
    if device.len() >= name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in name.iter_mut().zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: std::ptr::from_mut(value).cast(),
        },
    };
    // SAFETY: the request names a device and a live value of the size that its command has; the kernel reads and writes both
    // and keeps neither.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_joins_nothing_and_another_one_is_not_there() {
        assert!(!joins_received("lo").unwrap());
        let missing = joins_received("lb-no-such").unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
        assert!(joins_received("a-name-that-is-too-long").is_err());
        assert!(!takes_out_tags("lo").unwrap());
        assert!(checks_received("lo").unwrap());
        let missing = driver("lb-no-such").unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
    }
}
