//! The program of XDP at a card: by the driver, by the stack, or not at all.

use aya::programs::{Program, Xdp, XdpMode as AyaMode};

use super::{
    hook::{Attached, How, Spot, XdpMode},
    link::keep,
};
use crate::{Error, programs::Programs};

const PROGRAM: &str = "xdp_card";

/// Why an adopted program is not the driver's.
const ADOPTED: &str = "as an earlier agent left it; xdp = \"native\" tries the driver";

impl XdpMode {
    /// What is to be tried, one after the other.
    fn ways(self) -> &'static [How] {
        match self {
            Self::Auto => &[How::Native, How::Generic],
            Self::Native => &[How::Native],
            Self::Generic => &[How::Generic],
            Self::Off => &[],
        }
    }
}

impl Programs {
    pub(super) fn attach_xdp(
        &mut self,
        attached: &mut Attached,
        mode: XdpMode,
    ) -> Result<(), Error> {
        let (device, index) = (&*attached.device.clone(), attached.index);
        let ways = mode.ways();
        // A device runs one of both.
        self.remove_pins(|it| {
            it.program == PROGRAM && it.index == index && !ways.contains(&it.how)
        })?;
        let hooks = &mut attached.hooks;
        hooks.retain(|it| it.program != PROGRAM || ways.contains(&it.how));
        // Where it cannot be read there is none.
        if !ways.is_empty() && lb_sys::ethtool::joins_received(device).is_ok_and(|joins| joins) {
            return Err(Error::Lro {
                device: device.to_owned(),
            });
        }
        if ways.iter().any(|how| attached.runs(PROGRAM, *how)) {
            return Ok(());
        }
        attached.fallback = None;
        let spot = |&how: &How| Spot {
            program: PROGRAM,
            device,
            index,
            how,
        };
        for spot in ways.iter().map(spot) {
            if let Some(hook) = self.adopt(spot)? {
                attached.put(hook);
                // The kernel has one of both: to try the driver would leave the device without a program for a while.
                if mode == XdpMode::Auto && spot.how == How::Generic {
                    attached.fallback = Some(ADOPTED.to_owned());
                }
                return Ok(());
            }
        }
        let mut fallback = None;
        for (at, spot) in ways.iter().map(spot).enumerate() {
            let pin = self.pin(spot);
            let program = self.xdp()?;
            let refused = Error::program("attach", PROGRAM, Some(device));
            let asked = match spot.how {
                How::Native => AyaMode::Driver,
                _ => AyaMode::Skb,
            };
            match program.attach(device, asked) {
                Ok(id) => {
                    let link = program.take_link(id).map_err(refused)?;
                    let hook = keep(link, spot, &pin)?;
                    if let Some(why) = &fallback {
                        tracing::warn!(device, why, "the driver does not run XDP; the stack does");
                    }
                    spot.tell();
                    attached.put(hook);
                    attached.fallback =
                        fallback.map(|why| format!("its driver does not run XDP: {why}"));
                    return Ok(());
                }
                Err(error) if at + 1 == ways.len() => return Err(refused(error)),
                Err(error) => fallback = Some(chain(&error)),
            }
        }
        Ok(())
    }

    fn xdp(&mut self) -> Result<&mut Xdp, Error> {
        match self.ebpf.program_mut(PROGRAM) {
            Some(Program::Xdp(program)) => Ok(program),
            _ => Err(Error::Missing(PROGRAM)),
        }
    }
}

/// An error and what it came from, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    let texts = all.map(ToString::to_string);
    texts.collect::<Vec<_>>().join(": ")
}
