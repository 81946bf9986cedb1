//! The stores that the harness starts: they are what they claim to be, and can be stopped, frozen and started.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use futures::executor::block_on;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use walarchive_tests::stores::{self, Bucket, Kind};
use walarchive_tests::{Port, Scratch};

const ALL: [Kind; 4] = [Kind::Seaweed, Kind::Moto, Kind::Azurite, Kind::Gcs];

fn create(store: &dyn ObjectStore, key: &str, content: &'static str) -> object_store::Result<()> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    block_on(store.put_opts(&Path::from(key), PutPayload::from_static(content.as_bytes()), options)).map(drop)
}

fn each(test: impl Fn(Bucket)) {
    for kind in ALL {
        let scratch = Scratch::new();
        let Some(bucket) = stores::shared(&scratch, kind) else { continue };
        eprintln!("{kind:?} at {}", bucket.endpoint());
        test(bucket);
    }
}

#[test]
fn what_is_put_is_there_and_buckets_are_apart() {
    each(|bucket| {
        let raw = bucket.raw();
        assert_eq!(raw.list(), []);
        raw.put("a/b", "content");
        raw.put("a", "");
        assert_eq!(raw.list(), [("a".to_owned(), 0), ("a/b".to_owned(), 7)]);
        assert_eq!(raw.get("a/b").as_deref(), Some(&b"content"[..]));
        assert_eq!(raw.get("b"), None);
        assert_eq!(bucket.with_prefix("other").raw().list(), []);
        let error = create(&*raw.object_store(), "a/b", "other").unwrap_err();
        assert!(matches!(error, object_store::Error::AlreadyExists { .. }), "{error:?}");
        raw.delete("a/b");
        raw.delete("a");
        assert_eq!(raw.list(), []);
        create(&*raw.object_store(), "a/b", "other").unwrap();
        assert!(create(&*bucket.missing().raw().object_store(), "a", "").is_err());
    });
}

#[test]
fn unfinished_uploads_are_seen() {
    each(|bucket| {
        let raw = bucket.raw();
        assert_eq!(raw.unfinished(), []);
        let store = raw.object_store();
        let part = |content: &'static str| PutPayload::from_static(content.as_bytes());
        let mut upload = block_on(store.put_multipart(&Path::from("u/one"))).unwrap();
        block_on(upload.put_part(part("x"))).unwrap();
        let keys: Vec<String> = raw.unfinished().into_iter().map(|upload| upload.key).collect();
        assert_eq!(keys, ["u/one"]);
        assert_eq!(raw.list(), []);
        assert_eq!(bucket.with_prefix("other").raw().unfinished(), []);
        block_on(upload.complete()).unwrap();
        assert_eq!(raw.unfinished(), []);
        assert_eq!(raw.get("u/one").as_deref(), Some(&b"x"[..]));
    });
}

/// Passes connections on, byte by byte, as a proxy does.
fn forward(to: String) -> Port {
    let port = Port::free();
    let listener = port.listen();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&to).unwrap());
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    port
}

#[test]
fn the_same_bucket_is_there_behind_another_address() {
    each(|bucket| {
        let proxy = forward(bucket.endpoint().to_owned());
        let behind = bucket.with_endpoint(&proxy.addr().to_string());
        assert!(behind.env().iter().any(|(_, value)| value.contains(&proxy.addr().to_string())));
        create(&*behind.store(), "a", "through the proxy").unwrap();
        assert_eq!(bucket.raw().get("a").as_deref(), Some(&b"through the proxy"[..]));
    });
}

#[test]
fn stopped_and_started_again_a_server_has_what_it_had() {
    for kind in ALL {
        let scratch = Scratch::new();
        let Some(bucket) = stores::alone(&scratch, kind) else { continue };
        let store = bucket.raw().object_store();
        create(&*store, "a", "acknowledged").unwrap();
        bucket.server().stop();
        assert!(create(&*store, "b", "").is_err(), "{kind:?} is gone");
        assert!(TcpStream::connect(bucket.endpoint()).is_err());
        bucket.server().start();
        if kind != Kind::Moto {
            assert_eq!(bucket.raw().get("a").as_deref(), Some(&b"acknowledged"[..]), "{kind:?}");
            create(&*store, "b", "goes on").unwrap();
        }
    }
}

#[test]
fn frozen_servers_are_silent_and_go_on() {
    for kind in ALL {
        let scratch = Scratch::new();
        let Some(bucket) = stores::alone(&scratch, kind) else { continue };
        bucket.server().freeze();
        let mut client = TcpStream::connect(bucket.endpoint()).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        assert!(client.read(&mut [0]).is_err(), "{kind:?} says nothing");
        bucket.server().thaw();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 1, "{kind:?} answers");
        create(&*bucket.raw().object_store(), "a", "").unwrap();
    }
}

#[test]
fn nothing_is_left_of_a_server() {
    for kind in ALL {
        let scratch = Scratch::new();
        let Some(bucket) = stores::alone(&scratch, kind) else { continue };
        let addr = bucket.endpoint().to_owned();
        drop(bucket);
        assert!(TcpStream::connect(addr).is_err(), "{kind:?} is gone");
    }
}

/// What the look-alike has to get right for the others' tests to mean something.
#[test]
fn the_google_look_alike_is_strict() {
    let scratch = Scratch::new();
    let bucket = stores::gcs(&scratch).unwrap();
    let raw = bucket.raw();
    let store = raw.object_store();
    for n in 0..1001 {
        raw.put(&format!("many/{:02}/{n}", n % 30), "");
    }
    assert_eq!(raw.list().len(), 1001, "more than one page");
    let found = block_on(store.list_with_delimiter(Some(&Path::from("many")))).unwrap();
    assert_eq!(found.common_prefixes.len(), 30);
    let mut upload = block_on(store.put_multipart(&Path::from("small"))).unwrap();
    for _ in 0..2 {
        block_on(upload.put_part(PutPayload::from_static(b"too small a part"))).unwrap();
    }
    assert!(format!("{:?}", block_on(upload.complete()).unwrap_err()).contains("EntityTooSmall"));
    block_on(upload.abort()).unwrap();
    assert_eq!(raw.unfinished(), []);
    // Versions: an update needs the generation that is there.
    let put = |mode| {
        let options = PutOptions { mode, ..PutOptions::default() };
        block_on(store.put_opts(&Path::from("v"), PutPayload::from_static(b"v"), options))
    };
    let first = put(PutMode::Create).unwrap();
    let second = put(PutMode::Update(first.clone().into())).unwrap();
    assert_ne!(first.version, second.version);
    assert!(put(PutMode::Update(first.into())).is_err());
    assert!(put(PutMode::Create).is_err());
}

#[test]
fn of_racing_creates_one_wins_on_every_server() {
    each(|bucket| {
        let store: Arc<dyn ObjectStore> = bucket.raw().object_store();
        for round in 0..3 {
            let racers = (0..16).map(|_| {
                let store = Arc::clone(&store);
                thread::spawn(move || create(&*store, &format!("race/{round}"), "x").is_ok())
            });
            let racers: Vec<_> = racers.collect();
            let wins = racers.into_iter().map(|racer| racer.join().unwrap());
            assert_eq!(wins.filter(|won| *won).count(), 1, "{round}");
        }
        let listed: Vec<_> = block_on(store.list(None).collect());
        assert_eq!(listed.len(), 3);
    });
}
