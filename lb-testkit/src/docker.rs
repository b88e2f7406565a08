//! A Docker Engine of one's own: its data, state, socket, bridge and containers are in places that go with it.
//!
//! It lives in a network namespace and a mount namespace of its own, which hold its bridge, its file systems and its
//! state, and in a cgroup of its own, which also holds its containers. Nothing of it is seen outside but the socket
//! and its folder. No image is ever pulled, and the namespace leads nowhere.

mod packages;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use self::packages::Packages;
use crate::{Cgroup, Error, Netns, Process, Result, Spawn, eventually};

/// A running Docker Engine. Dropping it ends it, its containers, and all that it made.
#[derive(Debug)]
pub struct Docker {
    packages: Packages,
    // In the order of their end: the processes, their cgroups, the namespaces with all mounts, the folder.
    daemon: Option<Process>,
    engine: Cgroup,
    group: Cgroup,
    netns: Netns,
    folder: TempDir,
}

impl Docker {
    /// Starts an engine from the packages in `packages`, the folder that `cargo xtask test` names in `LB_DOCKER`. It
    /// answers when this returns.
    ///
    /// # Errors
    /// When the caller is not root, the packages are not there, or the engine does not come up.
    pub fn start(packages: &Path) -> Result<Self> {
        let packages = Packages(packages.to_owned());
        let folder = tempfile::Builder::new()
            .prefix("lb-docker-")
            .tempdir()
            .map_err(Error::of("make", "a temporary folder"))?;
        let netns = Netns::new("docker")?;
        // Nothing that a container sends has a way out of here.
        netns.ip(
            "link add lb-docker0 address 02:6c:62:00:00:01 type bridge\n\
                  addr add 172.31.0.1/24 dev lb-docker0\nlink set lb-docker0 up\n",
        )?;
        let group = Cgroup::new("docker")?;
        let engine = group.subgroup("engine")?;
        let mut docker = Self {
            packages,
            daemon: None,
            engine,
            group,
            netns,
            folder,
        };
        docker.link_iptables()?;
        docker.mount()?;
        docker.run()?;
        Ok(docker)
    }

    /// Its socket, which can be connected to from everywhere.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// The network namespace that is its host.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The cgroup with the engine and all containers in it.
    pub fn cgroup(&self) -> &Cgroup {
        &self.group
    }

    /// A folder that is there for as long as the engine.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes of its host a place for an agent: the folder `pins` below [`Self::folder`] becomes a bpf file system, and
    /// nothing that is sent to the usual pool of VIPs has a way out, whatever the agent does. Answers the folder.
    ///
    /// # Errors
    /// When the folder is there already, or the kernel refuses.
    pub fn prepare_for_agent(&self, pins: &str) -> Result<PathBuf> {
        let pins = self.folder().join(pins);
        fs::create_dir(&pins).map_err(Error::of("make", pins.display().to_string()))?;
        self.netns.mount_bpffs(&pins)?;
        self.netns
            .ip("route add unreachable 198.18.0.0/16 metric 4096\n")?;
        Ok(pins)
    }

