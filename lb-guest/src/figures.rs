//! What the kernel says of the programs of an object.

use anyhow::{Context as _, Result};
use aya::Ebpf;
use lb_testkit::guest::Figures;

/// Of these programs, which are loaded, by name.
pub(crate) fn of(ebpf: &Ebpf, object: &str, programs: &[&str]) -> Result<Vec<Figures>> {
    let mut names = programs.to_vec();
    names.sort_unstable();
    let figures = names.into_iter().map(|name| {
        let program = ebpf.program(name);
        let program = program.with_context(|| format!("the object has no program {name}"))?;
        let info = program.info()?;
        Ok(Figures {
            object: object.to_owned(),
            program: name.to_owned(),
            verified: info.verified_instruction_count(),
            translated_bytes: info.size_translated().unwrap_or_default(),
            jited_bytes: info.size_jitted(),
            attached: None,
        })
    });
    figures.collect()
}
