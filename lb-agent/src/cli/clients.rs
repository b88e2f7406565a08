//! `clients`: the containers of this host, and what can be reached from them.

use super::{
    Answer, Exit, Output, PATIENCE,
    client::Client as Agent,
    json,
    table::{finish, table},
};
use crate::{admin::text::visible, clients::Client};

/// The containers of this host.
pub(super) async fn clients(client: &Agent, output: Output) -> Answer {
    let clients = client.clients(PATIENCE).await?;
    let text = match output {
        Output::Table => table_of(&clients),
        Output::Json => json(&clients)?,
    };
    Ok((text, Exit::Fine))
}

/// A line for each.
pub(super) fn table_of(clients: &[Client]) -> String {
    let mut table = table(&["CONTAINER", "NETWORKS", "ADDRESSES", "REACHES", "COOKIE"]);
    for Client { cookie, standing } in clients {
        let networks: Vec<&str> = standing.networks.iter().map(String::as_str).collect();
        let addresses: Vec<String> = standing.addresses.iter().map(ToString::to_string).collect();
        let reaches = match (standing.outside, networks.is_empty()) {
            (true, _) => "its networks and the host",
            (false, false) => "its networks",
            (false, true) => "nothing",
        };
        table.add_row([
            visible(&standing.name).into_owned(),
            visible(&networks.join(" ")).into_owned(),
            addresses.join(" "),
            reaches.to_owned(),
            cookie.to_string(),
        ]);
    }
    finish(&table)
}
