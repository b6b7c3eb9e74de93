//! A request's headers, seen by whoever decides.

use std::borrow::Cow;

/// Access to a request's headers, whatever holds them.
pub trait Headers {
    /// Value of a header by lower-case name; several values are joined by `,` in their order. None: it is not there.
    fn value(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl Headers for () {
    fn value(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}

/// For tests and simulations: pairs of lower-case name and value.
impl Headers for [(&str, &str)] {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.iter().filter(|(have, _)| *have == name).map(|(_, value)| *value);
        let first = values.next()?;
        Some(values.fold(Cow::Borrowed(first), |joined, value| Cow::Owned(format!("{joined},{value}"))))
    }
}
