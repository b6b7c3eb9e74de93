//! Tables as people write them: any order of columns, columns that nobody asked for, quoted fields, Windows' line ends, a byte order mark,
//! empty lines. What cannot be understood is refused with file, line and column.

use super::input::{InputError, Place};
use super::openb::File;
use std::borrow::Cow;

/// A CSV by column name.
pub(super) struct Table<'a> {
    file: &'a str,
    columns: Vec<Cow<'a, str>>,
    rows: Vec<Row<'a>>,
}

/// One line.
pub(super) struct Row<'a> {
    line: usize,
    fields: Vec<Cow<'a, str>>,
}

/// The fields of a line.
fn split(line: &str) -> Result<Vec<Cow<'_, str>>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let trimmed = rest.trim_start_matches([' ', '\t']);
        let after = if let Some(quoted) = trimmed.strip_prefix('"') {
            let (field, after) = unquote(quoted).ok_or("a quote is not closed on its line")?;
            fields.push(field);
            let after = after.trim_start_matches([' ', '\t']);
            if !after.is_empty() && !after.starts_with(',') {
                return Err("something follows a closing quote");
            }
            after
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            fields.push(Cow::Borrowed(rest[..end].trim()));
            &rest[end..]
        };
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

/// What is before the closing quote, two quotes standing for one; and what follows it.
fn unquote(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find('"')?;
        if text[at + 1..].starts_with('"') {
            from = at + 2;
            continue;
        }
        let field = text[..at].trim();
        let field = if field.contains("\"\"") { Cow::Owned(field.replace("\"\"", "\"")) } else { field.into() };
        return Some((field, &text[at + 1..]));
    }
}

impl<'a> Table<'a> {
    /// Reads a file that has these columns at least. Trailing fields that are empty may be missing or too many.
    pub(super) fn read(file: File<'a>, needed: &[&str]) -> Result<Table<'a>, InputError> {
        let place = |line| Place { file: file.name, line };
        let text = file.text.strip_prefix('\u{feff}').unwrap_or(file.text);
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let (at, header) =
            lines.next().ok_or_else(|| place(0).error("the file is empty", "give a CSV with a header line"))?;
        let wrong = |at: usize, what: &str| place(at + 1).error(what, "write the field as \"...\", quotes in it twice");
        let columns = split(header).map_err(|what| wrong(at, what))?;
        if let Some(absent) = needed.iter().find(|name| !columns.iter().any(|column| column == *name)) {
            let mend = format!("the header has to name {}", needed.join(", "));
            return Err(place(at + 1).error(format!("there is no column {absent:?}"), mend));
        }
        let mut named: Vec<&str> = columns.iter().map(|column| &**column).filter(|name| !name.is_empty()).collect();
        named.sort_unstable();
        if let Some(twice) = named.windows(2).find(|pair| pair[0] == pair[1]) {
            let what = format!("the column {:?} is there twice", twice[0]);
            return Err(place(at + 1).error(what, "keep one of them"));
        }
        let mut rows = Vec::new();
        for (at, line) in lines {
            let mut fields = split(line).map_err(|what| wrong(at, what))?;
            while fields.len() > columns.len() && fields.last().is_some_and(|field| field.is_empty()) {
                fields.pop();
            }
            if fields.len() > columns.len() {
                let what = format!("{} fields under {} columns", fields.len(), columns.len());
                return Err(place(at + 1).error(what, "give every line one field for each column"));
            }
            rows.push(Row { line: at + 1, fields });
        }
        Ok(Table { file: file.name, columns, rows })
    }

    pub(super) fn rows(&self) -> &[Row<'a>] {
        &self.rows
    }
    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name == column)
    }

    /// A field's text; empty where there is no such column, or the line ends before it.
    pub(super) fn text<'r>(&self, row: &'r Row<'a>, column: &str) -> &'r str {
        let at = self.columns.iter().position(|name| name == column);
        at.and_then(|at| row.fields.get(at)).map_or("", |field| field)
    }

    /// A field that has to say something.
    pub(super) fn name<'r>(&self, row: &'r Row<'a>, column: &str) -> Result<&'r str, InputError> {
        match self.text(row, column) {
            "" => Err(self.error(row, format!("{column} is empty"), format!("give every line a {column}"))),
            text => Ok(text),
        }
    }

    /// A whole number, which may be written with a fraction of nothing (`4.0`). Nothing, and `nan`, are 0.
    pub(super) fn number(&self, row: &Row<'a>, column: &str, most: i64) -> Result<i64, InputError> {
        let text = self.text(row, column);
        let whole = text
            .split_once('.')
            .map_or(text, |(whole, fraction)| if fraction.bytes().all(|digit| digit == b'0') { whole } else { text });
        let nothing = text.is_empty() || text.eq_ignore_ascii_case("nan");
        let number = if nothing { Some(0) } else { whole.parse().ok() };
        number.filter(|number| (0..=most).contains(number)).ok_or_else(|| {
            self.error(row, format!("{column} is {text:?}"), format!("give a whole number from 0 to {most}"))
        })
    }

    pub(super) fn error(&self, row: &Row<'a>, what: impl Into<String>, mend: impl Into<String>) -> InputError {
        Place { file: self.file, line: row.line }.error(what, mend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_spreadsheets_write_them() {
        for (line, fields) in [
            ("a,b,c", vec!["a", "b", "c"]),
            ("a, b ,", vec!["a", "b", ""]),
            ("\"a,b\",c", vec!["a,b", "c"]),
            ("\"say \"\"so\"\"\" , \" x \"", vec!["say \"so\"", "x"]),
            ("\"\",\"\"", vec!["", ""]),
            ("a\"b,c", vec!["a\"b", "c"]),
        ] {
            assert_eq!(split(line), Ok(fields.into_iter().map(Cow::Borrowed).collect()), "{line}");
        }
        assert!(split("\"a,b").is_err() && split("\"a\"b,c").is_err());
    }
}
