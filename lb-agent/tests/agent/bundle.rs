//! `lb-agent bundle` of a host full of secrets: none of them is in the archive.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output},
};

use flate2::read::GzDecoder;
use lb_testkit::eventually;

use crate::kit::{BINARY, Instance, LIMIT, World, service};

/// Every secret has it.
const MARKER: &str = "s3cret-marker";

fn bundle(world: &World, name: &str) -> Output {
    let run = || {
        let mut command = Command::new(BINARY);
        command
            .args(["bundle", "--config"])
            .arg(world.config())
            .arg("--file")
            .arg(world.path(name))
            .env("CONSUL_HTTP_ADDR", "127.0.0.1:1")
            .env("CONSUL_HTTP_TOKEN", format!("{MARKER}-token"))
            .env("CONSUL_HTTP_AUTH", format!("anna:{MARKER}-auth"))
            .env("DATABASE_PASSWORD", format!("{MARKER}-environment"))
            .output()
            .unwrap()
    };
    world.netns.enter(run).unwrap()
}

/// All of the archive, unpacked.
fn unpacked(world: &World, name: &str) -> String {
    let file = fs::File::open(world.path(name)).unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What `MANIFEST` says is in it, and what is not.
fn manifest(text: &str) -> (Vec<&str>, &str) {
    let (_, rest) = text.split_once("\nIn it:\n").unwrap();
    let (inside, outside) = rest.split_once("\nLeft out:\n").unwrap();
    let names = inside
        .lines()
        .map(|it| it.split_whitespace().next().unwrap());
    (names.collect(), outside)
}

/// One request that the access log has a line of.
fn ask() {
    let mut front = TcpStream::connect("127.0.0.1:80").unwrap();
    let request = format!(
        "GET /?{MARKER}-asked HTTP/1.1\r\nHost: www_hello.localhost\r\nUser-Agent: {MARKER}\r\n\
         Connection: close\r\n\r\n"
    );
    front.write_all(request.as_bytes()).unwrap();
    front.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn no_secret_and_no_client_is_in_it() {
    let mut world = World::new();
    let secret = |name: &str, text: &str| {
        fs::write(world.path(name), text).unwrap();
        let own = fs::Permissions::from_mode(0o600);
        fs::set_permissions(world.path(name), own).unwrap();
    };
    secret(
        "token",
        &format!("{MARKER}-of-the-admin-api-which-is-long\n"),
    );
    secret(
        "sticky",
        &format!("{MARKER}-sticky-key-of-32-bytes-and-more"),
    );
    secret(
        "headers",
        &format!("Authorization: Bearer {MARKER}-of-the-receiver\n"),
    );
    secret(
        "people",
        &format!("anna:$2y$05${MARKER}abcdefghijklmnopqrstuvwxyzabcdefghijklmno\n"),
    );
    let folder = world.path("state").join("acme").join("ca");
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        folder.join("account.json"),
        format!("{{\"key\": \"{MARKER}-acme\"}}"),
    )
    .unwrap();
    let [token, people, sticky, headers, log] =
        ["token", "people", "sticky", "headers", "access.log"].map(|it| world.path(it));
    let [token, people, sticky, headers] =
        [&token, &people, &sticky, &headers].map(|it| it.display());
    world.configure(&format!(
        "{}[admin]\ntoken_file = \"{token}\"\n[front]\nsticky_key_file = \"{sticky}\"\n[front.auth]\npeople = \"{people}\"\n\
         [metrics.otlp]\nendpoint = \"http://127.0.0.1:1\"\nheaders_file = \"{headers}\"\n\
         [front.access_log]\nformat = \"combined\"\nfile = \"{}\"\n",
        world.usual(),
        log.display(),
    ));
    let a = Instance::start(&world.netns, "a", [127, 0, 1, 1]);
    let services = service("www_hello", &[&a]);
    let check = format!("options = {{ lb_check = \"http /health?password={MARKER}-query\" }}\n");
    let (head, rest) = services.split_once('\n').unwrap();
    let (name, rest) = rest.split_once('\n').unwrap();
    world.publish(&format!("{head}\n{name}\n{check}{rest}"));
    world.start(&[]);
    world.await_ready();

    world.netns.enter(ask).unwrap();
    let logged = eventually(LIMIT, || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if text.contains(MARKER) {
            Ok(())
        } else {
            Err(text)
        }
    });
    logged.unwrap();

    let output = bundle(&world, "first.tar.gz");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = unpacked(&world, "first.tar.gz");
    let (names, _) = manifest(&text);
    assert_eq!(
        names,
        [
            "version.json",
            "config.json",
            "doctor.json",
            "kernel.txt",
            "status.json",
            "services.json",
            "backends.json",
            "vips.json",
            "clients.json",
            "flows.json",
            "metrics.txt",
            "log.txt",
        ]
    );
    assert!(
        text.contains("\"www_hello\"") && text.contains("lb_build_info"),
        "it is empty"
    );
    assert!(text.contains("http /health?***"), "the check is not there");
    assert!(!text.contains(MARKER), "{}", around(&text));
    let spoken = String::from_utf8_lossy(&output.stdout);
    assert!(!spoken.contains(MARKER), "{spoken}");

    let again = bundle(&world, "first.tar.gz");
    assert_eq!(again.status.code(), Some(1));
    world.terminate();

    // Without an agent there is less, and it says so.
    assert!(bundle(&world, "second.tar.gz").status.success());
    let text = unpacked(&world, "second.tar.gz");
    let (names, left_out) = manifest(&text);
    assert_eq!(
        names,
        ["version.json", "config.json", "doctor.json", "kernel.txt"]
    );
    assert!(
        left_out.contains("metrics.txt: no agent answers at"),
        "{left_out}"
    );
    assert!(!text.contains(MARKER), "{}", around(&text));
    world.finish();
}

