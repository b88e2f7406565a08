//! Applications beside each other, and their calls to each other.

use anyhow::{Result, bail, ensure};

use super::{WORLD, compose, id, usable};
use crate::demo::{docker::stack::Stack, transcript::Evidence};

pub(super) fn second_application(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    compose(stack, evidence, "-f hello2.yml up -d")?;
    stack.until(|| usable(stack, WORLD, 1))?;
    for host in ["www.world.dev.localhost", "hello.home.localhost"] {
        let page = stack.front(host, "/")?;
        ensure!(
            page.body.contains("<h1>Hello developers!</h1>"),
            "{host} shows {:?}",
            page.body
        );
    }
    let page = stack.front("proxy-admin.infra.localhost", "/")?.body;
    for anchor in ["world.dev_www_backend", "www_world_dev_backend"] {
        ensure!(
            page.contains(&format!("id=\"{anchor}\"")),
            "the page has no #{anchor}"
        );
    }
    evidence
        .say("http://www.world.dev.localhost/ and http://hello.home.localhost/ greet developers");
    let answer = compose(
        stack,
        evidence,
        "-f hello2.yml exec -T web2 ask http://www.hello/",
    )?;
    ensure!(
        answer.contains("<h1>Hello world!</h1>"),
        "it is answered {answer:?}"
    );
    evidence.say("answered by www_hello: another project, on a network of its own, by the ports that it publishes");
    // A name of the front means the host; there it listens on loopback alone.
    let front = stack.compose("-f hello2.yml exec -T web2 ask http://www.hello.localhost/");
    let refused = match front {
        Ok(answer) => bail!("a container is answered {answer:?} by a front on loopback"),
        Err(error) => error.to_string(),
    };
    ensure!(refused.contains("refused"), "{refused}");
    Ok(())
}

pub(super) fn internal_calls(stack: &mut Stack, evidence: &mut Evidence) -> Result<()> {
    compose(stack, evidence, "-f internal-b.yml up -d")?;
    compose(stack, evidence, "-f internal.yml up -d")?;
    for service in [
        "b",
        "b_line",
        "b_published",
        "b_published_line",
        "b_hidden",
        "b_hidden_line",
    ] {
        stack.until(|| usable(stack, service, 1))?;
    }
    for (url, instance) in [
        ("http://b/id", "b-near-1"),
        ("tcp://b.line:7000", "b-near-1"),
        ("http://b.published/id", "b-published-1"),
        ("tcp://b.published.line:7000", "b-published-1"),
    ] {
        let expected = id(stack, instance)?;
        let words = format!("-f internal.yml exec -T a ask {url}");
        // The agent may not know the new networks of A yet.
        let answer = stack.until(|| stack.compose(&words))?;
        ensure!(
            answer == expected,
            "{url} is answered {answer:?}, not by {instance}"
        );
        evidence.say(format!("a: ask {url:30} → {instance}"));
    }
    let own = [
        "inspect",
        "--format",
        "{{.NetworkSettings.Networks.calls.IPAddress}}",
        "a-a-1",
    ];
    let own = stack.docker().docker(own)?;
    let seen = stack.compose("-f internal.yml exec -T a ask http://b/from")?;
    ensure!(seen == own, "{own} is seen as {seen:?}");
    let away = stack.compose("-f internal.yml exec -T a ask http://b.published/from")?;
    evidence.say(format!(
        "b sees a's own address, {own}; at a published port Docker shows it {away}"
    ));
    for url in ["http://b.hidden/id", "tcp://b.hidden.line:7000"] {
        let refused = match stack.compose(&format!("-f internal.yml exec -T a ask {url}")) {
            Ok(answer) => bail!("{url} is answered {answer:?}, though no way leads there"),
            Err(error) => error.to_string(),
        };
        ensure!(refused.contains("refused"), "{url}: {refused}");
        evidence.say(format!("a: ask {url:30} → connection refused"));
    }
    let explained = compose(
        stack,
        evidence,
        "-f consul.yml exec -T agent lb-agent explain a-a-1 b_hidden",
    )?;
    ensure!(explained.contains("no-path"), "it says {explained}");
    let verdict = explained.lines().find(|line| line.contains("no-path"));
    evidence.say(
        verdict
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join("  "),
    );
    Ok(())
}
