use std::os::unix::fs::PermissionsExt as _;

use caps::{CapSet, Capability};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;

/// A folder that files come and go in.
struct Disk {
    folder: tempfile::TempDir,
    shelf: Shelf,
    outputs: CertificateOutputs,
}

fn made(name: &str) -> Certificate {
    made_until(name, 2050)
}

fn made_until(name: &str, year: i32) -> Certificate {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    Certificate {
        chain: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

impl Disk {
    /// With this pair configured, and the folder beside it.
    fn new(pair: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let pair = pair.map(|name| Pair {
            certificate: path(&format!("{name}.one")),
            key: path(&format!("{name}.two")),
        });
        let files = Files {
            pairs: pair.into_iter().collect(),
            folder: Some(folder.path().to_owned()),
            only_1_3: false,
        };
        Self {
            shelf: Shelf::new(files),
            folder,
            outputs: CertificateOutputs {
                tls: watch::Sender::default(),
                in_use: watch::Sender::default(),
                problems: watch::Sender::default(),
            },
        }
    }

    /// As who replaces a file should.
    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// The names in use, and the problems.
    fn look(&mut self) -> (Vec<String>, Vec<String>) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        self.shelf.look(now);
        self.shelf.tell(&self.outputs);
        let in_use = self.outputs.in_use.borrow();
        let root = format!("{}/", self.folder.path().display());
        let problems = self.outputs.problems.borrow();
        (
            in_use.iter().map(|it| it.name.clone()).collect(),
            problems
                .iter()
                .map(|it| it.to_string().replace(&root, ""))
                .collect(),
        )
    }

    #[track_caller]
    fn check(&mut self, names: &[&str], problems: &[&str]) {
        let (found, told) = self.look();
        assert_eq!(found, names, "{told:?}");
        assert_eq!(told.len(), problems.len(), "{told:?}");
        for (told, problem) in told.iter().zip(problems) {
            assert!(told.contains(problem), "{told}");
        }
    }
}

#[test]
fn a_folder_is_read_in_the_order_of_names_behind_what_is_named() {
    let mut disk = Disk::new(Some("named"));
    let named = made("named.example");
    disk.write("named.one", &named.chain);
    disk.write("named.two", &named.key);
    let (b, a, certbot) = (made("b.example"), made("a.example"), made("c.example"));
    disk.write("b.crt", &b.chain);
    disk.write("b.key", &b.key);
    disk.write("a.pem", &format!("{}{}", a.key, a.chain));
    disk.write("c.example/fullchain.pem", &certbot.chain);
    disk.write("c.example/privkey.pem", &certbot.key);
    disk.write("README", "no certificate");
    let names = ["named.example", "a.example", "b.example", "c.example"];
    disk.check(&names, &[]);
    let tls = disk.outputs.tls.borrow().clone();
    assert_eq!(tls.certificates[0], named);
    fs::remove_file(disk.folder.path().join("b.crt")).unwrap();
    disk.check(&["named.example", "a.example", "c.example"], &[]);
}

#[test]
fn a_file_that_changes_is_in_use_and_one_that_breaks_is_not() {
    let mut disk = Disk::new(Some("x"));
    disk.check(
        &[],
        &["certificate x.one: x.one cannot be read: No such file or directory (os error 2); correct the path"],
    );
    let (first, second) = (made("first.example"), made("second.example"));
    disk.write("x.one", &first.chain);
    disk.check(&[], &["x.two cannot be read"]);
    disk.write("x.two", &first.key);
    disk.check(&["first.example"], &[]);
    let mut changes = disk.outputs.tls.subscribe();
    // One file after the other: in between they do not belong together.
    disk.write("x.one", &second.chain);
    disk.check(&["first.example"], &[]);
    disk.check(
        &["first.example"],
        &["put it before those of its authorities; the one before stays in use"],
    );
    assert!(!changes.has_changed().unwrap());
    disk.write("x.two", &second.key);
    disk.check(&["second.example"], &[]);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    for (text, problem) in [
        ("", "x.two: there is no private key in it"),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----",
            "x.two: the private key is encrypted",
        ),
    ] {
        disk.write("x.two", text);
        disk.look();
        disk.check(&["second.example"], &[problem]);
    }
    fs::remove_file(disk.folder.path().join("x.two")).unwrap();
    disk.look();
    disk.check(&["second.example"], &["x.two cannot be read"]);
    disk.write("x.two", &second.key);
    disk.check(&["second.example"], &[]);
    assert!(!changes.has_changed().unwrap());
}

