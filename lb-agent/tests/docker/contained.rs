//! The agent in a container, with the rights that the files in compose/ and deploy/ give it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use lb_testkit::{Cgroup, Docker, Process, Spawn, eventually};
use serde_json::Value;

use crate::{
    agent::{bind_in, curl},
    kit::{LIMIT, engine, start},
};

const PROFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../compose/seccomp.json");

const BINARY: &str = env!("CARGO_BIN_EXE_lb-agent");

/// Starts it with these arguments of `docker run` more.
fn start_agent(docker: &Docker, arguments: &[&str]) {
    start_agent_with(docker, arguments, "");
}

/// The same with this configuration more.
fn start_agent_with(docker: &Docker, arguments: &[&str], more: &str) {
    let folder = docker.folder();
    docker.prepare_for_agent("bpf").unwrap();
    let place = folder.display();
    let config = format!(
        "state_dir = \"{place}/state\"\nbpffs = \"{place}/bpf\"\ncgroup = \"/cgroup\"\n\
         socket = \"{place}/admin.sock\"\n\
         [sources.docker]\nsocket = \"unix://{}\"\n\
         [front]\nlisten = [\"127.0.0.1:80\"]\n\
         [dns]\nupstreams = []\n\
         [health]\ninterval = \"200ms\"\ntimeout = \"200ms\"\n{more}",
        docker.socket().display()
    );
    fs::write(folder.join("lb.toml"), config).unwrap();
    // A program for the tests needs the machine's C library.
    let mut mounts = vec![
        format!("{place}:{place}"),
        format!("{}:/cgroup:ro", docker.cgroup().path().display()),
        format!("{BINARY}:/lb-agent:ro"),
    ];
    let libraries = ["/lib", "/lib64", "/usr/lib"].into_iter();
    let there = libraries.filter(|folder| Path::new(folder).is_dir());
    mounts.extend(there.map(|folder| format!("{folder}:{folder}:ro")));
    let mut all: Vec<String> =
        "run -d --name agent --net host --pid host --read-only --cap-drop ALL"
            .split(' ')
            .map(str::to_owned)
            .collect();
    for right in [
        "SYS_ADMIN",
        "NET_ADMIN",
        "NET_BIND_SERVICE",
        "SYS_PTRACE",
        "DAC_READ_SEARCH",
        "SETUID",
        "SETGID",
        "KILL",
    ] {
        all.extend(["--cap-add".to_owned(), right.to_owned()]);
    }
    for mount in mounts {
        all.extend(["-v".to_owned(), mount]);
    }
    let quiet = [
        "-l",
        "SERVICE_IGNORE=1",
        "--security-opt",
        "no-new-privileges:true",
    ];
    all.extend(quiet.iter().chain(arguments).map(|it| (*it).to_owned()));
    let config = folder.join("lb.toml").display().to_string();
    all.extend(["web", "/lb-agent", "run", "--config"].map(str::to_owned));
    all.push(config);
    docker.docker(&all).unwrap();
}

/// A component of the report with this name, once there is one of which this holds.
fn until_line(docker: &Docker, name: &str, holds: impl Fn(&str) -> bool) -> String {
    let found = eventually(LIMIT, || {
        let url = "http://127.0.0.1:9180/api/v1/snapshot";
        let report = curl(docker, None, url).map_err(|error| error.to_string())?;
        let report: Value = serde_json::from_str(&report).map_err(|it| it.to_string())?;
        let lines = report["components"].as_array().into_iter().flatten();
        let line = lines.into_iter().find(|it| it["name"] == name);
        let detail = line.and_then(|it| it["detail"].as_str()).map(str::to_owned);
        detail
            .filter(|it| holds(it))
            .ok_or_else(|| format!("{report:#}"))
    });
    found.unwrap_or_else(|late| {
        panic!(
            "{late}\n{}",
            docker.docker(["logs", "agent"]).unwrap_or_default()
        )
    })
}

/// Finds what needs the most rights: a UDP flow of a container whose user is nobody is seen, and cut after a drain.
fn assert_does_all(docker: &Docker) {
    start(
        docker,
        "one",
        &[
            "-l",
            "SERVICE_80_NAME=shop",
            "--expose",
            "80/udp",
            "-l",
            "SERVICE_LB_DRAIN=1s",
        ],
    );
    let _server = bind_in(docker, "one", 80);
    let known = until_line(docker, "clients", |it| it.contains("is known"));
    assert_eq!(known, "1 container is known");
    let privileges = until_line(docker, "privileges", |_| true);
    assert!(
        privileges.starts_with("sys_admin; ") && !privileges.contains("without"),
        "{privileges}"
    );
    let ask = |arguments: &[&str]| {
        let asked = Spawn::new("ask", BINARY)
            .arg("--socket")
            .arg(docker.folder().join("admin.sock"))
            .args(arguments);
        asked.netns(docker.netns()).output()
    };
    let services = eventually(LIMIT, || {
        let all = ask(&["services", "-o", "json"]).map_err(|error| error.to_string())?;
        let all: Value = serde_json::from_str(&all).map_err(|it| it.to_string())?;
        let vip = all[0]["vip"].as_str().map(str::to_owned);
        vip.filter(|_| all[0]["usable"] == 2)
            .ok_or_else(|| format!("{all:#}"))
    });
    let vip = services.unwrap();
    let (mut talker, _place) = talk(docker, &vip);
    let seen = eventually(LIMIT, || {
        match ask(&["flows"]).map_err(|error| error.to_string())? {
            flows if flows.contains("udp") => Ok(()),
            flows => Err(flows),
        }
    });
    seen.unwrap();
    ask(&["drain", "shop"]).unwrap();
    assert!(!talker.wait(LIMIT).unwrap().success());
}

