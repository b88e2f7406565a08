//! The value of `lb_cors`.

use std::collections::BTreeSet;

use lb_front::rules::{Cors, Target};

use super::{FrontSetting, Setting, Wrong, redirect::target};

pub(super) fn cors(text: &str) -> Result<Setting, Wrong> {
    if text == "off" {
        return Ok(FrontSetting::Cors(None).into());
    }
    let mut origins = BTreeSet::new();
    let (mut all, mut credentials) = (false, false);
    // No colons, which are part of origins; blanks, since Registrator splits tags at commas.
    let words = text.split(|letter: char| letter == ',' || letter.is_whitespace());
    for word in words.filter(|word| !word.is_empty()) {
        match word {
            "*" => all = true,
            "credentials" => credentials = true,
            _ => match target(&word.to_ascii_lowercase()) {
                Some(Target::Site(origin)) => drop(origins.insert(usual(origin))),
                _ => return Err(REMEDY.into()),
            },
        }
    }
    let origins = match (all, origins.is_empty()) {
        // Any page could then act for whoever sees it.
        (true, true) if !credentials => None,
        (false, false) => Some(origins),
        _ => return Err(REMEDY.into()),
    };
    let cors = Cors {
        origins,
        credentials,
    };
    Ok(FrontSetting::Cors(Some(cors)).into())
}

/// As browsers write it: without the port that goes without saying.
fn usual(origin: String) -> String {
    let port = match origin.starts_with("https:") {
        true => ":443",
        false => ":80",
    };
    origin
        .strip_suffix(port)
        .map_or(origin.clone(), str::to_owned)
}

const REMEDY: &str = "write `*`, or origins such as `https://www.example`, separated by commas or blanks, and beside origins \
                      `credentials` if pages may send cookies; or `off`";
