//! One question put to one server: at which pace, with which address, scope and token.

use reqwest::{Method, Url};

use super::{AT_ONCE, Answer, Client, Question};
use crate::discover::consul::{
    error::RequestError, metrics::Outcome, server::Server, version::AgentInfo,
};

impl Client {
    /// Puts the question to one server. Meanwhile a call to reload is heard.
    pub(super) async fn put_to(
        &self,
        server: &Server,
        question: &Question<'_>,
    ) -> Result<Answer, RequestError> {
        let answering = self.exchange(server, question);
        tokio::pin!(answering);
        let answer = loop {
            tokio::select! {
                answer = &mut answering => break answer,
                () = self.told_to_reload() => self.reload_if_told(),
            }
        };
        let result = match &answer {
            Err(_) => "error",
            Ok(answer) if answer.status.is_success() => "ok",
            Ok(answer) if answer.status.is_server_error() => "5xx",
            Ok(_) => "4xx",
        };
        self.metrics()
            .requests
            .get_or_create(&Outcome::new(question.path, result))
            .inc();
        if let Ok(Some(age)) = answer.as_ref().map(|answer| answer.last_contact) {
            self.metrics().last_contact.set(age.as_secs_f64());
        }
        answer
    }

    async fn exchange(
        &self,
        server: &Server,
        question: &Question<'_>,
    ) -> Result<Answer, RequestError> {
        let pace = match question.is_watch_of_a_service() {
            true => &self.pace,
            false => &self.pace_of_few,
        };
        pace.pass().await;
        let mut url = self.url(server, question);
        // The agent itself is in no namespace, and says here whether it knows such things.
        if question.path != ["agent", "self"] {
            self.scope(server, &mut url).await?;
        }
        let mut limit = question.limit;
        if let Some((index, wait)) = question.hold {
            url.query_pairs_mut()
                .append_pair("index", &index.to_string())
                .append_pair("wait", &format!("{}ms", wait.as_millis()));
            // Consul adds up to a sixteenth.
            limit += wait * 17 / 16;
        }
        let token = self.token().await?;
        let what = url.path().to_owned();
        let build = |http: &reqwest::Client| {
            let mut request = http.request(question.method.clone(), url);
            if let Some(token) = token {
                request = request.header("X-Consul-Token", token);
            }
            if let Some(auth) = &self.config.basic_auth {
                request = request.basic_auth(&auth.user, auth.password.as_ref());
            }
            match &question.body {
                Some(body) => request.body(body.clone()),
                None => request,
            }
        };
        server.exchange(&what, limit, build).await
    }

    fn url(&self, server: &Server, question: &Question<'_>) -> Url {
        let mut url = server.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(question.path);
        }
        {
            let mut pairs = url.query_pairs_mut();
            if let Some(datacenter) = &self.config.datacenter {
                pairs.append_pair("dc", datacenter);
            }
            pairs.extend_pairs(question.query);
        }
        if url.query() == Some("") {
            url.set_query(None);
        }
        url
    }

    /// Adds namespace and partition, if the server knows such things.
    async fn scope(&self, server: &Server, url: &mut Url) -> Result<(), RequestError> {
        let (namespace, partition) = (&self.config.namespace, &self.config.partition);
        if namespace.is_none() && partition.is_none() {
            return Ok(());
        }
        let version = Box::pin(self.info(server)).await?.version;
        if let Some(reason) = version.refusal(namespace.is_some(), partition.is_some()) {
            // Asked again the next time: Consul may be replaced.
            server.forget();
            let address = server.address.to_string();
            return Err(RequestError::Scope { address, reason });
        }
        for (key, value) in [("ns", namespace), ("partition", partition)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(key, value);
            }
        }
        Ok(())
    }

    pub(super) async fn info(&self, server: &Server) -> Result<AgentInfo, RequestError> {
        if let Some(info) = server.info() {
            return Ok(info);
        }
        let question = Question {
            method: Method::GET,
            path: &["agent", "self"],
            query: &[],
            hold: None,
            body: None,
            limit: AT_ONCE,
        };
        let answer = self.exchange(server, &question).await?.successful()?;
        let info = AgentInfo::parse(&answer.body).map_err(|error| answer.malformed(error))?;
        server.learn(info.clone());
        Ok(info)
    }
}
