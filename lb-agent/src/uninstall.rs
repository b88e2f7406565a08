//! `lb-agent uninstall`: takes off the host what the agent leaves there when it ends.
//!
//! What is taken away first is what would lead somebody to the agent: the host's resolver, then the hooks that
//! begin flows. The route of the pool goes last, so that nothing for a VIP ever leaves the host.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use lb_agent::{
    cli::{Output, Progress},
    config::{Places, UninstallArgs},
    host_dns::{Done, Host, Status},
    network,
    programs::{DATAGRAM_HOOKS, HOOKS, pin_root},
};
use lb_common::map;

use crate::{preflight, privileges};

/// What the agent keeps in its state directory; what it set aside begins with the same names.
const STATE: [&str; 8] = [
    "admin.token",
    "announce.json",
    "drains.json",
    "sticky-key.json",
    "vips.json",
    "vips-known.json",
    "consul-catalog.json",
    "agent.lock",
];

/// The folder there with what authorities gave.
const ACME: &str = "acme";

/// What is done with a thing: told as what will be done, and as what was done.
#[derive(Clone, Copy)]
enum Verb {
    Detach,
    Remove,
    Restore,
}

impl Verb {
    fn told(self, dry: bool) -> &'static str {
        match (self, dry) {
            (Self::Detach, true) => "would detach",
            (Self::Detach, false) => "detached",
            (Self::Remove, true) => "would remove",
            (Self::Remove, false) => "removed",
            (Self::Restore, true) => "would restore",
            (Self::Restore, false) => "restored",
        }
    }
}

/// What was done and what is left.
struct Work {
    dry: bool,
    done: Vec<(Verb, String)>,
    left: Vec<String>,
}

/// Does it, and tells what was done even if something failed.
///
/// # Errors
/// When an agent is running, or something cannot be taken away.
pub(crate) fn run(args: &UninstallArgs, places: &Places, output: Output) -> Result<()> {
    let root = pin_root(&places.bpffs);
    let mut work = Work {
        dry: args.dry_run,
        done: Vec::new(),
        left: Vec::new(),
    };
    // Not all of them if it is only to be told: one is a file that would be written.
    let locks = match locks(places, &root, args.dry_run) {
        Err(running) if args.dry_run => {
            work.left.push(format!(
                "an agent is running, or cannot be looked for: {running:#}"
            ));
            Vec::new()
        }
        locks => locks?,
    };
    let taking = Progress::start("taking the data plane away");
    let result = work.all(args, places, &root);
    drop(taking);
    println!("{}", work.shown(output));
    drop(locks);
    result
}

/// The locks of whatever is there. That of the network needs no flag, and so finds an agent that was given other places.
fn locks(places: &Places, root: &Path, dry: bool) -> Result<Vec<preflight::Lock>> {
    let mut locks = Vec::new();
    if !dry {
        privileges::check()?;
        if places.state_dir.is_dir() {
            locks.push(preflight::lock_state(&places.state_dir)?);
        }
    }
    if root.is_dir() {
        locks.push(preflight::lock_pins(root)?);
    }
    locks.push(preflight::lock_network()?);
    Ok(locks)
}

impl Work {
    fn all(&mut self, args: &UninstallArgs, places: &Places, root: &Path) -> Result<()> {
        self.host_resolver(&args.root)?;
        if preflight::is_bpffs(&places.bpffs) {
            self.links(&root.join("links"))?;
            self.packet_path(&places.bpffs)?;
            self.maps(root)?;
        } else {
            self.left.push(format!(
                "{} is no bpffs, so no pins were looked for; where they are elsewhere, name that with --bpffs",
                places.bpffs.display()
            ));
        }
        self.network()?;
        self.sockets(&places.socket)?;
        self.state(&places.state_dir, args.purge)
    }

    /// Does one thing, unless it is only to be told.
    fn act(&mut self, verb: Verb, what: String, doing: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.dry {
            doing()?;
        }
        self.done.push((verb, what));
        Ok(())
    }

    fn remove_file(&mut self, verb: Verb, what: String, path: &Path) -> Result<()> {
        self.act(verb, what, || {
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
        })
    }

