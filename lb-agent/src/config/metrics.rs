//! `[metrics]`: which there are beside the usual ones, and where they are pushed to.

use std::time::Duration;

use reqwest::Url;

use super::{
    Metrics, RawConfig,
    resolve::{Judge, pause},
};
use crate::admin::otlp;

pub(super) fn resolve(raw: &RawConfig, judge: &mut Judge<'_>) -> Metrics {
    Metrics {
        per_backend: raw.metrics_per_backend.as_ref().is_some_and(|it| it.value),
        otlp: push(raw, judge),
    }
}

/// `None` without the table, or if it is wrong.
fn push(raw: &RawConfig, judge: &mut Judge<'_>) -> Option<otlp::Config> {
    let table = raw.otlp.as_ref()?;
    if raw.otlp_endpoint.is_none() {
        judge.wrong(
            table,
            "[metrics.otlp] needs an `endpoint`, such as http://127.0.0.1:4318",
        );
    }
    let endpoint = judge.text(&raw.otlp_endpoint, None, |text| endpoint(text).map(Some));
    let headers_file = raw.otlp_headers_file.as_ref();
    let ca_file = raw.otlp_ca_file.as_ref();
    let (interval, timeout) = (Duration::from_secs(60), Duration::from_secs(10));
    let rest = |judge: &mut Judge<'_>, endpoint| otlp::Config {
        endpoint,
        interval: judge.text(&raw.otlp_interval, interval, pause),
        timeout: judge.text(&raw.otlp_timeout, timeout, pause),
        headers_file: headers_file.map(|_| judge.path(&raw.otlp_headers_file, "")),
        ca_file: ca_file.map(|_| judge.path(&raw.otlp_ca_file, "")),
        compress: judge.text(&raw.otlp_compression, true, compression),
    };
    // What else is wrong is told all the same.
    let stand_in = || Url::parse("http://127.0.0.1:4318").ok();
    let is_good = endpoint.is_some();
    let config = rest(judge, endpoint.or_else(stand_in)?);
    is_good.then_some(config)
}

/// As the field has it: a URL without a path means the usual one.
fn endpoint(text: &str) -> Result<Url, String> {
    let remedy = "write a URL, such as http://127.0.0.1:4318 or https://otlp.example/v1/metrics; \
                  what is secret belongs into headers_file";
    let url = Url::parse(text).ok();
    let url = url.filter(|url| {
        ["http", "https"].contains(&url.scheme())
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    let mut url = url.ok_or_else(|| remedy.to_owned())?;
    if url.path() == "/" {
        url.set_path("/v1/metrics");
    }
    Ok(url)
}

fn compression(text: &str) -> Result<bool, String> {
    match text {
        "gzip" => Ok(true),
        "none" => Ok(false),
        _ => Err("write gzip or none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::resolve::tests::World;

    use super::*;

    #[test]
    fn an_endpoint_without_a_path_means_the_usual_one() {
        for (text, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/metrics"),
            ("https://o.example/", "https://o.example/v1/metrics"),
            ("http://[::1]:1/api/otlp", "http://[::1]:1/api/otlp"),
        ] {
            assert_eq!(endpoint(text).unwrap().as_str(), url);
        }
        for wrong in [
            "127.0.0.1:4318",
            "grpc://c:4317",
            "http://",
            "http://a:b@c:1",
            "http://c:1/?token=x",
            "http://c:1/#x",
        ] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_key_is_judged_and_a_wrong_endpoint_is_not_repeated_with_what_is_secret() {
        let world = World::new().toml(
            "[metrics.otlp]\nendpoint = \"http://a:s3cret@c:1\"\ninterval = \"1d\"\n\
             timeout = \"0s\"\ncompression = \"zstd\"\nheaders_file = \"\"\n",
        );
        let mistakes = world.load_with_origins().unwrap_err().mistakes;
        assert_eq!(mistakes.len(), 5, "{mistakes:#?}");
        assert!(!mistakes.concat().contains("s3cret"), "{mistakes:#?}");
        let world = World::new().toml("[metrics.otlp]\ninterval = \"5s\"\n");
        let mistakes = world.load_with_origins().unwrap_err().mistakes;
        assert_eq!(mistakes.len(), 1);
        assert!(mistakes[0].contains("needs an `endpoint`"), "{mistakes:#?}");
    }

    #[test]
    fn nothing_is_pushed_and_no_backend_has_series_unless_that_is_asked_for() {
        let (config, _) = World::new().load_with_origins().unwrap();
        assert_eq!(config.metrics, Metrics::default());
        let world = World::new().toml(
            "[metrics]\nper_backend = true\n[metrics.otlp]\nendpoint = \"http://c:1\"\n\
             interval = \"5s\"\ncompression = \"none\"\nheaders_file = \"/h\"\n",
        );
        let (config, _) = world.load_with_origins().unwrap();
        assert!(config.metrics.per_backend);
        let otlp = config.metrics.otlp.unwrap();
        assert_eq!(otlp.interval, Duration::from_secs(5));
        assert_eq!(otlp.timeout, Duration::from_secs(10));
        assert_eq!((otlp.compress, otlp.ca_file), (false, None));
    }
}
