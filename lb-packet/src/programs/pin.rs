//! Pins of what is attached. The name of one is that of the program, the index of the device and the way it is attached: indexes
//! do not come back, names of devices do, and bpffs takes no dot, which they may have.

use std::{fs, io, os::fd::AsFd as _, path::Path};

use super::{
    attach::{How, direction},
    clsact,
};
use crate::Error;

/// What the name of a pin says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) program: String,
    pub(super) index: u32,
    pub(super) how: How,
}

impl Pin {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let (program, index, how) = (parts.next()?, parts.next()?, parts.next()?);
        let all = [How::Native, How::Generic, How::Tcx, How::Clsact];
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            program: program.to_owned(),
            index: index.parse().ok()?,
            how: all.into_iter().find(|it| it.as_str() == how)?,
        })
    }

    /// Takes its program off the device. Without its pin the link would go, too, but only some time later.
    pub(super) fn take_off(&self, path: &Path) -> Result<(), Error> {
        if self.how == How::Clsact {
            return clsact::detach(&self.program, self.index, direction(&self.program));
        }
        // Whatever is in the way of that, the pin is removed next.
        if let Ok(link) = lb_sys::bpf::object_get(path) {
            let _ = lb_sys::bpf::link_detach(link.as_fd());
        }
        Ok(())
    }
}

/// Removes a pin; what is gone already is no fault.
pub(super) fn unlink(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::pin("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_says_what_it_keeps_and_other_names_say_nothing() {
        for how in [How::Native, How::Generic, How::Tcx, How::Clsact] {
            let name = format!("xdp_card-17-{}", how.as_str());
            let pin = Pin {
                program: "xdp_card".into(),
                index: 17,
                how,
            };
            assert_eq!(Pin::parse(&name), Some(pin));
        }
        for name in [
            "",
            "xdp_card",
            "xdp_card-x-tcx",
            "xdp_card-1-",
            "xdp_card-1-tcx-2",
        ] {
            assert_eq!(Pin::parse(name), None, "{name}");
        }
    }
}
