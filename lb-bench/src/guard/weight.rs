//! What the kernel makes of each program of an object.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use aya::{EbpfLoader, programs::Program, util::KernelVersion};
use serde::Serialize;

use crate::packet;

/// Of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Weight {
    /// Instructions that the verifier went through, where the kernel tells.
    verified: Option<u32>,
    jited_bytes: u32,
}

/// A program in both builds, if both have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Weighed {
    object: &'static str,
    program: String,
    before: Option<Weight>,
    now: Option<Weight>,
}

/// Weights of all programs of an object, by name. Its maps are its own and go with it.
///
/// # Errors
/// When the kernel refuses one.
pub(super) fn of(object: &[u8]) -> Result<BTreeMap<String, Weight>> {
    let constants = constants();
    let mut loader = EbpfLoader::new();
    for (name, value) in &constants {
        // Each object has some of them.
        loader.override_global(name, value, false);
    }
    let mut ebpf = loader.load(object)?;
    let mut weights = BTreeMap::new();
    for (name, program) in ebpf.programs_mut() {
        let loaded = match program {
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            Program::SockOps(program) => program.load(),
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => bail!("nobody knows how to load {name}"),
        };
        loaded.with_context(|| format!("cannot load {name}"))?;
        let info = program.info()?;
        let weight = Weight {
            verified: info.verified_instruction_count(),
            jited_bytes: info.size_jitted(),
        };
        weights.insert(name.to_owned(), weight);
    }
    Ok(weights)
}

/// What loaders tell programs: the verifier leaves out what they rule out, so it is as on a host with everything.
fn constants() -> Vec<(&'static str, u32)> {
    // As the agent's loader has it.
    let knows_process = u32::from(
        KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 10, 0)),
    );
    let mut constants = packet::constants();
    constants.push(("KNOWS_PROCESS", knows_process));
    constants
}

/// Both builds of an object side by side: before and now. Pure.
pub(super) fn beside(
    object: &'static str,
    [before, now]: &[BTreeMap<String, Weight>; 2],
) -> Vec<Weighed> {
    let mut names: Vec<_> = before.keys().chain(now.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let weighed = names.into_iter().map(|program| Weighed {
        object,
        program: program.clone(),
        before: before.get(program).copied(),
        now: now.get(program).copied(),
    });
    weighed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench_packet"));

    #[test]
    fn every_program_of_an_object_is_weighed_and_twice_the_same() {
        let weights = of(OBJECT).unwrap();
        assert!(weights.contains_key("empty") && weights.contains_key("primitives"));
        let heavier = |one: &str, other: &str| {
            assert!(weights[one].jited_bytes > weights[other].jited_bytes);
            assert!(weights[one].verified > weights[other].verified);
        };
        heavier("primitives", "empty");
        heavier("primitives", "array");
        assert_eq!(of(OBJECT).unwrap(), weights);
    }

    #[test]
    fn what_only_one_build_has_is_told() {
        let weight = Weight {
            verified: Some(1),
            jited_bytes: 2,
        };
        let build =
            |name: &str| BTreeMap::from([(name.to_owned(), weight), ("both".to_owned(), weight)]);
        let weighed = beside("packet", &[build("old"), build("new")]);
        let weighed: Vec<_> = weighed
            .iter()
            .map(|it| (&*it.program, it.before.is_some(), it.now.is_some()))
            .collect();
        assert_eq!(
            weighed,
            [
                ("both", true, true),
                ("new", false, true),
                ("old", true, false)
            ]
        );
    }
}
