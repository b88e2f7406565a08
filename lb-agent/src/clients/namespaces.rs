//! The network namespaces of processes: the one thread of the agent that enters others.
//!
//! A process is found by its number, which may have been given to another one meanwhile. So its folder in /proc is
//! opened first: whatever is read through that descriptor is of one process or fails. Its cgroup then says whose it is:
//! every engine has the container's id in that path, on hybrid and on unified hosts.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    thread,
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sched::{CloneFlags, setns},
    sys::stat::Mode,
};
use rtnetlink::{
    packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use tokio::sync::{mpsc, oneshot};

/// The first process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The container's full id.
    pub(crate) container: String,
    pub(crate) pid: u32,
}

/// Why a namespace is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No such process, or it is not one of this container: it has ended, or its number means another process here.
    NotThere,
    /// We may not look at it.
    Denied(Errno),
    /// Anything else.
    Failed(Errno),
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        match error {
            Errno::ENOENT | Errno::ESRCH => Self::NotThere,
            Errno::EACCES | Errno::EPERM => Self::Denied(error),
            _ => Self::Failed(error),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Errno::from_raw(error.raw_os_error().unwrap_or_default()).into()
    }
}

/// What was found of each container that was asked for, in that order.
pub(super) type Found = Vec<Result<u64, Fault>>;

/// The thread. Dropping this ends it.
#[derive(Debug)]
pub(super) struct Namespaces {
    questions: mpsc::Sender<(Vec<Wanted>, oneshot::Sender<Found>)>,
    /// The cookie of the namespace that the agent is in, which is the host's.
    pub(super) own: u64,
}

impl Namespaces {
    /// Starts the thread; `proc` is where the processes of the engine's host are.
    ///
    /// # Errors
    /// When there can be no thread, or it does not know its own namespace.
    pub(super) fn start(proc: PathBuf) -> io::Result<Self> {
        let home = File::open("/proc/thread-self/ns/net")?;
        let own = cookie_here()?;
        let (questions, mut asked) = mpsc::channel::<(Vec<Wanted>, oneshot::Sender<Found>)>(1);
        thread::Builder::new()
            .name("clients".to_owned())
            .spawn(move || {
                while let Some((wanted, reply)) = asked.blocking_recv() {
                    let mut away = false;
                    let each = wanted.iter();
                    let found = each.map(|it| cookie_of(&proc, it, &mut away)).collect();
                    // A thread that stayed would keep the last container's namespace alive. One that cannot go back ends,
                    // and the stage with it.
                    if away && let Err(error) = setns(&home, CloneFlags::CLONE_NEWNET) {
                        tracing::error!(%error, "cannot go back to the host's network namespace");
                        return;
                    }
                    // Nobody waits for it any more: the stage ends.
                    let _ = reply.send(found);
                }
            })?;
        Ok(Self { questions, own })
    }

    /// The cookie of the namespace of each container; `None` if the thread has ended.
    pub(super) async fn cookies(&self, wanted: Vec<Wanted>) -> Option<Found> {
        let (reply, answer) = oneshot::channel();
        self.questions.send((wanted, reply)).await.ok()?;
        answer.await.ok()
    }
}

/// Leaves the thread in that namespace, and says whether it is `away`.
fn cookie_of(proc: &Path, wanted: &Wanted, away: &mut bool) -> Result<u64, Fault> {
    let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let process = open(&proc.join(wanted.pid.to_string()), folder, Mode::empty())?;
    let mut cgroups = String::new();
    File::from(read(process.as_fd(), "cgroup")?).read_to_string(&mut cgroups)?;
    if !cgroups.contains(&wanted.container) {
        return Err(Fault::NotThere);
    }
    let namespace = read(process.as_fd(), "ns/net")?;
    setns(&namespace, CloneFlags::CLONE_NEWNET)?;
    *away = true;
    Ok(cookie_here()?)
}

/// The devices of the host whose other ends are the veths of each container's namespace: their indexes. Only to be called
/// on a thread of its own, which ends then: it stays in the last namespace.
pub(crate) fn peers(proc: &Path, wanted: &[Wanted]) -> Vec<Result<BTreeSet<u32>, Fault>> {
    let mut away = false;
    let one = |wanted| {
        cookie_of(proc, wanted, &mut away)?;
        Ok(links()?)
    };
    wanted.iter().map(one).collect()
}

/// The other ends of the veths in the namespace that this thread is in.
fn links() -> io::Result<BTreeSet<u32>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut question = NetlinkMessage::from(RouteNetlinkMessage::GetLink(LinkMessage::default()));
    question.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = BTreeSet::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = &answer[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
            let message = message.map_err(io::Error::other)?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    found.extend(peer(&link));
                }
                _ => {}
            }
            // Messages begin at multiples of four bytes.
            rest = rest
                .get(length.next_multiple_of(4).max(4)..)
                .unwrap_or_default();
        }
    }
}

/// The index of a veth's other end; that of another device's means the device that it stands on.
fn peer(link: &LinkMessage) -> Option<u32> {
    let is_veth = link.attributes.iter().any(|it| match it {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    });
    let mut all = link.attributes.iter().filter(|_| is_veth);
    all.find_map(|it| match it {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    })
}

