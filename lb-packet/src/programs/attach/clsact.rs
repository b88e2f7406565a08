//! Programs of tc below kernel 6.6: filters of the qdisc clsact, at a place that is always the same, so that the next agent finds
//! them there. Nobody is told when one goes, so the kernel has to be asked.

use std::{io, os::fd::AsRawFd as _};

use aya::programs::{
    SchedClassifier, TcAttachType,
    links::Link as _,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::{hook::Spot, tc::direction};
use crate::Error;

/// Ours among the filters of a qdisc: late, after what others put there on purpose.
const PRIORITY: u16 = 0xb1b1;

const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Attaches `program`, in the place of an earlier agent's; says whether there was one.
pub(super) fn attach(program: &mut SchedClassifier, spot: Spot<'_>) -> Result<bool, Error> {
    let (device, direction) = (spot.device, direction(spot.program));
    match tc::qdisc_add_clsact(device) {
        // It is there already: ours, or somebody else's.
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        Err(error) if is(&error, io::ErrorKind::AlreadyExists) => {}
        Err(source) => {
            return Err(Error::Clsact {
                device: device.to_owned(),
                source,
            });
        }
    }
    let refused = || Error::program("attach", spot.program, Some(device));
    let there = SchedClassifierLink::attached(device, direction, PRIORITY, HANDLE, None).map_err(
        |source| Error::Device {
            device: device.to_owned(),
            source,
        },
    )?;
    // Without a filter at this place the kernel refuses to change it.
    let (id, adopted) = match program.attach_to_link(there) {
        Ok(id) => (id, true),
        Err(_) => {
            let options = TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            });
            (
                program
                    .attach_with_options(device, direction, options)
                    .map_err(refused())?,
                false,
            )
        }
    };
    // Its end would take the filter away.
    std::mem::forget(program.take_link(id).map_err(refused())?);
    Ok(adopted)
}

/// Takes the filter away, if the device is still there.
pub(in crate::programs) fn detach(program: &str, index: u32) -> Result<(), Error> {
    let Ok(device) = nix::net::if_::if_indextoname(index) else {
        return Ok(());
    };
    let device = device.to_string_lossy().into_owned();
    let link = SchedClassifierLink::attached(&device, direction(program), PRIORITY, HANDLE, None);
    match link.map(SchedClassifierLink::detach) {
        Ok(Ok(())) => Ok(()),
        // Somebody else was faster: with the filter, or with the device.
        Ok(Err(error)) => {
            tracing::debug!(device, program, %error, "there was no filter to take away");
            Ok(())
        }
        Err(_) => Ok(()),
    }
}

/// Whether the filter is there.
///
/// # Errors
/// When the kernel does not tell.
pub(super) fn is_there(program: &str, index: u32) -> io::Result<bool> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let netlink = netlink.as_raw_fd();
    send(
        netlink,
        &question(index, direction(program)),
        MsgFlags::empty(),
    )?;
    let mut answer = vec![0; ANSWER];
    loop {
        // What there is to say has been said before `send` returned.
        let length = recv(netlink, &mut answer, MsgFlags::MSG_DONTWAIT)?;
        let told = answer.get(..length).unwrap_or_default();
        if let Some(found) = read(told)? {
            return Ok(found);
        }
    }
}

/// `RTM_GETTFILTER` for all filters of one direction: `struct nlmsghdr` and `struct tcmsg` (linux/netlink.h, linux/rtnetlink.h).
fn question(index: u32, direction: TcAttachType) -> Vec<u8> {
    let parent = match direction {
        TcAttachType::Egress => EGRESS,
        _ => INGRESS,
    };
    let mut question = Vec::with_capacity(HEAD + TCMSG);
    for word in [36, (REQUEST | DUMP) << 16 | GET_FILTER, 1, 0] {
        question.extend(u32::to_ne_bytes(word));
    }
    if cfg!(target_endian = "big") {
        // The type comes before the flags.
        question[4..8].rotate_left(2);
    }
    for word in [0, index, 0, parent, 0] {
        question.extend(u32::to_ne_bytes(word));
    }
    question
}

/// Whether our filter is in a part of the answer; `None` if another part follows.
fn read(mut told: &[u8]) -> io::Result<Option<bool>> {
    let word = |message: &[u8], at: usize| {
        let bytes = message.get(at..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*bytes))
    };
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    while !told.is_empty() {
        let length = word(told, 0).and_then(|it| usize::try_from(it).ok());
        let length = length.filter(|it| *it >= HEAD).ok_or_else(broken)?;
        let message = told.get(..length).ok_or_else(broken)?;
        let kind = message.get(4..).and_then(|it| it.first_chunk());
        match kind.map(|it| u16::from_ne_bytes(*it)) {
            Some(DONE) => return Ok(Some(false)),
            Some(ERROR) => {
                let errno = word(message, HEAD).ok_or_else(broken)?;
                return Err(io::Error::from_raw_os_error(
                    errno.wrapping_neg().cast_signed(),
                ));
            }
            // The handle, and after the parent the priority, before a protocol.
            Some(NEW_FILTER) => {
                let (handle, info) = (word(message, HEAD + 8), word(message, HEAD + 16));
                let ours = info.is_some_and(|it| it >> 16 == u32::from(PRIORITY));
                if ours && handle == Some(1) {
                    return Ok(Some(true));
                }
            }
            _ => {}
        }
        told = told.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(None)
}

/// Sizes of `struct nlmsghdr` and `struct tcmsg`.
const HEAD: usize = 16;
const TCMSG: usize = 20;
/// As much as the kernel says at once.
const ANSWER: usize = 32 * 1024;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_FILTER: u16 = 44;
const GET_FILTER: u32 = 46;
const REQUEST: u32 = 1;
const DUMP: u32 = 0x300;
/// `TC_H_CLSACT` with `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS`.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

fn is(error: &TcError, kind: io::ErrorKind) -> bool {
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|it| it.kind() == kind)
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, words: &[u32]) -> Vec<u8> {
        let length = u32::try_from(HEAD + 4 * words.len()).unwrap();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(words.iter().flat_map(|it| it.to_ne_bytes()));
        message
    }

    #[test]
    fn our_filter_is_found_among_those_of_others() {
        let filter = |handle, priority: u16| {
            message(
                NEW_FILTER,
                &[0, 7, handle, INGRESS, u32::from(priority) << 16 | 3],
            )
        };
        let done = message(DONE, &[0]);
        let others = [filter(0, PRIORITY), filter(1, 1), filter(2, PRIORITY)].concat();
        assert_eq!(read(&others).unwrap(), None);
        assert_eq!(read(&[&*others, &*done].concat()).unwrap(), Some(false));
        assert_eq!(
            read(&[&*others, &*filter(1, PRIORITY), &*done].concat()).unwrap(),
            Some(true)
        );
        let refused = message(ERROR, &[1_u32.wrapping_neg()]);
        assert_eq!(read(&refused).unwrap_err().raw_os_error(), Some(1));
        for length in 1..done.len() {
            assert!(read(&done[..length]).is_err(), "{length}");
        }
        assert_eq!(question(7, TcAttachType::Ingress).len(), HEAD + TCMSG);
    }

    #[test]
    fn a_device_that_is_not_there_has_no_filter() {
        assert!(!is_there("tc_card_out", u32::MAX >> 1).unwrap());
    }
}
