//! A virtual machine that boots a kernel with our first process, tells what that found, and ends.
//!
//! QEMU emulates the processor, so it runs where there is no virtualisation, ten to twenty times slower. The machine has
//! no disk and no network device: nothing leads out of it but two serial lines, which are files.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use lb_testkit::{
    eventually,
    guest::{Hierarchy, Report},
};

use super::{archive::Archive, modules};
use crate::{image, shell};

/// Far more than it takes on a quiet machine.
const LIMIT: Duration = Duration::from_secs(240);

/// What a boot is made of.
#[derive(Debug)]
pub(super) struct Machine {
    /// Stands for `/` in the packages of QEMU.
    pub(super) qemu: PathBuf,
    /// The same of the kernel.
    pub(super) kernel: PathBuf,
    /// With the static programs `lb-guest` and `lb-agent`.
    pub(super) programs: PathBuf,
}

impl Machine {
    /// Boots the machine and answers what its first process tells.
    ///
    /// # Errors
    /// When it tells nothing in time; the end of its console is in the message.
    pub(super) fn boot(&self, hierarchy: Hierarchy) -> Result<Report> {
        let folder = tempfile::tempdir()?;
        let [initial, console, report] =
            ["initial", "console", "report"].map(|name| folder.path().join(name));
        self.pack(&initial)?;
        let started = Instant::now();
        let mut machine = self.start(hierarchy, &initial, &console, &report)?;
        let ended = eventually(LIMIT, || match machine.0.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it has not ended".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        drop(machine);
        let told = fs::read_to_string(&report).unwrap_or_default();
        let problem = match (ended, serde_json::from_str(told.trim())) {
            (Ok(_), Ok(report)) => {
                eprintln!("    took {} s", started.elapsed().as_secs());
                return Ok(report);
            }
            (Err(late), _) => late.to_string(),
            (Ok(status), Err(_)) => format!("it ended ({status}) without a report"),
        };
        let console = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
        let lines: Vec<_> = console.lines().collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n    ");
        bail!(
            "the machine does not tell what works on its kernel: {problem}. The end of its console:\n    {end}"
        )
    }

    /// Writes the initial file system.
    fn pack(&self, file: &Path) -> Result<()> {
        let to =
            fs::File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
        let mut archive = Archive::new(std::io::BufWriter::new(to));
        archive.folder("dev")?;
        for (path, program) in [("init", "lb-guest"), ("bin/lb-agent", "lb-agent")] {
            let program = self.programs.join(program);
            let content =
                fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
            archive.program(path, &content)?;
        }
        // What makes network namespaces, of this machine, with what it loads.
        let ip =
            shell::find("ip").context("there is no program ip, of Debian's package iproute2")?;
        for library in image::libraries(&ip)? {
            let content =
                fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
            let path = library.to_string_lossy();
            archive.program(path.trim_start_matches('/'), &content)?;
        }
        archive.program("bin/ip", &fs::read(&ip)?)?;
        for (at, module) in modules::needed(&self.modules()?)?.iter().enumerate() {
            let path = format!("modules/{at:02}-{}.ko", module.name);
            archive.program(&path, &module.content)?;
        }
        archive
            .end()
            .context("cannot write the initial file system")
    }

    fn start(
        &self,
        hierarchy: Hierarchy,
        initial: &Path,
        console: &Path,
        report: &Path,
    ) -> Result<Running> {
        let at = |path: &str| self.qemu.join(path);
        let mut libraries = vec![at("usr/lib/x86_64-linux-gnu"), at("lib/x86_64-linux-gnu")];
        let own = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        libraries.extend(env::split_paths(&own));
        let line = |file: &Path| format!("file:{}", file.display());
        let mut command = tied(&at("usr/bin/qemu-system-x86_64"));
        command
            .env("LD_LIBRARY_PATH", env::join_paths(libraries)?)
            .env("QEMU_MODULE_DIR", at("usr/lib/x86_64-linux-gnu/qemu"))
            .arg("-L")
            .arg(at("usr/share/qemu"))
            .arg("-L")
            .arg(at("usr/share/seabios"))
            // One model everywhere: what the kernel makes of a program depends on what the processor can do. With a source of
            // random numbers: the machine has no other one, and without it they would come after minutes.
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "Nehalem,+rdrand",
                "-smp",
                "2",
                "-m",
                "512",
            ])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .args(["-serial", &line(console), "-serial", &line(report)])
            .arg("-kernel")
            .arg(self.image()?)
            .arg("-initrd")
            .arg(initial)
            .arg("-append")
            .arg(format!(
                "console=ttyS0 panic=-1 quiet mitigations=off {}{hierarchy}",
                Hierarchy::PARAMETER
            ))
            .stdin(Stdio::null());
        Ok(Running(command.spawn().context("cannot run QEMU")?))
    }

    /// The kernel itself. Debian moved it.
    fn image(&self) -> Result<PathBuf> {
        let beside_modules = self.modules()?.join("vmlinuz");
        if beside_modules.is_file() {
            return Ok(beside_modules);
        }
        let boot = self.kernel.join("boot");
        let entries =
            fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))?;
        let mut names = entries.flatten().map(|it| it.path());
        let is_kernel = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            name.as_encoded_bytes().starts_with(b"vmlinuz-")
        };
        let found = names.find(is_kernel);
        found.with_context(|| format!("{} holds no kernel", boot.display()))
    }

    /// The folder of the kernel's modules: the only one.
    fn modules(&self) -> Result<PathBuf> {
        let folders = ["lib/modules", "usr/lib/modules"].map(|it| self.kernel.join(it));
        let mut entries = folders.iter().flat_map(fs::read_dir).flatten().flatten();
        let found = entries.next().map(|it| it.path());
        found.with_context(|| {
            format!(
                "{} holds no modules; remove it and run the command again",
                self.kernel.display()
            )
        })
    }
}

/// A command whose process the kernel kills when the thread that starts it has ended, however that was: nobody else would
/// end a machine whose owner was killed.
fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A running machine, which ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, thread};

    use super::*;

    #[test]
    fn a_machine_ends_with_an_owner_that_does_not_end_it() {
        let owner = thread::spawn(|| {
            let child = tied(Path::new("sleep")).arg("600").spawn().unwrap();
            let name = format!("/proc/{}/comm", child.id());
            let runs = eventually(Duration::from_secs(10), || {
                let name = fs::read_to_string(&name).unwrap_or_default();
                (name == "sleep\n").then_some(()).ok_or(name)
            });
            runs.unwrap();
            child
        });
        let mut left = owner.join().unwrap();
        let ended = eventually(Duration::from_secs(10), || {
            left.try_wait().ok().flatten().ok_or("it runs")
        });
        let Ok(status) = ended else {
            left.kill().unwrap();
            panic!("it runs on")
        };
        assert_eq!(status.signal(), Some(9));
    }
}
