//! Which of many rules can match a call at all. A workload may have hundreds of rules, and most name a principal, a namespace, a method
//! or a path that a call does not have: those are found by the call's own values, and only the rest is asked.
//!
//! For each of these attributes the rules are kept by what they begin with or are equal to; rules that such a text cannot tell apart
//! (`*`, `*suffix`, `not...`, or the attribute is not asked for) are kept beside. Every attribute alone gives all rules that can match, so the
//! one that gives fewest is taken, and the rules themselves decide.

use super::Call;
use super::matcher::{Attribute, Needs};
use model::map::HashMap;

/// Fewer rules are asked one after the other.
const FEW: usize = 8;
/// Lengths of beginnings that are looked up; longer texts are cut to the next of them.
const MOST_LENGTHS: usize = 8;
/// What a call's value leads to: the rest, the equal ones, and those of each length.
const MOST_LISTS: usize = MOST_LENGTHS + 2;

const ATTRIBUTES: [Attribute; 4] = [Attribute::Method, Attribute::Path, Attribute::Principal, Attribute::Namespace];

/// Numbers of rules, ascending.
type Numbers = Vec<u32>;

/// An index over rules that are numbered in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Narrow {
    count: u32,
    by: Vec<By>,
}

/// The rules by one attribute.
#[derive(Clone, Debug)]
struct By {
    attribute: Attribute,
    /// Rules that can match whatever the value is.
    rest: Numbers,
    equal: HashMap<Box<[u8]>, Numbers>,
    begins: HashMap<Box<[u8]>, Numbers>,
    /// Lengths of the keys of `begins`.
    lengths: Vec<usize>,
}

/// Rules that may match, ascending: a merge of lists.
pub(super) struct Candidates<'a> {
    lists: [&'a [u32]; MOST_LISTS],
    used: usize,
    /// Without an index: all of them.
    all: std::ops::Range<u32>,
}

impl Narrow {
    /// Over so many rules; `needs` says what of an attribute a rule needs, by its number.
    pub(super) fn new<'a>(count: usize, needs: impl Fn(usize, &Attribute) -> Option<Needs<'a>>) -> Self {
        let mut narrow = Narrow { count: count as u32, by: Vec::new() };
        if count > FEW {
            let by = ATTRIBUTES.into_iter().map(|attribute| By::new(count, attribute, &needs));
            narrow.by = by.filter(|by| by.rest.len() < count).collect();
        }
        narrow
    }

    /// The rules that may match a call. Every rule that does is among them.
    pub(super) fn candidates<'a>(&'a self, call: &'a Call<'_>) -> Candidates<'a> {
        let mut least = (self.count as usize, None);
        for by in &self.by {
            // What cannot be told of a call (opaque bytes have no method) may be left out of a rule: the attribute tells nothing.
            let Some(value) = by.attribute.of_call(call) else { continue };
            let size = by.find(value).map(<[u32]>::len).sum();
            if size < least.0 {
                least = (size, Some((by, value)));
            }
        }
        let Some((by, value)) = least.1 else {
            return Candidates { lists: [&[]; MOST_LISTS], used: 0, all: 0..self.count };
        };
        let mut found = Candidates { lists: [&[]; MOST_LISTS], used: 0, all: 0..0 };
        for list in by.find(value) {
            found.lists[found.used] = list;
            found.used += 1;
        }
        found
    }
}

impl By {
    fn new<'a>(count: usize, attribute: Attribute, needs: &impl Fn(usize, &Attribute) -> Option<Needs<'a>>) -> Self {
        let needs: Vec<Option<Needs<'a>>> = (0..count).map(|number| needs(number, &attribute)).collect();
        let begins = needs.iter().flatten().flat_map(|needs| needs.begins.iter().map(|text| text.len()));
        let lengths = few_of(begins.collect());
        let mut by = By { attribute, rest: Vec::new(), equal: HashMap::default(), begins: HashMap::default(), lengths };
        for (number, needs) in needs.into_iter().enumerate() {
            let Some(needs) = needs else {
                by.rest.push(number as u32);
                continue;
            };
            for text in needs.equal {
                note(&mut by.equal, text.as_bytes(), number);
            }
            for text in needs.begins {
                // The shortest is always among the lengths.
                let cut = by.lengths.iter().copied().filter(|length| *length <= text.len()).max().unwrap_or(0);
                note(&mut by.begins, &text.as_bytes()[..cut], number);
            }
        }
        by
    }

    /// Lists of the rules that a value leads to, at most [`MOST_LISTS`]. Who has no such value (plain text has no principal) matches no text.
    fn find<'a>(&'a self, value: Option<&'a str>) -> impl Iterator<Item = &'a [u32]> {
        let value = value.map(str::as_bytes);
        let equal = value.and_then(|value| self.equal.get(value));
        let lengths = if value.is_some() { self.lengths.as_slice() } else { &[] };
        let begins = lengths.iter().filter_map(move |length| self.begins.get(value?.get(..*length)?));
        std::iter::once(self.rest.as_slice()).chain(equal.into_iter().chain(begins).map(Vec::as_slice))
    }
}

fn note(index: &mut HashMap<Box<[u8]>, Numbers>, text: &[u8], number: usize) {
    let list = index.entry(text.into()).or_default();
    if list.last() != Some(&(number as u32)) {
        list.push(number as u32);
    }
}

/// The lengths, without repetition; of many the shortest and some others.
fn few_of(mut lengths: Vec<usize>) -> Vec<usize> {
    lengths.sort_unstable();
    lengths.dedup();
    let step = lengths.len().div_ceil(MOST_LENGTHS).max(1);
    lengths.into_iter().step_by(step).collect()
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let lists = &mut self.lists[..self.used];
        let Some(least) = lists.iter().filter_map(|list| list.first().copied()).min() else {
            return self.all.next().map(|number| number as usize);
        };
        for list in lists {
            if list.first() == Some(&least) {
                *list = &list[1..];
            }
        }
        Some(least as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::few_of;

    #[test]
    fn lengths_are_few_and_the_shortest_is_among_them() {
        assert_eq!(few_of(vec![]), [0usize; 0]);
        assert_eq!(few_of(vec![5, 3, 5]), [3, 5]);
        let few = few_of((4..100).collect());
        assert!(few.len() <= 8 && few[0] == 4, "{few:?}");
    }
}
