//! Makes the agent the resolver of the host's own processes, and undoes it: by a drop-in where systemd-resolved
//! answers them, else by the first `nameserver` line of `/etc/resolv.conf`.
//!
//! It changes nothing that another program would change back, and takes out only what it put in. All state is in
//! those two files. Everything here blocks.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod text;

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use text::Owner;

/// The host's files, below some root.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

/// What the host's processes are to be told.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The agent's own address, where its resolver listens on port 53.
    pub own: Ipv4Addr,
    /// The front's domains, which nobody else is asked for.
    pub domains: Vec<String>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// This file was written, taken away or put back.
    Changed(PathBuf),
    /// All was so before.
    Nothing,
    /// The drop-in had lines of somebody else and is kept under this name, which systemd-resolved does not read.
    SetAside(PathBuf),
}

/// How things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The host's processes ask this address first, by what this file says.
    Installed(Ipv4Addr, PathBuf),
    /// They do not.
    Absent,
}

/// Why it cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program would undo it.
    #[error("{} is written by {writer}, which would undo any change; {remedy}", path.display())]
    Managed {
        /// The file.
        path: PathBuf,
        /// Who writes it.
        writer: String,
        /// What to do instead.
        remedy: String,
    },
    /// Every second question for our names would go to somebody else.
    #[error(
        "{} has `options rotate`, so servers that do not know our names would be asked for them, too; take `rotate` out of \
         that file and install again", .0.display()
    )]
    InTurn(PathBuf),
    /// Somebody else's file has our name.
    #[error("{} has lines that are not ours; move it away", .0.display())]
    Foreign(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot {verb} {}; run it as root, and see whether the file is immutable (lsattr)", path.display())]
    File {
        /// What failed.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How names get from the host's processes to a server.
enum Way {
    Resolved,
    /// By this text of `/etc/resolv.conf`; `None` if there is no such file.
    File(Option<String>),
}

impl Host {
    /// The host whose files lie below `root`, which is `/` but for tests and for containers that see the host's.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes the agent the resolver of the host's processes. To do it again changes nothing.
    ///
    /// # Errors
    /// When another program would undo it, others would be asked for our names, or a file cannot be written.
    pub fn install(&self, wanted: &Wanted) -> Result<Done, Error> {
        match self.way(wanted.own)? {
            Way::Resolved => {
                let path = self.drop_in();
                let text = text::drop_in(wanted.own, &wanted.domains);
                let old = read(&path)?;
                if old.as_deref() == Some(&text) {
                    return Ok(Done::Nothing);
                }
                if let Some(old) = old
                    && text::drop_in_owner(&old) != Owner::Ours
                {
                    return Err(Error::Foreign(path));
                }
                replace(&path, &text)?;
                Ok(Done::Changed(path))
            }
            Way::File(old) => {
                let path = self.resolv_conf();
                if old.as_deref().is_some_and(text::asks_in_turn) {
                    return Err(Error::InTurn(path));
                }
                let text = text::with_line(old.as_deref(), wanted.own);
                if old.as_deref() == Some(&text) {
                    return Ok(Done::Nothing);
                }
                replace(&path, &text)?;
                Ok(Done::Changed(path))
            }
        }
    }

    /// Undoes what [`Host::install`] did, whichever way that was, and keeps what others changed since. Tells what was done
    /// to each file, or why a file cannot be read or written; the other one is then undone all the same.
    pub fn uninstall(&self) -> Vec<Result<Done, Error>> {
        [self.remove_drop_in(), self.remove_line()]
            .into_iter()
            .filter(|done| !matches!(done, Ok(Done::Nothing)))
            .collect()
    }

    /// Whether the host's processes ask an agent.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn status(&self) -> Result<Status, Error> {
        let path = self.drop_in();
        if let Some(text) = read(&path)?
            && text::drop_in_owner(&text) != Owner::Other
            && let Some(own) = text.lines().find_map(|line| line.strip_prefix("DNS="))
            && let Ok(own) = own.trim().parse()
        {
            return Ok(Status::Installed(own, path));
        }
        let path = self.resolv_conf();
        let own = read(&path)?.and_then(|text| text::named(&text));
        Ok(own.map_or(Status::Absent, |own| Status::Installed(own, path)))
    }

    /// Tells systemd-resolved to read its files again. Other hosts need nothing: their C libraries see the change.
    ///
    /// # Errors
    /// What to do by hand.
    pub fn reload(&self, done: &Done) -> Result<(), String> {
        let (Done::Changed(path) | Done::SetAside(path)) = done else {
            return Ok(());
        };
        if path.parent() != self.drop_in().parent() {
            return Ok(());
        }
        // Below another root there may be no systemd, or another one.
        let here = self.root == Path::new("/");
        let reloaded = here
            && Command::new("systemctl")
                .args(["try-reload-or-restart", RESOLVED])
                .status()
                .is_ok_and(|status| status.success());
        if reloaded {
            return Ok(());
        }
        Err(format!(
            "systemd-resolved has not read the change yet; run on the host: systemctl \
             try-reload-or-restart {RESOLVED}"
        ))
    }

    fn way(&self, own: Ipv4Addr) -> Result<Way, Error> {
        let path = self.resolv_conf();
        if let Ok(target) = fs::read_link(&path) {
            if target
                .components()
                .any(|part| part.as_os_str() == "systemd")
                && target
                    .components()
                    .any(|part| part.as_os_str() == "resolve")
            {
                return Ok(Way::Resolved);
            }
            let writer = writer_of_link(&target);
            let remedy = remedy(&writer, own);
            return Err(Error::Managed {
                path,
                writer,
                remedy,
            });
        }
        let text = read(&path)?;
        if let Some(writer) = text.as_deref().and_then(text::writer) {
            let remedy = remedy(writer, own);
            let writer = writer.to_owned();
            return Err(Error::Managed {
                path,
                writer,
                remedy,
            });
        }
        if text.as_deref().is_some_and(text::asks_resolved) {
            return Ok(Way::Resolved);
        }
        Ok(Way::File(text))
    }

    fn remove_drop_in(&self) -> Result<Done, Error> {
        let path = self.drop_in();
        let Some(text) = read(&path)? else {
            return Ok(Done::Nothing);
        };
        match text::drop_in_owner(&text) {
            Owner::Other => Ok(Done::Nothing),
            Owner::Ours => {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
                // Others' files may be in there.
                let _ = path.parent().map(fs::remove_dir);
                Ok(Done::Changed(path))
            }
            Owner::Edited => {
                let aside = path.with_extension("conf.saved");
                fs::rename(&path, &aside).map_err(failed("rename", &path))?;
                Ok(Done::SetAside(aside))
            }
        }
    }

    fn remove_line(&self) -> Result<Done, Error> {
        let path = self.resolv_conf();
        // What a link leads to is another program's.
        if path.is_symlink() {
            return Ok(Done::Nothing);
        }
        let Some(text) = read(&path)?.filter(|text| text::without_line(text) != *text) else {
            return Ok(Done::Nothing);
        };
        match text::restored(&text) {
            Some(text) => replace(&path, &text)?,
            None => fs::remove_file(&path).map_err(failed("remove", &path))?,
        }
        Ok(Done::Changed(path))
    }

    fn resolv_conf(&self) -> PathBuf {
        self.root.join("etc/resolv.conf")
    }

    fn drop_in(&self) -> PathBuf {
        self.root.join("etc/systemd/resolved.conf.d/lb.conf")
    }
}

/// Who writes what a link leads to: these have directories of their own.
fn writer_of_link(target: &Path) -> String {
    let shown = target.display().to_string();
    [
        (text::NETWORK_MANAGER, text::NETWORK_MANAGER),
        ("resolvconf", "resolvconf"),
        ("connman", text::CONNMAN),
        ("/wsl/", text::WSL),
    ]
    .into_iter()
    .find(|(part, _)| shown.contains(part))
    .map_or_else(
        || format!("whoever owns {shown}"),
        |(_, name)| name.to_owned(),
    )
}

fn remedy(writer: &str, own: Ipv4Addr) -> String {
    match writer {
        text::NETWORK_MANAGER => format!(
            "let it name {own} itself: put `[global-dns-domain-*]` and `servers={own},SERVER`, with SERVER for each of \
             your present servers, into /etc/NetworkManager/conf.d/lb.conf and run `nmcli general reload`. \
             Or let it use systemd-resolved: `[main]` and `dns=systemd-resolved` there, then install again"
        ),
        text::DOCKER => "it is the file of this container alone; run the command on the host, or with --root and the \
             host's root directory"
            .to_owned(),
        text::DHCLIENT => format!(
            "put `prepend domain-name-servers {own};` into /etc/dhcp/dhclient.conf and renew the lease"
        ),
        text::WSL => "put `[network]` and `generateResolvConf = false` into /etc/wsl.conf, run `wsl --shutdown` on Windows, \
             make /etc/resolv.conf a file of your own with a server in it, and install again"
            .to_owned(),
        _ => format!(
            "let that program name {own} as the first server (resolvconf: a `nameserver {own}` line in \
             /etc/resolvconf/resolv.conf.d/head), or make /etc/resolv.conf a file of your own"
        ),
    }
}

/// The text of a file; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path)(source)),
    }
}

/// Puts `text` at `path`, with the rights of what was there: every process reads it, at any moment.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let beside = path.with_extension("lb-new");
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        let old = fs::metadata(path).map(|old| old.permissions());
        file.set_permissions(old.unwrap_or(Permissions::from_mode(0o644)))?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| {
        // What stays behind is read by nobody.
        let _ = fs::remove_file(&beside);
        failed("write", path)(source)
    })
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { verb, path, source }
}

const RESOLVED: &str = "systemd-resolved";

#[cfg(test)]
mod tests;
