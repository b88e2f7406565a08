//! Programs of tc below kernel 6.6: filters of the qdisc clsact, at a place that is always the same, so that the next agent finds
//! them there.

use std::io;

use aya::programs::{
    SchedClassifier, TcAttachType,
    links::Link as _,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};

use crate::Error;

/// Ours among the filters of a qdisc: late, after what others put there on purpose.
const PRIORITY: u16 = 0xb1b1;

const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Attaches `program`, in the place of an earlier agent's; says whether there was one.
pub(super) fn attach(
    program: &mut SchedClassifier,
    name: &'static str,
    device: &str,
    direction: TcAttachType,
) -> Result<bool, Error> {
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
    let refused = |source| Error::Program {
        verb: "attach",
        program: name,
        device: Some(device.to_owned()),
        source: Box::new(source),
    };
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
                    .map_err(refused)?,
                false,
            )
        }
    };
    // Its end would take the filter away.
    std::mem::forget(program.take_link(id).map_err(refused)?);
    Ok(adopted)
}

/// Takes the filter away, if the device is still there.
pub(super) fn detach(program: &str, index: u32, direction: TcAttachType) -> Result<(), Error> {
    let Ok(device) = nix::net::if_::if_indextoname(index) else {
        return Ok(());
    };
    let device = device.to_string_lossy().into_owned();
    let link = SchedClassifierLink::attached(&device, direction, PRIORITY, HANDLE, None);
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
