//! The value of `lb_redirect`.

use lb_front::rules::{Redirect, Target};

use super::{FrontSetting, Setting, Wrong};
use crate::options::is_dns_name;

pub(super) fn redirect(text: &str) -> Result<Setting, Wrong> {
    if text == "off" {
        return Ok(FrontSetting::Redirect(None).into());
    }
    match anywhere(text) {
        Some(redirect) => Ok(FrontSetting::Redirect(Some(redirect)).into()),
        None => Err(
            "write `https`, `https:<port>`, or `http://` or `https://` with a host and perhaps a port and a path, \
             before it 301, 302, 307 or 308 if you like; or `off`"
                .into(),
        ),
    }
}

/// One that leads to the same URL by HTTPS.
pub fn to_https(text: &str) -> Option<Redirect> {
    anywhere(text).filter(|redirect| matches!(redirect.to, Target::Https(_)))
}

fn anywhere(text: &str) -> Option<Redirect> {
    let (status, to) = match text.split_once(char::is_whitespace) {
        Some((status, to)) => (status.parse().ok(), to.trim()),
        None => (Some(USUAL), text),
    };
    let status = status.filter(|status| STATUSES.contains(status))?;
    let to = target(to)?;
    Some(Redirect { status, to })
}

pub(super) fn target(text: &str) -> Option<Target> {
    if text == "https" {
        return Some(Target::Https(None));
    }
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| text.starts_with(scheme));
    let Some(scheme) = scheme else {
        return Some(Target::Https(Some(port(text.strip_prefix("https:")?)?)));
    };
    let rest = &text[scheme.len()..];
    let authority = rest.split('/').next()?;
    let legal = is_authority(authority) && rest.len() <= LIMIT && rest.bytes().all(is_of_url);
    legal.then(|| match rest == authority {
        true => Target::Site(text.to_owned()),
        false => Target::Url(text.to_owned()),
    })
}

fn is_authority(text: &str) -> bool {
    let (host, port_is_right) = match text.rsplit_once(':') {
        Some((host, digits)) if !digits.ends_with(']') => (host, port(digits).is_some()),
        _ => (text, true),
    };
    let address = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let host_is_right = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        // Names of services may have it, and browsers follow.
        None => is_dns_name(&host.replace('_', "-")),
    };
    host_is_right && port_is_right
}

fn port(digits: &str) -> Option<u16> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|&port| port != 0 && is_number)
}

/// What may stand in a URL as it is (RFC 3986 section 2).
fn is_of_url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte)
}

const STATUSES: [u16; 4] = [301, 302, 307, 308];

/// Neither for ever, nor a POST that becomes a GET.
const USUAL: u16 = 307;

/// Bytes of a URL without its scheme.
const LIMIT: usize = 1024;
