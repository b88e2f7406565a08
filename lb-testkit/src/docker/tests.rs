use std::net::TcpStream;

use nix::sched::{CloneFlags, setns};

use super::*;
use crate::http;

fn packages() -> PathBuf {
    let folder = std::env::var_os("LB_DOCKER").expect(
        "this test needs a Docker Engine: run `cargo xtask test`, which fetches one, or set LB_DOCKER to the \
         folder of its packages",
    );
    folder.into()
}

#[test]
fn an_engine_keeps_its_networks_apart() {
    let docker = Docker::start(&packages()).unwrap();
    docker.busybox("web").unwrap();
    let run = |name: &str, arguments: &[&str]| {
        let usual = ["run", "-d", "--stop-signal", "KILL", "--name", name];
        let all = usual.iter().chain(arguments).chain(&["web"]);
        docker.docker(all).unwrap();
    };
    docker.docker(["network", "create", "lb-other"]).unwrap();
    let inner = ["network", "create", "--internal", "lb-inner"];
    docker.docker(inner).unwrap();
    run("web", &["-p", "8080:80"]);
    run("near", &[]);
    run("far", &["--net", "lb-other"]);
    run("inner", &["--net", "lb-inner"]);
    let connects = |client: &str, address: &str| {
        let format = ["inspect", "--format", "{{.State.Pid}}", client];
        let pid = docker.docker(format).unwrap();
        let address = address.parse().unwrap();
        let connect = move || {
            let namespace = fs::File::open(format!("/proc/{pid}/ns/net"))?;
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            TcpStream::connect_timeout(&address, Duration::from_secs(2))
        };
        // A thread of its own: it is in that namespace from then on.
        std::thread::spawn(connect).join().unwrap()
    };
    // It may not listen yet.
    eventually(PATIENCE, || connects("near", "172.31.0.2:80")).unwrap();
    for (client, address, expected) in [
        ("near", "172.31.0.2:80", true),
        ("far", "172.31.0.2:80", false),
        ("inner", "172.31.0.2:80", false),
        // What is published, at the engine's host.
        ("far", "172.31.0.1:8080", true),
        ("inner", "172.31.0.1:8080", false),
    ] {
        let answer = connects(client, address);
        assert_eq!(answer.is_ok(), expected, "{client} {address}: {answer:?}");
    }
}

#[test]
fn an_engine_runs_containers_in_its_namespace_and_leaves_nothing_behind() {
    let mut docker = Docker::start(&packages()).unwrap();
    docker.busybox("web").unwrap();
    let id = docker
        .docker(["run", "-d", "--stop-signal", "KILL", "-p", "8080:80", "web"])
        .unwrap();
    let answers = |address: &'static str| {
        let stream = docker
            .netns()
            .enter(move || TcpStream::connect(address))
            .unwrap()?;
        let said = http::ask(stream, "GET", "/", "")?.text()?;
        assert_eq!(said, "hello\n");
        Ok::<_, io::Error>(())
    };
    for address in ["172.31.0.2:80", "127.0.0.1:8080"] {
        eventually(PATIENCE, || answers(address)).unwrap();
    }
    let group = docker.cgroup().path().to_owned();
    assert!(group.join("containers").join(&id).is_dir());
    docker.kill().unwrap();
    docker.run().unwrap();
    assert_eq!(docker.docker(["ps", "-aq", "--no-trunc"]).unwrap(), id);

    docker.docker(["start", &id]).unwrap();
    docker.docker(["pause", &id]).unwrap();
    let folder = docker.folder().to_owned();
    drop(docker);
    assert!(!folder.exists());
    let name = group.file_name().unwrap();
    let trees = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let left: Vec<PathBuf> = trees.map(|tree| tree.path().join(name)).collect();
    assert_eq!(left.iter().find(|group| group.exists()), None);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains("lb-docker"), "{mounts}");
}
