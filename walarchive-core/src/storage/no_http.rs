//! Without cloud stores: no requests, and no trouble with them.

use std::error::Error as StdError;

use crate::error::Error;

/// What never happens.
pub(super) enum Trouble {}

impl Trouble {
    pub(super) fn error(self, _: String) -> Error {
        match self {}
    }
}

pub(super) fn trouble(_: &(dyn StdError + 'static)) -> Option<Trouble> {
    None
}
