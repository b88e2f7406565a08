//! `lb_auth`: a user name and a password, as RFC 7617 has it.

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use super::{Answer, text};
use crate::{
    answer::Reason,
    passwords::{Known, Passwords, Question},
    users::Users,
};

pub(super) struct Auth {
    /// The name of the list of users.
    list: String,
    challenge: HeaderValue,
}

/// What there is to say of who asks.
pub(super) enum Who {
    /// A user.
    User(HeaderValue),
    /// Somebody who says to be this user, and whose password must be looked at.
    Perhaps(HeaderValue, Question),
}

impl Auth {
    pub(super) fn new(list: &str) -> Self {
        let challenge = format!("Basic realm=\"{list}\", charset=\"UTF-8\"");
        let bare = HeaderValue::from_static("Basic realm=\"-\", charset=\"UTF-8\"");
        Self {
            list: list.to_owned(),
            challenge: HeaderValue::try_from(challenge).unwrap_or(bare),
        }
    }

    /// The name of the list of users.
    pub(super) fn list(&self) -> &str {
        &self.list
    }

    /// Who asks; `users` are those of the list, if it is known.
    ///
    /// # Errors
    ///
    /// The answer to somebody who is nobody, or whom nobody can judge.
    pub(super) fn who(
        &self,
        users: Option<&Users>,
        passwords: &Passwords,
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Result<Who, Box<Answer>> {
        let Some(users) = users else {
            return Err(Box::new(Answer {
                reason: Reason::NoUsers,
                response: text(StatusCode::SERVICE_UNAVAILABLE, NO_USERS),
            }));
        };
        let refusal = || Box::new(self.refusal());
        let (name, password) = credentials(headers).ok_or_else(refusal)?;
        let user =
            HeaderValue::from_str(&name).or_else(|_| HeaderValue::from_bytes(name.as_bytes()));
        let user = user.map_err(|_| refusal())?;
        match passwords.look(users, &name, &password, client) {
            Known::Right => Ok(Who::User(user)),
            Known::Wrong => Err(refusal()),
            Known::Not(question) => Ok(Who::Perhaps(user, question)),
        }
    }

    /// The answer to somebody who has to give a name and a password, or others.
    pub(super) fn refusal(&self) -> Answer {
        let mut response = text(StatusCode::UNAUTHORIZED, UNAUTHORIZED);
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, self.challenge.clone());
        Answer {
            reason: Reason::Unauthorized,
            response,
        }
    }

    /// Changes the head that a backend gets: it is told who the user is, and not the password.
    pub(super) fn apply(headers: &mut HeaderMap, user: Option<&HeaderValue>) {
        headers.remove(header::AUTHORIZATION);
        match user {
            Some(user) => drop(headers.insert(X_FORWARDED_USER, user.clone())),
            None => drop(headers.remove(X_FORWARDED_USER)),
        }
    }
}

/// The answer where too many wait.
pub(super) fn full() -> Answer {
    Answer {
        reason: Reason::Limit,
        response: text(StatusCode::SERVICE_UNAVAILABLE, FULL),
    }
}

/// The user's name and the password, if there are those and nothing else.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let field = fields.next().filter(|_| fields.next().is_none())?;
    let (scheme, token) = field.as_bytes().split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) || !token.starts_with(b" ") {
        return None;
    }
    let mut decoded = STANDARD.decode(token.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let password = decoded.split_off(colon + 1);
    decoded.pop();
    let name = String::from_utf8(decoded).ok()?;
    let plain = |bytes: &[u8]| !bytes.iter().any(u8::is_ascii_control);
    (plain(name.as_bytes()) && plain(&password)).then_some((name, password))
}

const SCHEME: &[u8] = b"Basic";

const X_FORWARDED_USER: HeaderName = HeaderName::from_static("x-forwarded-user");

const UNAUTHORIZED: Bytes =
    Bytes::from_static(b"unauthorized: give the name and the password of a user\n");
const NO_USERS: Bytes = Bytes::from_static(b"no_users: the users of this service are not known\n");
const FULL: Bytes = Bytes::from_static(b"limit: too many passwords wait to be looked at\n");

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[&str]) -> Option<(String, String)> {
        let fields = fields.iter().map(|field| {
            let value = HeaderValue::from_str(field).unwrap();
            (header::AUTHORIZATION, value)
        });
        let (name, password) = credentials(&fields.collect())?;
        Some((name, String::from_utf8(password).unwrap()))
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn a_name_ends_at_the_first_colon() {
        let owned = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(read(&[&basic("ann:secret")]), owned("ann", "secret"));
        assert_eq!(read(&[&basic("ann:a:b")]), owned("ann", "a:b"));
        assert_eq!(
            read(&[&basic("j\u{fc}rg:\u{fc}")]),
            owned("j\u{fc}rg", "\u{fc}")
        );
        assert_eq!(read(&[&basic(":")]), owned("", ""));
        let odd = basic("ann:secret").replace("Basic ", "bAsIc   ");
        assert_eq!(read(&[&odd]), owned("ann", "secret"));
    }

    #[test]
    fn what_is_no_name_and_password_is_nobody() {
        let good = basic("ann:secret");
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[&good, &good]), None);
        for field in [
            "",
            "Basic",
            "Basic ",
            "Basic !",
            &good.replace(' ', ""),
            &good.replace(' ', "\t"),
            &good.replace("Basic", "Bearer"),
            &format!("{good} x"),
            &basic("ann"),
            &basic("ann:a\0b"),
            &basic("a\nn:b"),
        ] {
            assert_eq!(read(&[field]), None, "{field}");
        }
        let latin = format!("Basic {}", STANDARD.encode(b"j\xfcrg:x"));
        assert_eq!(read(&[&latin]), None);
    }
}
