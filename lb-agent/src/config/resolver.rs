//! The command line of `lb-agent resolver`, and what it needs of the configuration.

use std::path::PathBuf;

use super::{
    Config, Error, Given, Origin, Outside, RawConfig,
    resolve::{Judge, domains, pools},
};
use crate::host_dns::Wanted;

/// Makes the agent the resolver of this host's own processes, or undoes it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  lb-agent resolver install")]
pub struct ResolverArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
    /// The root directory of the host's files, for a container that sees them elsewhere
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// What can be done.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Action {
    /// Name the agent's address to systemd-resolved or in /etc/resolv.conf
    ///
    /// Where /etc/resolv.conf leads to systemd-resolved, this writes /etc/systemd/resolved.conf.d/lb.conf; else it puts
    /// one marked line before all others of /etc/resolv.conf. A file that another program writes is left alone, and
    /// the message says what to do there.
    Install(InstallArgs),
    /// Take away what install wrote, and nothing else
    Uninstall,
    /// Tell whether this host's processes ask the agent
    Status,
}

/// What is named to them; as `run` has it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct InstallArgs {
    /// File with the configuration [default: /etc/lb/lb.toml if it is there]
    #[arg(long, env = "LB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Network of the virtual addresses, whose first one is the agent's [default: 198.18.0.0/16]
    #[arg(long, env = "LB_POOL", value_name = "CIDR")]
    pub pool: Option<String>,
    /// Domain of the front, which only the agent is asked for; may be repeated
    #[arg(long, env = "LB_DOMAIN", value_name = "NAME", value_delimiter = ',')]
    pub domain: Vec<String>,
}

impl InstallArgs {
    /// What the flags, the environment and the file want.
    ///
    /// # Errors
    ///
    /// Everything that is wrong.
    pub fn wanted(&self) -> Result<Wanted, Error> {
        self.wanted_from(Outside::real())
    }

    fn wanted_from(&self, outside: Outside<'_>) -> Result<Wanted, Error> {
        let (file, mistakes) = Config::read_file(self.config.as_deref(), outside);
        let mut judge = Judge::new(outside, mistakes);
        let domain = self.domain.clone();
        let typed = RawConfig {
            vip_pool: self.pool.clone().map(|value| Given {
                origin: Origin::Flag("--pool"),
                value,
            }),
            front_domains: (!domain.is_empty()).then_some(Given {
                origin: Origin::Flag("--domain"),
                value: domain,
            }),
            ..RawConfig::default()
        };
        let raw = typed.over(file);
        let wanted = Wanted {
            own: pools(&raw, &mut judge).own(),
            domains: domains(&raw, &mut judge),
        };
        judge.finish(wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::{io, path::Path};

    use super::*;

    #[test]
    fn it_names_what_the_agent_has() {
        let toml = "[vip]\npool = \"10.7.0.0/16\"\n[front]\ndomains = [\"apps.example\"]\n";
        let read = |_: &Path| Ok(toml.to_owned());
        let none = |_: &Path| Err(io::ErrorKind::NotFound.into());
        let wanted = |args: InstallArgs, read: &dyn Fn(&Path) -> io::Result<String>| {
            args.wanted_from(Outside {
                variable: &|_| None,
                read,
            })
        };
        let default = wanted(InstallArgs::default(), &none).unwrap();
        assert_eq!(default.own.to_string(), "198.18.0.1");
        let filed = wanted(InstallArgs::default(), &read).unwrap();
        assert_eq!(filed.own.to_string(), "10.7.0.1");
        assert_eq!(filed.domains, ["apps.example"]);
        let typed = InstallArgs {
            pool: Some("10.8.0.0/7".to_owned()),
            ..InstallArgs::default()
        };
        let error = wanted(typed, &read).unwrap_err().to_string();
        assert!(error.contains("--pool: `10.8.0.0/7`"), "{error}");
    }
}
