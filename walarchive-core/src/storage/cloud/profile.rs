//! The shared AWS files: profiles with keys, or with a program that gives keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::super::StoreOptions;
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};

/// The files are a few lines.
const LONGEST: u64 = 1 << 20;
/// Credentials are asked for anew this long before they expire.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);

/// What the files say of one profile, by key.
type Values = BTreeMap<String, String>;

/// A profile of the shared files.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    name: String,
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
}

impl Profile {
    /// The profile that the options or the environment name, else the one called `default`.
    pub(super) fn of(options: &StoreOptions) -> Profile {
        let named = options.profile.as_deref().or_else(|| options.variable("AWS_PROFILE"));
        let named = named.or_else(|| options.variable("AWS_DEFAULT_PROFILE"));
        let file = |variable, name: &str| {
            let usual = || options.variable("HOME").map(|home| Path::new(home).join(".aws").join(name));
            options.variable(variable).map(PathBuf::from).or_else(usual)
        };
        Profile {
            name: named.unwrap_or("default").to_owned(),
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: file("AWS_CONFIG_FILE", "config"),
        }
    }

    /// What both files say now; the one for credentials counts more. Nothing when neither knows the profile.
    pub(super) fn read(&self) -> Result<Option<Values>> {
        let in_config =
            if self.name == "default" { self.name.clone() } else { format!("profile {}", self.name) };
        let mut found = section_of(self.config.as_deref(), &in_config)?;
        if let Some(more) = section_of(self.credentials.as_deref(), &self.name)? {
            found.get_or_insert_default().extend(more);
        }
        Ok(found)
    }

    /// The credentials, looked up anew for each request. Nothing when the profile says nothing of any, or nothing that
    /// is not better left to the environment.
    pub(super) fn provider(self, values: &Values) -> Result<Option<ProfileCredentials>> {
        let has = |key: &str| values.contains_key(key);
        if has("aws_access_key_id") || has("credential_process") {
            return Ok(Some(ProfileCredentials { profile: self, given: Mutex::default() }));
        }
        if has("role_arn") || has("sso_session") || has("sso_start_url") {
            return Err(Error::usage(format!("the AWS profile {} takes a role or signs on, which is not done here", self.name))
                .hint("let the profile name a program: credential_process = aws configure export-credentials --profile NAME"));
        }
        Ok(None)
    }

    /// An error for a profile that was asked for by name.
    pub(super) fn missing(&self) -> Error {
        let shown = |file: &Option<PathBuf>| {
            file.as_ref().map_or("none".to_owned(), |path| path.display().to_string())
        };
        Error::usage(format!("there is no AWS profile {} with credentials", self.name)).hint(format!(
            "it was looked for in {} and {}",
            shown(&self.credentials),
            shown(&self.config)
        ))
    }
}

fn section_of(file: Option<&Path>, section: &str) -> Result<Option<Values>> {
    let Some(path) = file else { return Ok(None) };
    let failed =
        |source| Error::io(format!("cannot read the AWS file {}", path.display()), source).on(path.display());
    let found = match std::fs::metadata(path) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed)?,
    };
    if found.len() > LONGEST {
        return Err(Error::usage(format!("the AWS file {} is too long", path.display())).on(path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(sections(&text).remove(section))
}

/// The sections of a file. Lines that begin with a space belong to the value before them, which nothing here needs.
fn sections(text: &str) -> BTreeMap<String, Values> {
    let mut found: BTreeMap<String, Values> = BTreeMap::new();
    let mut section = None;
    for line in text.lines() {
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        let line = line.trim_end();
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            section = Some(found.entry(name).or_default());
        } else if let (Some(section), Some((key, value))) = (&mut section, line.split_once('=')) {
            section.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

/// Credentials of a profile. Keys in the files are read for each request, so that rotated ones count at once; what a
/// program gave is kept until shortly before it expires.
#[derive(Debug)]
pub(super) struct ProfileCredentials {
    profile: Profile,
    given: Mutex<Option<Given>>,
}

/// What a program gave.
struct Given {
    credential: Arc<AwsCredential>,
    expires: Option<Timestamp>,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Given(until {:?})", self.expires)
    }
}

impl ProfileCredentials {
    async fn find(&self) -> Result<Arc<AwsCredential>> {
        let mut given = self.given.lock().await;
        let fresh = |given: &Given| given.expires.is_none_or(|at| at > Timestamp::now() + MARGIN);
        if let Some(given) = given.as_ref().filter(|given| fresh(given)) {
            return Ok(given.credential.clone());
        }
        let profile = self.profile.clone();
        let (credential, expires, keep) = blocking(move || look(&profile)).await?;
        let credential = Arc::new(credential);
        *given = keep.then(|| Given { credential: credential.clone(), expires });
        Ok(credential)
    }
}

#[async_trait]
impl CredentialProvider for ProfileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.find()
            .await
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })
    }
}