    fn host_resolver(&mut self, root: &Path) -> Result<()> {
        let host = Host::new(root);
        if self.dry {
            if let Status::Installed(_, path) = host.status()? {
                self.done.push((Verb::Restore, path.display().to_string()));
            }
            return Ok(());
        }
        let mut failed = None;
        for done in host.uninstall() {
            let done = match done {
                Ok(done) => done,
                Err(error) => {
                    failed.get_or_insert(error);
                    continue;
                }
            };
            match &done {
                Done::Changed(path) => self.done.push((Verb::Restore, path.display().to_string())),
                Done::SetAside(path) => self.left.push(format!(
                    "{}: the resolver's drop-in, which was edited since and is not read there",
                    path.display()
                )),
                Done::Nothing => {}
            }
            if let Err(remedy) = host.reload(&done) {
                self.left.push(remedy);
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The pins of links: with them the programs are detached. Those that begin flows go first.
    fn links(&mut self, folder: &Path) -> Result<()> {
        let all = HOOKS.into_iter().chain(DATAGRAM_HOOKS).rev();
        for hook in all {
            let path = folder.join(hook);
            if path.exists() {
                self.remove_file(Verb::Detach, hook.to_owned(), &path)?;
            }
        }
        self.remove_folder(folder)
    }

    /// The programs of the packet path and what they know.
    fn packet_path(&mut self, bpffs: &Path) -> Result<()> {
        let gone =
            lb_packet::remove(bpffs, self.dry).context("cannot take the packet path away")?;
        self.done.extend(gone.into_iter().map(|it| match it {
            lb_packet::Gone::Link(name) => (Verb::Detach, name),
            lb_packet::Gone::Map(path) => (Verb::Remove, path.display().to_string()),
        }));
        Ok(())
    }

    /// The pins of maps, of all versions.
    fn maps(&mut self, root: &Path) -> Result<()> {
        for path in entries(root)? {
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_prefix('v'));
            if number.is_none_or(|number| number.parse::<u32>().is_err()) {
                continue;
            }
            for pin in entries(&path)? {
                self.remove_file(Verb::Remove, pin.display().to_string(), &pin)?;
            }
            self.remove_folder(&path)?;
        }
        for name in [map::ACTIVE, map::RECORDS] {
            let path = root.join(name);
            if path.exists() {
                self.remove_file(Verb::Remove, path.display().to_string(), &path)?;
            }
        }
        self.remove_folder(root)
    }

    /// A folder of ours, which is kept where others put something into it.
    fn remove_folder(&mut self, folder: &Path) -> Result<()> {
        if self.dry || !folder.is_dir() {
            return Ok(());
        }
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                let names: Vec<_> = entries(folder)?
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect();
                self.left
                    .push(format!("{}: not this agent's", names.join(", ")));
                Ok(())
            }
            // A volume of a container, whose root may be read-only.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ResourceBusy | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                self.left.push(format!(
                    "{}: empty, and a mount: whoever made that removes it",
                    folder.display()
                ));
                Ok(())
            }
            other => other.with_context(|| format!("cannot remove {}", folder.display())),
        }
    }

    fn network(&mut self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        for what in runtime.block_on(network::give_back(self.dry))? {
            self.done.push((Verb::Remove, what));
        }
        Ok(())
    }

    /// The sockets of an agent that was killed. The front may have outlived it.
    fn sockets(&mut self, admin: &Path) -> Result<()> {
        for name in ["front.sock", "front.next"] {
            let front = admin.with_file_name(name);
            if listens(&front)? {
                self.left.push(format!(
                    "the front of an agent that was killed still serves; end that process (`lb-agent front`), and remove {}",
                    front.display()
                ));
            } else {
                self.socket(&front)?;
            }
        }
        if listens(admin)? {
            self.left
                .push(format!("{}: somebody listens there", admin.display()));
            return Ok(());
        }
        self.socket(admin)
    }

    fn socket(&mut self, path: &Path) -> Result<()> {
        use std::os::unix::fs::FileTypeExt as _;
        let is_socket = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
        if is_socket {
            self.remove_file(Verb::Remove, path.display().to_string(), path)?;
        }
        Ok(())
    }

    fn state(&mut self, folder: &Path, purge: bool) -> Result<()> {
        if !folder.is_dir() {
            return Ok(());
        }
        if !purge {
            self.left.push(format!(
                "{}: drains, VIP records, the admin token, the key of cookies and certificates by ACME, for the next installation; --purge removes them",
                folder.display()
            ));
            return Ok(());
        }
        for path in entries(folder)? {
            let name = path.file_name().and_then(|name| name.to_str());
            let ours = |name: &str| STATE.iter().any(|known| name.starts_with(known));
            if name.is_some_and(ours) && path.is_file() {
                self.remove_file(Verb::Remove, path.display().to_string(), &path)?;
            }
        }
        self.remove_all(&folder.join(ACME))?;
        self.remove_folder(folder)
    }

    /// Removes a folder of the agent's with all that is in it.
    fn remove_all(&mut self, folder: &Path) -> Result<()> {
        for path in entries(folder)? {
            if path.is_dir() {
                self.remove_all(&path)?;
            } else {
                self.remove_file(Verb::Remove, path.display().to_string(), &path)?;
            }
        }
        self.remove_folder(folder)
    }

    fn shown(&self, output: Output) -> String {
        let done = self
            .done
            .iter()
            .map(|(verb, what)| (verb.told(self.dry), what));
        match output {
            Output::Json => {
                let done: Vec<_> = done
                    .map(|(verb, what)| serde_json::json!({ "verb": verb, "what": what }))
                    .collect();
                serde_json::json!({ "dry_run": self.dry, "done": done, "left": self.left })
                    .to_string()
            }
            _ => {
                let mut lines: Vec<String> =
                    done.map(|(verb, what)| format!("{verb} {what}")).collect();
                if lines.is_empty() {
                    lines.push("nothing to take away".to_owned());
                }
                lines.extend(self.left.iter().map(|left| format!("left: {left}")));
                lines.join("\n")
            }
        }
    }
}

/// What is in a folder, in order; nothing if it is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot list {}", folder.display());
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.with_context(failed)?,
    };
    let paths: io::Result<Vec<_>> = listed.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.with_context(failed)?;
    paths.sort();
    Ok(paths)
}

/// Whether a process has a socket of this name. Without asking there: the front would take that for an agent.
fn listens(path: &Path) -> Result<bool> {
    const SOCKETS: &str = "/proc/net/unix";
    let all = fs::read_to_string(SOCKETS).with_context(|| format!("cannot read {SOCKETS}"))?;
    let name = format!(" {}", path.display());
    Ok(all.lines().any(|line| line.ends_with(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_was_done_and_what_is_left() {
        let mut work = Work {
            dry: false,
            done: vec![(Verb::Detach, "connect4".to_owned())],
            left: vec!["/var/lib/lb: kept".to_owned()],
        };
        assert_eq!(
            work.shown(Output::Table),
            "detached connect4\nleft: /var/lib/lb: kept"
        );
        work.dry = true;
        assert_eq!(
            work.shown(Output::Json),
            r#"{"done":[{"verb":"would detach","what":"connect4"}],"dry_run":true,"left":["/var/lib/lb: kept"]}"#
        );
        work.done.clear();
        work.left.clear();
        assert_eq!(work.shown(Output::Table), "nothing to take away");
    }
}
