use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use http::Method;
use object_store::ClientOptions;
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody};

use super::{Connector, HttpOptions, answer, answers, ask, failed, get, options, request, run, serve};
use crate::error::Kind;

#[test]
fn a_short_body_is_an_error() {
    let endings = [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ];
    for ending in endings {
        let address = serve(move |mut stream| {
            request(&mut stream);
            stream.write_all(ending.as_bytes()).unwrap();
        });
        assert_eq!(failed(run(get(options(), &address))).kind, Kind::Unreachable);
    }
}

#[test]
fn a_connection_that_closes_without_an_answer() {
    let address = serve(|mut stream| drop(request(&mut stream)));
    assert_eq!(failed(run(get(options(), &address))).kind, Kind::Unreachable);
}

#[test]
fn nobody_listens() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let trouble = failed(run(get(options(), &port.to_string())));
    assert_eq!(trouble.kind, Kind::Unreachable);
    assert!(trouble.what.contains("Connection refused"), "{}", trouble.what);
    assert!(trouble.what.ends_with(&format!("(at http://{port})")), "{}", trouble.what);
}

#[test]
fn a_name_that_does_not_exist() {
    let trouble = failed(run(get(options(), "store.invalid:80")));
    assert_eq!(trouble.kind, Kind::Unreachable, "{}", trouble.what);
    assert!(trouble.what.ends_with("(at http://store.invalid:80)"), "{}", trouble.what);
}

#[test]
fn a_place_is_named_without_secrets() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://me:geheim@{port}/bucket/geheim?signature=geheim");
        let trouble = failed(run(ask(options(), Method::GET, &url, HttpRequestBody::empty())));
        assert!(trouble.what.ends_with(&format!("(at {scheme}://{port})")), "{}", trouble.what);
        assert!(!trouble.what.contains("geheim"), "{}", trouble.what);
    }
}

#[test]
fn plain_http_only_when_asked() {
    let address = answers(&answer("200 OK", "", "yes"));
    let strict = HttpOptions { allow_http: false, ..options() };
    let trouble = failed(run(get(strict.clone(), &address)));
    assert_eq!(trouble.kind, Kind::Usage);
    assert!(trouble.hint.unwrap().contains("store.allow_http"));
    // object_store allows it for metadata services.
    let client =
        Connector::new(strict).unwrap().connect(&ClientOptions::new().with_allow_http(true)).unwrap();
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.uri_mut() = format!("http://{address}/").parse().unwrap();
    assert_eq!(run(client.execute(request)).unwrap().status(), 200);
}

#[test]
fn a_proxy_is_asked_and_its_password_kept() {
    let (seen, sees) = mpsc::channel();
    let address = serve(move |mut stream| {
        while let Some((head, _)) = request(&mut stream) {
            seen.send(head).unwrap();
            stream.write_all(answer("200 OK", "", "by proxy").as_bytes()).unwrap();
        }
    });
    let through = HttpOptions { proxy: Some(format!("http://me:geheim@{address}")), ..options() };
    let (_, body) = run(get(through, "store.invalid")).unwrap();
    assert_eq!(body, "by proxy");
    let head = sees.recv().unwrap();
    assert!(
        head.starts_with("get http://store.invalid/bucket/key")
            && head.contains("proxy-authorization: basic"),
        "{head}"
    );
}

#[test]
fn errors_never_show_the_password_of_a_proxy() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let through = HttpOptions { proxy: Some(format!("http://me:geheim@{port}")), ..options() };
    for url in ["http://store.invalid/", "https://store.invalid/"] {
        let error = run(ask(through.clone(), Method::GET, url, HttpRequestBody::empty())).unwrap_err();
        let what = super::trouble(&error).unwrap().what;
        let named = std::env::var_os("NO_PROXY").or(std::env::var_os("no_proxy")).is_some()
            || what.contains(&format!("through the proxy http://{port})"));
        assert!(named && what.contains("(at http") && what.contains("://store.invalid:"), "{what}");
        assert!(!format!("{error} {error:?} {:?}", super::trouble(&error)).contains("geheim"));
    }
    let connector = Connector::new(through.clone()).unwrap();
    assert!(!format!("{connector:?} {:?}", connector.client()).contains("geheim"));
    let broken = HttpOptions { proxy: Some("http://me:geheim@[".to_owned()), ..options() };
    let error = Connector::new(broken).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(!error.story().contains("geheim"));
}

#[test]
fn a_proxy_that_wants_a_password() {
    let address = answers(&answer("407 Proxy Authentication Required", "", ""));
    let through = HttpOptions { proxy: Some(format!("http://{address}")), ..options() };
    for url in ["http://store.invalid/", "https://store.invalid/"] {
        let trouble = failed(run(ask(through.clone(), Method::GET, url, HttpRequestBody::empty())));
        assert_eq!(trouble.kind, Kind::Denied, "{}", trouble.what);
        assert!(trouble.hint.unwrap().contains("store.proxy"));
    }
}

#[test]
fn connections_are_used_again_but_not_after_a_failure() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let address = serve(move |mut stream| {
        let turn = count.fetch_add(1, Ordering::SeqCst);
        request(&mut stream);
        stream.write_all(answer("200 OK", "", "1").as_bytes()).unwrap();
        request(&mut stream);
        if turn == 0 {
            // The second answer on the first connection stalls.
            std::thread::sleep(Duration::from_secs(30));
        }
    });
    run(async {
        let limits = HttpOptions { first_byte_timeout: Duration::from_secs(1), ..options() };
        let client = Connector::new(limits).unwrap().client();
        let ask = async || {
            let mut request = HttpRequest::new(vec![1; 10].into());
            *request.method_mut() = Method::POST;
            *request.uri_mut() = format!("http://{address}/").parse().unwrap();
            client.execute(request).await?.into_body().bytes().await
        };
        ask().await.unwrap();
        ask().await.unwrap_err();
        assert_eq!(connections.load(Ordering::SeqCst), 1);
        assert_eq!(ask().await.unwrap(), "1");
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    });
}
