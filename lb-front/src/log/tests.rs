use proptest::prelude::*;

use super::*;

fn rules(format: LogFormat) -> LogSettings {
    LogSettings {
        format: Some(format),
        redact_query: true,
        headers: vec!["x-tenant".into(), "authorization".into(), "x-key".into()],
        redact: vec!["x-key".into()],
        ..LogSettings::default()
    }
}

/// The line about a request for `target` with `fields`.
fn line(settings: &LogSettings, target: &str, fields: &[(&str, &[u8])]) -> Vec<u8> {
    let log = Log::new();
    log.rule(settings);
    let sink = Rc::new(Sink::new(&log));
    let mut request = hyper::Request::get(target);
    for (name, value) in fields {
        request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let asked = sink.asked(&parts, [192, 0, 2, 7].into()).unwrap();
    let mut out = Vec::new();
    let rules = Rules::new(settings).unwrap();
    about(&asked).write(&rules, &mut dates::Dates::default(), &mut out);
    out
}

fn about(asked: &Asked) -> Line<'_> {
    Line {
        client: asked.client(),
        asked: Some(asked),
        fault: None,
        service: Some("web"),
        backend: Some(([10, 0, 0, 7], 80).into()),
        status: Some(StatusCode::OK),
        reason: Reason::Ok,
        end: "--",
        attempts: 2,
        reused: true,
        received: 1,
        sent: 2,
        times: Times {
            queue: None,
            connect: None,
            first_byte: Some(Duration::from_micros(1500)),
            total: Duration::from_millis(2),
        },
    }
}

const FORMATS: [LogFormat; 3] = [LogFormat::Common, LogFormat::Combined, LogFormat::Json];

proptest! {
    #[test]
    fn no_secret_is_ever_in_a_line(place in 0_usize..8, filler in "[a-z \"\\\\%]{0,20}") {
        let secret = "hunter2";
        let value = format!("{filler}{secret}{filler}");
        let (mut target, mut fields) = ("/a?b=c".to_owned(), Vec::new());
        let referer = match place {
            0 => { target = format!("/a?{secret}"); String::new() }
            1 => { target = format!("http://u:{secret}@web/a"); String::new() }
            2 => format!("http://web/a?{value}"),
            3 => format!("http://u:{secret}@web/"),
            _ => String::new(),
        };
        let name = ["authorization", "cookie", "x-key", "proxy-authorization"].get(place.wrapping_sub(4));
        fields.push(("referer", referer.as_bytes()));
        fields.extend(name.map(|name| (*name, value.as_bytes())));
        fields.push(("x-tenant", b"seen"));
        for format in FORMATS {
            let line = String::from_utf8(line(&rules(format), &target, &fields)).unwrap();
            prop_assert!(!line.contains(secret), "{}", line);
        }
    }

    #[test]
    fn whatever_a_client_sends_is_one_line_and_well_formed(
        agent in proptest::collection::vec(any::<u8>().prop_filter("legal", |&byte| HeaderValue::from_bytes(&[byte]).is_ok()), 0..40),
    ) {
        for format in FORMATS {
            let settings = LogSettings { format: Some(format), ..LogSettings::default() };
            let line = line(&settings, "/a", &[("user-agent", &agent)]);
            let text = String::from_utf8(line).unwrap();
            prop_assert_eq!(text.find('\n'), Some(text.len() - 1));
            match format {
                LogFormat::Json => {
                    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
                    let shown = object["user_agent"].as_str().unwrap();
                    let latin: String = agent.iter().copied().map(char::from).collect();
                    let meant = String::from_utf8(agent.clone()).unwrap_or(latin);
                    prop_assert_eq!(shown, meant);
                }
                _ => {
                    let bare = text.replace("\\\\", "").replace("\\\"", "");
                    let quotes = bare.matches('"').count();
                    prop_assert_eq!(quotes, if format == LogFormat::Common { 2 } else { 6 });
                }
            }
        }
    }
}

#[test]
fn filters_choose_lines_and_any_of_them_is_enough() {
    let wanted = |settings: LogSettings| {
        let settings = LogSettings {
            format: Some(LogFormat::Common),
            ..settings
        };
        let (parts, ()) = hyper::Request::new(()).into_parts();
        let log = Log::new();
        log.rule(&settings);
        let asked = Rc::new(Sink::new(&log)).asked(&parts, [192, 0, 2, 7].into());
        Rules::new(&settings).unwrap().want(&about(&asked.unwrap()))
    };
    let status = |range| LogSettings {
        status: vec![range],
        ..LogSettings::default()
    };
    let slower = |millis| LogSettings {
        slower_than: Some(Duration::from_millis(millis)),
        ..LogSettings::default()
    };
    assert!(wanted(LogSettings::default()));
    assert!(wanted(status(200..=299)));
    assert!(!wanted(status(400..=599)));
    assert!(wanted(slower(2)));
    assert!(!wanted(slower(3)));
    let either = LogSettings {
        retried: true,
        ..status(400..=599)
    };
    assert!(wanted(either));
}

#[test]
fn what_does_not_fit_is_dropped_and_counted_and_nobody_waits() {
    let log = Log::new();
    log.rule(&rules(LogFormat::Common));
    let sink = Sink::new(&log);
    let refuse = || {
        let client = [192, 0, 2, 7].into();
        sink.refused(client, Reason::BadRequest, "bare_lf", None, Duration::ZERO);
    };
    let mut lines: u64 = 0;
    while log.lost() == 0 {
        refuse();
        lines += 1;
        assert!(lines < 1_000_000, "there is no limit");
    }
    // Nobody takes anything away.
    refuse();
    assert_eq!(log.lost(), 2);
    assert!(lines > 1000, "{lines}");
}
