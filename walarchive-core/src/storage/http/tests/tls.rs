use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use http::Method;
use object_store::client::HttpRequestBody;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Connector, HttpOptions, Trouble, answer, answers, ask, failed, options, request, run, serve};
use crate::error::Kind;

/// A server with a certificate of its own for `name`; returns its address and the certificate.
fn secure(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let address = serve(move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        while request(&mut stream).is_some() {
            stream.write_all(answer("200 OK", "", "secret").as_bytes()).unwrap();
        }
    });
    (address, made.cert.pem())
}

fn trusting(folder: &Path, certificates: &str) -> HttpOptions {
    let file = folder.join("ca.pem");
    std::fs::write(&file, certificates).unwrap();
    HttpOptions { ca_file: Some(file), allow_http: false, ..options() }
}

fn refused(options: HttpOptions, address: &str) -> Trouble {
    let url = format!("https://{address}/bucket/key");
    failed(run(ask(options, Method::GET, &url, HttpRequestBody::empty())))
}

#[test]
fn a_stranger_is_refused_until_he_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (address, certificate) = secure("127.0.0.1");
    let (_, other) = secure("127.0.0.1");
    let trouble = refused(trusting(folder.path(), &other), &address);
    assert_eq!(trouble.kind, Kind::Usage, "{}", trouble.what);
    assert!(trouble.what.contains(&format!("(at https://{address})")), "{}", trouble.what);
    assert!(trouble.what.starts_with("TLS: ") && trouble.hint.unwrap().contains("store.ca_file"));
    let trusted = trusting(folder.path(), &format!("{other}{certificate}"));
    let url = format!("https://{address}/bucket/key");
    // Large enough for several records.
    let (_, body) = run(ask(trusted, Method::POST, &url, vec![1; 1 << 20])).unwrap();
    assert_eq!(body, "secret");
}

#[test]
fn a_certificate_for_another_name() {
    let folder = tempfile::tempdir().unwrap();
    let (address, certificate) = secure("elsewhere.example");
    let trouble = refused(trusting(folder.path(), &certificate), &address);
    assert_eq!(trouble.kind, Kind::Usage, "{}", trouble.what);
    assert!(trouble.hint.unwrap().contains("name"));
}

#[test]
fn no_tls_on_that_port() {
    let folder = tempfile::tempdir().unwrap();
    let (_, certificate) = secure("127.0.0.1");
    let address = serve(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").unwrap();
        std::thread::sleep(std::time::Duration::from_secs(2));
    });
    let trouble = refused(trusting(folder.path(), &certificate), &address);
    assert_eq!(trouble.kind, Kind::Usage, "{}", trouble.what);
    assert!(trouble.hint.unwrap().contains("speak TLS"));
}

#[test]
fn a_file_of_certificates_that_holds_none() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let error = Connector::new(trusting(folder.path(), text)).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{text}");
        assert!(error.story().contains("ca.pem"), "{}", error.story());
    }
    let missing = HttpOptions { ca_file: Some(folder.path().join("no.pem")), ..options() };
    assert_eq!(Connector::new(missing).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn no_redirect_is_followed() {
    let aim = answers(&answer("200 OK", "", "followed"));
    let address = answers(&answer("302 Found", &format!("location: http://{aim}/\r\n"), ""));
    let trouble = failed(run(super::get(options(), &address)));
    assert_eq!((trouble.kind, trouble.what.as_str()), (Kind::Usage, "302 Found"));
}
