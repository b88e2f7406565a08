//! What is wrong, where, and what to write instead.

use super::*;

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    World::default()
        .flag("--pool=198.18.0.5/16")
        .flag("--log-format=xml")
        .toml(
            "[front]\nlisten = [\"80\", \"1.2.3.4\"]\nexpose = \"some\"\n\
             [health]\nfall = 0\n[admin]\nlisten = \"0.0.0.0:1\"\npublished = \"no\"\n\
             [vip]\nquarantine = \"8d\"\n",
        )
        .wrong(&[
            ("--pool", "write 198.18.0.0/16"),
            ("no discovery source is given", "--services FILE"),
            ("no cgroup v2 tree", "--cgroup"),
            ("--log-format", "auto, text, json or journald"),
            ("/etc/lb/lb.toml:10", "up to a week"),
            ("/etc/lb/lb.toml:2", "`80`"),
            ("/etc/lb/lb.toml:2", "`1.2.3.4`"),
            ("/etc/lb/lb.toml:3", "all or tagged"),
            ("/etc/lb/lb.toml:7", "token_file"),
            ("/etc/lb/lb.toml:8", "token or open"),
            ("/etc/lb/lb.toml:5", "from 1 to 100"),
        ]);
}

#[test]
fn mistakes_of_form_in_the_file_are_told_with_those_of_the_flags() {
    World::default()
        .file("/proc/self/mountinfo", MOUNTS)
        .flag("--pool=x")
        .toml("stat_dir = \"/x\"\n[vip]\npool = 1\n[source.file]\n[sources.file]\n")
        .wrong(&[
            (
                "/etc/lb/lb.toml:1",
                "no key `stat_dir`; it knows: state_dir",
            ),
            ("/etc/lb/lb.toml:3", "`pool` must be a string"),
            ("/etc/lb/lb.toml:4", "no key `source`"),
            ("/etc/lb/lb.toml:5", "[file] needs a `path`"),
            ("--pool", "write an IPv4 network"),
        ]);
}

#[test]
fn a_named_file_must_be_there_and_the_usual_one_need_not() {
    let missing = World::new().flag("--config").flag("/nowhere.toml");
    missing.wrong(&[("/nowhere.toml", "cannot be read")]);
    assert!(World::new().load().is_ok());
}

#[test]
fn no_source_at_all_is_one_clear_mistake() {
    let nothing = World::default().file("/proc/self/mountinfo", MOUNTS);
    nothing.wrong(&[("no discovery source is given", "--consul ADDR")]);
}

#[test]
fn the_resolver_is_never_open_and_serves_the_host_only_where_it_can_be_asked() {
    let wrong = |toml: &str, part| {
        let world = World::new().toml(toml);
        world.wrong(&[("/etc/lb/lb.toml:2", part)]);
    };
    wrong("[dns]\nallow = [\"0.0.0.0/0\"]\n", "networks of your own");
    wrong("[dns]\nallow = [\"everybody\"]\n", "write a network");
    wrong("[dns]\nhost = true\nenabled = false\n", "port 53");
    wrong(
        "[dns]\nhost = true\nlisten = [\"127.0.0.1:53\"]\n",
        "port 53",
    );
    let world = World::new().toml("[dns]\nhost = true\n");
    assert!(world.config().dns.host);
}

#[test]
fn a_wrong_key_of_the_access_log_is_told_with_its_remedy() {
    let wrong = |key: &str, part| {
        let world = World::new().toml(&format!("[front.access_log]\n{key}\n"));
        world.wrong(&[("/etc/lb/lb.toml:2", part)]);
    };
    wrong("status = [\"500-400\"]", "500-599");
    wrong("status = [\"teapot\"]", "404");
    wrong("slower_than = \"slow\"", "500ms");
    wrong("headers = [\"a b\"]", "X-Tenant");
    wrong("redact = [\"\"]", "X-Tenant");
}

#[test]
fn a_wrong_user_of_the_socket_is_told_with_its_remedy() {
    let wrong = |uids: &str, part: &str| {
        let text = format!("[admin]\nallow_uids = {uids}\n");
        World::new()
            .toml(&text)
            .wrong(&[("/etc/lb/lb.toml:2", part)]);
    };
    wrong("[-1]", "`-1` is no user's number; `id -u NAME` tells it");
    wrong("[1000, 4294967295]", "`4294967295` is no user's number");
    wrong("[65534]", "give the user a number of its own");
    wrong("[\"root\"]", "`allow_uids` must be a list of whole numbers");
    wrong("1000", "`allow_uids` must be a list of whole numbers");
}