/// One file of the unpacked archive.
fn part(archive: &str, name: &str) -> String {
    let mut rest = archive.as_bytes();
    while rest.len() >= 512 {
        let (header, behind) = rest.split_at(512);
        let text = |range: std::ops::Range<usize>| {
            let field = String::from_utf8_lossy(&header[range]).into_owned();
            field.trim_end_matches('\0').to_owned()
        };
        let length = usize::from_str_radix(&text(124..136), 8).unwrap_or(0);
        if text(0..100).ends_with(&format!("/{name}")) {
            return String::from_utf8_lossy(&behind[..length]).into_owned();
        }
        rest = &behind[length.next_multiple_of(512).min(behind.len())..];
    }
    panic!("no {name} in the archive")
}

#[test]
fn the_flows_the_log_and_the_pins_are_in_it_without_whose_they_are() {
    let (world, _instance, vip) = World::with_one();
    let flow = world.connect(vip, 80).unwrap();
    let client = flow.local_addr().unwrap();
    // What the audit writes names who asked.
    let order = "{\"service\":\"www_hello\",\"backend\":\"a\",\"mode\":\"drain\"}";
    let answer = world.post("/api/v1/instances/state", order).unwrap();
    assert_eq!(answer.status, 200);
    let logged = eventually(LIMIT, || match world.said() {
        said if said.contains("action=\"drain\"") => Ok(()),
        said => Err(said),
    });
    logged.unwrap();

    let output = bundle(&world, "all.tar.gz");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = unpacked(&world, "all.tar.gz");
    let list: serde_json::Value = serde_json::from_str(&part(&text, "flows.json")).unwrap();
    let flows = list["flows"].as_array().unwrap();
    let found = flows.iter().find(|it| it["vip"] == format!("{vip}:80"));
    let found = found.unwrap_or_else(|| panic!("{list:#}"));
    assert_eq!(found["service"], "www_hello");
    assert_eq!(found["backend"], "file/a");
    for field in ["client", "netns", "uid", "pid", "command"] {
        assert_eq!(found[field], "***", "{found:#}");
    }
    let log = part(&text, "log.txt");
    assert!(log.contains("INFO running"), "{log}");
    assert!(
        !log.contains("drain from") && !log.contains("actor"),
        "{log}"
    );
    assert!(!text.contains(&client.to_string()), "{client} is in it");
    let kernel = part(&text, "kernel.txt");
    assert!(kernel.contains("== pins below"), "{kernel}");
    assert!(kernel.contains("/SERVICES"), "{kernel}");
    // Over TCP nobody is told what is in the log.
    assert_eq!(world.page("/api/v1/log").unwrap().status, 403);
    world.finish();
}

/// The first place that betrays something.
fn around(text: &str) -> &str {
    let at = text.find(MARKER).unwrap_or(0);
    let begin = (0..=at.saturating_sub(200))
        .rev()
        .find(|it| text.is_char_boundary(*it));
    let end = (at..=text.len()).find(|it| *it >= at + 30 && text.is_char_boundary(*it));
    &text[begin.unwrap_or(0)..end.unwrap_or(text.len())]
}
