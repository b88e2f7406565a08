//! The same service behind each proxy, set up as is best for it.
//!
//! Each routes by Host, refuses other hosts, keeps connections to the backend, tells the backend about the client and itself
//! as the front does, and writes a line about each request into a file.

use std::{fs, net::SocketAddrV4, path::Path};

use anyhow::{Context as _, Result};

use super::workload::HOST;

/// The agent's files in `folder`: its front on `listen`.
///
/// # Errors
/// When they cannot be written.
pub(super) fn write_agent(
    folder: &Path,
    cgroup: &Path,
    listen: SocketAddrV4,
    origin: SocketAddrV4,
) -> Result<()> {
    let (service, domain) = HOST.split_once('.').context("the name has a domain")?;
    let (ip, port) = (origin.ip(), origin.port());
    let services = format!(
        "[[service]]\nname = \"{service}\"\noptions.lb_check = \"off\"\n\
         instance = [{{ id = \"one\", address = \"{ip}\", port = {port} }}]\n"
    );
    fs::write(folder.join("services.toml"), services).context("cannot write the services")?;
    let (folder_name, cgroup) = (folder.display(), cgroup.display());
    let text = format!(
        "state_dir = \"{folder_name}/state\"\nbpffs = \"{folder_name}/bpf\"\ncgroup = \"{cgroup}\"\n\
         socket = \"{folder_name}/admin.sock\"\n[sources.docker]\nsocket = \"off\"\n\
         [sources.file]\npath = \"{folder_name}/services.toml\"\n[dns]\nenabled = false\n\
         [front]\nlisten = [\"{listen}\"]\ndomains = [\"{domain}\"]\n\
         [front.access_log]\nformat = \"combined\"\n\
         [limits]\nservices = 64\nbackends = 64\n"
    );
    fs::write(folder.join("lb.toml"), text).context("cannot write the configuration")
}

pub(super) fn haproxy(listen: SocketAddrV4, origin: SocketAddrV4) -> String {
    format!(
        "global
    nbthread 1
    maxconn 9000
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    http-reuse always
    option forwardfor
frontend front
    bind {listen}
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Proto http
    http-request add-header Via \"1.1 haproxy\"
    use_backend web if {{ req.hdr(host) -i {HOST} }}
    default_backend none
backend web
    server one {origin}
backend none
    http-request return status 503
"
    )
}

/// Its log goes to `folder`, and temporary files, of which there are none. Of HTTP/1 and HTTP/2 it knows one at each address.
pub(super) fn nginx(
    folder: &Path,
    [listen, listen_2]: [SocketAddrV4; 2],
    origin: SocketAddrV4,
) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|of| format!("    {of}_temp_path {folder}/nginx-{of};\n"))
        .collect();
    format!(
        "user root;
daemon off;
worker_processes 1;
worker_rlimit_nofile 19000;
pid {folder}/nginx.pid;
error_log stderr error;
events {{
    worker_connections 9000;
}}
http {{
    access_log {folder}/nginx.access.log combined buffer=64k flush=1s;
{temporary}    keepalive_timeout 60s;
    keepalive_requests 1000000000;
    proxy_buffers 16 16k;
    proxy_max_temp_file_size 0;
    upstream web {{
        server {origin};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' '';
    }}
    server {{
        listen {listen} default_server backlog=4096;
        listen {listen_2} default_server http2 backlog=4096;
        return 503;
    }}
    server {{
        listen {listen};
        listen {listen_2} http2;
        server_name {HOST};
        location / {{
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header Via \"1.1 nginx\";
        }}
    }}
}}
"
    )
}
