//! Sessions: what a browser shows in the place of the token, after it has shown that once. They live in memory only and
//! end with the agent. A cookie counts like the token; what keeps forgers out is in `guard.rs`.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::info;

use super::{
    guard::{Access, Refusal, Who},
    refusals::{ordered, refused},
    report::{SESSION_HEADER, SessionAnswer, SessionOrder},
    router::{Desk, turn_away},
    token::random,
};

/// The open sessions.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Open>);

/// The ids are as good as the token, so they are never printed.
impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

#[derive(Default)]
struct Open {
    /// The number of the last one.
    last: u64,
    /// The oldest first.
    all: VecDeque<Session>,
}

struct Session {
    number: u64,
    /// In the cookie, which browsers show to every port of the host.
    id: String,
    /// Beside it for changes: known to the page alone that opened the session.
    key: String,
    /// Whether it was opened where nothing can be changed.
    published: bool,
    until: Instant,
    ended: CancellationToken,
    /// Cancels that when this is dropped, for whatever reason.
    _guard: DropGuard,
}

/// The end of a session, for what goes on as long as it does.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// Cancelled when it is ended, or another one took its place.
    pub(super) ended: CancellationToken,
    /// When it is over by itself.
    pub(super) until: Instant,
}

/// A session that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) number: u64,
    /// Whether it is good for changes: its key is shown, too.
    pub(super) may_change: bool,
}

/// What a session that was just opened is shown by.
struct Opened {
    number: u64,
    id: String,
    key: String,
}

impl Sessions {
    /// Makes one.
    fn open(&self, published: bool, now: Instant) -> Result<Opened, getrandom::Error> {
        let (id, key) = (random()?, random()?);
        let mut open = self.lock();
        open.all.retain(|it| it.until > now);
        if open.all.len() >= MOST {
            open.all.pop_front();
        }
        open.last += 1;
        let number = open.last;
        let ended = CancellationToken::new();
        open.all.push_back(Session {
            number,
            id: id.clone(),
            key: key.clone(),
            published,
            until: now + LIFETIME,
            ended: ended.clone(),
            _guard: ended.drop_guard(),
        });
        Ok(Opened { number, id, key })
    }

    /// Makes one where changes are possible; its id and its key.
    #[cfg(any(test, fuzzing))]
    pub(super) fn opened(&self, now: Instant) -> (String, String) {
        self.open(false, now)
            .map(|it| (it.id, it.key))
            .unwrap_or_default()
    }

    /// The session whose cookie is shown.
    pub(super) fn find(&self, headers: &HeaderMap, now: Instant) -> Option<Shown> {
        let key = headers.get(SESSION_HEADER);
        let key = key.map_or(&b""[..], HeaderValue::as_bytes);
        let lines = headers.get_all(header::COOKIE).iter();
        let lines = lines.filter_map(|line| line.to_str().ok());
        let cookies = lines.flat_map(|line| line.split(';'));
        let shown = cookies.filter_map(|it| it.trim().strip_prefix(COOKIE)?.strip_prefix('='));
        let open = self.lock();
        // A page of another port of this host may have set one of that name, too.
        shown.take(COOKIES).find_map(|shown| {
            let mut found = None;
            for session in open.all.iter().filter(|it| it.until > now) {
                // The time must not tell how much of an id was right.
                if bool::from(session.id.as_bytes().ct_eq(shown.as_bytes())) {
                    let has_key = bool::from(session.key.as_bytes().ct_eq(key));
                    found = Some(Shown {
                        number: session.number,
                        may_change: has_key && !session.published,
                    });
                }
            }
            found
        })
    }

    /// When session `number` ends; that it has ended if it is not there.
    pub(super) fn end_of(&self, number: u64) -> End {
        let open = self.lock();
        match open.all.iter().find(|it| it.number == number) {
            Some(session) => End {
                ended: session.ended.clone(),
                until: session.until,
            },
            None => {
                let ended = CancellationToken::new();
                ended.cancel();
                let until = Instant::now();
                End { ended, until }
            }
        }
    }

