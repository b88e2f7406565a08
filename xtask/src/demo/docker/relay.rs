//! The front of the engine's host at a port of the machine, for its browser.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{super::Stop, stack::Stack};

/// Says what the user can do, and relays what he does, until he has enough.
pub(super) fn invite(stack: &Stack, stop: &Stop) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("cannot listen on 127.0.0.1")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    println!(
        "\nNow you, in your browser: http://www.hello.localhost:{port}/ and http://www.world.dev.localhost:{port}/,\n\
         http://proxy-admin.infra.localhost:{port}/#www_hello_backend and http://consul-admin.infra.localhost:{port}/ui/;\n\
         or in a shell: docker --host unix://{} ps\nCtrl-C takes everything down.",
        stack.docker().socket().display()
    );
    while !stop.is_asked() {
        match listener.accept() {
            Ok((client, _)) => {
                // The browser sees a closed connection where that fails.
                let _ = attend(stack, client);
            }
            Err(_) => thread::park_timeout(Duration::from_millis(20)),
        }
    }
    Ok(())
}

/// Carries both directions, each on a thread that ends with its connection.
fn attend(stack: &Stack, client: TcpStream) -> Result<()> {
    client.set_nonblocking(false)?;
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, 80));
    let front = stack.docker().netns().enter(connect)??;
    let (from, to) = (client.try_clone()?, front.try_clone()?);
    thread::spawn(move || carry(from, to));
    thread::spawn(move || carry(front, client));
    Ok(())
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    // Either side may leave at any time.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

const PORT: u16 = 8080;