/// A process of nobody in a container's network, with a UDP flow through the VIP, that ends with this flow.
fn talk(docker: &Docker, vip: &str) -> (Process, Cgroup) {
    start(docker, "aside", &["-l", "SERVICE_IGNORE=1"]);
    let format = ["inspect", "--format", "{{.State.Pid}}", "aside"];
    let pid = docker.docker(format).unwrap();
    let clients = docker.cgroup().subgroup("talker").unwrap();
    let script = format!("exec 3<>/dev/udp/{vip}/80; echo hello >&3; read -r line <&3");
    let process = Spawn::new("talker", "nsenter")
        .args(["--net", "--target", &pid])
        .args([
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ])
        .args(["bash", "-c", &script])
        .cgroup(&clients)
        .start();
    (process.unwrap(), clients)
}

fn is_filtered(docker: &Docker) -> bool {
    let format = ["inspect", "--format", "{{.State.Pid}}", "agent"];
    let pid = docker.docker(format).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.contains("Seccomp:\t2")
}

#[test]
fn a_profile_that_refuses_bpf_is_what_it_names() {
    let docker = engine();
    let whole = fs::read_to_string(PROFILE).unwrap();
    let without = whole.replacen("\"bpf\", ", "", 1);
    assert_ne!(without, whole);
    let profile = docker.folder().join("seccomp.json");
    fs::write(&profile, without).unwrap();
    let profile = format!("seccomp={}", profile.display());
    start_agent(&docker, &["--security-opt", &profile]);
    assert_eq!(docker.docker(["wait", "agent"]).unwrap(), "1");
    // What a container says on its standard error, the client says on its own.
    let logs = docker.client("logs", "docker").args(["logs", "agent"]);
    let mut logs = logs.log(docker.folder()).start().unwrap();
    assert!(logs.wait(LIMIT).unwrap().success());
    let said = fs::read_to_string(docker.folder().join("logs.log")).unwrap();
    assert!(said.contains("bpf(2) is refused"), "{said}");
}

#[test]
fn with_the_rights_of_compose_it_does_all_that_it_is_for() {
    let docker = engine();
    let profile = format!("seccomp={PROFILE}");
    let arguments = ["--cgroupns", "host", "--security-opt", &profile];
    start_agent(&docker, &arguments);
    assert!(is_filtered(&docker));
    assert_does_all(&docker);
}

/// As other programs write it who replace a file, for their own user alone.
fn write_for_others(folder: &Path, name: &str, text: &str) {
    let new = folder.join("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&new, Some(1000), Some(1000)).unwrap();
    fs::rename(new, folder.join(name)).unwrap();
}

fn certificate(name: &str) -> String {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    made.cert.pem() + &made.signing_key.serialize_pem()
}

#[test]
fn certificates_and_users_are_read_from_a_folder_of_another_user_and_when_they_change() {
    let docker = engine();
    let folder = docker.folder().join("private");
    fs::create_dir(&folder).unwrap();
    chown(&folder, Some(1000), Some(1000)).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    write_for_others(&folder, "shop.pem", &certificate("one.example"));
    let user = "ann:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\n";
    write_for_others(&folder, "staff.htpasswd", user);
    let profile = format!("seccomp={PROFILE}");
    let mount = format!("{}:/etc/lb/private:ro", folder.display());
    let arguments = ["--security-opt", &profile, "-v", &mount];
    start_agent_with(
        &docker,
        &arguments,
        "[front.tls]\nlisten = [\"127.0.0.1:443\"]\nfolder = \"/etc/lb/private\"\n\
         [front.auth]\nstaff = \"/etc/lb/private/staff.htpasswd\"\n",
    );
    until_line(&docker, "tls", |it| it.contains("one.example"));
    write_for_others(&folder, "shop.pem", &certificate("two.example"));
    until_line(&docker, "tls", |it| it.contains("two.example"));
    let labels = ["-l", "SERVICE_80_NAME=shop", "-l", "SERVICE_LB_AUTH=staff"];
    start(&docker, "one", &labels);
    // Without the list it would be 503.
    let asked = eventually(LIMIT, || {
        match curl(&docker, None, "http://shop.localhost/") {
            Err(error) if error.to_string().contains("401") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    asked.unwrap();
}

#[test]
fn in_a_cgroup_namespace_of_its_own_and_with_the_engines_own_profile_it_does_the_same() {
    let docker = engine();
    start_agent(&docker, &["--cgroupns", "private"]);
    assert!(is_filtered(&docker));
    assert_does_all(&docker);
}