    fn end(&self, number: u64) {
        self.lock().all.retain(|it| it.number != number);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `GET /api/v1/session`: who asks, and what that allows. Needs nothing, so that a page knows whether to ask for the token.
pub(super) async fn tell(Extension(access): Extension<Access>) -> Json<SessionAnswer> {
    Json(answer(&access))
}

/// `POST /api/v1/session`.
pub(super) async fn open(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    order: Result<Json<SessionOrder>, JsonRejection>,
) -> Result<Response, Response> {
    let order = ordered(order)?;
    if desk.guard.guesses.is_crowded() {
        return Err(turn_away(&desk, access.client, &headers, Refusal::Crowded).await);
    }
    if !desk.guard.token.is(order.token.trim().as_bytes()) {
        return Err(turn_away(&desk, access.client, &headers, Refusal::WrongToken).await);
    }
    desk.guard.guesses.forget(access.client);
    // Its cookie is replaced: nobody would end it any more.
    desk.end_session(&access);
    let opened = desk.guard.sessions.open(access.published, Instant::now());
    let Opened { number, id, key } = opened.map_err(|error| {
        let why = format!("no session can be made: {error}; use the token itself");
        refused(StatusCode::SERVICE_UNAVAILABLE, why)
    })?;
    info!(target: "audit", session = number, source = access.source(), "session opened");
    let access = Access {
        may_read: true,
        may_change: !access.published,
        who: Who::Session(number),
        ..access
    };
    let answer = SessionAnswer {
        key: Some(key),
        ..answer(&access)
    };
    Ok(with_cookie(&access, &id, LIFETIME, answer))
}

/// `DELETE /api/v1/session`. The cookie is enough, for it takes power away: so it is ended from any tab, and by no foreign page.
pub(super) async fn end(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
) -> Response {
    desk.end_session(&access);
    let nobody = Access {
        may_read: access.open,
        may_change: false,
        who: Who::Nobody,
        ..access
    };
    with_cookie(&nobody, "", Duration::ZERO, answer(&nobody))
}

impl Desk {
    /// Ends the session that is shown, if one is.
    fn end_session(&self, access: &Access) {
        if let Who::Session(number) = access.who {
            self.guard.sessions.end(number);
            info!(target: "audit", session = number, source = access.source(), "session ended");
        }
    }
}

fn answer(access: &Access) -> SessionAnswer {
    SessionAnswer {
        may_read: access.may_read,
        may_change: access.may_change,
        who: access.who.known().then(|| access.who.to_string()),
        key: None,
    }
}

fn with_cookie(access: &Access, id: &str, age: Duration, answer: SessionAnswer) -> Response {
    let secure = if access.secure { "; Secure" } else { "" };
    let age = age.as_secs();
    let cookie = format!("{COOKIE}={id}; HttpOnly; SameSite=Strict; Path=/; Max-Age={age}{secure}");
    let mut answer = Json(answer).into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

/// The name of the cookie.
const COOKIE: &str = "lb_session";
/// How many of that name are looked at in one request.
const COOKIES: usize = 4;
/// Sessions at a time; the oldest makes room.
const MOST: usize = 64;
/// How long a session lasts.
const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(id: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let line = format!("other=1; lb_session={id}");
        headers.insert(header::COOKIE, line.parse().unwrap());
        headers
    }

    #[test]
    fn a_session_is_found_by_its_whole_id_until_it_is_over_or_ended() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let Opened { number, id, key } = sessions.open(false, now).unwrap();
        assert_eq!((id.len(), key.len()), (64, 64));
        let found = |may_change| Some(Shown { number, may_change });
        assert_eq!(sessions.find(&shown(&id), now), found(false));
        let mut both = shown(&id);
        for (given, good) in [(&id, false), (&key, true)] {
            both.insert(SESSION_HEADER, given.parse().unwrap());
            assert_eq!(sessions.find(&both, now), found(good));
        }
        for wrong in ["", &id[1..], &"0".repeat(64), &format!("{id}0")] {
            assert_eq!(sessions.find(&shown(wrong), now), None, "{wrong}");
        }
        assert_eq!(sessions.find(&HeaderMap::new(), now), None);
        assert_eq!(sessions.find(&shown(&id), now + LIFETIME), None);
        sessions.end(number);
        assert_eq!(sessions.find(&shown(&id), now), None);
    }

    #[test]
    fn a_foreign_cookie_of_the_same_name_hides_no_session() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let Opened { number, id, key } = sessions.open(true, now).unwrap();
        let mut headers = shown(&format!("foreign; lb_session={id}"));
        headers.insert(SESSION_HEADER, key.parse().unwrap());
        // Where it was opened nothing can be changed: nor with it elsewhere.
        let found = Shown {
            number,
            may_change: false,
        };
        assert_eq!(sessions.find(&headers, now), Some(found));
    }

    #[test]
    fn the_oldest_session_makes_room_and_one_that_is_over_goes_first() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let ids: Vec<String> = (0..=MOST)
            .map(|_| sessions.open(false, now).unwrap().id)
            .collect();
        assert_eq!(sessions.find(&shown(&ids[0]), now), None);
        for id in &ids[1..] {
            assert!(sessions.find(&shown(id), now).is_some());
        }
        let later = now + LIFETIME;
        sessions.open(false, later).unwrap();
        assert_eq!(sessions.lock().all.len(), 1);
    }

    #[test]
    fn whoever_waits_for_the_end_of_a_session_is_told_of_each_way_to_end() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let number = || sessions.open(false, now).unwrap().number;
        let signed_out = sessions.end_of(number());
        let pushed_out = sessions.end_of(number());
        assert!(!signed_out.ended.is_cancelled());
        assert_eq!(signed_out.until, now + LIFETIME);
        sessions.end(1);
        assert!(signed_out.ended.is_cancelled());
        for _ in 1..MOST {
            number();
        }
        assert!(!pushed_out.ended.is_cancelled());
        number();
        assert!(pushed_out.ended.is_cancelled());
        assert!(sessions.end_of(1).ended.is_cancelled());
    }

    #[test]
    fn ids_are_never_printed() {
        let sessions = Sessions::default();
        sessions.open(false, Instant::now()).unwrap();
        assert_eq!(format!("{sessions:?}"), "Sessions");
    }
}
