//! `cargo xtask image`: the container images, made from this source alone.
//!
//! No base image, no network and no engine: an image is one layer with one static program, written in the format of
//! `docker save`, the same bytes for the same input. An engine that answers is given them.

mod archive;
mod consul;

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
pub(crate) use archive::architecture;
pub(crate) use consul::libraries;
use lb_ebpf_build::paths;
use serde_json::{Value, json};

use crate::{
    dist::{REVISION, Stamp},
    packages, setup,
    shell::{self, cargo, say},
    tools, workspace,
};

/// Arguments of `cargo xtask image`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also make an image of Debian's Consul, for machines that cannot pull the one that compose/ names.
    #[arg(long)]
    consul: bool,
}

/// One image, as a file that `docker load` reads.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) name: &'static str,
    pub(crate) file: PathBuf,
    /// Of all files in it.
    pub(crate) bytes: u64,
}

/// Builds the images and gives them to the engine, if one answers.
///
/// # Errors
/// When a program cannot be built, or the engine does not take them.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::programs()?;
    let images = build(Build::Small, args.consul)?;
    for image in &images {
        let tenths = image.bytes * 10 / 1_000_000;
        let (whole, tenth) = (tenths / 10, tenths % 10);
        println!(
            "{:30} {whole:3}.{tenth} MB  {}",
            image.name,
            image.file.display()
        );
    }
    if !engine_answers() {
        println!("no Docker Engine answers; later: docker load --input FILE");
        return Ok(());
    }
    for image in &images {
        run_docker(&["load", "--input"], &image.file)?;
    }
    Ok(())
}

/// How the programs are built.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Build {
    /// For use: with the profile `image`.
    Small,
    /// There sooner after a change, and as large as it likes.
    Soon,
}

impl Build {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Small => &["--profile", "image"],
            // With the name of a profile of its own, build scripts and macros would be built once more.
            Self::Soon => &[
                "--config",
                "profile.dev.debug = 'none'",
                "--config",
                "profile.dev.strip = 'symbols'",
            ],
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Small => "image",
            Self::Soon => "debug",
        }
    }
}

/// Builds the images of the agent and of hello, and of Consul if that is wanted.
///
/// # Errors
/// When a program cannot be built or found.
pub(crate) fn build(how: Build, consul: bool) -> Result<Vec<Image>> {
    let programs = static_programs(how, &[], None)?;
    let mut images = vec![agent(&programs, None)?, hello(&programs)?];
    if consul {
        images.push(consul::image(&packages::consul(&tools())?)?);
    }
    Ok(images)
}

/// The name that the compose files give the agent's image.
pub(crate) const AGENT: &str = "lb-agent:latest";

/// The name that they give the application's.
pub(crate) const HELLO: &str = "lb-hello:latest";

/// Builds the programs of the images and `more` without a library to load, and answers the folder that they are in.
/// They are built together, so that their dependencies are built once, with the same features. Their bytes do not tell where
/// they were built. The agent says that it is of this `revision`.
///
/// # Errors
/// When they cannot be built.
pub(crate) fn static_programs(
    how: Build,
    more: &[&str],
    revision: Option<&str>,
) -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    say("building the static programs (nothing to do when they are current)");
    let mut flags = vec![OsString::from("-Ctarget-feature=+crt-static")];
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    flags.extend(paths::flags(&paths::renamed(workspace(), rustc.as_ref())?));
    // Since a target is named they are for it alone: build scripts and macros run here, with libraries.
    let mut build = cargo();
    build
        .args(["build", "--locked", "--target", &target])
        .args(how.arguments())
        .args(["--package", "lb-agent", "--package", "hello"])
        .args(more.iter().flat_map(|it| ["--package", it]))
        .env_remove("RUSTFLAGS")
        .env_remove(REVISION)
        .envs(revision.map(|it| (REVISION, it)))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\u{1f}")))
        // What C compilers write for `__DATE__` and `__TIME__`, which the allocator has in it (https://reproducible-builds.org/specs/source-date-epoch/).
        .env("SOURCE_DATE_EPOCH", "0");
    shell::run(&mut build)?;
    Ok(workspace().join("target").join(target).join(how.folder()))
}

