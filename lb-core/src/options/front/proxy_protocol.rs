//! `lb_proxy_protocol`: what it takes, where it cannot be followed, and what it means for probes.

use lb_front::rules::ProxyProtocol;

use super::{super::CheckKind, FrontSetting, Options, Setting, Wrong};
use crate::options::Proto;

pub(super) fn proxy_protocol(text: &str) -> Result<Setting, Wrong> {
    let how = match text {
        "v1" => Some(ProxyProtocol::V1),
        "v2" => Some(ProxyProtocol::V2),
        "off" => None,
        _ => return Err("write v1, v2 or off".into()),
    };
    Ok(FrontSetting::ProxyProtocol(how).into())
}

/// Has probes say that they are nobody's but ours, or takes the option back; the text of the problem then.
pub(in super::super) fn settle(options: &mut Options) -> Option<&'static str> {
    let how = options.front.as_ref()?.proxy_protocol?;
    if options.proto == Proto::H2c {
        FrontSetting::ProxyProtocol(None).apply(options);
        return Some(
            "`lb_proxy_protocol` has no effect: with `lb_proto=h2c` requests of many clients share a connection; remove one of the \
             two",
        );
    }
    if let CheckKind::Http(path) = &mut options.check {
        options.check = CheckKind::HttpAfter(how, std::mem::take(path));
    }
    None
}
