//! Links: attached programs, pinned so that they outlive the agent, and replaced in place.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use aya::programs::{
    CgroupAttachMode, Program,
    links::{FdLink, LinkError},
};

use super::{DATAGRAM_HOOKS, Error, HOOKS, Programs, versions};

impl Programs {
    /// Attaches every program that is always attached, in the place of an earlier agent's where there is one. What the
    /// maps of the version before hold has to be taken over before, by [`crate::maps::Maps::open`]; they go then.
    ///
    /// # Errors
    /// When the kernel refuses; then links of earlier agents stay where they were, whichever program they run by then.
    pub fn attach(&mut self) -> Result<(), Error> {
        for hook in DATAGRAM_HOOKS {
            // What an earlier agent left attached gets this one's program, whether there still is a UDP service or not.
            let path = self.pins.join(hook);
            if fs::exists(&path).map_err(Error::pin("look for", &path))? {
                self.attach_all(&[hook])?;
            }
        }
        self.attach_all(&HOOKS)?;
        self.retire_previous()
    }

    /// Attaches these hooks alone.
    ///
    /// # Errors
    /// As [`Programs::attach`], of which this is a part: what comes after it is left to the next start.
    pub fn attach_only(&mut self, hooks: &[&'static str]) -> Result<(), Error> {
        self.attach_all(hooks)
    }

    /// Throws away the maps of the version before, whose programs no link runs any more.
    fn retire_previous(&mut self) -> Result<(), Error> {
        if let Some(previous) = self.previous.take() {
            versions::retire(&previous.folder, &self.versioned)?;
            tracing::info!(folder = %previous.folder.display(), "took over from the map version before");
        }
        Ok(())
    }

    /// Whether programs for datagrams are attached.
    pub fn serves_datagrams(&self) -> bool {
        self.links
            .iter()
            .any(|(hook, _)| DATAGRAM_HOOKS.contains(hook))
    }

    /// Attaches the programs for datagrams, or takes them away.
    ///
    /// # Errors
    /// When the kernel refuses; what was taken away until then stays so, and the call can be repeated.
    pub fn serve_datagrams(&mut self, wanted: bool) -> Result<(), Error> {
        if wanted {
            let attached = |hook| self.links.iter().any(|(name, _)| *name == hook);
            let missing: Vec<_> = DATAGRAM_HOOKS
                .into_iter()
                .filter(|hook| !attached(*hook))
                .collect();
            return self.attach_all(&missing);
        }
        // First those that begin flows.
        for hook in DATAGRAM_HOOKS.into_iter().rev() {
            let Some(at) = self.links.iter().position(|(name, _)| *name == hook) else {
                continue;
            };
            let path = self.pins.join(hook);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::pin("remove the link", &path)(error));
                }
                _ => drop(self.links.remove(at)),
            }
            tracing::info!(hook, "detached");
        }
        Ok(())
    }

    fn attach_all(&mut self, hooks: &[&'static str]) -> Result<(), Error> {
        let cgroup = fs::File::open(&self.cgroup)
            .map_err(|error| Error::Cgroup(self.cgroup.clone(), error))?;
        let id = cgroup
            .metadata()
            .map_err(|error| Error::Cgroup(self.cgroup.clone(), error))?
            .ino();
        let mut outdated = Vec::new();
        let mut fresh = Vec::new();
        for &hook in hooks {
            let path = self.pins.join(hook);
            let program = self.ebpf.program_mut(hook).ok_or(Error::Missing(hook))?;
            match adopt(program, hook, &path, id)? {
                Adoption::Replaced => tracing::info!(hook, "adopted the attached program's link"),
                Adoption::None => fresh.push((hook, attach(program, hook, &cgroup)?)),
                Adoption::Elsewhere(link) => {
                    fresh.push((hook, attach(program, hook, &cgroup)?));
                    outdated.push((path, link));
                }
            }
        }
        // Nothing is refused any more: until here the pins hold those of the former cgroup, all of them.
        for (path, _) in &outdated {
            fs::remove_file(path).map_err(Error::pin("remove the outdated link", path))?;
        }
        for (hook, link) in fresh {
            link.pin(self.pins.join(hook))
                .map_err(|source| Error::PinLink {
                    program: hook,
                    source,
                })?;
            tracing::info!(hook, cgroup = %self.cgroup.display(), "attached");
        }
        for &hook in hooks {
            let path = self.pins.join(hook);
            let link = lb_sys::bpf::object_get(&path)
                .map_err(Error::pin("open the pinned link", &path))?;
            self.links.push((hook, link));
        }
        if !outdated.is_empty() {
            tracing::warn!(
                "the configuration names another cgroup; open flows of the former one stay counted"
            );
        }
        // Only now, when the new ones are in place, and first the one that begins flows.
        while let Some((_, link)) = outdated.pop() {
            drop(link);
        }
        Ok(())
    }
}

/// What became of an earlier agent's link.
enum Adoption {
    /// There was none.
    None,
    /// It now runs our program.
    Replaced,
    /// It belongs to another cgroup, or to none any more.
    Elsewhere(OwnedFd),
}

/// Puts `program` into the link pinned at `path`, if there is one and it is attached to `cgroup`.
fn adopt(
    program: &Program,
    hook: &'static str,
    path: &Path,
    cgroup: u64,
) -> Result<Adoption, Error> {
    let link = match lb_sys::bpf::object_get(path) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Adoption::None),
        Err(error) => return Err(Error::pin("open the pinned link", path)(error)),
    };
    if lb_sys::bpf::link_cgroup(link.as_fd()).map_err(Error::pin("read the pinned link", path))?
        != cgroup
    {
        return Ok(Adoption::Elsewhere(link));
    }
    let descriptor = program.fd().map_err(|source| Error::Program {
        verb: "use",
        program: hook,
        source: Box::new(source),
    })?;
    lb_sys::bpf::link_update(link.as_fd(), descriptor.as_fd())
        .map_err(Error::pin("replace the program of the link", path))?;
    Ok(Adoption::Replaced)
}

fn attach(program: &mut Program, hook: &'static str, cgroup: &fs::File) -> Result<FdLink, Error> {
    // Single: cgroup links take no flags; links are multi-attach anyway.
    const MODE: CgroupAttachMode = CgroupAttachMode::Single;
    let refused = |source| Error::Program {
        verb: "attach",
        program: hook,
        source: Box::new(source),
    };
    // The three kinds share method names, not a trait.
    let link: Result<FdLink, LinkError> = match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, MODE).map_err(refused)?;
            program.take_link(id).map_err(refused)?.try_into()
        }
        Program::CgroupSock(program) => {
            let id = program.attach(cgroup, MODE).map_err(refused)?;
            program.take_link(id).map_err(refused)?.try_into()
        }
        Program::SockOps(program) => {
            let id = program.attach(cgroup, MODE).map_err(refused)?;
            program.take_link(id).map_err(refused)?.try_into()
        }
        _ => return Err(Error::Missing(hook)),
    };
    link.map_err(|source| Error::Link {
        program: hook,
        source,
    })
}
