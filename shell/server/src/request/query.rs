use super::info::decode;

/// A parsed query string. Of a repeated parameter `get` gives the first.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Parses `a=b&c=d`.
    pub fn parse(text: &str) -> Query {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key, true), decode(value, true))
        };
        Query { pairs: text.split('&').filter(|part| !part.is_empty()).map(pair).collect() }
    }
    /// The first value of a parameter; empty counts as absent, as it does in Kubernetes' options.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(have, _)| have == key)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }
    /// All values of a parameter.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(have, _)| have == key).map(|(_, value)| value.as_str())
    }
    /// Go's conversion of a query value to bool: present counts as true unless it is `0` or `false`.
    pub fn flag(&self, key: &str) -> bool {
        let value = self.pairs.iter().find(|(have, _)| have == key);
        value.is_some_and(|(_, value)| !matches!(value.to_ascii_lowercase().as_str(), "0" | "false"))
    }
    /// An integer parameter.
    ///
    /// # Errors
    /// The text, when it is no integer.
    pub fn number(&self, key: &str) -> Result<Option<i64>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| format!("{key}: {text:?} is not an integer")),
        }
    }
}
