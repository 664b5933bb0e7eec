//! Tables for people: columns as wide as they have to be, short peer ids, ages in one unit. Nothing in a cell steers the
//! terminal.

use std::io::IsTerminal;

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

    /// The table as it fits the terminal, if stdout is one.
    pub(super) fn shown(&self) -> String {
        let stdout = std::io::stdout();
        let size = if stdout.is_terminal() { rustix::termios::tcgetwinsize(&stdout).ok() } else { None };
        self.within(size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0))
    }

    /// The table, or where it is wider than `columns`, its rows one below the other, each with its headings.
    fn within(&self, columns: Option<usize>) -> String {
        let text = self.text();
        let Some(columns) = columns.filter(|n| text.lines().any(|line| line.chars().count() > *n)) else {
            return text;
        };
        let Some((heading, rows)) = self.0.split_first() else { return text };
        // What has no heading, such as a status, has its words in its first column.
        if heading.iter().any(|word| word.chars().any(char::is_lowercase)) {
            return self
                .0
                .iter()
                .map(|row| {
                    folded(
                        row.first().map_or("", |w| w),
                        &row.get(1..).unwrap_or_default().join("  "),
                        0,
                        columns,
                    )
                })
                .collect();
        }
        let mut text = String::new();
        for row in rows {
            for (n, (word, cell)) in heading.iter().zip(row).enumerate() {
                match n {
                    0 => text.push_str(&folded("", cell, 0, columns)),
                    _ if cell.is_empty() || cell == "-" => {}
                    _ => text.push_str(&folded(word, cell, 2, columns)),
                }
            }
        }
        text
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

/// A word and what belongs to it, in lines of at most `columns`; what does not fit goes on below, four further in.
fn folded(word: &str, cell: &str, indent: usize, columns: usize) -> String {
    let mut text = " ".repeat(indent);
    text.push_str(word);
    if !word.is_empty() {
        text.push(' ');
    }
    let mut room = columns.saturating_sub(text.chars().count());
    let further = indent + 4;
    if room < cell.chars().count() && !word.is_empty() {
        text.truncate(text.trim_end().len());
        text.push_str(&format!("\n{}", " ".repeat(further)));
        room = columns.saturating_sub(further);
    }
    for (n, c) in cell.chars().enumerate() {
        if n > 0 && room == 0 {
            text.push_str(&format!("\n{}", " ".repeat(further)));
            room = columns.saturating_sub(further).max(1);
        }
        text.push(c);
        room = room.saturating_sub(1);
    }
    text + "\n"
}

/// A peer id with what its owner calls itself, if anything.
pub(super) fn called(peer: &str, name: Option<&str>, full: bool) -> String {
    match name {
        Some(name) => format!("{} {name}", short(peer, full)),
        None => short(peer, full),
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
    fn a_table_that_is_too_wide_for_the_terminal_has_its_rows_below_each_other() {
        let mut table = Table::new(["PEER", "ADDRESS", "WAY", "RTT"]);
        let address = "/ip4/192.168.178.23/udp/4001/quic-v1/p2p/12D3KooW";
        table.row(["…vnc6iDEp kitchen".into(), address.into(), "direct".into(), "-".into()]);
        table.row(["…xxxxxxxx".into(), "/ip4/10.0.0.1/udp/1".into(), "relayed".into(), "1.2".into()]);
        assert_eq!(table.within(None), table.text());
        assert_eq!(table.within(Some(200)), table.text());
        let narrow = table.within(Some(40));
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        assert_eq!(
            narrow,
            "…vnc6iDEp kitchen\n  ADDRESS\n      /ip4/192.168.178.23/udp/4001/quic-\n      v1/p2p/12D3KooW\n  WAY direct\n\
             …xxxxxxxx\n  ADDRESS /ip4/10.0.0.1/udp/1\n  WAY relayed\n  RTT 1.2\n"
        );
        let mut status = Table::new(["peer", "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"]);
        status.row(["role".into(), "peer".into()]);
        assert_eq!(
            status.within(Some(40)),
            "peer\n    12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXw\n    DDUA2kj6vnc6iDEp\nrole peer\n"
        );
        for columns in 1..60 {
            table.within(Some(columns));
        }
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
