//! `lb-agent resolver`: makes the agent the resolver of this host's own processes, or undoes it.

use anyhow::Result;
use lb_agent::{
    cli::Output,
    config::{Action, ResolverArgs},
    host_dns::{Done, Host, Status, Wanted},
};

/// Does what `action` says and tells how things are then.
///
/// # Errors
/// When it cannot be done.
pub(crate) fn run(args: &ResolverArgs, wanted: Option<&Wanted>, output: Output) -> Result<()> {
    let host = Host::new(&args.root);
    let done = match (&args.action, wanted) {
        (Action::Install(_), Some(wanted)) => vec![host.install(wanted)],
        (Action::Uninstall, _) => host.uninstall(),
        _ => Vec::new(),
    };
    let mut failed = None;
    for done in done {
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                failed.get_or_insert(error);
                continue;
            }
        };
        // On the other stream: the answer may be JSON.
        match &done {
            Done::Changed(path) => eprintln!("changed {}", path.display()),
            Done::SetAside(path) => eprintln!(
                "{} was edited since; it is kept, and systemd-resolved does not read it there",
                path.display()
            ),
            Done::Nothing => {}
        }
        if let Err(remedy) = host.reload(&done) {
            eprintln!("lb-agent: {remedy}");
        }
    }
    if let Some(error) = failed {
        return Err(error.into());
    }
    println!("{}", shown(&host.status()?, output));
    Ok(())
}

fn shown(status: &Status, output: Output) -> String {
    match (status, output) {
        (Status::Installed(own, path), Output::Json) => {
            serde_json::json!({ "installed": true, "address": own, "file": path }).to_string()
        }
        (Status::Absent, Output::Json) => serde_json::json!({ "installed": false }).to_string(),
        (Status::Installed(own, path), _) => {
            format!(
                "installed: processes of this host ask {own} first, by {}",
                path.display()
            )
        }
        (Status::Absent, _) => {
            "not installed: processes of this host do not ask the agent".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_told_to_people_and_to_programs() {
        let installed = Status::Installed([198, 18, 0, 1].into(), "/etc/resolv.conf".into());
        assert_eq!(
            shown(&installed, Output::Table),
            "installed: processes of this host ask 198.18.0.1 first, by /etc/resolv.conf"
        );
        assert_eq!(
            shown(&installed, Output::Json),
            r#"{"address":"198.18.0.1","file":"/etc/resolv.conf","installed":true}"#
        );
        let absent = shown(&Status::Absent, Output::Json);
        assert_eq!(absent, r#"{"installed":false}"#);
    }
}
