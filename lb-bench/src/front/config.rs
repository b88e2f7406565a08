//! The same service behind each proxy, set up as is best for it.
//!
//! Each routes by Host, refuses other hosts, keeps connections to the backend, tells the backend about the client and itself
//! as the front does, and writes a line about each request into a file.

use std::{fs, net::SocketAddrV4, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::ring};

use super::{wire::Trust, workload::HOST};

/// Where a proxy listens. Of HTTP/1 and HTTP/2 nginx knows one at each address; the others know both at `plain`.
pub(super) struct Listen {
    pub(super) plain: SocketAddrV4,
    pub(super) http2: SocketAddrV4,
    pub(super) tls: SocketAddrV4,
}

/// Certificate and key of all proxies, in one file.
const CERTIFICATE: &str = "web.pem";

/// Writes the certificate to `folder`; what clients need who trust it and resume no session.
///
/// # Errors
/// When it cannot be made or written.
pub(super) fn write_certificate(folder: &Path) -> Result<Trust> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([HOST.to_owned()]).context("cannot make a certificate")?;
    let pem = cert.pem() + &signing_key.serialize_pem();
    fs::write(folder.join(CERTIFICATE), pem).context("cannot write the certificate")?;
    let mut roots = RootCertStore::empty();
    roots
        .add(cert.into())
        .context("cannot trust the certificate")?;
    let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Some(Arc::new(config)))
}

/// The agent's files in `folder`: its front on `listen`.
///
/// # Errors
/// When they cannot be written.
pub(super) fn write_agent(
    folder: &Path,
    cgroup: &Path,
    listen: Listen,
    origin: SocketAddrV4,
) -> Result<()> {
    let Listen { plain, tls, .. } = listen;
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
         [front]\nlisten = [\"{plain}\"]\ndomains = [\"{domain}\"]\n\
         [front.access_log]\nformat = \"combined\"\n\
         [front.tls]\nlisten = [\"{tls}\"]\n\
         certificates = [{{ certificate = \"{folder_name}/{CERTIFICATE}\" }}]\n\
         [limits]\nservices = 64\nbackends = 64\n"
    );
    fs::write(folder.join("lb.toml"), text).context("cannot write the configuration")
}

/// Its certificate is in `folder`, its log goes to `log`.
pub(super) fn haproxy(
    folder: &Path,
    listen: Listen,
    origin: SocketAddrV4,
    log: SocketAddrV4,
) -> String {
    let Listen { plain, tls, .. } = listen;
    let certificate = folder.join(CERTIFICATE);
    let certificate = certificate.display();
    format!(
        "global
    nbthread 1
    maxconn 9000
    log ring@lines format raw local0
ring lines
    format raw
    maxlen 1200
    size 1048576
    timeout connect 5s
    timeout server 60s
    server sink {log}
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
    bind {plain}
    bind {tls} ssl crt {certificate}
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
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

/// Its certificate is in `folder`, where its log goes, and temporary files, of which there are none.
pub(super) fn nginx(folder: &Path, listen: Listen, origin: SocketAddrV4) -> String {
    let Listen { plain, http2, tls } = listen;
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
    ssl_certificate {folder}/{CERTIFICATE};
    ssl_certificate_key {folder}/{CERTIFICATE};
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' '';
    }}
    server {{
        listen {plain} default_server backlog=4096;
        listen {http2} default_server http2 backlog=4096;
        listen {tls} default_server ssl backlog=4096;
        return 503;
    }}
    server {{
        listen {plain};
        listen {http2} http2;
        listen {tls} ssl;
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
