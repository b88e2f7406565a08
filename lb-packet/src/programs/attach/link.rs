//! Links of programs: the kernel gives one for what it attached, a pin keeps it when the agent goes, and the next agent puts its own
//! program into it.

use std::{fs, io, os::fd::AsFd as _, path::Path};

use aya::programs::links::{FdLink, LinkError};

use super::hook::{Hook, Spot};
use crate::{
    Error,
    programs::{Programs, loaded},
};

impl Programs {
    /// Puts the program into the link that an earlier agent pinned, if there is one that is attached to the device.
    pub(super) fn adopt(&self, spot: Spot<'_>) -> Result<Option<Hook>, Error> {
        let path = &self.pin(spot);
        let link = match lb_sys::bpf::object_get(path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::pin("open the pinned link", path)(error)),
        };
        let device = lb_sys::bpf::link_device(link.as_fd());
        if device.map_err(Error::pin("read the pinned link", path))? != spot.index {
            // Its device is gone, and this is another one.
            fs::remove_file(path).map_err(Error::pin("remove the outdated link", path))?;
            return Ok(None);
        }
        let program = loaded(&self.ebpf, spot.program)?;
        lb_sys::bpf::link_update(link.as_fd(), program.as_fd())
            .map_err(Error::pin("replace the program of the link", path))?;
        tracing::info!(
            device = spot.device,
            program = spot.program,
            "adopted the attached program's link"
        );
        Ok(Some(spot.hook(Some(link), true)))
    }
}

/// Pins the link that was just made of a program.
pub(super) fn keep<Link>(link: Link, spot: Spot<'_>, path: &Path) -> Result<Hook, Error>
where
    FdLink: TryFrom<Link, Error = LinkError>,
{
    let link = FdLink::try_from(link).map_err(|source| Error::Link {
        program: spot.program,
        source,
    })?;
    link.pin(path).map_err(Error::make_pin(path))?;
    let link = lb_sys::bpf::object_get(path).map_err(Error::pin("open the pinned link", path))?;
    Ok(spot.hook(Some(link), false))
}
