//! JSON that the core carries and never reads.

use crate::map::stable_hash;
use std::sync::Arc;

/// An opaque part of an object (a pod template, a claim template) as its JSON text, with a hash to tell two apart.
/// Fields that this program does not know survive, because nobody here decodes them.
#[derive(Clone, Debug, Eq)]
pub struct Doc {
    text: Arc<str>,
    hash: u64,
}

impl Doc {
    /// A document; `text` is canonical JSON (sorted keys, no blanks) when hashes are to mean equality of content.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let hash = stable_hash(text.as_bytes());
        Doc { text, hash }
    }
    /// The JSON.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// A hash of the text, the same in every run.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl PartialEq for Doc {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Default for Doc {
    fn default() -> Self {
        Doc::new("{}")
    }
}
