//! Whether a password is right.
//!
//! A hash that is safe takes long: a tenth of a second of a CPU. So it is made on another thread, by a few at once, and only so
//! many wait for that; what was right is remembered for a while, by a code that is of no use to whoever reads it.

use std::{
    cell::{OnceCell, RefCell},
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use ring::{hmac, rand::SystemRandom};
use tokio::{sync::Semaphore, task::spawn_blocking, time::Instant};

use super::{crowd, generations::Generations, users::Users};

/// One worker's knowledge of passwords.
pub(super) struct Passwords {
    /// How many are looked at at once, by all workers.
    at_once: Arc<Semaphore>,
    waiting: Rc<RefCell<Vec<IpAddr>>>,
    memory: OnceCell<Memory>,
}

/// What was right lately.
struct Memory {
    /// Without one nothing is remembered.
    key: Option<hmac::Key>,
    /// Chooses a hash for those who are not users.
    strangers: RandomState,
    right: RefCell<Generations<Code, Instant>>,
}

/// A user, a password and the hash that it belongs to, under a key that nobody else has. So to look for one takes a time
/// that tells nothing about another.
type Code = [u8; 32];

/// What is known at once of a password.
pub(super) enum Known {
    Right,
    Wrong,
    /// It takes longer.
    Not(Question),
}

/// A password that must be compared with a hash.
pub(super) struct Question {
    password: Box<[u8]>,
    hash: String,
    code: Option<Code>,
    /// Whether there is such a user. The time that an answer takes must not tell.
    exists: bool,
    client: IpAddr,
}

/// Too many wait already.
#[derive(Debug)]
pub(super) struct Full;

impl Passwords {
    /// Those of a worker; all of them share `at_once`.
    pub(super) fn new(at_once: Arc<Semaphore>) -> Self {
        Self {
            at_once,
            waiting: Rc::default(),
            memory: OnceCell::new(),
        }
    }

    /// What is known of the `password` that a client gives for the user `name`.
    pub(super) fn look(&self, users: &Users, name: &str, password: &[u8], client: IpAddr) -> Known {
        let memory = self.memory.get_or_init(Memory::new);
        let own = users.hash_of(name);
        let Some(hash) = own.or_else(|| users.some_hash(memory.strangers.hash_one(name))) else {
            return Known::Wrong; // Of nobody.
        };
        let code = memory.code(name, password, hash);
        if own.is_some() && code.is_some_and(|code| memory.remembers(&code)) {
            return Known::Right;
        }
        Known::Not(Question {
            password: password.into(),
            hash: hash.to_owned(),
            code,
            exists: own.is_some(),
            client: crowd::site(client),
        })
    }

    /// Whether it is right.
    ///
    /// # Errors
    ///
    /// When too many wait for that, or too many of the same client.
    pub(super) async fn ask(&self, question: Question) -> Result<bool, Full> {
        let Question {
            password,
            hash,
            code,
            exists,
            client,
        } = question;
        let _place = Place::take(&self.waiting, client).ok_or(Full)?;
        // The semaphore is never closed.
        let turn = self
            .at_once
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Full)?;
        let compare = move || {
            // With the hash, and not before, whoever waits may go on.
            let _turn = turn;
            bcrypt::verify(&password, &hash).unwrap_or(false)
        };
        let right = spawn_blocking(compare).await.unwrap_or(false) && exists;
        if right && let (Some(memory), Some(code)) = (self.memory.get(), code) {
            memory.keep(code);
        }
        Ok(right)
    }
}

impl Memory {
    fn new() -> Self {
        Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            strangers: RandomState::new(),
            right: RefCell::new(Generations::new(REMEMBERED)),
        }
    }

    fn code(&self, name: &str, password: &[u8], hash: &str) -> Option<Code> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        for part in [name.as_bytes(), password, hash.as_bytes()] {
            // With the lengths, so that none runs into the next.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().ok()
    }

    fn remembers(&self, code: &Code) -> bool {
        let until = self.right.borrow_mut().find(code);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn keep(&self, code: Code) {
        let until = Instant::now() + KEPT;
        self.right.borrow_mut().put(code, until);
    }
}

/// A place among those who wait.
struct Place {
    all: Rc<RefCell<Vec<IpAddr>>>,
    client: IpAddr,
}