/// The agent's image. Without a stamp it is the same for the same program, whenever it is made of which source.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn agent(programs: &Path, stamp: Option<&Stamp>) -> Result<Image> {
    let root = Root::new("lb-agent")?;
    root.copy(&programs.join("lb-agent"), "lb-agent")?;
    let mut labels = labels(
        "lb-agent",
        "Balances Docker and Consul services inside connect()",
    );
    let mut created = CREATED.to_owned();
    if let Some(stamp) = stamp {
        labels["org.opencontainers.image.revision"] = json!(stamp.revision);
        created = stamp.time("%FT%TZ")?;
        labels["org.opencontainers.image.created"] = json!(created);
    }
    let config = json!({
        "Entrypoint": ["/lb-agent"],
        "Cmd": ["run"],
        // So that `docker exec` finds it without a slash.
        "Env": ["PATH=/"],
        "Labels": labels,
        "StopSignal": "SIGTERM",
        "Healthcheck": {
            "Test": ["CMD", "/lb-agent", "healthcheck"],
            "Interval": 10 * SECOND,
            "Timeout": 5 * SECOND,
            "StartPeriod": 30 * SECOND,
            "Retries": 3,
        },
    });
    root.image(AGENT, &config, &created)
}

fn hello(programs: &Path) -> Result<Image> {
    let root = Root::new("hello")?;
    root.copy(&programs.join("hello"), "bin/hello")?;
    // Names under which it is the worker of the application, the program that ends that one, and a client.
    for name in ["php-fpm", "pkill", "ask"] {
        let link = root.path.join("bin").join(name);
        symlink("hello", &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    let config = json!({
        "Entrypoint": ["/bin/hello"],
        "Cmd": ["--worker", "/bin/php-fpm"],
        "Env": ["PATH=/bin"],
        "ExposedPorts": { "80/tcp": {} },
        "Labels": labels("hello", "The demo's application: shows which instance answered"),
        "StopSignal": "SIGTERM",
    });
    root.image(HELLO, &config, CREATED)
}

fn labels(title: &str, description: &str) -> Value {
    json!({
        "org.opencontainers.image.title": title,
        "org.opencontainers.image.description": description,
        "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
    })
}

/// The folder that becomes the root of an image.
struct Root {
    name: &'static str,
    path: PathBuf,
}

impl Root {
    fn new(name: &'static str) -> Result<Self> {
        let path = folder().join(name);
        if path.exists() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot empty {}", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { name, path })
    }

    /// Copies `file`, or what it leads to, to this place in the image.
    fn copy(&self, file: &Path, place: &str) -> Result<()> {
        let to = self.path.join(place.trim_start_matches('/'));
        let parent = to.parent().unwrap_or(&self.path);
        fs::create_dir_all(parent)
            .and_then(|()| fs::copy(file, &to))
            .map(drop)
            .with_context(|| format!("cannot copy {} to {}", file.display(), to.display()))
    }

    /// Packs it, and removes the folder.
    fn image(self, name: &'static str, config: &Value, created: &str) -> Result<Image> {
        let file = folder().join(format!("{}.tar", self.name));
        let bytes = archive::pack(&self.path, &file, name, config, created)?;
        fs::remove_dir_all(&self.path)
            .with_context(|| format!("cannot remove {}", self.path.display()))?;
        Ok(Image { name, file, bytes })
    }
}

/// A time of its own would make every image another one.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Where the files are written.
fn folder() -> PathBuf {
    workspace().join("target/images")
}

fn engine_answers() -> bool {
    let mut docker = Command::new("docker");
    docker
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    docker.status().is_ok_and(|status| status.success())
}

fn run_docker(arguments: &[&str], file: &Path) -> Result<()> {
    shell::run(Command::new("docker").args(arguments).arg(file))
}

/// Times in an image's configuration are nanoseconds.
const SECOND: u64 = 1_000_000_000;
