//! `drain` and `maintenance`.

use super::*;

#[test]
fn a_drain_that_is_not_in_force_yet_says_where_and_is_not_fine() {
    let mut answer = StateAnswer {
        service: "www_hello".to_owned(),
        matched: vec![sample::key("file", "a")],
        mode: Mode::Drain,
        cut_unix: None,
        not_yet_in: Vec::new(),
    };
    let (text, exit) = ordered(&answer, None, Output::Table).unwrap();
    assert_eq!(exit, Exit::Fine);
    let line =
        "www_hello  file/a  draining   no new flows; established flows are cut after lb_drain\n";
    assert_eq!(text, line);
    answer.not_yet_in = vec!["the maps".to_owned(), "the front".to_owned()];
    let (text, exit) = ordered(&answer, None, Output::Table).unwrap();
    assert_eq!(exit, Exit::Degraded);
    let lines = "www_hello  file/a  to be drained\n\
                 ordered, but not yet in force in the maps and the front: see `lb-agent status`\n";
    assert_eq!(text, lines);
}

#[test]
fn an_order_says_what_becomes_of_flows_and_when() {
    let answer = |mode, cut_unix| StateAnswer {
        service: "www_hello".to_owned(),
        matched: vec![sample::key("file", "a")],
        mode,
        cut_unix,
        not_yet_in: Vec::new(),
    };
    let text = |mode, deadline: Option<u64>| {
        let cut = deadline.map(|it| 1_700_000_000 + it);
        let deadline = deadline.map(Duration::from_secs);
        ordered(&answer(mode, cut), deadline, Output::Table)
            .unwrap()
            .0
    };
    let flows = "no new flows; established flows are cut";
    for (mode, deadline, expect) in [
        (
            Mode::Drain,
            Some(90),
            format!("draining   {flows} after 1 min 30 s"),
        ),
        (
            Mode::Maintenance,
            None,
            format!("maintenance   {flows} now"),
        ),
        (
            Mode::Maintenance,
            Some(5),
            format!("maintenance   {flows} after 5 s"),
        ),
        (Mode::Ready, None, "in service again".to_owned()),
    ] {
        assert_eq!(
            text(mode, deadline),
            format!("www_hello  file/a  {expect}\n")
        );
    }
    let (csv, _) = ordered(&answer(Mode::Maintenance, Some(7)), None, Output::Csv).unwrap();
    let expect = "SERVICE,BACKEND,MODE,CUT,NOT YET IN\r\nwww_hello,file/a,maintenance,7,\r\n";
    assert_eq!(csv, expect);
}

#[test]
fn a_deadline_is_whole_seconds_of_one_day_at_most_and_only_for_what_is_taken_out() {
    let read = |more: &[&str]| {
        let words = [&["lb-agent", "drain", "www"], more].concat();
        match Cli::try_parse_from(words).map(|it| it.command) {
            Ok(Command::Ask(Ask::Drain(outage))) => Ok(outage.deadline),
            Ok(_) => panic!("no drain"),
            Err(error) => Err(error.to_string()),
        }
    };
    for (text, seconds) in [("30s", 30), ("5m", 300), ("0", 0), ("24h", 86_400)] {
        let deadline = read(&["--deadline", text]).unwrap();
        assert_eq!(deadline, Some(Duration::from_secs(seconds)));
    }
    for text in ["100ms", "25h", "soon", "-1"] {
        let error = read(&[&format!("--deadline={text}")]).unwrap_err();
        assert!(error.contains("whole seconds such as `30s`"), "{error}");
    }
    assert!(read(&["--undo", "--deadline", "5s"]).is_err());
    assert_eq!(read(&["--undo"]), Ok(None));
}
