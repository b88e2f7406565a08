//! Sessions: the token once, then a cookie.

use crate::agent::{Agent, status};

const PATH: &str = "/api/v1/session";
const RULES: &str = "Content-Type: application/json\r\nX-LB-Action: 1\r\n";

async fn open(agent: &Agent, host: &str, headers: &str, token: &str) -> String {
    let body = format!("{{\"token\":\"{token}\"}}");
    let line = format!("POST {PATH} HTTP/1.1");
    agent
        .send(&line, host, &format!("{RULES}{headers}"), &body)
        .await
}

/// The field that a browser sends after this answer, and what the answer says of the cookie.
#[track_caller]
fn cookie(answer: &str) -> (String, &str) {
    let line = answer
        .lines()
        .find_map(|it| it.strip_prefix("set-cookie: "));
    let (pair, rest) = line.unwrap().split_once("; ").unwrap();
    (format!("Cookie: {pair}\r\n"), rest)
}

/// The same with the key that the page has, which changes need.
#[track_caller]
fn with_key(answer: &str, cookie: &str) -> String {
    let told: serde_json::Value =
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    format!(
        "{cookie}X-LB-Session: {}\r\n",
        told["key"].as_str().unwrap()
    )
}

async fn told(agent: &Agent, host: &str, headers: &str) -> serde_json::Value {
    let line = format!("GET {PATH} HTTP/1.1");
    let answer = agent.send(&line, host, headers, "").await;
    status(&answer, 200);
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn a_session_counts_like_the_token_until_it_is_ended() {
    let mut agent = Agent::start().await;
    let host = agent.host();
    let nobody = told(&agent, &host, "").await;
    assert_eq!(nobody["may_read"], true);
    assert_eq!(nobody["may_change"], false);
    assert!(nobody["who"].is_null());

    let answer = open(&agent, &host, "", &agent.token).await;
    status(&answer, 200);
    assert!(!answer.contains(&agent.token), "{answer}");
    let (cookie, rest) = cookie(&answer);
    assert_eq!(rest, "HttpOnly; SameSite=Strict; Path=/; Max-Age=43200");
    // What listens on another port of this host is shown the cookie, too: for reading that is enough.
    let reader = told(&agent, &host, &cookie).await;
    assert_eq!(
        (&reader["may_change"], &reader["who"]),
        (&false.into(), &"session 1".into())
    );
    status(&agent.post_order(&format!("{RULES}{cookie}")).await, 401);
    let cookie = with_key(&answer, &cookie);
    let somebody = told(&agent, &host, &cookie).await;
    assert_eq!(somebody["may_change"], true);
    assert_eq!(somebody["who"], "session 1");
    assert!(somebody["key"].is_null());

    // A cookie goes along by itself: so it is never enough.
    status(&agent.post_order(&cookie).await, 415);
    let json = "Content-Type: application/json\r\n";
    status(&agent.post_order(&format!("{json}{cookie}")).await, 403);
    for foreign in ["Origin: http://evil.example", "Sec-Fetch-Site: same-site"] {
        let headers = format!("{RULES}{cookie}{foreign}\r\n");
        status(&agent.post_order(&headers).await, 403);
    }
    assert!(agent.orders.try_recv().is_err());
    let mut orders = std::mem::replace(&mut agent.orders, tokio::sync::mpsc::channel(1).1);
    let stage = async {
        let request = orders.recv().await.unwrap();
        request
            .reply
            .send(Err("no such service; there is b".to_owned()))
            .unwrap();
    };
    let headers = format!("{RULES}{cookie}");
    let (answer, ()) = tokio::join!(agent.post_order(&headers), stage);
    status(&answer, 422);

    let line = format!("DELETE {PATH} HTTP/1.1");
    let ended = agent.send(&line, &host, &headers, "").await;
    status(&ended, 200);
    assert!(ended.contains("lb_session=; "), "{ended}");
    assert!(told(&agent, &host, &cookie).await["who"].is_null());
    status(&agent.post_order(&headers).await, 401);
    agent.end().await;
}

#[tokio::test]
async fn whoever_signs_in_again_ends_the_session_before_and_its_cookie_is_enough_to_end_one() {
    let agent = Agent::start().await;
    let host = agent.host();
    let first = open(&agent, &host, "", &agent.token).await;
    let (before, _) = cookie(&first);
    let second = open(&agent, &host, &before, &agent.token).await;
    let (after, _) = cookie(&second);
    assert!(told(&agent, &host, &before).await["who"].is_null());
    assert_eq!(told(&agent, &host, &after).await["who"], "session 2");
    // Who shows a wrong token ends nothing, and neither does a foreign page.
    let wrong = open(&agent, &host, &after, "0123456789abcdef").await;
    status(&wrong, 401);
    let line = format!("DELETE {PATH} HTTP/1.1");
    for foreign in ["Origin: http://evil.example", "Sec-Fetch-Site: same-site"] {
        let headers = format!("{RULES}{after}{foreign}\r\n");
        status(&agent.send(&line, &host, &headers, "").await, 403);
    }
    assert_eq!(told(&agent, &host, &after).await["who"], "session 2");
    // Another tab of the browser has no key.
    let headers = format!("{RULES}{after}Origin: http://{host}\r\n");
    status(&agent.send(&line, &host, &headers, "").await, 200);
    assert!(told(&agent, &host, &after).await["who"].is_null());
    agent.end().await;
}

#[tokio::test]
async fn a_wrong_token_makes_no_session_and_no_window_of_the_browser() {
    let agent = Agent::start().await;
    let host = agent.host();
    let answer = open(&agent, &host, "", "0123456789abcdef").await;
    status(&answer, 401);
    let lower = answer.to_ascii_lowercase();
    assert!(!lower.contains("www-authenticate"), "{answer}");
    assert!(!lower.contains("set-cookie"), "{answer}");
    assert!(
        answer.contains("use the one in the agent's token file"),
        "{answer}"
    );
    let metrics = agent.get("/metrics").await;
    assert!(metrics.contains("lb_admin_refusals_total 1"), "{metrics}");

    let read = async |headers| {
        let answer = agent
            .send("GET / HTTP/1.1", "lb.example", headers, "")
            .await;
        status(&answer, 401);
        answer
            .to_ascii_lowercase()
            .contains("www-authenticate: basic")
    };
    assert!(read("").await);
    assert!(read("Sec-Fetch-Mode: navigate\r\n").await);
    assert!(!read("Sec-Fetch-Mode: cors\r\n").await);
    assert!(!read("X-LB-Action: 1\r\n").await);
    agent.end().await;
}

#[tokio::test]
async fn a_published_page_is_read_with_a_session_and_its_cookie_stays_on_tls() {
    let agent = Agent::start().await;
    let (host, tls) = (
        "lb.example",
        "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n",
    );
    assert_eq!(told(&agent, host, tls).await["may_read"], false);
    let foreign = format!("{tls}Origin: http://lb.example\r\n");
    status(&open(&agent, host, &foreign, &agent.token).await, 403);
    let headers = format!("{tls}Origin: https://lb.example\r\n");
    let answer = open(&agent, host, &headers, &agent.token).await;
    status(&answer, 200);
    let (cookie, rest) = cookie(&answer);
    assert!(rest.ends_with("; Secure"), "{rest}");
    let cookie = with_key(&answer, &cookie);
    let somebody = told(&agent, host, &format!("{tls}{cookie}")).await;
    assert_eq!(somebody["may_read"], true);
    assert_eq!(somebody["may_change"], false);
    let read = agent.send("GET / HTTP/1.1", host, &cookie, "").await;
    status(&read, 200);
    let headers = format!("{RULES}{cookie}");
    let line = "POST /api/v1/instances/state HTTP/1.1";
    status(&agent.send(line, host, &headers, "{}").await, 403);
    agent.end().await;
}
