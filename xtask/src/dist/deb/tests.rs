//! What dpkg runs, on a host that has systemd for it: both are stood in for, and write down what they are told.

use std::os::unix::fs::symlink;

use super::*;

/// What a script has systemctl and lb-agent do, and whether it succeeds. In a `/run` of its own, where systemd seems to run.
fn played(script: &str, arguments: &[&str], root: &str, uninstall: &str) -> (String, bool) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let stand_in = format!(
        "#!/bin/sh\necho \"${{0##*/}} $*\" >> {}/told\n",
        place.display()
    );
    for (name, end) in [("systemctl", "true"), ("lb-agent", uninstall)] {
        let program = place.join(name);
        fs::write(&program, format!("{stand_in}{end}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["sh", "rm"] {
        symlink(format!("/bin/{name}"), place.join(name)).unwrap();
    }
    let (_, text) = SCRIPTS.iter().find(|(name, _)| *name == script).unwrap();
    fs::write(place.join("script"), text).unwrap();
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tmpfs none /run && mkdir -p /run/systemd/system && PATH=$1 && shift && exec sh \"$@\"")
        .arg("sh")
        .args([place, &place.join("script")])
        .args(arguments)
        .env("DPKG_ROOT", root)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    let told = fs::read_to_string(place.join("told")).unwrap_or_default();
    (told, status.success())
}

#[test]
fn installing_starts_nothing_and_an_upgrade_restarts_what_runs() {
    let (told, _) = played("postinst", &["configure"], "", "true");
    assert_eq!(told, "systemctl daemon-reload\n");
    let (told, _) = played("postinst", &["configure", "0.0.9"], "", "true");
    assert_eq!(
        told,
        "systemctl daemon-reload\nsystemctl try-restart lb-agent.service\n"
    );
    assert_eq!(
        played("prerm", &["upgrade", "0.2.0"], "", "true"),
        (String::new(), true)
    );
    assert_eq!(
        played("postrm", &["upgrade", "0.2.0"], "", "true"),
        (String::new(), true)
    );
}

#[test]
fn removing_takes_the_data_plane_off_the_host_and_is_not_kept_from_it() {
    let expect = "systemctl disable --now lb-agent.socket lb-agent.service\nlb-agent uninstall\n";
    for end in ["true", "exit 1"] {
        let played = played("prerm", &["remove"], "", end);
        assert_eq!(played, (expect.to_owned(), true), "{end}");
    }
    let (told, _) = played("postrm", &["remove"], "", "true");
    assert_eq!(told, "systemctl daemon-reload\n");
}

#[test]
fn a_package_in_another_root_does_nothing_to_this_host() {
    for (script, word) in [
        ("postinst", "configure"),
        ("prerm", "remove"),
        ("postrm", "remove"),
    ] {
        let played = played(script, &[word, "0.0.9"], "/nothing", "true");
        assert_eq!(played, (String::new(), true), "{script}");
    }
}

#[test]
fn a_unit_in_the_package_names_its_program_and_not_how_it_is_installed_by_hand() {
    for unit in ["lb-agent.service", "lb-agent.socket"] {
        let text = fs::read_to_string(workspace().join("deploy/systemd").join(unit)).unwrap();
        assert!(text.contains("#   install -m 644"), "{text}");
        let installed = installed(&text);
        for word in ["/usr/local/", "install -m", "daemon-reload"] {
            assert!(!installed.contains(word), "{installed}");
        }
        assert!(
            installed.contains("#   systemctl enable --now lb-agent"),
            "{installed}"
        );
        let is_service = unit.ends_with(".service");
        assert_eq!(
            installed.contains("\nExecStart=/usr/bin/lb-agent run\n"),
            is_service
        );
    }
}

#[test]
fn the_rights_and_times_of_a_package_are_not_those_that_its_files_had() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, file) = (
        folder.path().join("inner"),
        folder.path().join("inner/file"),
    );
    fs::create_dir(&inner).unwrap();
    fs::write(&file, "text").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).unwrap();
    let stamp = Stamp {
        seconds: 1_000_000_000,
        revision: String::new(),
    };
    settle(folder.path(), &stamp).unwrap();
    for (path, mode) in [(&inner, 0o755), (&file, 0o644)] {
        let found = fs::metadata(path).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, mode);
        let since = found
            .modified()
            .unwrap()
            .duration_since(UNIX_EPOCH)
            .unwrap();
        assert_eq!(since.as_secs(), stamp.seconds);
    }
}
