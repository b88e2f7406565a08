//! Debian's Consul as an image, for machines that cannot pull one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::{Image, Root, labels};

/// The name that the compose files give the image of Consul. What is made here is older than what it promises, and knows
/// everything that those files use.
pub(crate) const NAME: &str = "hashicorp/consul:1.21";

/// The image of the program `consul`, with the libraries of this machine that it loads.
pub(super) fn image(consul: &Path) -> Result<Image> {
    let root = Root::new("consul")?;
    root.copy(consul, "bin/consul")?;
    for library in libraries(consul)? {
        root.copy(&library, &library.to_string_lossy())?;
    }
    let config = json!({
        "Entrypoint": ["/bin/consul"],
        "Cmd": ["agent", "-dev", "-client", "0.0.0.0"],
        "Env": ["PATH=/bin"],
        "ExposedPorts": { "8500/tcp": {}, "8600/tcp": {}, "8600/udp": {} },
        "Volumes": { "/consul/data": {} },
        "Labels": labels("consul", "Debian's package of Consul, for machines that cannot pull an image"),
        "StopSignal": "SIGTERM",
    });
    root.image(NAME, &config, super::CREATED)
}

/// The files that the kernel and the loader map before `program` begins.
pub(crate) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd, of Debian's package libc-bin")?;
    ensure!(
        output.status.success(),
        "ldd cannot read {}",
        program.display()
    );
    let said = String::from_utf8_lossy(&output.stdout);
    let found = parse(&said)?;
    ensure!(
        !found.is_empty(),
        "ldd says of {}: {said}",
        program.display()
    );
    Ok(found)
}

/// `name => /path (0x…)` or `/path (0x…)`; the kernel's own page has no file.
fn parse(said: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in said.lines() {
        let place = line
            .split_once("=>")
            .map_or(line, |(_, place)| place)
            .trim();
        if place.starts_with("not found") {
            bail!(
                "this machine does not have a library that a program needs: {}",
                line.trim()
            );
        }
        let path = place.split_whitespace().next().unwrap_or_default();
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_is_a_library_and_the_kernels_page_is_none() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f16)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f17)\n";
        let expect = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(parse(said).unwrap(), expect.map(PathBuf::from));
        let error = parse("\tlibx.so => not found\n").unwrap_err().to_string();
        assert!(error.contains("libx.so"), "{error}");
    }
}
