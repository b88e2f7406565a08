//! Whether what lies in `deploy/` is taken by those who read it: judged by systemd's own program and by that for
//! CloudFormation.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    setup,
    shell::{run, say},
    workspace,
};

/// Units that those of ours name, and that every host with systemd has.
const OF_SYSTEMD: [&str; 6] = [
    "basic.target",
    "multi-user.target",
    "network-online.target",
    "shutdown.target",
    "sockets.target",
    "sysinit.target",
];

/// The highest mark that the agent's unit may get from `systemd-analyze security`, in tenths: it has 38 of 100. What is held
/// against it are the host's network and processes, which it is for.
const EXPOSURE: u8 = 40;

/// # Errors
/// When one of the files is not as it should be, or its judge can be neither found nor installed.
pub(crate) fn check() -> Result<()> {
    setup::test_programs()?;
    say("the units of systemd");
    let units = workspace().join("deploy/systemd");
    verify(&units, "usr/local/bin")?;
    run(Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE}"))
        .arg(units.join("lb-agent.service"))
        .stdout(std::process::Stdio::null()))?;
    say("the template of CloudFormation");
    run(Command::new(setup::cfn_lint()?).arg(workspace().join("deploy/aws/ecs.yaml")))
}

/// Lets systemd read the units as on a host of their own, which has no others but those that they name, and the agent in the
/// folder `programs`.
///
/// # Errors
/// When systemd does not take them.
pub(crate) fn verify(units: &Path, programs: &str) -> Result<()> {
    let host = tempfile::tempdir().context("cannot make a folder")?;
    let place = host.path().join("etc/systemd/system");
    symlink(programs, host.path().join("bin"))?;
    let programs = host.path().join(programs);
    for folder in [&place, &programs] {
        fs::create_dir_all(folder)?;
    }
    for program in ["lb-agent", "kill"] {
        let program = programs.join(program);
        fs::write(&program, "")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    for unit in OF_SYSTEMD {
        fs::write(place.join(unit), "[Unit]\n")?;
    }
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no", "--root"])
        .arg(host.path());
    let mut count = 0;
    for unit in fs::read_dir(units).with_context(|| format!("cannot read {}", units.display()))? {
        let unit = unit?;
        let copy = place.join(unit.file_name());
        fs::copy(unit.path(), &copy)?;
        verify.arg(copy);
        count += 1;
    }
    ensure!(count > 0, "there is no unit in {}", units.display());
    let output = verify.output().context("cannot run systemd-analyze")?;
    // It tells a key that it does not know, and succeeds.
    let said = [output.stdout, output.stderr].concat();
    if !output.status.success() || !said.is_empty() {
        bail!(
            "systemd does not take the units:\n{}",
            String::from_utf8_lossy(&said)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_with_a_word_that_systemd_does_not_know_is_refused() {
        let units = tempfile::tempdir().unwrap();
        let whole =
            fs::read_to_string(workspace().join("deploy/systemd/lb-agent.service")).unwrap();
        let unit = units.path().join("lb-agent.service");
        fs::write(&unit, &whole).unwrap();
        verify(units.path(), "usr/local/bin").unwrap();
        for (word, other) in [
            ("ProtectHome=yes", "ProtectHomes=yes"),
            ("Type=notify", "Type=notifies"),
            ("/usr/local/bin/lb-agent run", "/nothing run"),
        ] {
            assert!(whole.contains(word), "{word}");
            fs::write(&unit, whole.replacen(word, other, 1)).unwrap();
            let refused = verify(units.path(), "usr/local/bin")
                .unwrap_err()
                .to_string();
            assert!(refused.contains("lb-agent.service"), "{refused}");
        }
    }
}
