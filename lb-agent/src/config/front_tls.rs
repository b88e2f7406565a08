//! `[front.tls]`: where the front speaks TLS, with what, and what becomes of those who do not.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use lb_front::{HttpsSettings, rules};

use super::{
    FrontTls, Given, RawConfig,
    raw::RawPair,
    resolve::{Judge, listener},
};
use crate::{
    front::{Acme, Files, Pair},
    options::{front::redirect::to_https, is_dns_name, parse_duration},
};

/// `None` without the table.
pub(super) fn resolve(raw: &RawConfig, judge: &mut Judge<'_>) -> Option<FrontTls> {
    let table = raw.tls.as_ref()?;
    let tls = FrontTls {
        listen: judge.list(&raw.tls_listen, vec![DEFAULT], listener),
        files: Files {
            pairs: pairs(raw.tls_certificates.as_ref(), judge),
            folder: raw
                .tls_folder
                .as_ref()
                .map(|_| judge.path(&raw.tls_folder, "")),
            only_1_3: judge.text(&raw.tls_min_version, false, is_1_3),
        },
        acme: acme(raw, judge),
        https: HttpsSettings {
            redirect: judge.text(&raw.tls_redirect, None, redirect),
            hsts: judge.text(&raw.tls_hsts, None, hsts),
        },
    };
    if tls.files
        == (Files {
            only_1_3: tls.files.only_1_3,
            ..Files::default()
        })
        && tls.acme.is_none()
    {
        judge.wrong(
            table,
            "[front.tls] has no certificate; name pairs of files in `certificates`, or a `folder` of them",
        );
    }
    Some(tls)
}

fn pairs(given: Option<&Given<Vec<RawPair>>>, judge: &mut Judge<'_>) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for raw in given.iter().flat_map(|given| &given.value) {
        let certificate = judge.path(&raw.certificate, "");
        let key = match &raw.key {
            Some(_) => judge.path(&raw.key, ""),
            None => certificate.clone(),
        };
        if certificate != Path::new("") {
            pairs.push(Pair { certificate, key });
        }
    }
    pairs
}

/// What holds for both kinds of listeners.
pub(super) fn compare(
    plain: &[SocketAddr],
    raw: &RawConfig,
    tls: &FrontTls,
    judge: &mut Judge<'_>,
) {
    let Some(both) = tls
        .listen
        .iter()
        .find(|it| it.port() != 0 && plain.contains(it))
    else {
        return;
    };
    let message = format!("{both} is in [front] listen, too; TLS needs a port of its own");
    match (&raw.tls_listen, &raw.front_listen) {
        (Some(given), _) => judge.wrong(given, &message),
        (None, Some(given)) => judge.wrong(
            given,
            &format!("{both} is where [front.tls] listens; free it, or say there where else"),
        ),
        (None, None) => {}
    }
}

fn acme(raw: &RawConfig, judge: &mut Judge<'_>) -> Option<Acme> {
    let table = raw.acme.as_ref()?;
    for (missing, message) in [
        (
            raw.acme_directory.is_none(),
            "[acme] needs a `directory`, the URL of the authority's directory",
        ),
        (
            raw.acme_names.as_ref().is_none_or(|it| it.value.is_empty()),
            "[acme] needs `names`, those that certificates are for",
        ),
        (
            raw.acme_accept_terms.as_ref().is_none_or(|it| !it.value),
            "[acme] needs `accept_terms = true`: read the terms of the authority first",
        ),
    ] {
        if missing {
            judge.wrong(table, message);
        }
    }
    let directory = judge.text(&raw.acme_directory, String::new(), directory);
    // What one authority gave is nothing to another, such as that for trials.
    let authority = directory.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
    Some(Acme {
        directory,
        ca_file: raw
            .acme_ca_file
            .as_ref()
            .map(|_| judge.path(&raw.acme_ca_file, "")),
        contact: judge.list(&raw.acme_contact, Vec::new(), contact),
        names: judge.list(&raw.acme_names, Vec::new(), name),
        folder: judge
            .path(&raw.state_dir, super::resolve::STATE_DIR)
            .join("acme")
            .join(authority),
    })
}

