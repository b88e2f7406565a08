//! Why a request is refused, and what to do about that.

use axum::http::StatusCode;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::admin) enum Refusal {
    #[error(
        "only root, the user that the agent runs as and those of `[admin] allow_uids` may use this socket: run the \
         command as one of them"
    )]
    ForeignUser,
    #[error("a request needs exactly one valid Host")]
    BadHost,
    #[error("this host name is not served here: use 127.0.0.1 or localhost")]
    ForeignHost,
    #[error(
        "nothing can be changed through a published page: run `lb-agent` on the host, or use the address that \
         the page listens on, such as 127.0.0.1:9180"
    )]
    Published,
    #[error("a change needs the header `Content-Type: application/json`")]
    NotJson,
    #[error("a change needs the header `X-LB-Action: 1`")]
    NoAction,
    #[error(
        "a change from another site's page is refused: use the agent's own page, or `lb-agent` on the host"
    )]
    CrossSite,
    #[error(
        "this needs the header `Authorization: Bearer <token>` or a session; the token is in the agent's token file, \
         which `lb-agent` on the host does not need"
    )]
    NoToken,
    #[error("the token is wrong: use the one in the agent's token file")]
    WrongToken,
    #[error(
        "too many wrong tokens were shown of late: try again in a minute, or run `lb-agent` on the host"
    )]
    Crowded,
}

impl Refusal {
    pub(in crate::admin) fn status(self) -> StatusCode {
        match self {
            Self::BadHost => StatusCode::BAD_REQUEST,
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::ForeignUser | Self::Published | Self::NoAction | Self::CrossSite => {
                StatusCode::FORBIDDEN
            }
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Crowded => StatusCode::TOO_MANY_REQUESTS,
            Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
        }
    }
}
