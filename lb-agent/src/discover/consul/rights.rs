//! Whether an empty answer is empty for want of instances, and not of rights.
//!
//! Before 1.11 Consul does not say when it filters: a request without rights gets 200 and an empty list.

use super::{
    client::{Client, Consistency},
    config::Token,
    parse,
    read::Trouble,
};

/// Proves that the leader's empty answer, which it did not call filtered, hides nothing from us.
///
/// # Errors
/// When rights may be what is missing.
pub(super) async fn prove(client: &Client) -> Result<(), Trouble> {
    let config = client.config();
    let own_token = client
        .read(&["acl", "token", "self"], None, Consistency::Leader)
        .await?;
    match own_token.status.as_u16() {
        // ACLs are off.
        401 => return Ok(()),
        // It would have called the answer filtered, which it tells nobody without a token.
        200 if config.token.is_some() && tells_when_it_filters(client).await => return Ok(()),
        200 => {}
        // Without a token there is none to know.
        403 | 404 if config.token.is_none() => {}
        403 | 404 => {
            let text = match config.token {
                Some(Token::File(ref path)) => format!(
                    "Consul does not know the token in {}; correct the file",
                    path.display()
                ),
                _ => "Consul does not know the token; give a valid one".to_owned(),
            };
            return Err(Trouble::Hidden(text));
        }
        _ => {
            own_token.successful()?;
        }
    }
    if sees_consul_itself(client).await? {
        return Ok(());
    }
    let remedy = if config.namespace.is_some() || config.partition.is_some() {
        // There is no such service in most of them.
        "use Consul 1.11 or later, which says what it hides, with a token that has agent_prefix \"\" read"
    } else {
        "give a token with service_prefix \"\" and node_prefix \"\" read"
    };
    Err(Trouble::Hidden(format!(
        "Consul's answer is empty, but the service `consul` cannot be seen either, so it says nothing; {remedy}"
    )))
}

/// Whether this Consul marks a filtered answer. Servers are never older than the agents before them.
async fn tells_when_it_filters(client: &Client) -> bool {
    let agent = client.agent().await;
    agent.is_ok_and(|agent| agent.version.is_at_least(1, 11, 0))
}

/// Whether the one service that every cluster has can be seen.
async fn sees_consul_itself(client: &Client) -> Result<bool, Trouble> {
    let answer = client
        .read(&["health", "service", "consul"], None, Consistency::Leader)
        .await?
        .successful()?;
    let nobody = parse::Standpoint::default();
    let listing =
        parse::listing("consul", &answer.body, &nobody).map_err(|error| answer.malformed(error))?;
    Ok(listing.registered > 0)
}
