//! The capabilities of the agent: what each is for and until when it is needed. All others are given up.
//!
//! Capabilities belong to threads. So one thread does all of the start, and gives them up before it makes any other.

use std::{io, path::Path};

use anyhow::{Context as _, Result, bail};
use caps::{CapSet, Capability, CapsHashSet};
use lb_agent::admin::{Component, Figure, Figures, Mark, Sample};
use nix::{errno::Errno, sys::prctl, unistd::geteuid};

/// Until when a capability is of use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The hooks are attached and the listeners are bound.
    Started,
    /// The end, where there is a front, which may have to be started again at any time.
    Front,
    /// The end.
    End,
}

/// Every capability that the agent makes use of, and until when. docs/deploy.md says what for.
const NEEDS: [(Capability, Until); 13] = [
    // Attaching: the hooks for datagrams come and go with UDP services. Ending sockets.
    (Capability::CAP_NET_ADMIN, Until::End),
    // Loading, and listing sockets with what is stored at them. Who has SYS_ADMIN has this, too.
    (Capability::CAP_BPF, Until::End),
    // Entering the network namespaces of containers. At the start a bpffs is mounted, if there is none.
    (Capability::CAP_SYS_ADMIN, Until::End),
    // The namespaces of processes, and their UDP sockets.
    (Capability::CAP_SYS_PTRACE, Until::End),
    // Which sockets a process of another user has open; and files that are read again: tokens, certificates, services.
    (Capability::CAP_DAC_READ_SEARCH, Until::End),
    // Sockets and folders of other users: a rootless engine, a state directory that is not root's.
    (Capability::CAP_DAC_OVERRIDE, Until::End),
    // What the verifier asks of programs that compute with pointers.
    (Capability::CAP_PERFMON, Until::Started),
    // The sockets of those who announce VIPs.
    (Capability::CAP_NET_RAW, Until::Started),
    // A front that was adopted and then dies leaves no listener.
    (Capability::CAP_NET_BIND_SERVICE, Until::Front),
    // The front becomes nobody, gives up its bounding set, and can be ended.
    (Capability::CAP_SETUID, Until::Front),
    (Capability::CAP_SETGID, Until::Front),
    (Capability::CAP_SETPCAP, Until::Front),
    (Capability::CAP_KILL, Until::Front),
];

/// What the agent was given, as far as it makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    /// Everything that the kernel knows: plain root, a privileged container.
    Full,
    SysAdmin,
    Bpf,
}

impl Rung {
    /// The one that this makes; or what is missing.
    fn of(held: &CapsHashSet, all: &CapsHashSet) -> Result<Self, Vec<Capability>> {
        if held.is_superset(all) {
            return Ok(Self::Full);
        }
        let (rung, needed): (_, &[Capability]) = if held.contains(&Capability::CAP_SYS_ADMIN) {
            (Self::SysAdmin, &[Capability::CAP_NET_ADMIN])
        } else {
            let needed = &[
                Capability::CAP_BPF,
                Capability::CAP_PERFMON,
                Capability::CAP_NET_ADMIN,
            ];
            (Self::Bpf, needed)
        };
        let missing: Vec<_> = needed
            .iter()
            .filter(|it| !held.contains(it))
            .copied()
            .collect();
        if missing.is_empty() {
            Ok(rung)
        } else {
            Err(missing)
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::SysAdmin => "sys_admin",
            Self::Bpf => "bpf",
        }
    }
}

/// What the agent has kept.
#[derive(Debug)]
pub(crate) struct Privileges {
    rung: Rung,
    kept: CapsHashSet,
    /// Whether there is a front that root starts.
    front_of_root: bool,
}

/// Refuses to start without the rights that loading and attaching need.
pub(crate) fn check() -> Result<()> {
    if let Err(missing) = Rung::of(
        &held(CapSet::Effective)?,
        &caps::runtime::thread_all_supported(),
    ) {
        bail!(
            "too few privileges: {} missing; run it as root, or give the container BPF, PERFMON and NET_ADMIN \
             (on kernels or engines without them SYS_ADMIN and NET_ADMIN)",
            names("CAP_", &missing)
        );
    }
    // The kernel lets everybody ask for a pin (Linux 5.19), and there is none without a name.
    let refused = lb_sys::bpf::object_get(Path::new(""))
        .is_err_and(|error| error.raw_os_error() == Some(Errno::EPERM as i32));
    if refused {
        bail!(
            "bpf(2) is refused although the capabilities are there, most often by a seccomp profile: give the container \
             compose/seccomp.json, or one of its own engine with SYS_ADMIN, which Docker before 23 wants for bpf(2)"
        );
    }
    Ok(())
}

