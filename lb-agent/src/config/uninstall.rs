//! The command line of `lb-agent uninstall`, and what it needs of the configuration.

use std::path::{Path, PathBuf};

use super::{Config, Error, Given, Origin, Outside, RawConfig, resolve::Judge};

/// Takes the agent's data plane off this host: hooks, pins, routes, addresses, the host's resolver.
///
/// No agent may be running. What was done is told, and what is left and why. To do it again changes nothing.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "Examples:\n  lb-agent uninstall --dry-run\n  lb-agent uninstall --purge")]
pub struct UninstallArgs {
    /// Only tell what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Remove the agent's files in the state directory, too: drains, VIP records, the
    /// admin token, the key of cookies, and certificates by ACME
    #[arg(long)]
    pub purge: bool,
    /// The root directory of the host's files, for a container that sees them elsewhere
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// File with the configuration [default: /etc/lb/lb.toml if it is there]
    #[arg(long, env = "LB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory for what outlives the agent [default: /var/lib/lb]
    #[arg(long, env = "LB_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The bpffs with the pins [default: /sys/fs/bpf]
    #[arg(long, env = "LB_BPFFS", value_name = "DIR")]
    pub bpffs: Option<PathBuf>,
}

/// Where the agent's things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The state directory.
    pub state_dir: PathBuf,
    /// The bpffs.
    pub bpffs: PathBuf,
    /// The admin socket.
    pub socket: PathBuf,
}

impl UninstallArgs {
    /// Where the flags, the environment and the file say that the agent's things are; `socket` is that flag.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn places(&self, socket: Option<&Path>) -> Result<Places, Error> {
        self.places_from(socket, Outside::real())
    }

    fn places_from(&self, socket: Option<&Path>, outside: Outside<'_>) -> Result<Places, Error> {
        let (file, mistakes) = Config::read_file(self.config.as_deref(), outside);
        let mut judge = Judge::new(outside, mistakes);
        let given = |flag, path: Option<&Path>| {
            path.map(|path| Given {
                origin: Origin::Flag(flag),
                value: path.display().to_string(),
            })
        };
        let typed = RawConfig {
            state_dir: given("--state-dir", self.state_dir.as_deref()),
            bpffs: given("--bpffs", self.bpffs.as_deref()),
            socket: given("--socket", socket),
            ..RawConfig::default()
        };
        let raw = typed.over(file);
        let places = Places {
            state_dir: judge.path(&raw.state_dir, "/var/lib/lb"),
            bpffs: judge.path(&raw.bpffs, "/sys/fs/bpf"),
            socket: judge.path(&raw.socket, "/run/lb/admin.sock"),
        };
        judge.finish(places)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_places_are_those_that_run_had() {
        let outside = Outside {
            variable: &|_| None,
            read: &|path| match path.to_str() {
                Some("/etc/lb/lb.toml") => {
                    Ok("bpffs = \"/b\"\nstate_dir = \"/s\"\n[dns]\nhost = true\n".to_owned())
                }
                _ => Err(io::ErrorKind::NotFound.into()),
            },
        };
        let args = UninstallArgs {
            state_dir: Some("/flag".into()),
            ..UninstallArgs::default()
        };
        let expect = Places {
            state_dir: "/flag".into(),
            bpffs: "/b".into(),
            socket: "/k".into(),
        };
        let found = args.places_from(Some(Path::new("/k")), outside);
        assert_eq!(found.unwrap(), expect);
    }
}
