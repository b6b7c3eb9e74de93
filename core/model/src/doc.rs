//! JSON that the core carries and never reads.

use crate::map::stable_hash;
use std::sync::Arc;

/// An opaque part of an object (a pod template, a claim template) as its JSON text, verbatim, with a hash of its content to
/// tell two apart. Fields that this program does not know survive, because nobody here decodes them.
#[derive(Clone, Debug, Eq)]
pub struct Doc {
    text: Arc<str>,
    hash: u64,
}

impl Doc {
    /// A document whose text is already normal (sorted keys, no blanks).
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let hash = stable_hash(text.as_bytes());
        Doc { text, hash }
    }
    /// A document with the hash of its normal form, which whoever decoded it has worked out.
    pub fn with_hash(text: impl Into<Arc<str>>, hash: u64) -> Self {
        Doc { text: text.into(), hash }
    }
    /// The JSON.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// A hash of the normal form, the same in every run. For pod templates the label `pod-template-hash` is left out of it.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// Equal content, however it is spelled.
impl PartialEq for Doc {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Default for Doc {
    fn default() -> Self {
        Doc::new("{}")
    }
}
