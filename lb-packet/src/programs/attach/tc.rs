//! The programs of tc at a device: links where the kernel has them, else filters of a qdisc.

use aya::{
    programs::{Program, SchedClassifier, TcAttachType, links::LinkOrder, tc::TcAttachOptions},
    util::KernelVersion,
};

use super::{
    clsact,
    hook::{Hook, How, Spot},
    link::keep,
};
use crate::{
    Error,
    programs::{Programs, pin::unlink},
};

impl Programs {
    /// How programs of tc are attached on this kernel.
    pub(super) fn tc(&self) -> How {
        let tcx = !self.clsact
            && KernelVersion::current().is_ok_and(|it| it >= KernelVersion::new(6, 6, 0));
        if tcx { How::Tcx } else { How::Clsact }
    }

    pub(super) fn attach_tc(&mut self, spot: Spot<'_>) -> Result<Hook, Error> {
        let (hook, other) = match spot.how {
            How::Tcx => (self.attach_tcx(spot)?, How::Clsact),
            _ => (self.attach_clsact(spot)?, How::Tcx),
        };
        // What an agent on another kernel version, or in a test, left beside.
        self.remove_pins(|it| {
            it.program == spot.program && it.index == spot.index && it.how == other
        })?;
        Ok(hook)
    }

    fn attach_tcx(&mut self, spot: Spot<'_>) -> Result<Hook, Error> {
        if let Some(hook) = self.adopt(spot)? {
            return Ok(hook);
        }
        let pin = self.pin(spot);
        let refused = Error::program("attach", spot.program, Some(spot.device));
        let program = self.classifier(spot.program)?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let link = program
            .attach_with_options(spot.device, direction(spot.program), options)
            .and_then(|id| program.take_link(id))
            .map_err(refused)?;
        let hook = keep(link, spot, &pin)?;
        spot.tell();
        Ok(hook)
    }

    fn attach_clsact(&mut self, spot: Spot<'_>) -> Result<Hook, Error> {
        let pin = self.pin(spot);
        let program = self.classifier(spot.program)?;
        let adopted = clsact::attach(program, spot)?;
        // There is no link: a pin of the program itself remembers where it hangs.
        unlink(&pin)?;
        program.pin(&pin).map_err(Error::make_pin(&pin))?;
        spot.tell();
        Ok(spot.hook(None, adopted))
    }

    fn classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, Error> {
        match self.ebpf.program_mut(name) {
            Some(Program::SchedClassifier(program)) => Ok(program),
            _ => Err(Error::Missing(name)),
        }
    }
}

/// Where in tc a program is attached.
pub(super) fn direction(program: &str) -> TcAttachType {
    if program.ends_with("_in") {
        TcAttachType::Ingress
    } else {
        TcAttachType::Egress
    }
}