/// The credentials now, when they expire, and whether they may be kept.
fn look(profile: &Profile) -> Result<(AwsCredential, Option<Timestamp>, bool)> {
    let values = profile.read()?.ok_or_else(|| profile.missing())?;
    if let Some(program) = values.get("credential_process")
        && !values.contains_key("aws_access_key_id")
    {
        let given = run(&profile.name, program)?;
        let credential = AwsCredential {
            key_id: given.access_key_id,
            secret_key: given.secret_access_key,
            token: given.session_token,
        };
        return Ok((credential, given.expiration, true));
    }
    match (values.get("aws_access_key_id"), values.get("aws_secret_access_key")) {
        (Some(key_id), Some(secret_key)) => {
            let token = values.get("aws_session_token").cloned();
            Ok((AwsCredential { key_id: key_id.clone(), secret_key: secret_key.clone(), token }, None, false))
        }
        _ => Err(profile.missing()),
    }
}

/// What a program prints as `credential_process` demands.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<Timestamp>,
}

fn run(profile: &str, program: &str) -> Result<Printed> {
    let what = format!("the credential_process of the AWS profile {profile}");
    let failed =
        |message: String| Error::new(Kind::Denied, message).hint("run it by hand to see what it says");
    let output = Command::new("/bin/sh").arg("-c").arg(program).output();
    let output = output.map_err(|source| failed(format!("{what} cannot be run")).because(source))?;
    if !output.status.success() {
        return Err(failed(format!("{what} failed ({})", output.status)));
    }
    // Neither what it printed nor where a parser stumbled is shown: both may be secrets.
    serde_json::from_slice(&output.stdout).map_err(|_| failed(format!("{what} printed no credentials")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(credentials: &str, config: &str) -> (tempfile::TempDir, StoreOptions) {
        let home = tempfile::tempdir().unwrap();
        let aws = home.path().join(".aws");
        std::fs::create_dir(&aws).unwrap();
        std::fs::write(aws.join("credentials"), credentials).unwrap();
        std::fs::write(aws.join("config"), config).unwrap();
        let mut options = StoreOptions::default();
        options.variables.insert("HOME".to_owned(), home.path().display().to_string());
        (home, options)
    }

    fn found(options: &StoreOptions) -> Result<AwsCredential> {
        look(&Profile::of(options)).map(|(credential, _, _)| credential)
    }

    const CREDENTIALS: &str = "# mine\n[default]\naws_access_key_id = one\naws_secret_access_key=s1=+/\n\n[ other ]\n\
        aws_access_key_id=two\naws_secret_access_key = s2\naws_session_token = t2\n";
    const CONFIG: &str = "[default]\nregion = r1\ns3 =\n  max_concurrent_requests = 20\n[profile other]\nregion=r2\n\
        [profile made]\ncredential_process = printf '{\"Version\":1,\"AccessKeyId\":\"three\",\"SecretAccessKey\":\"s3\",\"Expiration\":\"2999-01-01T00:00:00Z\"}'\n\
        [profile broken]\ncredential_process = echo secret; exit 3\n[profile odd]\ncredential_process = echo secret\n\
        [profile role]\nrole_arn = arn:x\nsource_profile = default\n";

    #[test]
    fn keys_come_from_the_named_profile() {
        let (_home, mut options) = home(CREDENTIALS, CONFIG);
        let credential = found(&options).unwrap();
        assert_eq!(
            (credential.key_id.as_str(), credential.secret_key.as_str(), credential.token),
            ("one", "s1=+/", None)
        );
        options.profile = Some("other".to_owned());
        let credential = found(&options).unwrap();
        assert_eq!((credential.key_id.as_str(), credential.token.as_deref()), ("two", Some("t2")));
        let values = Profile::of(&options).read().unwrap().unwrap();
        assert_eq!(values.get("region").map(String::as_str), Some("r2"));
        options.profile = Some("made".to_owned());
        assert_eq!(found(&options).unwrap().key_id, "three");
        options.profile = Some("nobody".to_owned());
        assert_eq!(found(&options).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn rotated_keys_count_at_once() {
        let (home, options) = home(CREDENTIALS, CONFIG);
        let profile = Profile::of(&options);
        let values = profile.read().unwrap().unwrap();
        let provider = profile.provider(&values).unwrap().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(provider.find()).unwrap().key_id, "one");
        std::fs::write(home.path().join(".aws/credentials"), CREDENTIALS.replace("one", "new")).unwrap();
        assert_eq!(runtime.block_on(provider.find()).unwrap().key_id, "new");
    }

    #[test]
    fn programs_that_fail_keep_their_secrets() {
        let (_home, mut options) = home(CREDENTIALS, CONFIG);
        for profile in ["broken", "odd"] {
            options.profile = Some(profile.to_owned());
            let error = found(&options).unwrap_err();
            assert_eq!(error.kind(), Kind::Denied);
            assert!(!error.story().contains("secret"), "{}", error.story());
        }
        options.profile = Some("role".to_owned());
        let profile = Profile::of(&options);
        let values = profile.read().unwrap().unwrap();
        assert_eq!(profile.provider(&values).unwrap_err().kind(), Kind::Usage);
    }
}
