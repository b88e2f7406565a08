//! The token of the admin interface: a file that only the agent's user may read.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use subtle::ConstantTimeEq as _;

use super::guard::Refusal;

/// The secret itself. It is never printed.
pub(super) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("cannot write the token file {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the file.
    #[error(
        "the token file {} may be read by other users (mode {mode:03o}): chmod 600 it, and replace the token",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds no usable token.
    #[error(
        "the token file {} must hold one word of {MIN_LENGTH} to {MAX_LENGTH} printable ASCII characters; write one, or remove the file of the state directory to have one made",
        path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
    },
}

impl Token {
    /// Reads the token that an operator put into `path`.
    pub(super) fn read(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError::Read {
            path: path.to_owned(),
            source,
        };
        let file = fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = String::new();
        let limit = 2 * MAX_LENGTH as u64;
        file.take(limit).read_to_string(&mut text).map_err(failed)?;
        Self::from_text(&text).ok_or_else(|| TokenError::Unusable {
            path: path.to_owned(),
        })
    }

    /// Reads the token in `path`, which is made with a random one if it is not there.
    pub(super) fn read_or_make(path: &Path) -> Result<Self, TokenError> {
        match Self::read(path) {
            Err(TokenError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let failed = |source| TokenError::Write {
            path: path.to_owned(),
            source,
        };
        let text = random().map_err(|error| failed(error.into()))?;
        write_whole(path, &text).map_err(failed)?;
        Ok(Self(text))
    }

    /// The token in the text of a file.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let token = text.trim();
        let fits = (MIN_LENGTH..=MAX_LENGTH).contains(&token.len());
        let printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        (fits && printable).then(|| Self(token.to_owned()))
    }

    /// Looks for the token in `Authorization`: as a bearer, or as the password that a browser asks for.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let value = headers.get(header::AUTHORIZATION).ok_or(Refusal::NoToken)?;
        let value = value.to_str().map_err(|_| Refusal::WrongToken)?;
        let (scheme, rest) = value.split_once(' ').ok_or(Refusal::WrongToken)?;
        let shown = if scheme.eq_ignore_ascii_case("bearer") {
            rest.trim().as_bytes().to_vec()
        } else if scheme.eq_ignore_ascii_case("basic") {
            password(rest.trim()).ok_or(Refusal::WrongToken)?
        } else {
            return Err(Refusal::WrongToken);
        };
        if self.is(&shown) {
            Ok(())
        } else {
            Err(Refusal::WrongToken)
        }
    }

    /// Whether this is the token. The time does not tell how many characters were right.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(shown).into()
    }
}

/// 256 random bits in 64 digits.
pub(super) fn random() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn password(credentials: &str) -> Option<Vec<u8>> {
    let mut decoded = BASE64.decode(credentials).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(decoded.split_off(colon + 1))
}

/// A crash leaves either no file or a whole one.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    // A file that was left by a crash keeps the mode that it had.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&new, path)
}

const MIN_LENGTH: usize = 16;
const MAX_LENGTH: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_token_is_private_and_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        let made = Token::read_or_make(&path).unwrap();
        assert_eq!(made.0.len(), 64);
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(Token::read_or_make(&path).unwrap().0, made.0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_token_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "0123456789abcdef").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Token::read(&path).unwrap_err();
        assert!(error.to_string().contains("mode 640"), "{error}");
    }

    #[test]
    fn an_empty_or_short_token_is_refused() {
        for text in ["", "\n", "short", "two words are too many"] {
            assert!(Token::from_text(text).is_none(), "{text:?}");
        }
        assert!(Token::from_text(&"x".repeat(300)).is_none());
        assert!(Token::from_text("0123456789abcdef\n").is_some());
    }

    #[test]
    fn it_is_shown_as_bearer_or_as_password() {
        let token = Token::from_text("0123456789abcdef").unwrap();
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            token.admit(&headers)
        };
        assert_eq!(check("Bearer 0123456789abcdef"), Ok(()));
        let basic = |text: &str| format!("Basic {}", BASE64.encode(text));
        assert_eq!(check(&basic("admin:0123456789abcdef")), Ok(()));
        for wrong in [
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdeff",
            "Bearer",
            "Basic !!",
            "Digest 0123456789abcdef",
            &basic("0123456789abcdef"),
        ] {
            assert_eq!(check(wrong), Err(Refusal::WrongToken), "{wrong}");
        }
        assert_eq!(token.admit(&HeaderMap::new()), Err(Refusal::NoToken));
    }

    #[test]
    fn it_is_never_printed() {
        let token = Token::from_text("0123456789abcdef").unwrap();
        assert_eq!(format!("{token:?}"), "Token");
    }
}
