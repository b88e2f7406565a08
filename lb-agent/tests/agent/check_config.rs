//! `lb-agent check-config` as somebody who has nothing to do with the host.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Command,
};

use tempfile::TempDir;

use crate::kit::{BINARY, alone};

/// What it says to `nobody`: the exit status, and both streams.
fn check(folder: &TempDir, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY)
        .arg("check-config")
        .args(arguments)
        .current_dir(folder.path())
        .env_clear()
        .env("LB_DNS", "127.0.0.1:5353")
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn it_needs_neither_root_nor_the_host() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "good.toml",
        "[sources.consul]\naddress = \"c:8500\"\ntoken_file = \"/run/lb/none\"\n",
    );
    write("bad.toml", "prot = 1\n[vip]\npool = 3\n");
    write("services.toml", "[[service]]\nname = \"www\"\nport = 80\n");

    let (code, out, err) = check(&folder, &["good.toml"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(
        out.starts_with("good.toml: correct; from variables: dns.listen by LB_DNS"),
        "{out}"
    );
    assert!(out.contains("not looked at: /run/lb/none ("), "{out}");
    assert_eq!(out.lines().count(), 1, "{out}");
    let quiet = check(&folder, &["good.toml", "-q"]);
    assert_eq!(quiet, (Some(0), String::new(), String::new()));

    let (code, out, err) = check(&folder, &["bad.toml", "-q", "--services", "services.toml"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    let begins: Vec<_> = err
        .lines()
        .map(|it| it.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        begins,
        ["bad.toml:1", "bad.toml:3", "services.toml:3"],
        "{err}"
    );

    let (code, out, _) = check(&folder, &["good.toml", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let settings = json["settings"].as_array().unwrap();
    let of = |key| settings.iter().find(|it| it["key"] == key).unwrap();
    assert_eq!((code, &json["mistakes"]), (Some(0), &serde_json::json!([])));
    assert_eq!(of("sources.consul.token_file")["origin"], "good.toml:3");
    assert_eq!(of("dns.listen")["value"][0], "127.0.0.1:5353");
    assert_eq!(of("vip.pool")["origin"], "default");
    let (_, out, _) = check(&folder, &["good.toml", "--show", "--pool=10.7.0.0/16"]);
    assert!(out.contains("10.7.0.0/16  (--pool)"), "{out}");
}
