//! Who waits for an answer that Consul holds back, and who must not wait behind others.

use super::*;

/// Takes connections as the kernel does, and never answers.
fn hung() -> (std::net::TcpListener, Address) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    (listener, address)
}

#[tokio::test]
async fn who_waits_at_a_server_that_fails_another_is_taken_along() {
    let ((_hung, first), second) = (hung(), Server::start(well).await);
    let client = client(&[&first, &second.address]);
    let held = client.read(&["held"], Some(7), Consistency::Stale);
    let limit = Duration::from_millis(100);
    let other = client.request(Method::GET, &["other"], &[], None, limit);
    let both = async { tokio::join!(held, other) };
    let (held, other) = tokio::time::timeout(Duration::from_secs(5), both)
        .await
        .unwrap();
    assert!(held.is_ok() && other.is_ok());
    let mut asked = second.asked();
    asked.sort();
    assert_eq!(asked, ["GET /v1/held?stale=", "GET /v1/other"]);
}

#[tokio::test]
async fn who_waits_goes_on_waiting_while_all_refuse_another() {
    fn nobody_leads() -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, "No cluster leader").into_response()
    }
    let first = Server::start_with(nobody_leads, true).await;
    let second = Server::start(nobody_leads).await;
    let client = client(&[&first.address, &second.address]);
    let held = client.read(&["held"], Some(7), Consistency::Stale);
    let refused = async {
        while first.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        let answer = client.read(&["led"], None, Consistency::Leader).await;
        assert_eq!(answer.unwrap().status, StatusCode::INTERNAL_SERVER_ERROR);
    };
    tokio::select! {
        biased;
        _ = held => panic!("it does not wait any more"),
        () = refused => {}
    }
    assert_eq!(client.asked(), 0);
    assert_eq!(second.asked(), ["GET /v1/led?leader="]);
}

#[tokio::test]
async fn an_error_at_the_end_of_a_wait_is_repeated_where_it_was_said() {
    fn once_busy() -> Response {
        static SAID: std::sync::Once = std::sync::Once::new();
        let mut answer = well();
        SAID.call_once(|| answer = busy());
        answer
    }
    let (first, second) = (Server::start(once_busy).await, Server::start(well).await);
    let mut config = Config::new(first.address.clone());
    config.addresses.push(second.address.clone());
    config.wait = Duration::ZERO;
    let client = Client::new(config).unwrap();
    let answer = client.read(&["catalog"], Some(7), Consistency::Stale).await;
    assert_eq!(answer.unwrap().status, StatusCode::OK);
    assert_eq!((first.asked().len(), second.asked().len()), (2, 0));
}

#[tokio::test]
async fn a_list_is_not_asked_for_behind_thousands_of_services() {
    let server = Server::start(well).await;
    let client = client(&[&server.address]);
    let thousands = (0..PACE_BURST + 1000).map(|_| client.pace.pass());
    let thousands = futures_util::future::join_all(thousands);
    let limit = Duration::from_secs(5);
    let few = async {
        let service = ["health", "service", "a"];
        let watch = client.read(&service, None, Consistency::Stale);
        assert!(tokio::time::timeout(limit / 10, watch).await.is_err());
        for path in [&["catalog", "services"][..], &["agent", "self"]] {
            let asked = tokio::time::timeout(limit, get(&client, path)).await;
            assert_eq!(asked.unwrap().unwrap(), StatusCode::OK);
        }
    };
    tokio::select! {
        // They stand in line first.
        biased;
        _ = thousands => panic!("they have passed"),
        () = few => {}
    }
}
