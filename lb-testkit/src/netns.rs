//! A network namespace with a mount namespace of its own, known by descriptors and by no name.
//!
//! Entering is done by a thread that ends afterwards, so nobody can forget to go back. Never `ip netns exec`: it
//! remounts /sys, and the cgroup2 and bpf file systems vanish.

use std::{
    fs::File,
    io::Write,
    net::Ipv4Addr,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use ipnet::Ipv4Net;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use crate::{Error, Result, eventually};

/// A network namespace with its own mounts. It lives as long as this value, or the last process in it.
#[derive(Debug)]
pub struct Netns {
    label: String,
    network: File,
    mounts: File,
}

impl Netns {
    /// Makes a namespace whose only device is `lo`, up. `label` is for messages only.
    ///
    /// # Errors
    /// When the caller is not root, or the kernel refuses.
    pub fn new(label: &str) -> Result<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            return Err(Error::NotRoot);
        }
        let (network, mounts) = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .map_err(Error::of("make namespaces for", label))?;
            // Else what is mounted in here would show outside.
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
                .map_err(Error::of("make private the mounts of", label))?;
            let open = |kind: &str| {
                let path = format!("/proc/thread-self/ns/{kind}");
                File::open(&path).map_err(Error::of("open", path))
            };
            Ok::<_, Error>((open("net")?, open("mnt")?))
        })?;
        let netns = Self {
            label: label.to_owned(),
            network,
            mounts,
        };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Runs `job` in here, on a thread of its own. What it spawns stays in here; sockets that it opens belong in
    /// here for good. Its current directory is `/`.
    ///
    /// # Errors
    /// When the namespaces cannot be entered.
    ///
    /// # Panics
    /// With the panic of `job`.
    pub fn enter<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| {
            let label = self.label.as_str();
            // A thread that shares its root and working directory may not change its mounts.
            unshare(CloneFlags::CLONE_FS).map_err(Error::of("leave the file system for", label))?;
            setns(&self.mounts, CloneFlags::CLONE_NEWNS)
                .map_err(Error::of("enter the mounts of", label))?;
            setns(&self.network, CloneFlags::CLONE_NEWNET)
                .map_err(Error::of("enter the network of", label))?;
            Ok(job())
        })
    }

    /// Runs lines of `ip` in here, without the word `ip`; the first that fails ends it. Returns what they print.
    ///
    /// # Errors
    /// When iproute2 is missing or a line fails.
    pub fn ip(&self, lines: &str) -> Result<String> {
        let output = self.enter(|| {
            let mut child = Command::new("ip")
                .args(["-details", "-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(lines.as_bytes())?;
            }
            child.wait_with_output()
        })?;
        let output = output.map_err(Error::of(
            "run `ip` (of Debian's package iproute2) for",
            self.label.as_str(),
        ))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        Err(Error::Command {
            command: format!("`ip` for {} with {lines:?}", self.label),
            status: output.status,
            output: text(&output.stderr),
        })
    }

    /// Makes a bridge in here that has `address`.
    ///
    /// # Errors
    /// As [`Netns::ip`].
    pub fn add_bridge(&self, bridge: &str, address: Ipv4Net) -> Result<()> {
        self.ip(&format!(
            "link add {bridge} address {BRIDGE_MAC} type bridge\n\
             addr add {address} dev {bridge}\nlink set {bridge} up\n"
        ))
        .map(drop)
    }

    /// Plugs `leaf` into a `bridge` in here: a device `port` on this side, and `eth0` with `address` and a default
    /// route `via` the bridge on the other. Returns when the bridge forwards what the leaf sends.
    ///
    /// # Errors
    /// As [`Netns::ip`], and when the bridge does not forward in time.
    pub fn plug(
        &self,
        bridge: &str,
        port: &str,
        leaf: &Self,
        address: Ipv4Net,
        via: Ipv4Addr,
    ) -> Result<()> {
        let there = leaf.path().display().to_string();
        self.ip(&format!(
            "link add {port} type veth peer name eth0 netns {there}\nlink set {port} master {bridge} up\n"
        ))?;
        leaf.ip(&format!(
            "addr add {address} dev eth0\nlink set eth0 up\nroute add default via {via}\n"
        ))?;
        // The kernel tells the bridge of the new carrier later, at times by a second; what is sent before is lost.
        let forwards = || {
            let said = self.ip(&format!("link show dev {port}\n"))?;
            match said.contains("state forwarding") {
                true => Ok(()),
                false => Err(Error::NotForwarding {
                    port: port.to_owned(),
                    said,
                }),
            }
        };
        eventually(FORWARDS_WITHIN, forwards).map_err(|late| late.last)
    }

    /// Lets everybody in here see `file` in the place of `over`, for example of `/etc/resolv.conf`.
    ///
    /// # Errors
    /// When one of the two does not exist.
    pub fn bind(&self, file: &Path, over: &Path) -> Result<()> {
        let bound = self.enter(|| {
            mount(
                Some(file),
                over,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
        })?;
        bound.map_err(Error::of("bind over", over.display().to_string()))
    }

    /// Mounts a bpf file system of its own at `folder`, visible in here only. Pins in it go with this value and
    /// the last process in here.
    ///
    /// # Errors
    /// When the folder does not exist.
    pub fn mount_bpffs(&self, folder: &Path) -> Result<()> {
        let mounted = self.enter(|| {
            mount(
                Some("lb-bpf"),
                folder,
                Some("bpf"),
                MsFlags::empty(),
                None::<&str>,
            )
        })?;
        mounted.map_err(Error::of("mount bpffs at", folder.display().to_string()))
    }

    /// Where other processes find the network namespace, for as long as this value lives.
    pub fn path(&self) -> PathBuf {
        let (process, descriptor) = (std::process::id(), self.network.as_raw_fd());
        PathBuf::from(format!("/proc/{process}/fd/{descriptor}"))
    }
}

/// Much more than the second that the kernel may take to notice a carrier.
const FORWARDS_WITHIN: Duration = Duration::from_secs(10);

/// Of every bridge, locally administered. A bridge without one takes the lowest of its ports', which changes when
/// another leaf is plugged in, and the leaves that were there before talk to nobody until they ask again.
const BRIDGE_MAC: &str = "02:6c:62:00:00:01";

/// Runs `job` on a thread of its own: namespaces belong to threads, and this one ends.
fn on_thread<T: Send>(job: impl FnOnce() -> T + Send) -> T {
    let done = thread::scope(|scope| scope.spawn(job).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn devices() -> usize {
        // Line 1 and 2 are headings. This file, unlike /sys, follows the thread.
        fs::read_to_string("/proc/thread-self/net/dev")
            .unwrap()
            .lines()
            .count()
            - 2
    }

    #[test]
    fn a_namespace_has_its_own_network_and_leaves_ours_alone() {
        let ours = devices();
        let netns = Netns::new("alone").unwrap();
        let inside = netns.enter(|| (devices(), TcpListener::bind("127.0.0.1:80").is_ok()));
        assert_eq!(inside.unwrap(), (1, true));
        assert_eq!(devices(), ours);
    }

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    fn plug(host: &Netns, name: &str, last: u8) -> Netns {
        let leaf = Netns::new(name).unwrap();
        let address = format!("10.77.0.{last}/24").parse().unwrap();
        host.plug("lb-br0", &format!("lb-{name}"), &leaf, address, GATEWAY)
            .unwrap();
        leaf
    }

    fn host() -> Netns {
        let host = Netns::new("host").unwrap();
        host.add_bridge("lb-br0", "10.77.0.1/24".parse().unwrap())
            .unwrap();
        host
    }

    #[test]
    fn two_leaves_of_a_bridge_reach_each_other() {
        let host = host();
        let (left, right) = (plug(&host, "left", 2), plug(&host, "right", 3));
        let listener = right
            .enter(|| TcpListener::bind("10.77.0.3:80"))
            .unwrap()
            .unwrap();
        let stream = left
            .enter(|| TcpStream::connect("10.77.0.3:80"))
            .unwrap()
            .unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, stream.local_addr().unwrap());
    }

    #[test]
    fn a_new_leaf_does_not_cut_off_the_old_ones() {
        let host = host();
        let old = plug(&host, "old", 2);
        let _listener = host
            .enter(|| TcpListener::bind((GATEWAY, 80)))
            .unwrap()
            .unwrap();
        let mut leaves = Vec::new();
        for last in 3..11 {
            let reached = old.enter(|| {
                TcpStream::connect_timeout(&(GATEWAY, 80).into(), Duration::from_millis(500))
            });
            reached.unwrap().unwrap();
            leaves.push(plug(&host, &last.to_string(), last));
        }
    }

    #[test]
    fn mounts_in_a_namespace_do_not_show_outside() {
        let netns = Netns::new("mounts").unwrap();
        let folder = tempfile::Builder::new()
            .prefix("lb-test-")
            .tempdir()
            .unwrap();
        netns.mount_bpffs(folder.path()).unwrap();
        netns
            .enter(|| fs::create_dir(folder.path().join("pins")))
            .unwrap()
            .unwrap();
        assert!(!folder.path().join("pins").exists());
        assert!(netns.enter(|| folder.path().join("pins").exists()).unwrap());
    }

    #[test]
    fn a_wrong_line_of_ip_is_told_with_what_ip_said() {
        let error = Netns::new("wrong").unwrap().ip("link set lb-none up");
        assert!(error.unwrap_err().to_string().contains("lb-none"));
    }
}
