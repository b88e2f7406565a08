//! Pins of what is attached. The name of one is that of the program, the index of the device and the way it is attached: indexes
//! do not come back, names of devices do, and bpffs takes no dot, which they may have.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use super::attach::{How, detach_filter};
use crate::Error;

/// The name of a pin.
pub(super) fn name(program: &str, index: u32, how: How) -> String {
    format!("{program}-{index}-{}", how.as_str())
}

/// All pins in a folder, in the order in which they may go: what puts the VIP back goes last, so that no flow begins whose answers
/// nobody translates.
pub(super) fn list(folder: &Path) -> Result<Vec<Pin>, Error> {
    let paths = entries(folder)?;
    let names = paths.iter().filter_map(|it| it.file_name()?.to_str());
    let mut pins: Vec<_> = names.filter_map(Pin::parse).collect();
    pins.sort_by_key(|pin| pin.program.ends_with("_out"));
    Ok(pins)
}

/// What the name of a pin says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) program: String,
    pub(super) index: u32,
    pub(super) how: How,
}

impl Pin {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let (program, index, how) = (parts.next()?, parts.next()?, parts.next()?);
        let all = [How::Native, How::Generic, How::Tcx, How::Clsact];
        if parts.next().is_some() {
            return None;
        }
        let pin = Self {
            program: program.to_owned(),
            index: index.parse().ok()?,
            how: all.into_iter().find(|it| it.as_str() == how)?,
        };
        (pin.name() == name).then_some(pin)
    }

    /// As it is called in its folder.
    pub(super) fn name(&self) -> String {
        name(&self.program, self.index, self.how)
    }

    /// Takes its program off the device, and removes it. Without its pin a link would go, too, but only some time later.
    pub(super) fn remove(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(self.name());
        if self.how == How::Clsact {
            detach_filter(&self.program, self.index)?;
        } else if let Ok(link) = lb_sys::bpf::object_get(&path) {
            // Whatever is in the way of that, the pin is removed next.
            let _ = lb_sys::bpf::link_detach(link.as_fd());
        }
        unlink(&path)
    }
}

/// What is in a folder: nothing, if there is no such folder.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = || Error::pin("list", folder);
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .map_err(failed())?
            .map(|entry| entry.map(|it| it.path()).map_err(failed()))
            .collect(),
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
            let name = name("xdp_card", 17, how);
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
            "xdp_card-01-tcx",
        ] {
            assert_eq!(Pin::parse(name), None, "{name}");
        }
    }
}
