//! Markdown tables with aligned columns.

/// The table: a head, then rows as long as it.
pub(crate) fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, name)| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells.chain([name.chars().count(), 3]).max().unwrap_or(3)
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .enumerate()
            // Names to the left, numbers to the right.
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let mut text = line(&mut head.iter().map(|name| (*name).to_owned()));
    let rule = widths.iter().enumerate().map(|(column, width)| match column {
        0 => "-".repeat(*width),
        _ => format!("{}:", "-".repeat(width - 1)),
    });
    text.push_str(&line(&mut rule.into_iter()));
    for row in rows {
        text.push_str(&line(&mut row.iter().cloned()));
    }
    text
}

/// A whole number with a comma for every thousand.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// Microseconds as milliseconds.
pub(crate) fn millis(micros: f64) -> String {
    let millis = micros / 1000.0;
    match millis {
        ..10.0 => format!("{millis:.2}"),
        ..100.0 => format!("{millis:.1}"),
        _ => format!("{millis:.0}"),
    }
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: f64) -> String {
    thousands(bytes / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["etcd".to_owned(), "3,400".to_owned()],
            vec!["a".to_owned(), "1".to_owned()],
        ];
        assert_eq!(
            markdown(&["store", "ops/s"], &rows),
            "| store | ops/s |\n| ----- | ----: |\n| etcd  | 3,400 |\n| a     |     1 |\n"
        );
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousands(0.4), "0");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
        assert_eq!(thousands(-1_500.0), "-1,500");
        assert_eq!(
            (millis(1_234.0), millis(12_345.0), millis(123_456.0)),
            ("1.23".to_owned(), "12.3".to_owned(), "123".to_owned())
        );
        assert_eq!(mib(3.0 * 1048576.0), "3");
    }
}
