//! `clients`: the containers of this host, and what can be reached from them.

use super::{
    Answer, Exit, Output, PATIENCE,
    client::Client as Agent,
    table::{Rows, figures, words},
};
use crate::clients::Client;

/// The containers of this host.
pub(super) async fn clients(client: &Agent, output: Output) -> Answer {
    let clients = client.clients(PATIENCE).await?;
    Ok((rows(&clients).print(output, &clients)?, Exit::Fine))
}

/// A line for each.
pub(super) fn rows(clients: &[Client]) -> Rows<6> {
    let mut rows = Rows::new([
        words("CONTAINER"),
        words("ID").wide(),
        words("NETWORKS"),
        words("ADDRESSES"),
        words("REACHES"),
        figures("COOKIE"),
    ]);
    for Client { cookie, standing } in clients {
        let networks: Vec<&str> = standing.networks.iter().map(String::as_str).collect();
        let addresses: Vec<String> = standing.addresses.iter().map(ToString::to_string).collect();
        let reaches = match (standing.outside, networks.is_empty()) {
            (true, _) => "its networks and the host",
            (false, false) => "its networks",
            (false, true) => "nothing",
        };
        rows.push([
            standing.name.clone(),
            standing.container.clone(),
            networks.join(" "),
            addresses.join(" "),
            reaches.to_owned(),
            cookie.to_string(),
        ]);
    }
    rows
}
