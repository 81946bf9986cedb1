//! What stores say in the bodies of their refusals: XML of S3, Google and Azure, JSON of Google and of OAuth.

use serde_json::Value;

use super::super::readable::readable;

/// Longest text that is kept of an answer.
const LONGEST: usize = 200;

/// What a body says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub code: Option<String>,
    pub message: Option<String>,
    /// The region where the bucket is.
    pub region: Option<String>,
}

/// Reads a body of any kind; what is not understood says nothing.
pub(super) fn said(body: &[u8]) -> Said {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    if text.starts_with('<') {
        xml(text)
    } else if text.starts_with('{') {
        json(text)
    } else {
        Said::default()
    }
}

/// Whether the root of an XML document is `Error`.
pub(super) fn is_error(body: &[u8]) -> bool {
    root(body).as_deref() == Some("Error")
}

/// The name of an XML document's root, without its namespace.
pub(super) fn root(body: &[u8]) -> Option<String> {
    const BLANKS: [char; 5] = ['\u{feff}', ' ', '\t', '\r', '\n'];
    // All that may stand before a root is short.
    let text = String::from_utf8_lossy(&body[..body.len().min(64 << 10)]);
    let mut rest = text.trim_start_matches(BLANKS);
    while rest.starts_with("<?") || rest.starts_with("<!") {
        let end = if rest.starts_with("<!--") { "-->" } else { ">" };
        rest = rest.split_once(end)?.1.trim_start_matches(BLANKS);
    }
    let end = |c: char| c.is_whitespace() || matches!(c, '>' | '/');
    let name = rest.strip_prefix('<')?;
    let name = &name[..name.find(end)?];
    let name = name.split_once(':').map_or(name, |(_, name)| name);
    (!name.is_empty()).then(|| name.to_owned())
}

fn xml(text: &str) -> Said {
    // Pages of proxies are no answers of stores.
    if text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("<html")) {
        return Said::default();
    }
    Said {
        code: element(text, "Code").and_then(word),
        message: element(text, "Message").and_then(line),
        region: element(text, "Region").and_then(word),
    }
}

/// The text of the first element of that name, without attributes and children.
pub(super) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = after.split_once(&format!("</{name}>"))?;
    Some(inner)
}

fn json(text: &str) -> Said {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return Said::default() };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let (code, message) = match value.get("error") {
        // Google: {"error": {"code": 403, "message": …, "status": …, "errors": [{"reason": …}]}}
        Some(error @ Value::Object(_)) => {
            let reason = error.pointer("/errors/0/reason").or_else(|| error.get("status"));
            (text(reason).or_else(|| text(error.get("code"))), text(error.get("message")))
        }
        // OAuth: {"error": …, "error_description": …}
        Some(error) => (text(Some(error)), text(value.get("error_description"))),
        // Credentials of containers: {"code": …, "message": …}
        None => (
            text(value.get("code").or_else(|| value.get("Code"))),
            text(value.get("message").or_else(|| value.get("Message"))),
        ),
    };
    Said { code: code.as_deref().and_then(word), message: message.as_deref().and_then(line), region: None }
}

/// A code, if it looks like one.
pub(super) fn word(text: &str) -> Option<String> {
    let text = text.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    (!text.is_empty() && text.len() <= 100 && text.chars().all(plain)).then(|| text.to_owned())
}

/// One line of readable text.
fn line(text: &str) -> Option<String> {
    let text = ["&lt;<", "&gt;>", "&quot;\"", "&apos;'", "&#39;'", "&amp;&"]
        .iter()
        .filter_map(|pair| pair.split_once(';'))
        .fold(text.to_owned(), |text, (entity, plain)| text.replace(&format!("{entity};"), plain));
    let line = excerpt(&text);
    (!line.is_empty()).then_some(line)
}

/// The beginning of a text from elsewhere, as one line that a terminal can show.
pub(super) fn excerpt(text: &str) -> String {
    readable(text, LONGEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn both(body: &str) -> (Option<String>, Option<String>) {
        let said = said(body.as_bytes());
        (said.code, said.message)
    }

    fn pair(code: &str, message: &str) -> (Option<String>, Option<String>) {
        (Some(code.to_owned()), Some(message.to_owned()))
    }

    #[test]
    fn each_kind_of_body_is_understood() {
        let s3 = "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>Reduce &amp; wait &lt;a&gt;.</Message></Error>";
        assert_eq!(both(s3), pair("SlowDown", "Reduce & wait <a>."));
        let azure = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>AuthenticationFailed</Code><Message>Server failed.\nRequestId:1</Message></Error>";
        assert_eq!(both(azure), pair("AuthenticationFailed", "Server failed. RequestId:1"));
        let google = r#"{"error":{"code":403,"message":"no","errors":[{"reason":"forbidden"}]}}"#;
        assert_eq!(both(google), pair("forbidden", "no"));
        let oauth = r#"{"error":"invalid_grant","error_description":"Invalid JWT"}"#;
        assert_eq!(both(oauth), pair("invalid_grant", "Invalid JWT"));
        let container = r#"{"code":"AccessDenied","message":"no role"}"#;
        assert_eq!(both(container), pair("AccessDenied", "no role"));
        for nothing in ["", "<html><Code>x</Code></html>", "plain", "{", "<Error><Code>a b</Code>", "[1]"] {
            assert_eq!(said(nothing.as_bytes()), Said::default(), "{nothing}");
        }
    }

    #[test]
    fn a_region_is_found() {
        let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
        assert_eq!(said(body.as_bytes()).region.as_deref(), Some("eu-west-1"));
    }

    #[test]
    fn only_a_root_of_error_is_an_error() {
        for error in [
            "<Error><Code>A</Code></Error>",
            "  \n<?xml version=\"1.0\"?>\n<Error xmlns=\"a\">",
            "<!-- <a> --><s:Error>",
        ] {
            assert!(is_error(error.as_bytes()), "{error}");
        }
        for other in ["", "<Errors>", "<R><Error>", "<?xml", "<CompleteMultipartUploadResult/>", "Error"] {
            assert!(!is_error(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_left_out() {
        assert_eq!(excerpt("a\u{1b}[31m\r\nb\u{7}\u{9b}c\u{202e}d"), "a [31m b c d");
        let long = excerpt(&"é".repeat(10_000));
        assert!(long.chars().count() == 200 && long.ends_with('…'));
        assert_eq!(excerpt(&"x".repeat(200)), "x".repeat(200));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_is_long(
            start in prop_oneof![Just(""), Just("<Error><Code>"), Just("{\"error\":"), Just("<?xml"), Just("<Message>")],
            middle in proptest::collection::vec(any::<u8>(), 0..2000),
            end in prop_oneof![Just(""), Just("</Code><Message>é&"), Just("}"), Just("</Message>")],
        ) {
            let body = [start.as_bytes(), &middle, end.as_bytes()].concat();
            is_error(&body);
            let said = said(&body);
            for text in [said.code, said.message, said.region].into_iter().flatten() {
                prop_assert!(text.chars().count() <= LONGEST && !text.contains(char::is_control), "{text:?}");
            }
        }
    }
}