/// Gives up for good what is of no use after the start. Call it when that is done and while this thread is the only one.
///
/// # Errors
/// When the kernel refuses: then nothing more may be started.
pub(crate) fn give_up(has_front: bool) -> Result<Privileges> {
    let had = held(CapSet::Effective)?;
    let Ok(rung) = Rung::of(&had, &caps::runtime::thread_all_supported()) else {
        bail!("capabilities were taken away during the start");
    };
    let needed = needed(has_front);
    let kept: CapsHashSet = had.intersection(&needed).copied().collect();
    keep(&kept).context("cannot give up capabilities")?;
    let privileges = Privileges {
        rung,
        kept,
        front_of_root: has_front && geteuid().is_root(),
    };
    tracing::info!(
        rung = rung.name(),
        given_up = had.len() - privileges.kept.len(),
        kept = privileges.names(),
        "capabilities"
    );
    Ok(privileges)
}

/// Gives up all that a process needs not that only asks others: files and sockets of other users are left.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn give_up_all() -> Result<()> {
    let files = [
        Capability::CAP_DAC_READ_SEARCH,
        Capability::CAP_DAC_OVERRIDE,
    ];
    let mut kept = held(CapSet::Effective)?;
    kept.retain(|it| files.contains(it));
    keep(&kept).context("cannot give up capabilities")
}

fn needed(has_front: bool) -> CapsHashSet {
    let of_use = |until| until == Until::End || (until == Until::Front && has_front);
    let needs = NEEDS.iter().filter(|(_, until)| of_use(*until));
    needs.map(|(capability, _)| *capability).collect()
}

/// Neither this process nor one that it starts gets more than these again.
fn keep(kept: &CapsHashSet) -> io::Result<()> {
    let of_kernel = io::Error::other::<caps::errors::CapsError>;
    prctl::set_no_new_privs()?;
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(of_kernel)?;
    }
    // Only who may change the bounding set has something in it to lose.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(of_kernel)? {
        for &capability in caps::runtime::thread_all_supported().difference(kept) {
            caps::drop(None, CapSet::Bounding, capability).map_err(of_kernel)?;
        }
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, kept).map_err(of_kernel)?;
    }
    Ok(())
}

fn held(set: CapSet) -> Result<CapsHashSet> {
    caps::read(None, set).context("cannot read this process's capabilities")
}

impl Privileges {
    /// The line of `status`.
    pub(crate) fn line(&self) -> Component {
        let mut detail = format!("{}; holds {}", self.rung.name(), self.names());
        for (needed, lost) in self.lost() {
            detail.push_str(&format!("; without {} {lost}", names("", &needed)));
        }
        Component::new("privileges", Mark::Ok, detail)
    }

    pub(crate) fn figures(&self) -> Figures<impl Fn() -> Vec<Figure> + Send + Sync + 'static> {
        let rung = self.rung.name();
        Figures::new(move || {
            vec![Figure::gauge(
                "privilege_info",
                "Which capabilities the agent was started with: full, sys_admin or bpf.",
                vec![Sample::labelled([("rung", rung)], 1.0)],
            )]
        })
    }

    fn names(&self) -> String {
        let mut kept: Vec<_> = self.kept.iter().copied().collect();
        kept.sort_by_key(Capability::index);
        names("", &kept)
    }

    /// What does not work, and for want of what.
    fn lost(&self) -> Vec<(Vec<Capability>, &'static str)> {
        let missing = |needed: &[Capability]| -> Vec<_> {
            let missing = needed.iter().filter(|it| !self.kept.contains(it));
            missing.copied().collect()
        };
        let sight = missing(&[Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE]);
        let mut lost = Vec::new();
        if !sight.is_empty() {
            let what = "containers count as the host, and their flows are not cut after a drain";
            lost.push((sight, what));
        } else if !self.kept.contains(&Capability::CAP_DAC_OVERRIDE) {
            let files = missing(&[Capability::CAP_DAC_READ_SEARCH]);
            if !files.is_empty() {
                lost.push((files, "UDP flows of other users' processes are not cut"));
            }
        }
        let front = missing(&[
            Capability::CAP_SETUID,
            Capability::CAP_SETGID,
            Capability::CAP_KILL,
        ]);
        if self.front_of_root && !front.is_empty() {
            lost.push((front, "the front stays root"));
        }
        lost
    }
}

