//! What is tried: every policy that was named, with every combination of the swept values.

use std::{fmt, path::PathBuf};

use smartscale_planner::Policy;

use super::sweep::{self, KeyPath, Scalar, Sweep};
use crate::input::{BadInput, text};

/// Most policies in one call.
const MOST: usize = 64;

/// Policies as they are replayed, in the order in which results are told.
pub(super) struct Tried<'a> {
    pub(super) names: Vec<Name<'a>>,
    /// As many.
    pub(super) policies: Vec<Policy>,
    /// Each once, with its file.
    pub(super) warnings: Vec<String>,
}

/// Which policy it is: its file, and the values that were put into it.
#[derive(Debug, Clone)]
pub(super) struct Name<'a> {
    pub(super) file: &'a PathBuf,
    pub(super) set: Vec<(&'a KeyPath, &'a Scalar)>,
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        for (index, (key, value)) in self.set.iter().enumerate() {
            write!(f, "{}{key}={value}", if index == 0 { " with " } else { ", " })?;
        }
        Ok(())
    }
}

impl<'a> Tried<'a> {
    /// Reads the files and puts the values into them.
    ///
    /// # Errors
    /// The first thing that is wrong, with the file and the values that were put into it.
    pub(super) fn read(files: &'a [PathBuf], sweeps: &'a [Sweep]) -> Result<Self, BadInput> {
        let keys = sweeps.iter().map(|sweep| &sweep.key);
        for (index, key) in keys.clone().enumerate() {
            if keys.clone().skip(index + 1).any(|other| other == key) {
                return Err(BadInput::new("--sweep", format!("{key} is given twice")));
            }
        }
        let sizes = sweeps.iter().map(|sweep| sweep.values.len());
        let count = sizes.fold(files.len(), usize::saturating_mul);
        if count > MOST {
            let message =
                format!("{count} policies to try: expected {MOST} at most, all combinations counted");
            return Err(BadInput::new("--policy, --sweep", message));
        }
        let mut tried = Self {
            names: Vec::with_capacity(count),
            policies: Vec::with_capacity(count),
            warnings: Vec::new(),
        };
        for file in files {
            let text = text(file)?;
            for set in sweep::combinations(sweeps) {
                let name = Name { file, set };
                let with = sweep::with(&text, &name.set).map_err(|error| BadInput::new(&name, error))?;
                let (policy, warnings) =
                    Policy::from_toml(&with).map_err(|error| BadInput::new(&name, error))?;
                for warning in warnings {
                    let warning = format!("{}: {warning}", file.display());
                    if !tried.warnings.contains(&warning) {
                        tried.warnings.push(warning);
                    }
                }
                tried.names.push(name);
                tried.policies.push(policy);
            }
        }
        Ok(tried)
    }
}