fn directory(text: &str) -> Result<String, String> {
    match text.strip_prefix("https://") {
        Some(rest) if !rest.is_empty() => Ok(text.to_owned()),
        _ => Err("write a URL with https://".to_owned()),
    }
}

fn contact(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some(("mailto", address)) if address.contains('@') => Ok(text.to_owned()),
        _ => Err("write an address such as mailto:admin@example.org".to_owned()),
    }
}

fn name(text: &str) -> Result<String, String> {
    if text.starts_with("*.") {
        return Err(
            "a wildcard has to be proven in DNS, which is not done; write each name".to_owned(),
        );
    }
    let name = text.to_ascii_lowercase();
    match is_dns_name(&name) {
        true => Ok(name),
        false => Err("write a name such as www.example.org".to_owned()),
    }
}

fn is_1_3(text: &str) -> Result<bool, String> {
    match text {
        "1.2" => Ok(false),
        "1.3" => Ok(true),
        _ => Err("write 1.2 or 1.3; what is older is not safe".to_owned()),
    }
}

fn redirect(text: &str) -> Result<Option<rules::Redirect>, String> {
    if text == "off" {
        return Ok(None);
    }
    to_https(text).map(Some).ok_or_else(|| {
        "write https or https:<port>, before it 301, 302, 307 or 308 if you like; or off".to_owned()
    })
}

/// The value of `Strict-Transport-Security` (RFC 6797 section 6.1).
fn hsts(text: &str) -> Result<Option<String>, String> {
    if text == "off" {
        return Ok(None);
    }
    let mut words = text.split_ascii_whitespace();
    let time = words.next().and_then(parse_duration);
    let wrong = || {
        "write a time such as 4320h, behind it includeSubDomains and preload if you like; or off"
            .to_owned()
    };
    let mut value = format!(
        "max-age={}",
        time.filter(|it| *it <= LONGEST)
            .ok_or_else(wrong)?
            .as_secs()
    );
    for word in words {
        if !["includeSubDomains", "preload"].contains(&word) || value.contains(word) {
            return Err(wrong());
        }
        value.push_str("; ");
        value.push_str(word);
    }
    Ok(Some(value))
}

const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 443);

