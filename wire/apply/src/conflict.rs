//! Who is stepped on, in kube-apiserver's words.

use crate::fields::{Path, path_text};
use crate::managed::Manager;
use kube::Cause;
use std::fmt;

/// A field that another manager says differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub(crate) manager: Manager,
    pub(crate) path: Path,
}

impl Conflict {
    fn manager_text(&self) -> String {
        let mut text = format!("{:?}", self.manager.name);
        if !self.manager.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.manager.subresource);
        }
        if self.manager.is_apply() {
            return text;
        }
        format!("{text} using {}", self.manager.api_version)
    }

    /// The `Status` cause.
    pub fn cause(&self) -> Cause {
        let message = format!("conflict with {}", self.manager_text());
        Cause { reason: "FieldManagerConflict", field: path_text(&self.path), message }
    }
}

/// All conflicts of an apply (409). Applying with force takes the fields over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

impl Conflicts {
    /// `Status.details.causes`.
    pub fn causes(&self) -> Vec<Cause> {
        self.0.iter().map(Conflict::cause).collect()
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(
                f,
                "Apply failed with 1 conflict: conflict with {}: {}",
                only.manager_text(),
                path_text(&only.path)
            );
        }
        let mut managers: Vec<String> = self.0.iter().map(Conflict::manager_text).collect();
        managers.sort();
        managers.dedup();
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        for (index, manager) in managers.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}conflicts with {manager}:")?;
            for conflict in self.0.iter().filter(|conflict| conflict.manager_text() == *manager) {
                write!(f, "\n- {}", path_text(&conflict.path))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Conflicts {}
