//! `explain --host`: where the front sends requests for a host, by its own rules.

use lb_front::routes::{Hosts, Place, RoutesChange};
use serde::Serialize;

use super::{Answer, Exit, Failure, Output, PATIENCE, backends, client::Client, json};
use crate::admin::{
    report::{Report, Service},
    text::visible,
};

/// The answer.
#[derive(Serialize)]
struct Told<'a> {
    /// The host that was asked for.
    host: &'a str,
    /// The path there.
    path: &'a str,
    /// The service that answers.
    service: &'a Service,
}

/// Which service answers there, and who of it.
pub(super) async fn explain(client: &Client, output: Output, place: &str) -> Answer {
    print(&client.report(PATIENCE).await?, output, place)
}

pub(super) fn print(report: &Report, output: Output, place: &str) -> Answer {
    let services = report.services.as_deref().ok_or(Failure::NotKnown)?;
    let (host, path) = parts(place);
    let service = find(services, &host, path)
        .map_err(|_| Failure::Ambiguous(place.to_owned()))?
        .ok_or_else(|| Failure::NoHost(place.to_owned()))?;
    let rows = backends::rows(&[service], report.now_unix, output);
    let text = match output {
        Output::Json => json(&Told {
            host: &host,
            path,
            service,
        })?,
        Output::Csv => rows.csv(),
        Output::Table | Output::Wide => format!(
            "host      {}, path {}\nservice   {}, {}\n\n{}",
            visible(&host),
            visible(path),
            visible(&service.name),
            service.state.as_str(),
            rows.text(output == Output::Wide),
        ),
    };
    Ok((text, Exit::Fine))
}

/// The host as the front looks for it, and the path. An address as browsers show it may be given, too.
fn parts(place: &str) -> (String, &str) {
    let place = place.split_once("://").map_or(place, |(_, rest)| rest);
    let at = place.find('/').unwrap_or(place.len());
    let (host, path) = place.split_at(at);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
        _ => host,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    (host, if path.is_empty() { "/" } else { path })
}

/// By the routes that the report tells: a host, or a host with a prefix of paths.
fn find<'s>(
    services: &'s [Service],
    host: &str,
    path: &str,
) -> Result<Option<&'s Service>, lb_front::routes::Ambiguous> {
    let mut routes = RoutesChange::default();
    for (place, service) in (0..).zip(services) {
        let place: Place = place;
        for name in &service.hosts {
            match name.split_once('/') {
                None => routes.hosts.push((name.clone(), Some(place))),
                Some((host, prefix)) => {
                    let prefix = format!("/{prefix}");
                    routes.paths.push((host.to_owned(), prefix, Some(place)));
                }
            }
        }
    }
    let mut hosts = Hosts::default();
    hosts.apply(&routes);
    let found = hosts.find(host, path)?;
    Ok(found
        .and_then(|place| usize::try_from(place).ok())
        .and_then(|place| services.get(place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{compose::compose, sample};

    fn report() -> Report {
        let (snapshot, stats) = (sample::snapshot(), sample::stats());
        let mut report = compose(sample::material(Some(&snapshot), Some(&stats)));
        let services = report.services.as_mut().unwrap();
        services[1].hosts = vec!["www.localhost".to_owned(), "api.localhost".to_owned()];
        services[3].hosts = vec!["www.localhost/hello".to_owned(), "www.hello".to_owned()];
        report
    }

    #[test]
    fn a_host_leads_to_its_service_by_the_fronts_own_rules() {
        let report = report();
        let name = |place: &str| {
            let (text, _) = print(&report, Output::Json, place).unwrap();
            let told: serde_json::Value = serde_json::from_str(&text).unwrap();
            told["service"]["name"].as_str().unwrap().to_owned()
        };
        assert_eq!(name("www.localhost"), "www");
        assert_eq!(name("http://WWW.localhost.:8080/hello/a?b"), "www_hello");
        assert_eq!(name("www.localhost/hellos"), "www");
        assert_eq!(name("www.hello.10.0.0.7.nip.io"), "www_hello");
        let (text, _) = print(&report, Output::Table, "www.localhost/hello").unwrap();
        let head = "host      www.localhost, path /hello\nservice   www_hello, degraded\n\nSERVICE";
        assert!(text.starts_with(head), "{text}");
        let refused = |place| {
            print(&report, Output::Table, place)
                .unwrap_err()
                .to_string()
        };
        assert!(refused("nobody\u{1b}").contains("lb-agent services"));
        assert!(refused("www.localhost/a/..%2fhello").contains("disagree"));
    }
}