/// Ten years.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::tests::World;

    fn tls(text: &str) -> FrontTls {
        let world = World::new().toml(&format!("[front.tls]\n{text}"));
        world.config().front.tls.unwrap()
    }

    const PAIR: &str = "certificates = [{ certificate = \"/a.pem\", key = \"/a.key\" }]\n";

    #[track_caller]
    fn wrong(text: &str, expect: &[(&str, &str)]) {
        World::new().toml(text).wrong(expect);
    }

    #[test]
    fn without_the_table_there_is_no_tls() {
        assert_eq!(World::new().config().front.tls, None);
    }

    #[test]
    fn certificates_are_enough() {
        let tls = tls(PAIR);
        assert_eq!(tls.listen, ["0.0.0.0:443".parse().unwrap()]);
        let pair = Pair {
            certificate: "/a.pem".into(),
            key: "/a.key".into(),
        };
        assert_eq!(tls.files.pairs, [pair]);
        assert_eq!(tls.https, HttpsSettings::default());
        assert!(!tls.files.only_1_3);
    }

    #[test]
    fn every_key_is_read() {
        let tls = tls(
            "listen = [\":8443\", \"[::]:8443\"]\nfolder = \"/certs\"\nmin_version = \"1.3\"\n\
             redirect = \"308 https:8443\"\nhsts = \"1h includeSubDomains preload\"\n\
             [[front.tls.certificates]]\ncertificate = \"/both.pem\"\n",
        );
        assert_eq!(
            tls.listen,
            [
                "0.0.0.0:8443".parse().unwrap(),
                "[::]:8443".parse().unwrap()
            ]
        );
        assert_eq!(tls.files.pairs[0].key, Path::new("/both.pem"));
        assert_eq!(tls.files.folder, Some("/certs".into()));
        assert!(tls.files.only_1_3);
        let to = rules::Target::Https(Some(8443));
        assert_eq!(
            tls.https.redirect,
            Some(rules::Redirect { status: 308, to })
        );
        let hsts = "max-age=3600; includeSubDomains; preload";
        assert_eq!(tls.https.hsts.as_deref(), Some(hsts));
        let off = self::tls(&format!("{PAIR}redirect = \"off\"\nhsts = \"off\"\n"));
        assert_eq!(off.https, HttpsSettings::default());
    }

    #[test]
    fn every_mistake_has_its_line_and_a_remedy() {
        wrong(
            "[front.tls]\nhsts = \"1h\"\n",
            &[("/etc/lb/lb.toml:1", "has no certificate; name pairs")],
        );
        for (key, value, remedy) in [
            ("min_version", "1.1", "1.2 or 1.3"),
            ("redirect", "http://a.example", "https or https:<port>"),
            ("redirect", "200 https", "301, 302, 307 or 308"),
            ("hsts", "for ever", "a time such as 4320h"),
            ("hsts", "1h preload preload", "a time such as 4320h"),
            ("hsts", "999999h", "a time such as 4320h"),
        ] {
            let text = format!("[front.tls]\n{PAIR}{key} = \"{value}\"\n");
            wrong(&text, &[("/etc/lb/lb.toml:3", remedy)]);
        }
        wrong(
            &format!("[front.tls]\n{PAIR}listen = [\"here\"]\n"),
            &[("/etc/lb/lb.toml:3", "an IP address and a port")],
        );
        wrong(
            "[front.tls.acme]\n",
            &[
                ("/etc/lb/lb.toml:1", "needs a `directory`"),
                ("/etc/lb/lb.toml:1", "needs `names`"),
                ("/etc/lb/lb.toml:1", "needs `accept_terms = true`"),
            ],
        );
        for (key, remedy) in [
            (
                "names = [\"*.a.example\"]",
                "a wildcard has to be proven in DNS",
            ),
            ("names = [\"a b\"]", "a name such as"),
            ("contact = [\"admin\"]", "mailto:admin@example.org"),
            ("directory = \"http://a.example\"", "with https://"),
        ] {
            let rest = [
                ("names", "[\"a.example\"]"),
                ("directory", "\"https://a.example/dir\""),
            ];
            let rest = rest.into_iter().filter(|(name, _)| !key.starts_with(name));
            let rest: String = rest
                .map(|(name, value)| format!("{name} = {value}\n"))
                .collect();
            let text = format!("[front.tls.acme]\n{key}\naccept_terms = true\n{rest}");
            wrong(&text, &[("/etc/lb/lb.toml:2", remedy)]);
        }
        wrong(
            "[front.tls]\ncertificates = [{ key = \"/a.key\" }]\n",
            &[("/etc/lb/lb.toml:2", "needs a `certificate`")],
        );
        wrong(
            "[front.tls]\ncertificates = [{ certificate = \"\" }]\n",
            &[
                ("/etc/lb/lb.toml:2", "the path is empty"),
                ("/etc/lb/lb.toml:1", "has no certificate"),
            ],
        );
        wrong(
            "[front.tls]\ncertificates = \"/a.pem\"\n",
            &[(
                "/etc/lb/lb.toml:2",
                "`certificates` must be a list of tables",
            )],
        );
        wrong(
            &format!("[front]\nlisten = [\":443\"]\n[front.tls]\n{PAIR}"),
            &[("/etc/lb/lb.toml:2", "is where [front.tls] listens")],
        );
        wrong(
            &format!("[front]\nlisten = [\":8080\"]\n[front.tls]\n{PAIR}listen = [\":8080\"]\n"),
            &[("/etc/lb/lb.toml:5", "TLS needs a port of its own")],
        );
    }
}
