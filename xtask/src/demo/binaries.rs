//! The programs that the demo runs: built first, so that they are never stale.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Kind;
use crate::packages;

/// Where the programs are.
pub(super) struct Binaries {
    pub(super) agent: PathBuf,
    pub(super) hello: PathBuf,
    /// Only when the source is Consul.
    pub(super) consul: Option<PathBuf>,
}

/// Builds the agent and the application, and fetches Consul if `source` is.
pub(super) fn build(source: Kind) -> Result<Binaries> {
    eprintln!("demo: building lb-agent and hello (nothing to do when they are current)");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--package", "lb-agent", "--package", "hello"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "lb-agent and hello do not build; the compiler says why above"
    );
    let said = String::from_utf8_lossy(&output.stdout);
    let find = |name: &str| {
        said.lines()
            .find_map(|line| executable(line, name))
            .with_context(|| format!("cargo built no program {name}"))
    };
    let consul = match source {
        Kind::File | Kind::Docker => None,
        Kind::Consul => Some(packages::consul(&workspace().join(".tools"))?),
    };
    Ok(Binaries {
        agent: find("lb-agent")?,
        hello: find("hello")?,
        consul,
    })
}

/// The program `name`, if this line of cargo's messages tells of it.
fn executable(line: &str, name: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        target: Target,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    let message: Message = serde_json::from_str(line).ok()?;
    message.executable.filter(|_| message.target.name == name)
}

fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_with_a_program_of_that_name_counts() {
        let program =
            r#"{"reason":"compiler-artifact","target":{"name":"hello"},"executable":"/t/hello"}"#;
        let library =
            r#"{"reason":"compiler-artifact","target":{"name":"hello"},"executable":null}"#;
        assert_eq!(executable(program, "hello"), Some("/t/hello".into()));
        assert_eq!(executable(program, "lb-agent"), None);
        assert_eq!(executable(library, "hello"), None);
        assert_eq!(
            executable(r#"{"reason":"build-finished","success":true}"#, "hello"),
            None
        );
    }
}