#[test]
fn the_end_of_a_certificate_is_told_in_time() {
    let mut disk = Disk::new(None);
    // The clock of the test stands in January 2027.
    for (year, problem) in [(2027, "it has expired"), (2050, "")] {
        let made = made_until("a.example", year);
        disk.write("a.pem", &format!("{}{}", made.chain, made.key));
        let problem = [problem];
        disk.check(
            &["a.example"],
            if problem[0].is_empty() { &[] } else { &problem },
        );
    }
    let mut soon = CertificateParams::new(["a.example".to_owned()]).unwrap();
    soon.not_before = date_time_ymd(2026, 11, 1);
    soon.not_after = date_time_ymd(2027, 1, 25);
    let key = KeyPair::generate().unwrap();
    let chain = soon.self_signed(&key).unwrap().pem();
    disk.write("a.pem", &format!("{chain}{}", key.serialize_pem()));
    disk.check(&["a.example"], &["it expires soon"]);
}

#[test]
fn a_folder_that_cannot_be_read_takes_nothing_away() {
    let mut disk = Disk::new(None);
    let made = made("a.example");
    disk.write("a.pem", &format!("{}{}", made.chain, made.key));
    disk.check(&["a.example"], &[]);
    let moved = disk.folder.path().with_extension("moved");
    fs::rename(disk.folder.path(), &moved).unwrap();
    let (names, problems) = disk.look();
    assert_eq!(names, ["a.example"]);
    assert!(problems[0].contains("what it held stays"), "{problems:?}");
    fs::rename(&moved, disk.folder.path()).unwrap();
    disk.check(&["a.example"], &[]);
}

#[test]
fn a_key_that_may_not_be_read_any_more_is_told() {
    as_anybody(|| {
        let mut disk = Disk::new(Some("a"));
        let Certificate { chain, key } = made("a");
        disk.write("a.one", &chain);
        disk.write("a.two", &key);
        let path = disk.folder.path().join("a.two");
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        disk.check(&["a"], &[]);
        mode(0o000);
        // Not at once: somebody may be in the middle of it.
        disk.check(&["a"], &[]);
        disk.check(&["a"], &["a.two cannot be read"]);
        mode(0o600);
        disk.check(&["a"], &[]);
    });
}

#[test]
fn what_may_not_be_read_or_is_no_file_is_told_with_a_remedy() {
    as_anybody(|| {
        let mut disk = Disk::new(Some("x"));
        let made = made("a.example");
        disk.write("x.one", &made.chain);
        disk.write("x.two", &made.key);
        let key = disk.folder.path().join("x.two");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).unwrap();
        let refused = "x.two cannot be read: Permission denied (os error 13); correct the path or the permissions";
        disk.check(&[], &[refused]);
        // Who mends it need not touch the file.
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        disk.check(&["a.example"], &[]);
        fs::remove_file(&key).unwrap();
        fs::create_dir(&key).unwrap();
        disk.look();
        disk.check(&["a.example"], &["x.two cannot be read: Is a directory"]);
    });
}

/// Root may read everything; a thread without its capabilities may not.
fn as_anybody(job: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        for capability in [
            Capability::CAP_DAC_OVERRIDE,
            Capability::CAP_DAC_READ_SEARCH,
        ] {
            caps::drop(None, CapSet::Effective, capability).unwrap();
        }
        job();
    });
    thread.join().unwrap();
}
