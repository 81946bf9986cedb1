//! A connection as the variables that libpq's programs take: nothing of it ends up in their arguments.

use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// A parameter of connections and its variable.
const VARIABLES: [(&str, &str); 30] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("service", "PGSERVICE"),
    ("servicefile", "PGSERVICEFILE"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("client_encoding", "PGCLIENTENCODING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("require_auth", "PGREQUIREAUTH"),
    ("requirepeer", "PGREQUIREPEER"),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslcompression", "PGSSLCOMPRESSION"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslcertmode", "PGSSLCERTMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("sslsni", "PGSSLSNI"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("gssencmode", "PGGSSENCMODE"),
    ("krbsrvname", "PGKRBSRVNAME"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
];

/// Values by the variables of libpq.
pub(super) type Variables = Vec<(&'static str, Zeroizing<String>)>;

/// Reads a connection string or URI. Nothing of it is repeated in errors: it may hold a password.
pub(super) fn variables(text: &str) -> Result<Variables> {
    let uri = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
    match uri {
        Some(rest) => of_uri(rest),
        None => of_pairs(text),
    }
}

fn wrong(why: &str) -> Error {
    Error::usage(format!("the connection string cannot be read: {why}"))
}

fn variable(name: &str) -> Result<&'static str> {
    let found = VARIABLES.iter().find(|(known, _)| *known == name);
    found.map(|(_, variable)| *variable).ok_or_else(|| wrong("it has a parameter that is not known"))
}

/// `keyword = 'value'` …
fn of_pairs(text: &str) -> Result<Variables> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=').ok_or_else(|| wrong("a parameter has no value"))?;
        let variable = variable(name.trim())?;
        let (value, behind) = value(behind.trim_start())?;
        found.push((variable, value));
        rest = behind.trim_start();
    }
    Ok(found)
}

fn value(text: &str) -> Result<(Zeroizing<String>, &str)> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut value = Zeroizing::new(String::new());
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(wrong("a quote does not end")) } else { Ok((value, "")) }
}

/// `user:password@host:port,host:port/dbname?parameter=value&…`
fn of_uri(text: &str) -> Result<Variables> {
    let mut found = Vec::new();
    let (place, parameters) = text.split_once('?').unwrap_or((text, ""));
    let (server, database) = place.split_once('/').unwrap_or((place, ""));
    let (login, hosts) = server.rsplit_once('@').unwrap_or(("", server));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let behind_bracket = host.rfind(']').map_or(0, |at| at + 1);
        let colon = host.get(behind_bracket..).and_then(|rest| rest.find(':')).map(|at| behind_bracket + at);
        let (name, port) = colon.map_or((host, ""), |at| (&host[..at], &host[at + 1..]));
        names.push(decoded(name.trim_start_matches('[').trim_end_matches(']'))?.to_string());
        ports.push(port.to_owned());
    }
    let several = |values: Vec<String>| {
        if values.iter().all(String::is_empty) { String::new() } else { values.join(",") }
    };
    let parts = [
        ("PGUSER", decoded(user)?),
        ("PGPASSWORD", decoded(password)?),
        ("PGHOST", Zeroizing::new(several(names))),
        ("PGPORT", Zeroizing::new(several(ports))),
        ("PGDATABASE", decoded(database)?),
    ];
    found.extend(parts.into_iter().filter(|(_, value)| !value.is_empty()));
    for pair in parameters.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| wrong("a parameter has no value"))?;
        found.push((variable(&decoded(name)?)?, decoded(value)?));
    }
    Ok(found)
}

fn decoded(text: &str) -> Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || (rest.next()? as char).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(wrong("a % is not followed by two digits"));
        };
        bytes.push((high * 16 + low) as u8);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// A database's name as a connection string of its own, which libpq's programs take in place of a name: so no name is
/// mistaken for an option or a connection string.
pub(crate) fn dbname(name: &str) -> String {
    format!("dbname='{}'", name.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(&'static str, String)> {
        let found = variables(text).unwrap();
        found.into_iter().map(|(name, value)| (name, value.to_string())).collect()
    }

    #[test]
    fn strings_are_read_as_libpq_reads_them() {
        assert_eq!(
            read(r"host=/run/pg port = 5433 password='se\'cr\\et x' user=me\ too"),
            [
                ("PGHOST", "/run/pg".to_owned()),
                ("PGPORT", "5433".to_owned()),
                ("PGPASSWORD", r"se'cr\et x".to_owned()),
                ("PGUSER", "me too".to_owned())
            ]
        );
        assert_eq!(read(" "), []);
        for bad in ["host", "host='x", "nonsense=1"] {
            assert!(variables(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn uris_are_read_as_libpq_reads_them() {
        assert_eq!(
            read("postgresql://me:p%40ss@[::1]:5433,other:5434/d%20b?sslmode=require&host=%2Frun"),
            [
                ("PGUSER", "me".to_owned()),
                ("PGPASSWORD", "p@ss".to_owned()),
                ("PGHOST", "::1,other".to_owned()),
                ("PGPORT", "5433,5434".to_owned()),
                ("PGDATABASE", "d b".to_owned()),
                ("PGSSLMODE", "require".to_owned()),
                ("PGHOST", "/run".to_owned()),
            ]
        );
        assert_eq!(read("postgres://"), []);
        assert_eq!(read("postgres:///x"), [("PGDATABASE", "x".to_owned())]);
        for bad in ["postgres://%4", "postgres:///x?y=1", "postgres:///x?sslmode"] {
            assert!(variables(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_repeat_nothing() {
        for text in ["host=x geheim", "password='geheim", "postgres://u:geheim%4@host", "geheim=1"] {
            assert!(!variables(text).unwrap_err().story().contains("geheim"), "{text}");
        }
    }

    #[test]
    fn names_stay_names() {
        assert_eq!(dbname(r"a'b\c host=x"), r"dbname='a\'b\\c host=x'");
    }
}
