//! WAL that waits to be archived, as it is told.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::crossing::blocking;
use crate::source::{Pace, Waiting, waiting};
use crate::told::bytes;

impl Waiting {
    /// What waits and how fast it moves, as JSON; what is not known is null.
    pub fn document(&self) -> Value {
        let whole = |number: f64| number.round() as u64;
        json!({
            "files": self.files, "bytes": self.bytes,
            "oldest": self.oldest.map(|name| name.to_string()), "since": self.since,
            "age_seconds": self.age().as_secs(),
            "written_bytes_per_second": self.pace.map(|pace| whole(pace.written_per_second())),
            "written_over_seconds": self.pace.map(|pace| pace.written_over.as_secs()),
            "archived_bytes_per_second": self.pace.map(|pace| whole(pace.archived_per_second())),
            "archived_over_seconds": self.pace.map(|pace| pace.archived_over.as_secs()),
            "deficit": self.pace.map(|_| self.is_deficit()),
            "caught_up_in_seconds": self.caught_up_in().map(|time| time.as_secs()),
        })
    }

    /// That more is written than archived, in words, where it is so.
    pub fn deficit(&self) -> Option<String> {
        let pace = self.pace.filter(|_| self.is_deficit())?;
        Some(format!("WAL is written faster than it is archived: {}", pace.story()))
    }
}

impl Pace {
    /// Both rates, in words.
    pub fn story(&self) -> String {
        format!(
            "{}/s written in the last {} s, {}/s archived in the last {} s",
            bytes(self.written_per_second().round() as u64),
            self.written_over.as_secs(),
            bytes(self.archived_per_second().round() as u64),
            self.archived_over.as_secs()
        )
    }
}

/// What waits in a data directory; why it cannot be told, and that it grows, are problems.
pub(super) async fn look(data_dir: &Path, problems: &mut Vec<String>) -> Option<Waiting> {
    let dir = data_dir.to_owned();
    match blocking(move || waiting(&dir, Timestamp::now())).await {
        Ok(waiting) => {
            problems.extend(waiting.deficit());
            Some(waiting)
        }
        Err(error) => {
            problems.push(format!("what WAL waits to be archived cannot be told: {}", error.story()));
            None
        }
    }
}
