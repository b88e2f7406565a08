//! Each kind of host, below a root of its own.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

const OWN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const BEFORE: &str = "# Mine.\nsearch example.org\nnameserver 192.0.2.1\noptions edns0";

struct World {
    root: tempfile::TempDir,
    host: Host,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let host = Host::new(root.path());
        Self { root, host }
    }

    fn with(resolv_conf: &str) -> Self {
        let world = Self::new();
        fs::write(world.host.resolv_conf(), resolv_conf).unwrap();
        world
    }

    fn linked(target: &str) -> Self {
        let world = Self::new();
        symlink(target, world.host.resolv_conf()).unwrap();
        world
    }

    fn install(&self) -> Result<Done, Error> {
        let domains = vec!["localhost".to_owned(), "apps.example".to_owned()];
        self.host.install(&Wanted { own: OWN, domains })
    }

    /// Uninstalls where nothing is in the way.
    #[track_caller]
    fn undo(&self) -> Vec<Done> {
        let undone = self.host.uninstall().into_iter();
        undone.map(|done| done.unwrap()).collect()
    }

    fn resolv_conf(&self) -> String {
        fs::read_to_string(self.host.resolv_conf()).unwrap()
    }

    /// Everything below the root, with its content.
    fn all(&self) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_symlink() {
                    found.push((
                        path.clone(),
                        fs::read_link(path).unwrap().display().to_string(),
                    ));
                } else if path.is_dir() {
                    folders.push(path);
                } else {
                    let text = fs::read_to_string(&path).unwrap();
                    found.push((path, text));
                }
            }
        }
        found.sort();
        found
    }
}

/// Installs twice and uninstalls twice; gives what stood in `path` meanwhile.
#[track_caller]
fn round_trip(world: &World, path: &Path) -> String {
    let before = world.all();
    assert_eq!(world.host.status().unwrap(), Status::Absent);
    assert_eq!(world.install().unwrap(), Done::Changed(path.to_owned()));
    let installed = world.all();
    let expect = Status::Installed(OWN, path.to_owned());
    assert_eq!(world.host.status().unwrap(), expect);
    assert_eq!(world.install().unwrap(), Done::Nothing);
    assert_eq!(world.all(), installed);
    let text = fs::read_to_string(path).unwrap();
    let undone = world.undo();
    assert_eq!(undone, [Done::Changed(path.to_owned())]);
    assert_eq!(world.all(), before);
    assert_eq!(world.undo(), []);
    assert_eq!(world.host.status().unwrap(), Status::Absent);
    text
}

#[test]
fn a_plain_file_names_us_first_and_comes_back_as_it_was() {
    let world = World::with(BEFORE);
    let path = world.host.resolv_conf();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let text = round_trip(&world, &path);
    let (first, rest) = text.split_once('\n').unwrap();
    assert!(first.starts_with("nameserver 198.18.0.1 "), "{first}");
    assert_eq!(rest, BEFORE);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn a_missing_file_is_made_and_goes_again() {
    let world = World::new();
    round_trip(&world, &world.host.resolv_conf());
}

#[test]
fn systemd_resolved_is_told_by_a_drop_in() {
    for world in [
        World::linked("../run/systemd/resolve/stub-resolv.conf"),
        World::linked("/run/systemd/resolve/resolv.conf"),
        World::with("nameserver 127.0.0.53\noptions edns0 trust-ad\n"),
    ] {
        fs::create_dir(world.root.path().join("etc/systemd")).unwrap();
        let text = round_trip(&world, &world.host.drop_in());
        assert!(text.contains("DNS=198.18.0.1\n"), "{text}");
        let domains = "Domains=virtual.consul ~consul ~apps.example\n";
        assert!(text.contains(domains), "{text}");
    }
}

#[test]
fn what_others_changed_meanwhile_stays() {
    let world = World::with(BEFORE);
    world.install().unwrap();
    let edited = format!(
        "nameserver 192.0.2.9\n{}\nnameserver 192.0.2.2\n",
        world.resolv_conf()
    );
    fs::write(world.host.resolv_conf(), edited).unwrap();
    world.undo();
    let expect = format!("nameserver 192.0.2.9\n{BEFORE}\nnameserver 192.0.2.2\n");
    assert_eq!(world.resolv_conf(), expect);

    // Ours is put first again, and once.
    let line = "nameserver 198.18.9.1 # lb-agent\n";
    fs::write(world.host.resolv_conf(), format!("{BEFORE}\n{line}")).unwrap();
    world.install().unwrap();
    let text = world.resolv_conf();
    assert!(text.starts_with("nameserver 198.18.0.1 "), "{text}");
    assert!(!text.contains("198.18.9.1"), "{text}");
    world.undo();
    assert_eq!(world.resolv_conf(), format!("{BEFORE}\n"));
}

#[test]
fn a_drop_in_that_somebody_edited_is_set_aside() {
    let world = World::linked("../run/systemd/resolve/stub-resolv.conf");
    world.install().unwrap();
    let path = world.host.drop_in();
    let edited = fs::read_to_string(&path).unwrap() + "Cache=no\n";
    fs::write(&path, &edited).unwrap();
    assert!(matches!(world.install(), Err(Error::Foreign(_))));
    let aside = path.with_extension("conf.saved");
    let undone = world.undo();
    assert_eq!(undone, [Done::SetAside(aside.clone())]);
    assert_eq!(fs::read_to_string(aside).unwrap(), edited);
    assert!(!path.exists());
}

#[test]
fn a_drop_in_of_somebody_else_is_left_alone() {
    let world = World::linked("../run/systemd/resolve/stub-resolv.conf");
    let path = world.host.drop_in();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "[Resolve]\nDNS=192.0.2.1\n").unwrap();
    let before = world.all();
    assert!(matches!(world.install(), Err(Error::Foreign(_))));
    assert_eq!(world.undo(), []);
    assert_eq!(world.host.status().unwrap(), Status::Absent);
    assert_eq!(world.all(), before);
}

