//! A table of texts, in the two forms that people read.

/// A head and rows as long as it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Table {
    /// Names of the columns.
    pub head: Vec<String>,
    /// One cell a column.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: impl IntoIterator<Item = String>) -> Self {
        Self { head: head.into_iter().map(|cell| on_one_line(&cell)).collect(), rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().map(|cell| on_one_line(&cell)).collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// In columns that are as wide as they have to be.
    pub fn to_text(&self) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| lines().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..self.head.len()).map(|column| width(column).unwrap_or(0)).collect();
        // A name may be longer than a width of `format` may be.
        let padded = |(cell, width): (&String, &usize)| {
            let padding = width.saturating_sub(cell.chars().count());
            cell.clone() + &" ".repeat(padding)
        };
        let line = |row: &Vec<String>| {
            let cells: Vec<_> = row.iter().zip(&widths).map(padded).collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        lines().map(line).collect()
    }

    /// As Markdown; what would be markup in a cell is escaped.
    pub fn to_markdown(&self) -> String {
        let line = |row: &Vec<String>| {
            let cells: Vec<_> = row.iter().map(|cell| escaped(cell)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = format!("|{}\n", "---|".repeat(self.head.len()));
        let rows: String = self.rows.iter().map(line).collect();
        line(&self.head) + &rule + &rows
    }
}

/// Names come from files, and may be anything.
pub(super) fn on_one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// As Markdown that shows this text.
pub(super) fn escaped(cell: &str) -> String {
    let mut text = String::new();
    for c in cell.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '|' | '<' | '>' | '[' | ']' => text.extend(['\\', c]),
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stay_in_their_columns() {
        let mut table = Table::new(["", "a|b"].map(String::from));
        table.push(["x", "1\n<b>"].map(String::from));
        assert_eq!(table.to_markdown(), "|  | a\\|b |\n|---|---|\n| x | 1 \\<b\\> |\n");
        assert_eq!(table.to_text(), "   a|b\nx  1 <b>\n");
        table.push(["longer", "2"].map(String::from));
        assert!(table.to_text().ends_with("\nlonger  2\n"), "{}", table.to_text());
        let long = "a".repeat(1 << 16);
        table.push([long.as_str(), "3"].map(String::from));
        let text = table.to_text();
        assert!(text.ends_with(&format!("\n{long}  3\n")));
        assert!(text.lines().all(|line| line[long.len()..].starts_with("  ")));
    }
}