#[test]
fn a_wrong_page_is_told_with_its_remedy() {
    let wrong = |key: &str, part| {
        let world = World::new().toml(&format!("[front.pages]\n{key}\n"));
        world.wrong(&[("/etc/lb/lb.toml:1", part)]);
    };
    wrong(
        "no_road = \"/a.html\"",
        "no_route, no_backend or maintenance",
    );
    wrong("no_route = \"a.html\"", "whole path");
    wrong("no_backend = \"/a.php\"", "ends in .html, .htm or .txt");
}

#[test]
fn a_wrong_limit_of_the_front_is_told_with_its_remedy() {
    let wrong = |key: &str, part| {
        let world = World::new().toml(&format!("[front.limits]\n{key}\n"));
        world.wrong(&[("/etc/lb/lb.toml:2", part)]);
    };
    wrong("head = \"0\"", "from 1s to 10m");
    wrong("first_byte = \"1h\"", "from 1s to 10m");
    wrong("keep_alive = \"never\"", "from 1s to 24h");
    wrong("tunnel_idle = \"25h\"", "from 1s to 24h");
    wrong("request = \"none\"", "such as 5m, or off");
    wrong("connect = \"5m\"", "from 100ms to 1m");
    wrong(
        "max_body = \"10M\"",
        "such as 512KiB, 10MiB or 1GiB, or off",
    );
    wrong("queue = -1", "from 0 to 1000000");
    wrong("connections = 1", "from 64 to");
    wrong("connections_per_client = 1", "from 2 to");
    wrong("streams = 1001", "from 1 to 1000");
    wrong("body_size = 1", "body_size");
    let off = World::new().toml("[front.limits]\nrequest = \"off\"\n");
    assert_eq!(off.config().front.limits.request, None);
}

#[track_caller]
fn check_flag(flag: &'static str, part: &str) {
    let origin = flag.split('=').next().unwrap();
    World::new().flag(flag).wrong(&[(origin, part)]);
}

#[test]
fn a_wrong_flag_is_told_with_its_remedy() {
    check_flag("--trusted-proxy=0.0.0.0/0", "your own proxies");
    check_flag("--trusted-proxy=here", "write a network");
    check_flag("--access-log=apache", "common, combined or json");
    check_flag("--pool=198.18.0.0/7", "host part is not zero");
    check_flag("--pool=10.0.0.0/30", "from /8 to /28");
    check_flag("--pool=127.0.0.0/8", "another meaning");
    check_flag("--pool=224.0.0.0/8", "another meaning");
    check_flag("--pool=fd00::/64", "IPv4 network");
    check_flag("--pool6=10.0.0.0/16", "IPv6 network");
    check_flag("--pool6=fd00::/48", "from /64 to /96");
    check_flag("--pool6=fd00::1/64", "write fd00::/64");
    check_flag("--pool6=fe80::/64", "another meaning");
    check_flag("--datacenter=a b", "letters, digits");
    check_flag("--datacenter=", "letters, digits");
    check_flag("--front=localhost:80", "an IP address and a port");
    check_flag("--front=127.0.0.1:65536", "an IP address and a port");
    check_flag("--dns=1.2.3", "with or without a port");
    check_flag("--domain=a.test:80", "without a port");
    check_flag("--admin=[::]:80", "token_file");
    check_flag("--admin-name=a.test:80", "without a port");
    check_flag("--consul=consul", "host:port");
    check_flag("--consul=http://a:1/v1", "host:port");
    check_flag("--consul=:8500", "host:port");
    let empty = World::new().toml("state_dir = \"\"\n");
    empty.wrong(&[("/etc/lb/lb.toml:1", "the path is empty")]);
}

#[test]
fn a_wrong_engine_is_told_with_its_remedy() {
    check_flag("--docker=docker.sock", "unix:///var/run/docker.sock");
    World::new()
        .toml("[sources.docker]\naddressing = \"both\"\n")
        .wrong(&[("/etc/lb/lb.toml:2", "internal or published")]);
    World::new()
        .toml("[sources.docker]\nproc = \"proc\"\n")
        .wrong(&[("/etc/lb/lb.toml:2", "/host/proc")]);
}

#[test]
fn a_list_of_users_has_a_plain_name_and_a_whole_path() {
    for (toml, part) in [
        ("\"a b\" = \"/f\"", "`a b`: name a list with letters"),
        ("off = \"/f\"", "`off`: name a list"),
        ("staff = \"f\"", "`staff`: `f`: write the whole path"),
        ("staff = \"\"", "write the whole path"),
    ] {
        let world = World::new().toml(&format!("[front.auth]\n{toml}\n"));
        world.wrong(&[("/etc/lb/lb.toml:1", part)]);
    }
}
