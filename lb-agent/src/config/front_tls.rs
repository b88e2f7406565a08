//! `[front.tls]`: where the front speaks TLS, with what, and what becomes of those who do not.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use lb_front::{HttpsSettings, rules};
use reqwest::Url;

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
    if raw.tls_certificates.is_none() && raw.tls_folder.is_none() && raw.acme.is_none() {
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

/// It is logged, and names a folder: nothing secret may be in it.
fn directory(text: &str) -> Result<String, String> {
    let url = Url::parse(text).ok();
    let plain = url.is_some_and(|url| {
        url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    match plain && text.starts_with("https://") {
        true => Ok(text.to_owned()),
        false => Err(
            "write a URL with https://, without a user, a password, `?` and `#`: it is logged"
                .to_owned(),
        ),
    }
}

fn contact(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("mailto:");
    let parts = address.and_then(|address| address.split_once('@'));
    let whole = |(user, host): (&str, &str)| {
        !user.is_empty() && is_dns_name(host) && !text.contains([' ', ','])
    };
    match parts.is_some_and(whole) {
        true => Ok(text.to_owned()),
        false => Err("write an address such as mailto:admin@example.org".to_owned()),
    }
}

fn name(text: &str) -> Result<String, String> {
    if text.starts_with("*.") {
        return Err(
            "a wildcard has to be proven in DNS, which is not done; write each name".to_owned(),
        );
    }
    let name = text.to_ascii_lowercase();
    match is_dns_name(&name) && name.parse::<IpAddr>().is_err() {
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

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 443);

/// Ten years.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

#[cfg(test)]
mod tests;
