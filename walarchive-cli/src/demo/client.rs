//! Sessions with the throw-away servers.

use std::path::Path;
use std::time::Duration;

use postgres::{Client, Config, NoTls};
use walarchive_core::{Error, Result};

use super::failed;

/// The superuser of the throw-away clusters.
pub(super) const USER: &str = "postgres";
/// The port of the throw-away servers: part of the socket's name alone.
pub(super) const PORT: u16 = 5432;

/// Connects through the socket, whatever the environment says about servers.
pub(super) fn connect(socket: &Path) -> Result<Client, postgres::Error> {
    let mut config = Config::new();
    config.host_path(socket).port(PORT).user(USER).dbname("postgres").application_name("walarchive demo");
    config.connect_timeout(Duration::from_secs(10)).connect(NoTls)
}

/// Says what was being done when the server refused.
pub(super) fn during(doing: &str) -> impl Fn(postgres::Error) -> Error {
    move |error| {
        let said = error.as_db_error().map(|said| format!(": {}", said.message())).unwrap_or_default();
        failed(format!("the server failed while {doing}{said}")).because(error)
    }
}