#[test]
fn a_file_that_another_program_writes_is_refused_with_the_remedy() {
    for (world, writer, remedy) in [
        (
            World::with("# Generated by NetworkManager\nnameserver 192.0.2.1\n"),
            "NetworkManager",
            "/etc/NetworkManager/conf.d/lb.conf",
        ),
        (
            World::linked("/run/NetworkManager/resolv.conf"),
            "NetworkManager",
            "dns=systemd-resolved",
        ),
        (
            World::linked("/etc/resolvconf/run/resolv.conf"),
            "resolvconf",
            "resolv.conf.d/head",
        ),
        (
            World::linked("/mnt/wsl/resolv.conf"),
            "WSL",
            "generateResolvConf = false",
        ),
        (
            World::linked("/run/connman/resolv.conf"),
            "ConnMan",
            "a file of your own",
        ),
        (
            World::with("; generated by /usr/sbin/dhclient-script\nnameserver 192.0.2.1\n"),
            "dhclient",
            "prepend domain-name-servers 198.18.0.1;",
        ),
        (
            World::with("nameserver 192.0.2.1\noptions rotate\n"),
            "options rotate",
            "take `rotate` out",
        ),
        (
            World::linked("/etc/static/resolv.conf"),
            "/etc/static/resolv.conf",
            "nameserver 198.18.0.1",
        ),
        (
            World::with("# Generated by Docker Engine.\nnameserver 127.0.0.11\n"),
            "Docker",
            "--root",
        ),
    ] {
        let before = world.all();
        let said = world.install().unwrap_err().to_string();
        assert!(said.contains(writer) && said.contains(remedy), "{said}");
        assert_eq!(world.all(), before);
    }
}

#[test]
fn a_host_that_came_to_systemd_resolved_meanwhile_is_cleared_of_both() {
    let world = World::with(BEFORE);
    world.install().unwrap();
    fs::write(
        world.host.resolv_conf(),
        "nameserver 198.18.0.1 # lb-agent\nnameserver 127.0.0.53\n",
    )
    .unwrap();
    assert_eq!(
        world.install().unwrap(),
        Done::Changed(world.host.drop_in())
    );
    assert_eq!(world.undo().len(), 2);
    assert_eq!(world.resolv_conf(), "nameserver 127.0.0.53\n");
    assert!(!world.host.drop_in().exists());
}

#[test]
fn what_was_undone_is_told_though_the_rest_cannot_be() {
    let world = World::with(BEFORE);
    world.install().unwrap();
    let path = world.host.drop_in();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text::drop_in(OWN, &[])).unwrap();
    // In the way of what is written beside the file before it takes its place.
    let beside = world.host.resolv_conf().with_extension("lb-new");
    fs::create_dir(&beside).unwrap();
    let undone = world.host.uninstall();
    assert_eq!(*undone[0].as_ref().unwrap(), Done::Changed(path.clone()));
    assert!(
        matches!(undone[1], Err(Error::File { verb: "write", .. })),
        "{undone:?}"
    );
    assert!(!path.exists());
    fs::remove_dir(beside).unwrap();
    let rest = world.undo();
    assert_eq!(rest, [Done::Changed(world.host.resolv_conf())]);
    assert_eq!(world.resolv_conf(), BEFORE);
}

#[test]
fn another_root_is_not_told_to_the_systemd_of_this_machine() {
    let world = World::linked("../run/systemd/resolve/stub-resolv.conf");
    let done = world.install().unwrap();
    let said = world.host.reload(&done).unwrap_err();
    assert!(said.contains("systemctl try-reload-or-restart"), "{said}");
    assert_eq!(world.host.reload(&Done::Nothing), Ok(()));
    let file = Done::Changed(world.host.resolv_conf());
    assert_eq!(world.host.reload(&file), Ok(()));
}
