//! What a client reads from files: its token, at every request, and its certificates, when somebody says so.

use std::{
    path::Path,
    sync::{Arc, MutexGuard, PoisonError},
};

use reqwest::header::HeaderValue;
use tokio::sync::watch;

use super::{
    super::{config::Token, error::RequestError, servers::Servers},
    Client,
};

impl Client {
    pub(super) async fn token(&self) -> Result<Option<HeaderValue>, RequestError> {
        let text = match &self.config.token {
            None => return Ok(None),
            Some(Token::Value(token)) => token.clone(),
            Some(Token::File(path)) => read_token(path).await?,
        };
        // Consul would take a request without a token for one of the anonymous.
        if text.trim().is_empty() {
            return Err(RequestError::TokenText("is empty"));
        }
        let mut value = HeaderValue::from_str(text.trim())
            .map_err(|_| RequestError::TokenText("has bytes that cannot be sent"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Ends when somebody wants the files read again.
    pub(super) async fn told_to_reload(&self) {
        let mut reload = self.reload().clone();
        if reload.changed().await.is_err() {
            // Nobody is left who could.
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn has_token_file(&self) -> bool {
        matches!(self.config.token, Some(Token::File(_)))
    }

    /// Reads the certificates again if somebody wants that. Requests in flight end on their old connections.
    pub(super) fn reload_if_told(&self) {
        {
            let mut reload = self.reload();
            if !reload.has_changed().unwrap_or(false) {
                return;
            }
            reload.mark_unchanged();
        }
        match Servers::new(&self.config, self.servers.load().current().0) {
            Ok(servers) => {
                self.servers.store(Arc::new(servers));
                self.config.report(None);
            }
            Err(error) => self.config.report(Some(&error)),
        }
    }

    fn reload(&self) -> MutexGuard<'_, watch::Receiver<()>> {
        self.reload.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_token(path: &Path) -> Result<String, RequestError> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|source| RequestError::Token {
            path: path.to_owned(),
            source,
        })
}
