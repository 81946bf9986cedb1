//! Codecs that this build leaves out: objects that name them are told from damaged ones.

use super::{Codec, CodecId, Decoder, Encoder, Framer};
use crate::error::{Error, Result};

/// A codec that is not here.
#[derive(Debug)]
pub(super) struct Missing(pub(super) CodecId);

impl Missing {
    fn error(&self) -> Error {
        let name = self.0.name();
        Error::usage(format!("this build of walarchive has no codec {name}"))
            .hint(format!("the library's feature {name} adds it"))
    }
}

impl Codec for Missing {
    fn id(&self) -> CodecId {
        self.0
    }

    fn encoder(&self) -> Result<Box<dyn Encoder>> {
        Err(self.error())
    }

    fn decoder(&self) -> Result<Box<dyn Decoder>> {
        Err(self.error())
    }

    fn framer(&self) -> Result<Box<dyn Framer>> {
        Err(self.error())
    }
}
