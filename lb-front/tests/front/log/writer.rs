//! The lines on their way into a file, which nobody may read and for which there may be no room.

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::{AsFd as _, OwnedFd},
};

use lb_front::{
    Limits, Settings,
    log::{LogFormat, LogSettings},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Logged;
use crate::kit::{Backend, GET, Reply, eventually, ok, routes};

#[test]
fn a_writer_that_is_stuck_delays_no_request() {
    let backend = Backend::named("hello");
    let logged = Logged::of(LogFormat::Combined, &[backend.address]);
    // A full pipe that nobody reads.
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'x'; 64 * 1024]).unwrap();
    logged
        .front
        .front
        .log()
        .write_to(File::from(OwnedFd::from(writer)));
    let agent = "a".repeat(8000);
    let request = format!("GET / HTTP/1.1\r\nHost: web\r\nUser-Agent: {agent}\r\n\r\n");
    let mut client = logged.front.client();
    // Far more than the buffers hold.
    for _ in 0..600 {
        assert_eq!(client.send(&request).answer().status, 200);
    }
    assert!(logged.front.front.log().lost() > 0);
    drop(reader);
}

#[test]
fn a_writer_that_waits_for_a_pipe_hears_of_another_file() {
    let backend = Backend::named("hello");
    for nonblocking in [false, true] {
        let logged = Logged::of(LogFormat::Combined, &[backend.address]);
        let log = logged.front.front.log();
        // A pipe that nobody reads, with room for a part of a line.
        let (_reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&[b'x'; 60 * 1024]).unwrap();
        let pipe = File::from(OwnedFd::from(writer.try_clone().unwrap()));
        if nonblocking {
            socket2::SockRef::from(&pipe).set_nonblocking(true).unwrap();
        }
        log.write_to(pipe);
        let agent = "a".repeat(8000);
        let mut client = logged.front.client();
        let request =
            |path: &str| format!("GET {path} HTTP/1.1\r\nHost: web\r\nUser-Agent: {agent}\r\n\r\n");
        for path in ["/torn", "/whole"] {
            assert_eq!(client.send(request(path)).answer().status, 200);
        }
        eventually("it is full", || {
            let mut room = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
            (poll(&mut room, PollTimeout::ZERO).unwrap() == 0).then_some(())
        });
        log.write_to(File::create(&logged.path).unwrap());
        let lines = logged.lines(1);
        assert!(lines[0].contains("/whole") && lines.len() == 1, "{lines:?}");
        assert_eq!(log.lost(), 1);
    }
}

#[test]
fn a_full_disk_loses_lines_and_no_request() {
    let backend = Backend::named("a");
    let logged = Logged::of(LogFormat::Common, &[backend.address]);
    let log = logged.front.front.log();
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    log.write_to(full.unwrap());
    for _ in 0..3 {
        assert_eq!(logged.front.ask(GET).status, 200);
    }
    eventually("they are counted", || (log.lost() == 3).then_some(()));
    assert_eq!(logged.front.stats().log_lost, 3);
    log.write_to(File::create(&logged.path).unwrap());
    assert_eq!(logged.front.ask(GET).status, 200);
    assert_eq!(logged.lines(1).len(), 1);
    assert_eq!(log.lost(), 3);
}

#[test]
fn without_a_log_there_is_no_line_and_it_can_be_switched_on_later() {
    let backend = Backend::start(|_| Reply::Keep(ok("hello")));
    let logged = Logged::start(
        LogSettings::default(),
        Limits::default(),
        &[backend.address],
    );
    assert_eq!(
        logged
            .front
            .ask("GET /before HTTP/1.1\r\nHost: web\r\n\r\n")
            .status,
        200
    );
    let settings = Settings {
        log: LogSettings {
            format: Some(LogFormat::Common),
            ..LogSettings::default()
        },
        ..Settings::default()
    };
    logged
        .front
        .front
        .publish(&routes(&[backend.address]), &settings);
    assert_eq!(
        logged
            .front
            .ask("GET /after HTTP/1.1\r\nHost: web\r\n\r\n")
            .status,
        200
    );
    let lines = logged.lines(1);
    assert!(lines.len() == 1 && lines[0].contains("/after"), "{lines:?}");
}
