//! Files that people name on the command line: how they are read, and how it is said that one cannot be used.

use std::{fmt, path::Path};

/// Input that cannot be used: where, what is wrong, what would be right.
#[derive(Debug)]
pub(crate) struct BadInput {
    place: String,
    message: String,
}

impl BadInput {
    pub(crate) fn new(place: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self {
            place: place.to_string(),
            message: message.to_string(),
        }
    }
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for BadInput {}

/// The text of a file.
///
/// # Errors
/// It cannot be read, or is no UTF-8.
pub(crate) fn text(path: &Path) -> Result<String, BadInput> {
    let bytes = std::fs::read(path)
        .map_err(|error| BadInput::new(path.display(), format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|_| BadInput::new(path.display(), "is no UTF-8 text"))
}
