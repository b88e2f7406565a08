//! Who may use the admin socket, as the kernel tells who asks.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use flate2::read::GzDecoder;

use crate::kit::World;

/// Users without a name here.
const OPERATOR: u32 = 31_234;
const STRANGER: u32 = 31_235;

#[test]
fn a_user_of_the_list_may_order_by_the_socket_and_nobody_else() {
    let (mut world, _instances, _) = World::with_two();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(world.path(""), open).unwrap();
    let drain = ["drain", "www_hello/a"];
    // Nobody is on a list yet: not even the socket lets them in.
    let refused = world.ask_as(OPERATOR, &drain);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("[admin] allow_uids"), "{refused:?}");

    world.terminate();
    let usual = world.usual();
    let headers = world.path("headers");
    fs::write(&headers, "Authorization: Bearer s3cret-word\n").unwrap();
    fs::set_permissions(&headers, fs::Permissions::from_mode(0o600)).unwrap();
    world.configure(&format!(
        "{usual}[admin]\nallow_uids = [{OPERATOR}]\n[metrics.otlp]\nendpoint = \"http://127.0.0.1:1\"\n\
         headers_file = \"{}\"\n",
        headers.display()
    ));
    world.start(&[]);
    world.await_ready();
    world.await_usable("www_hello", &["a", "b"]);
    let done = world.ask_as(OPERATOR, &drain);
    assert_eq!(done.code, Some(0), "{done:?}");
    world.await_usable("www_hello", &["b"]);
    for command in [&["status"][..], &["drain", "www_hello/b"]] {
        let refused = world.ask_as(STRANGER, command);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains("[admin] allow_uids"), "{refused:?}");
    }
    world.await_usable("www_hello", &["b"]);
    let events = world.ask(&["events", "-o", "json"]).json();
    let events = events.as_array().unwrap();
    let change = events.iter().find(|it| it["kind"] == "change").unwrap();
    assert_eq!(change["actor"], format!("uid {OPERATOR}"));

    // What they may not read they cannot mask either, and are told.
    let folder = world.path("of-the-operator");
    fs::create_dir(&folder).unwrap();
    let anybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(&folder, anybody).unwrap();
    let (archive, config) = (folder.join("bundle.tar.gz"), world.config());
    let [archive_text, config] = [&archive, &config].map(|it| it.to_str().unwrap());
    let made = ["bundle", "--config", config, "--file", archive_text];
    let made = world.ask_as(OPERATOR, &made);
    assert_eq!(made.code, Some(0), "{made:?}");
    let line = format!(
        "not masked: the secrets of {}: Permission denied",
        headers.display()
    );
    assert!(made.out.contains(&line), "{made:?}");
    let (mut bytes, archive) = (Vec::new(), fs::File::open(&archive).unwrap());
    GzDecoder::new(archive).read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(&line) && text.contains("lb_build_info"));
    world.finish();
}

/// More connections than an agent has at a time, by far fewer than may wait in the kernel.
const HELD: usize = 80;
/// What another program is told: the socket that it is to hold.
const HOLDS: &str = "LB_TEST_HOLDS";
/// What that one says when each of its connections was there once.
const HOLDING: &str = "holding";

/// A process of another user that has as many connections as it can.
struct Holder(Child);

impl Holder {
    /// Returns when each of them was there.
    fn start(socket: &Path, uid: u32) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "allowed::holds_the_socket_when_started_as_one"])
            .args(["--quiet", "--nocapture"])
            .env(HOLDS, socket)
            .uid(uid)
            .gid(uid)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let holder = Self(child);
        let mut said = said.lines().map_while(Result::ok);
        assert!(said.any(|line| line.contains(HOLDING)), "it has ended");
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// For [`Holder`]: asks what everybody may ask who may use the socket, keeps the connection, and comes again when it ends.
#[test]
fn holds_the_socket_when_started_as_one() {
    let Some(socket) = env::var_os(HOLDS).map(PathBuf::from) else {
        return;
    };
    let all = Arc::new(Barrier::new(HELD + 1));
    for _ in 0..HELD {
        let (all, socket) = (Arc::clone(&all), socket.clone());
        thread::spawn(move || {
            let mut first = true;
            loop {
                let held = hold(&socket, || {
                    if std::mem::take(&mut first) {
                        all.wait();
                    }
                });
                // Dropped, refused, or idle for too long: this only keeps a loop from taking the machine.
                drop(held);
                thread::sleep(Duration::from_millis(20));
            }
        });
    }
    all.wait();
    println!("{HOLDING}");
    // Until who started it is gone.
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

/// Until the agent ends it.
fn hold(socket: &Path, there: impl FnOnce()) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    // Whoever is dropped at once was there.
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    there();
    asked?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

#[test]
fn no_other_user_keeps_root_away_from_the_socket_by_holding_connections() {
    let (mut world, _instances, _) = World::with_two();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(world.path(""), open).unwrap();
    world.terminate();
    let usual = world.usual();
    world.configure(&format!("{usual}[admin]\nallow_uids = [{OPERATOR}]\n"));
    world.start(&[]);
    world.await_ready();
    world.await_usable("www_hello", &["a", "b"]);
    let socket = world.path("admin.sock");
    let answers = |world: &World| {
        for _ in 0..3 {
            let status = world.ask(&["status"]);
            assert_eq!(status.code, Some(0), "{status:?}");
        }
    };
    {
        let _stranger = Holder::start(&socket, STRANGER);
        answers(&world);
        let allowed = world.ask_as(OPERATOR, &["status"]);
        assert_eq!(allowed.code, Some(0), "{allowed:?}");
    }
    {
        let _operator = Holder::start(&socket, OPERATOR);
        answers(&world);
    }
    world.finish();
}
