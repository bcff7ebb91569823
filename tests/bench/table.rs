//! Tables as they go into tests/bench/README.md.

/// A line of a table in Markdown.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// The first column is text, the others are numbers.
pub fn head(cells: &[&str]) {
    row(&cells
        .iter()
        .map(|cell| cell.to_string())
        .collect::<Vec<_>>());
    println!("|---|{}", "---:|".repeat(cells.len() - 1));
}

/// The value that so many percent do not exceed.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50)
}

/// The first as a multiple of the second.
pub fn ratio(value: f64, floor: f64) -> String {
    match value / floor {
        ratio if ratio >= 10.0 => format!("{ratio:.0} x"),
        ratio => format!("{ratio:.2} x"),
    }
}
