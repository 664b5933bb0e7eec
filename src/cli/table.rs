//! Tables for people: columns as wide as they have to be, short peer ids, ages in one unit. Nothing in a cell steers the
//! terminal.

use crate::text::one_line;

/// Rows under a heading.
pub(super) struct Table(Vec<Vec<String>>);

impl Table {
    pub(super) fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self(vec![heading.map(|cell| one_line(cell).into_owned()).to_vec()])
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.push(cells.iter().map(|cell| one_line(cell).into_owned()).collect());
    }

    /// The table, two blanks between columns and none at the ends of lines.
    pub(super) fn text(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |i: usize| self.0.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max();
        let widths: Vec<_> = (0..columns).map(|i| width(i).unwrap_or(0)).collect();
        let mut text = String::new();
        for row in &self.0 {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A peer id that fits into a column: all Ed25519 ids begin alike, so that the end tells more.
pub(super) fn short(peer: &str, full: bool) -> String {
    let length = peer.chars().count();
    if full || length <= 12 {
        return peer.to_owned();
    }
    let end: String = peer.chars().skip(length - 8).collect();
    format!("…{end}")
}

/// A time span in its largest unit: `7s`, `12m`, `3h`, `9d`.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// Milliseconds out of microseconds, as ping(8) has them.
pub(super) fn millis(micros: u64) -> String {
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_where_they_end() {
        let mut table = Table::new(["NAME", "N"]);
        table.row(["é".into(), "10".into()]);
        table.row(["longer".into(), String::new()]);
        assert_eq!(table.text(), "NAME    N\né       10\nlonger\n");
    }

    #[test]
    fn what_others_say_does_not_steer_the_terminal() {
        let mut table = Table::new(["AGENT"]);
        table.row(["a\u{202e}b\u{9b}2J\nc".into()]);
        assert_eq!(table.text(), "AGENT\na\\u{202e}b\\u{9b}2J\\nc\n");
    }

    #[test]
    fn ids_ages_and_times_are_short() {
        assert_eq!(short("12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp", false), "…vnc6iDEp");
        assert_eq!([age(0), age(119), age(120), age(7200), age(172_800)], ["0s", "119s", "2m", "2h", "2d"]);
        assert_eq!([millis(7), millis(1234)], ["0.007", "1.234"]);
    }
}
