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

/// The head of a table with a column for each kind.
pub fn head_of_kinds(first: &str) {
    head(&[
        first,
        "healthport",
        "floor",
        "ratio to the floor",
        "curl and socat",
        "ratio to healthport",
    ]);
}

/// A line of it, the values in the order of `Kind::ALL`.
pub fn row_of_kinds(name: &str, [healthport, floor, shell]: [f64; 3], digits: usize) {
    let ratio = |value: f64, base: f64| match value / base {
        _ if base == 0.0 => "-".to_string(),
        ratio if ratio >= 10.0 => format!("{ratio:.0} x"),
        ratio => format!("{ratio:.2} x"),
    };
    row(&[
        name.to_string(),
        format!("{healthport:.digits$}"),
        format!("{floor:.digits$}"),
        ratio(healthport, floor),
        format!("{shell:.digits$}"),
        ratio(shell, healthport),
    ]);
}