impl Place {
    fn take(all: &Rc<RefCell<Vec<IpAddr>>>, client: IpAddr) -> Option<Self> {
        let mut waiting = all.borrow_mut();
        let own = waiting.iter().filter(|other| **other == client).count();
        if waiting.len() >= WAITING || own >= OF_ONE_CLIENT {
            return None;
        }
        waiting.push(client);
        Some(Self {
            all: all.clone(),
            client,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.all.borrow_mut();
        if let Some(place) = waiting.iter().position(|other| *other == self.client) {
            waiting.swap_remove(place);
        }
    }
}

/// How long a password that was right is taken for right without a look at its hash. One whose hash is replaced or taken
/// away is not found from that moment on.
const KEPT: Duration = Duration::from_secs(300);

/// Of each generation: as many users as one host has.
const REMEMBERED: usize = 1024;

/// How many wait at a worker: a few seconds.
const WAITING: usize = 64;

/// How many of one client: not so many that it keeps all others out.
const OF_ONE_CLIENT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn passwords() -> Passwords {
        Passwords::new(Arc::new(Semaphore::new(1)))
    }

    fn users(of: &[(&str, &str)]) -> Users {
        let hashed = of.iter().map(|(name, password)| {
            let hash = bcrypt::hash(password, 4).unwrap();
            ((*name).to_owned(), hash)
        });
        Users::new(hashed.collect())
    }

    async fn is_right(passwords: &Passwords, users: &Users, name: &str, password: &str) -> bool {
        match passwords.look(users, name, password.as_bytes(), CLIENT) {
            Known::Right => true,
            Known::Wrong => false,
            Known::Not(question) => passwords.ask(question).await.unwrap(),
        }
    }

    fn is_remembered(passwords: &Passwords, users: &Users, name: &str, password: &str) -> bool {
        let known = passwords.look(users, name, password.as_bytes(), CLIENT);
        matches!(known, Known::Right)
    }

    #[tokio::test]
    async fn what_was_right_is_remembered_and_nothing_else() {
        let (passwords, users) = (passwords(), users(&[("ann", "secret"), ("bob", "other")]));
        for (name, password, right) in [
            ("ann", "secret", true),
            ("ann", "other", false),
            ("bob", "secret", false),
            ("bob", "other", true),
            // Of the hash that is taken for a stranger's even the right password is wrong.
            ("eve", "secret", false),
            ("eve", "other", false),
            ("", "secret", false),
        ] {
            for _ in 0..2 {
                let found = is_right(&passwords, &users, name, password).await;
                assert_eq!(found, right, "{name} {password}");
                assert_eq!(is_remembered(&passwords, &users, name, password), right);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_remembered_for_a_while() {
        let (passwords, users) = (passwords(), users(&[("ann", "secret")]));
        assert!(is_right(&passwords, &users, "ann", "secret").await);
        tokio::time::advance(KEPT - Duration::from_secs(1)).await;
        assert!(is_remembered(&passwords, &users, "ann", "secret"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!is_remembered(&passwords, &users, "ann", "secret"));
    }

    #[tokio::test]
    async fn a_password_that_was_changed_is_wrong_at_once() {
        let (passwords, before) = (passwords(), users(&[("ann", "secret")]));
        assert!(is_right(&passwords, &before, "ann", "secret").await);
        let after = users(&[("ann", "new")]);
        assert!(!is_right(&passwords, &after, "ann", "secret").await);
        assert!(is_right(&passwords, &after, "ann", "new").await);
        assert!(!is_right(&passwords, &users(&[("bob", "x")]), "ann", "secret").await);
        assert!(!is_right(&passwords, &Users::default(), "ann", "secret").await);
    }

    #[tokio::test]
    async fn so_many_wait_and_fewer_of_one_client() {
        let users = users(&[("ann", "secret")]);
        // Nobody's turn ever comes.
        let passwords = Passwords::new(Arc::new(Semaphore::new(0)));
        let question = |client: u8| {
            let client = [192, 0, 2, client].into();
            match passwords.look(&users, "ann", b"x", client) {
                Known::Not(question) => question,
                _ => panic!("it is known"),
            }
        };
        let mut waiting = Vec::new();
        for client in 0..8 {
            for _ in 0..OF_ONE_CLIENT {
                let mut wait = Box::pin(passwords.ask(question(client)));
                assert!(futures_util::poll!(wait.as_mut()).is_pending());
                waiting.push(wait);
            }
            assert!(passwords.ask(question(client)).await.is_err());
        }
        assert!(passwords.ask(question(100)).await.is_err());
        // Whoever goes away makes room.
        waiting.pop();
        let mut wait = Box::pin(passwords.ask(question(100)));
        assert!(futures_util::poll!(wait.as_mut()).is_pending());
    }

    #[test]
    fn nothing_prints_a_hash() {
        let users = users(&[("ann", "secret")]);
        assert_eq!(format!("{users:?}"), "(1 hidden)");
    }
}