    /// The process id of the engine, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.daemon.as_ref().map(Process::id)
    }

    /// Runs `docker <arguments>` and returns what it printed.
    ///
    /// # Errors
    /// With what it said, if that was no success.
    pub fn docker<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        self.client("docker", "docker").args(arguments).output()
    }

    /// A program that talks to this engine: one of its packages by its name, or another by its path.
    pub fn client(&self, name: &str, program: impl AsRef<Path>) -> Spawn<'_> {
        self.spawn(name, program.as_ref())
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .env("DOCKER_CONFIG", self.folder.path())
    }

    /// Makes an image of `files`, each a path in the image and the file that it is a copy of, with `changes` in the
    /// words of a Dockerfile: `CMD ["/bin/app"]`. A program in it must need no library.
    ///
    /// # Errors
    /// When a file cannot be read, or as [`Docker::docker`].
    pub fn image(&self, name: &str, files: &[(&str, &Path)], changes: &[&str]) -> Result<()> {
        let root = self.folder.path().join(format!("image-{name}"));
        for (place, file) in files {
            let to = root.join(place.trim_start_matches('/'));
            let copy = || {
                fs::create_dir_all(to.parent().unwrap_or(&root))?;
                fs::copy(file, &to).map(drop)
            };
            copy().map_err(Error::of("copy", file.display().to_string()))?;
        }
        let tar = self.folder.path().join(format!("image-{name}.tar"));
        let pack = Spawn::new("tar", "tar").args(["-c", "-f"]).arg(&tar);
        pack.arg("-C").arg(&root).arg(".").output()?;
        let mut arguments: Vec<OsString> = vec!["import".into()];
        for change in changes {
            arguments.extend(["--change".into(), (*change).into()]);
        }
        arguments.extend([tar.clone().into(), name.into()]);
        self.docker(arguments)?;
        fs::remove_dir_all(&root)
            .and_then(|()| fs::remove_file(&tar))
            .map_err(Error::of("remove", root.display().to_string()))
    }

    /// Makes the image `name` with busybox, a web server on port 80 that answers `hello`, and all the commands that a
    /// test may want. As process 1 it is deaf to SIGTERM: run it with `--stop-signal KILL` to stop it at once.
    ///
    /// # Errors
    /// As [`Docker::image`].
    pub fn busybox(&self, name: &str) -> Result<()> {
        let busybox = self.packages.0.join("busybox-static/bin/busybox");
        let page = self.folder.path().join("index.html");
        fs::write(&page, "hello\n").map_err(Error::of("write", page.display().to_string()))?;
        let files = [
            ("/bin/busybox", &*busybox),
            ("/bin/sh", &*busybox),
            ("/www/index.html", &*page),
        ];
        let changes = [
            r#"CMD ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www"]"#,
            "EXPOSE 80",
        ];
        self.image(name, &files, &changes)
    }

    /// Ends the engine as an operator does: it ends its containers first.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.terminate()?;
            daemon.wait(PATIENCE)?;
        }
        Ok(())
    }

    /// Ends the engine with SIGKILL, and containerd with it, as it asks the kernel to. Its containers live
    /// on until the next [`Docker::run`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        let place = self
            .folder
            .path()
            .join("data/exec/containerd/containerd.pid");
        // Without its file: a new engine takes a number that nobody has waited for yet for a live process.
        let containerd = self.netns.enter(|| {
            let pid = fs::read_to_string(&place);
            fs::remove_file(&place).and(pid)
        })?;
        let containerd = containerd.ok().and_then(|pid| pid.trim().parse().ok());
        if let Some(pid) = containerd {
            // It may have ended by itself meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        self.daemon
            .take()
            .map_or(Ok(()), |mut daemon| daemon.kill())
    }

    /// Starts the engine again, after [`Docker::stop`] or [`Docker::kill`], with the containers it had.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn run(&mut self) -> Result<()> {
        let place = |name: &str| self.folder.path().join(name);
        let group = self.group.path().file_name().unwrap_or_default();
        let containers = Path::new("/").join(group).join("containers");
        let daemon = self
            .spawn("dockerd", "dockerd")
            .netns(&self.netns)
            .cgroup(&self.engine)
            .log(self.folder.path())
            .arg("--config-file")
            .arg(place("daemon.json"))
            .arg("--data-root")
            .arg(place("data/root"))
            .arg("--exec-root")
            .arg(place("data/exec"))
            .arg("--pidfile")
            .arg(place("data/pid"))
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .arg("--cgroup-parent")
            .arg(containers)
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(["--bridge", "lb-docker0"])
            // By iptables it keeps its networks apart. Nothing leads out, so there is nothing to masquerade.
            .args(["--iptables=true", "--ip6tables=false", "--ip-masq=false"])
            .start()?;
        self.daemon = Some(daemon);
        let answers = || match UnixStream::connect(self.socket()) {
            Ok(_) => self.docker(["version"]).map(drop),
            Err(error) => Err(Error::of("connect to", self.socket().display().to_string())(error)),
        };
        eventually(PATIENCE, answers).map_err(|late| {
            let log = fs::read_to_string(place("dockerd.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            eprintln!("the Docker Engine does not come up:\n{}", tail.join("\n"));
            late.last
        })
    }

    /// File systems that are gone with the namespace, however its owner ends.
    fn mount(&self) -> Result<()> {
        let data = self.folder.path().join("data");
        let key = self.folder.path().join("key.json");
        let config = format!(r#"{{"deprecated-key-path": "{}"}}"#, key.display());
        fs::create_dir(&data)
            .and_then(|()| fs::write(self.folder.path().join("daemon.json"), config))
            .map_err(Error::of(
                "write in",
                self.folder.path().display().to_string(),
            ))?;
        let mounted = self.netns.enter(|| {
            let tmpfs = |place: &Path| {
                let nothing = MsFlags::empty();
                mount(
                    Some("lb-docker"),
                    place,
                    Some("tmpfs"),
                    nothing,
                    Some("mode=755"),
                )
            };
            tmpfs(&data).map_err(io::Error::from)?;
            // containerd and the engine keep sockets in /run, whatever they are told.
            for layer in ["run", "work"] {
                fs::create_dir(data.join(layer))?;
            }
            let (upper, work) = (data.join("run"), data.join("work"));
            let (upper, work) = (upper.display(), work.display());
            let options = format!("lowerdir=/run,upperdir={upper},workdir={work}");
            let nothing = MsFlags::empty();
            mount(
                Some("lb-docker"),
                "/run",
                Some("overlay"),
                nothing,
                Some(options.as_str()),
            )?;
            // A containerd of the machine has its socket there, and the engine would take it for its own.
            for place in ["/run/containerd", "/run/docker"].map(Path::new) {
                fs::create_dir_all(place)?;
                tmpfs(place).map_err(io::Error::from)?;
            }
            Ok::<_, io::Error>(())
        })?;
        mounted.map_err(Error::of("mount in", data.display().to_string()))
    }

    /// Debian's package makes these names when it is installed.
    fn link_iptables(&self) -> Result<()> {
        let program = self.packages.0.join("iptables/usr/sbin/xtables-nft-multi");
        // A link to nothing would only show in what the engine says later.
        fs::metadata(&program).map_err(Error::of("find", program.display().to_string()))?;
        let names = self.names();
        let link = || {
            fs::create_dir(&names)?;
            symlink(&program, names.join("iptables"))?;
            symlink(&program, names.join("ip6tables"))
        };
        link().map_err(Error::of("link in", names.display().to_string()))
    }

    fn names(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    fn spawn(&self, name: &str, program: impl AsRef<Path>) -> Spawn<'_> {
        // A stranger's settings are none of ours.
        let spawn = Spawn::new(name, self.packages.program(program)).hide("DOCKER_");
        spawn
            .env("PATH", self.packages.path(&self.names()))
            .env("LD_LIBRARY_PATH", self.packages.libraries())
            .env("XTABLES_LIBDIR", self.packages.extensions())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // In peace if possible: it takes its mounts and namespaces with it. The cgroup ends whatever is left.
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.terminate();
            let _ = daemon.wait(Duration::from_secs(3));
        }
    }
}

/// An engine answers after a second, and ends its containers in another.
const PATIENCE: Duration = Duration::from_secs(30);
