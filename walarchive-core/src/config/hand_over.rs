//! What a restored server is given, so that its `restore_command` finds the archive.

use std::path::{Path, PathBuf};

use super::stores::{STORE, in_one_line, split_urls};
use super::{
    ALL, ARCHIVE, ARCHIVE_POLICY, CLUSTER, DEFAULT_FILE, IDENTITY_FILE, RETRY_BUDGET, STORE_CA_FILE,
    STORE_PROXY, STORE_SSH_IDENTITY, STORE_SSH_KNOWN_HOSTS, SYSTEM_ID, Settings,
};
use crate::error::{Error, Result};

/// What is in the names of variables whose values are secret.
const SECRET: [&str; 7] =
    ["ACCESS_KEY", "SECRET", "TOKEN", "STORAGE_KEY", "ACCOUNT_KEY", "CONNECTION_STRING", "SAS_KEY"];

/// The variables of providers that are needed to find a store and the files with its credentials, and hold no secret.
const NOT_SECRET: [&str; 22] = [
    "AZURE_ALLOW_HTTP",
    "AZURE_ENDPOINT",
    "AZURE_STORAGE_SERVICE_ENDPOINT",
    "AZURE_TENANT_ID",
    "GOOGLE_ALLOW_HTTP",
    "GOOGLE_BASE_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ALLOW_HTTP",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ENDPOINT",
];

/// Environment variables and their values.
pub type Variables = Vec<(&'static str, String)>;

/// Settings that name files: the server runs its `restore_command` in another directory.
const FILES: [&str; 4] =
    [IDENTITY_FILE.key, STORE_CA_FILE.key, STORE_SSH_IDENTITY.key, STORE_SSH_KNOWN_HOSTS.key];

impl Settings {
    /// The variables with credentials of a store that are set: a restored server needs them in its environment, unless
    /// a directory or file has them that it can read.
    pub fn credentials_in_environment(&self) -> Vec<&str> {
        let is_secret =
            |name: &str| !NOT_SECRET.contains(&name) && SECRET.iter().any(|part| name.contains(part));
        let set = self.variables.iter().filter(|(_, value)| !value.is_empty());
        set.map(|(name, _)| name.as_str()).filter(|name| is_secret(name)).collect()
    }

    /// The variables and the settings file that a restored server's `restore_command` needs to find the same archive:
    /// nothing secret is among them.
    pub fn for_restore_command(&self) -> Result<(Option<PathBuf>, Variables)> {
        let absolute = |path: &str| {
            std::path::absolute(path)
                .map(|path| path.display().to_string())
                .map_err(|error| Error::io(format!("cannot resolve {path}"), error))
        };
        let mut variables = Vec::new();
        let file = self.file.as_ref().map(|path| path.display().to_string());
        let of_stores = ALL.iter().filter(|setting| setting.key.starts_with(STORE));
        for setting in [&ARCHIVE, &ARCHIVE_POLICY, &CLUSTER, &SYSTEM_ID, &IDENTITY_FILE, &RETRY_BUDGET]
            .into_iter()
            .chain(of_stores)
        {
            let Some((value, place)) = self.values.get(setting.key) else { continue };
            // A proxy's password does not belong into a settings file of the server.
            if Some(place) == file.as_ref() || (setting.key == STORE_PROXY.key && value.contains('@')) {
                continue;
            }
            let value = match setting.key {
                key if FILES.contains(&key) => absolute(value)?,
                // In one line, however they were written.
                key if key == ARCHIVE.key => in_one_line(&split_urls(value)),
                _ => value.clone(),
            };
            variables.push((setting.variable, value));
        }
        for name in NOT_SECRET {
            if let Some(value) = self.variables.get(name).filter(|value| !value.is_empty()) {
                variables.push((name, value.clone()));
            }
        }
        let file = match &self.file {
            Some(path) if *path != Path::new(DEFAULT_FILE) => {
                Some(PathBuf::from(absolute(&path.to_string_lossy())?))
            }
            _ => None,
        };
        Ok((file, variables))
    }
}