fn names(prefix: &str, capabilities: &[Capability]) -> String {
    let all: Vec<_> = capabilities
        .iter()
        .map(|it| it.to_string().replacen("CAP_", prefix, 1))
        .collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> CapsHashSet {
        let of = |name: &&str| format!("CAP_{name}").parse::<Capability>().unwrap();
        names.iter().map(of).collect()
    }

    #[test]
    fn a_rung_is_told_by_what_is_held_and_what_lacks_for_one_is_named() {
        let all = caps::all();
        let rung = |held: &[&str]| Rung::of(&set(held), &all);
        assert_eq!(Rung::of(&all, &all), Ok(Rung::Full));
        assert_eq!(rung(&["SYS_ADMIN", "NET_ADMIN"]), Ok(Rung::SysAdmin));
        assert_eq!(rung(&["BPF", "PERFMON", "NET_ADMIN"]), Ok(Rung::Bpf));
        assert_eq!(
            rung(&["SYS_ADMIN", "SYS_PTRACE"]),
            Err(vec![Capability::CAP_NET_ADMIN])
        );
        assert_eq!(
            rung(&["NET_ADMIN", "BPF"]),
            Err(vec![Capability::CAP_PERFMON])
        );
    }

    #[test]
    fn what_the_start_alone_needs_and_what_a_front_needs_goes_when_it_may() {
        let with = needed(true);
        assert_eq!(with.len(), NEEDS.len() - 2);
        assert!(!with.contains(&Capability::CAP_PERFMON));
        assert!(!with.contains(&Capability::CAP_NET_RAW));
        let of_front = set(&["NET_BIND_SERVICE", "SETUID", "SETGID", "SETPCAP", "KILL"]);
        let without: CapsHashSet = with.difference(&of_front).copied().collect();
        assert_eq!(needed(false), without);
    }

    #[test]
    fn what_is_lost_is_told_with_what_would_help() {
        let line = |rung, held: &[&str]| {
            let privileges = Privileges {
                rung,
                kept: set(held),
                front_of_root: true,
            };
            privileges.line().detail
        };
        let all = ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"];
        let front = ["SETUID", "SETGID", "KILL"];
        assert_eq!(
            line(Rung::SysAdmin, &[&all[..], &front].concat()),
            "sys_admin; holds DAC_READ_SEARCH, KILL, SETGID, SETUID, NET_ADMIN, SYS_PTRACE, SYS_ADMIN"
        );
        let told = line(Rung::SysAdmin, &[&all[..3], &front].concat());
        assert!(told.contains("without DAC_READ_SEARCH UDP flows"), "{told}");
        let told = line(Rung::Bpf, &[&["BPF", "NET_ADMIN"], &front[..]].concat());
        assert!(
            told.ends_with("without SYS_ADMIN, SYS_PTRACE containers count as the host, and their flows are not cut after a drain"),
            "{told}"
        );
        let told = line(Rung::Bpf, &["BPF", "NET_ADMIN", "KILL"]);
        assert!(
            told.ends_with("; without SETUID, SETGID the front stays root"),
            "{told}"
        );
    }

    #[test]
    fn what_is_deployed_gives_what_is_of_use() {
        let unit = include_str!("../../deploy/systemd/lb-agent.service");
        for line in [
            "CapabilityBoundingSet=CAP_NET_RAW",
            "RestrictAddressFamilies=AF_PACKET",
        ] {
            assert!(unit.contains(&format!("\n#{line}\n")), "{line}");
        }
        let lines = unit
            .lines()
            .filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        let unit: CapsHashSet = lines
            .flat_map(|line| line.split(' '))
            .map(|name| name.parse().unwrap())
            .collect();
        let mut of_use: CapsHashSet = NEEDS.iter().map(|(capability, _)| *capability).collect();
        of_use.remove(&Capability::CAP_DAC_OVERRIDE);
        // For who asks for it.
        of_use.remove(&Capability::CAP_NET_RAW);
        assert_eq!(unit, of_use);

        let task = include_str!("../../deploy/aws/ecs.yaml");
        let list = task.split("Add: [").nth(1).unwrap();
        let names: Vec<_> = list.split(']').next().unwrap().split(", ").collect();
        for unknown in ["BPF", "PERFMON", "SETPCAP"] {
            of_use.remove(&format!("CAP_{unknown}").parse().unwrap());
        }
        assert_eq!(set(&names), of_use);
    }
}
