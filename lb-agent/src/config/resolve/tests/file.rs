//! Every key of the file.

use super::*;

#[test]
fn every_key_of_the_file_has_its_effect() {
    let config = World::default()
        .toml(
            r#"
            state_dir = "/a"
            bpffs = "/b"
            cgroup = "/c"
            socket = "/d"
            log_format = "json"
            [vip]
            pool = "10.77.0.0/24"
            pool6 = "fd77::/80"
            datacenter = "rack_7"
            quarantine = "90s"
            [sources.file]
            path = "/e"
            [sources.consul]
            address = "http://consul.test:8500/"
            token_file = "/token"
            datacenter = "dc2"
            [front]
            enabled = false
            listen = [":8080", "[::1]:8080"]
            domains = ["Apps.Example.org."]
            expose = "tagged"
            no_route_status = 404
            no_backend_status = 502
            grace = "10s"
            drain = "1m"
            retirement = "2h"
            trusted_proxies = ["10.0.0.7/8", "fd00::1"]
            proxy_protocol = ["10.9.0.0/16"]
            forwarded = true
            request_id = false
            underscores = true
            sticky_key_file = "/key"
            [front.auth]
            staff = "/etc/lb/staff.htpasswd"
            [front.pages]
            no_route = "/etc/lb/404.html"
            maintenance = "/etc/lb/later.txt"
            [front.limits]
            first_byte = "1s"
            head = "2s"
            keep_alive = "3s"
            body_idle = "4s"
            write_stall = "5s"
            tunnel_idle = "6s"
            request = "7m"
            connect = "800ms"
            response = "9s"
            queue_time = "10s"
            queue = 0
            connections = 64
            connections_per_client = 12
            backend_connections = 13
            streams = 14
            max_body = "15KiB"
            [front.access_log]
            format = "json"
            file = "/var/log/lb/access.log"
            status = ["404", "500-599"]
            slower_than = "500ms"
            retried = true
            redact_query = true
            headers = ["X-Tenant"]
            redact = ["Referer"]
            [admin]
            listen = "0.0.0.0:9180"
            token_file = "/f"
            names = ["Page.Example.org"]
            published = "open"
            allow_uids = [1000, 1000, 0x3e9]
            [dns]
            enabled = false
            listen = ["127.0.0.1:5353"]
            allow = ["192.0.2.0/24", "2001:db8::/32"]
            upstreams = ["9.9.9.9", "[::1]:5353"]
            consul = "127.0.0.1:8600"
            [health]
            interval = "500ms"
            timeout = "1s"
            rise = 1
            fall = 5
            [limits]
            services = 10
            backends = 20
            "#,
        )
        .file("/token", "s3cret\n")
        .config();
    let consul = config.sources.consul.as_ref().unwrap();
    assert_eq!(consul.addresses[0].to_string(), "http://consul.test:8500");
    assert_eq!(
        consul.token,
        Some(ConsulToken::File(PathBuf::from("/token")))
    );
    assert_eq!(consul.datacenter.as_deref(), Some("dc2"));
    assert_eq!(config.cgroup, Path::new("/c"));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.vip.pool.to_string(), "10.77.0.0/24");
    assert_eq!(config.vip.datacenter, "rack_7");
    assert_eq!(config.vip.quarantine, Duration::from_secs(90));
    assert!(!config.front.enabled && !config.dns.enabled);
    let listen: Vec<String> = config
        .front
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(listen, ["0.0.0.0:8080", "[::1]:8080"]);
    assert_eq!(config.front.domains, ["apps.example.org"]);
    let front = &config.front;
    let staff = ("staff".to_owned(), "/etc/lb/staff.htpasswd".into());
    assert_eq!(front.auth, [staff].into());
    let times = [front.grace, front.drain, front.retirement];
    assert_eq!(times.map(|it| it.as_secs()), [10, 60, 7200]);
    assert_eq!(config.front.expose, Expose::Tagged);
    assert_eq!(config.front.no_route_status, 404);
    assert_eq!(config.front.no_backend_status, 502);
    let pages = [
        (For::NoRoute, "/etc/lb/404.html".into()),
        (For::Maintenance, "/etc/lb/later.txt".into()),
    ];
    assert_eq!(config.front.pages, pages.into());
    let trusted = ["10.0.0.0/8", "fd00::1/128"].map(|it| it.parse().unwrap());
    let forwarding = &config.front.forwarding;
    assert_eq!(forwarding.trusted_proxies, trusted);
    assert_eq!(forwarding.proxy_protocol[0].to_string(), "10.9.0.0/16");
    let file = config.front.access_log_file.as_deref();
    assert_eq!(file, Some(Path::new("/var/log/lb/access.log")));
    assert!(forwarding.forwarded && !forwarding.request_id && forwarding.underscores);
    assert_eq!(front.sticky_key_file, Some(PathBuf::from("/key")));
    let log = lb_front::log::LogSettings {
        format: Some(lb_front::log::LogFormat::Json),
        status: vec![404..=404, 500..=599],
        slower_than: Some(Duration::from_millis(500)),
        retried: true,
        redact_query: true,
        headers: vec!["x-tenant".to_owned()],
        redact: vec!["referer".to_owned()],
    };
    assert_eq!(config.front.access_log, log);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let limits = lb_front::LimitSettings {
        first_byte: seconds(1),
        head: seconds(2),
        keep_alive: seconds(3),
        body_idle: seconds(4),
        write_stall: seconds(5),
        tunnel_idle: seconds(6),
        request: seconds(420),
        connect: Some(Duration::from_millis(800)),
        response: seconds(9),
        queue_time: seconds(10),
        queue: Some(0),
        connections: Some(64),
        connections_per_client: Some(12),
        backend_connections: Some(13),
        streams: Some(14),
        max_body: Some(15 * 1024),
    };
    assert_eq!(config.front.limits, limits);
    assert_eq!(config.admin.token_file, Some(PathBuf::from("/f")));
    assert_eq!(config.admin.names, ["page.example.org"]);
    assert_eq!(config.admin.published, Published::Open);
    assert_eq!(config.admin.allow_uids, [1000, 1001].into());
    assert_eq!(config.vip.pool6.to_string(), "fd77::/80");
    let allow = ["192.0.2.0/24", "2001:db8::/32"];
    assert_eq!(config.dns.allow, allow.map(|it| it.parse().unwrap()));
    let upstreams = config.dns.upstreams.as_ref().unwrap();
    assert_eq!(upstreams[0].to_string(), "9.9.9.9:53");
    assert_eq!(upstreams[1].to_string(), "[::1]:5353");
    assert_eq!(config.dns.consul.unwrap().port(), 8600);
    assert_eq!(config.health.interval, Duration::from_millis(500));
    assert_eq!((config.health.rise, config.health.fall), (1, 5));
    assert_eq!((config.limits.services, config.limits.backends), (10, 20));
}