fn read(folder: BorrowedFd<'_>, name: &str) -> nix::Result<OwnedFd> {
    let how = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    openat(folder, name, how, Mode::empty())
}

/// The cookie of the namespace that this thread is in: the host's, for all but the one that enters others.
pub(crate) fn cookie_here() -> io::Result<u64> {
    // The cheapest socket there is, and never in any namespace's list of ports.
    let socket = UnixDatagram::unbound()?;
    lb_sys::netns::cookie(socket.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(container: &str, pid: u32) -> Wanted {
        Wanted {
            container: container.to_owned(),
            pid,
        }
    }

    #[tokio::test]
    async fn a_process_that_is_not_the_containers_is_not_there() {
        let namespaces = Namespaces::start("/proc".into()).unwrap();
        let own = std::process::id();
        // Beyond the largest number that the kernel gives out.
        let all = vec![wanted("no such container", own), wanted("", u32::MAX)];
        let found = namespaces.cookies(all).await.unwrap();
        assert_eq!(found, [Err(Fault::NotThere), Err(Fault::NotThere)]);
    }

    #[test]
    fn the_other_ends_of_veths_are_told_and_no_other_devices() {
        let ours = lb_testkit::Netns::new("peers").unwrap();
        let theirs = lb_testkit::Netns::new("peers-client").unwrap();
        let there = theirs.path().display().to_string();
        ours.ip(&format!(
            "link add lb-a type veth peer name eth0 netns {there}\nlink add lb-b type veth peer name eth1 netns {there}\n"
        ))
        .unwrap();
        let index = |name: &str| {
            let index = || nix::net::if_::if_nametoindex(name).unwrap();
            ours.enter(index).unwrap()
        };
        let found = theirs.enter(links).unwrap().unwrap();
        assert_eq!(found, [index("lb-a"), index("lb-b")].into());
    }

    #[tokio::test]
    async fn a_place_without_processes_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let namespaces = Namespaces::start(folder.path().to_owned()).unwrap();
        let all = vec![wanted("", std::process::id())];
        let found = namespaces.cookies(all).await.unwrap();
        assert_eq!(found, [Err(Fault::NotThere)]);
    }

    /// What the process 7 is found to be where its `cgroup` file says this.
    fn judged(cgroups: &str, container: &str) -> Result<u64, Fault> {
        let proc = tempfile::tempdir().unwrap();
        let process = proc.path().join("7");
        std::fs::create_dir_all(process.join("ns")).unwrap();
        std::fs::write(process.join("cgroup"), cgroups).unwrap();
        let network = process.join("ns/net");
        std::os::unix::fs::symlink("/proc/thread-self/ns/net", network).unwrap();
        cookie_of(proc.path(), &wanted(container, 7), &mut false)
    }

    #[test]
    fn a_process_is_known_by_its_cgroup_wherever_the_engine_puts_it() {
        let id = "4f1c9ab0".repeat(8);
        let other = "4f1c9ab1".repeat(8);
        let own = cookie_here().unwrap();
        for (host, cgroups) in [
            ("unified, driver cgroupfs", "0::/docker/ID\n"),
            (
                "unified, driver systemd",
                "0::/system.slice/docker-ID.scope\n",
            ),
            (
                "unified, seen from a cgroup namespace",
                "0::/../docker-ID.scope\n",
            ),
            (
                "unified, without root",
                "0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope\n",
            ),
            (
                "unified, with a group of its own making",
                "0::/system.slice/docker-ID.scope/init.scope\n",
            ),
            (
                "hybrid, driver cgroupfs",
                "11:pids:/docker/ID\n4:cpu,cpuacct:/docker/ID\n1:name=systemd:/docker/ID\n0::/docker/ID\n",
            ),
            (
                "hybrid, not in the second tree",
                "11:pids:/docker/ID\n1:name=systemd:/docker/ID\n0::/\n",
            ),
            (
                "hybrid, driver systemd",
                "11:pids:/system.slice/docker-ID.scope\n1:name=systemd:/system.slice/docker-ID.scope\n\
                 0::/system.slice/containerd.service\n",
            ),
        ] {
            let of = |id: &str| cgroups.replace("ID", id);
            assert_eq!(judged(&of(&id), &id), Ok(own), "{host}");
            assert_eq!(judged(&of(&other), &id), Err(Fault::NotThere), "{host}");
        }
        for stranger in ["0::/init.scope\n", "0::/\n", "1:name=systemd:/\n0::/\n", ""] {
            assert_eq!(judged(stranger, &id), Err(Fault::NotThere), "{stranger}");
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_told_apart_from_what_is_gone() {
        assert_eq!(Fault::from(Errno::ESRCH), Fault::NotThere);
        assert_eq!(Fault::from(Errno::EPERM), Fault::Denied(Errno::EPERM));
        assert_eq!(Fault::from(Errno::EMFILE), Fault::Failed(Errno::EMFILE));
    }
}
