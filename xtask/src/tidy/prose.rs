//! Prose in comments and documents: its width, and wordings that have a plainer equivalent.

/// Maximum columns of a line of prose.
const COLUMNS: usize = 100;

/// One wording and its replacement per line.
const PHRASES: &str = include_str!("phrases.txt");

/// Words that must not begin a sentence, because its subject then comes late.
const LATE_SUBJECTS: [&str; 3] = ["What ", "That ", "Of "];

/// Quantities and units between which `a` stands for `per`.
const QUANTITIES: &str = "bit bits byte bytes codewords codes entry entries images instructions items \
    lines ms nanoseconds numbers operations queries seconds times values words µs";
const UNITS: &str = "batch byte class code codeword dimension epoch image item level query row second vector";

/// Documents that are rendered from results. The sources that render them are checked instead.
const RENDERED: [&str; 3] = ["docs/results", "docs/benchmarks.md", "docs/codes.md"];

/// Returns a complaint per line that is too wide and per wording that has a plainer equivalent.
pub(super) fn check(name: &str, text: &str) -> Vec<String> {
    let marker = match name.rsplit('.').next() {
        Some("rs") => "//",
        Some("md") => "",
        Some("py" | "toml" | "yml") => "#",
        _ => return Vec::new(),
    };
    if RENDERED.iter().any(|rendered| name.starts_with(rendered)) {
        return Vec::new();
    }
    let (mut complaints, mut in_code, mut paragraph) = (Vec::new(), false, (0, String::new()));
    for (n, line) in (1..).zip(text.lines().chain([""])) {
        let comment = if marker.is_empty() { Some(line) } else { line.trim_start().strip_prefix(marker) };
        let prose = comment
            .map(|prose| prose.trim_start_matches(['/', '!', '#']))
            .filter(|prose| !prose.starts_with("    ") || !paragraph.1.is_empty())
            .map(str::trim);
        let fence = prose.is_some_and(|prose| prose.starts_with("```"));
        in_code ^= fence;
        let prose = prose.filter(|prose| !in_code && !fence && !prose.starts_with(['|', '<']));
        let is_heading = marker.is_empty() && line.starts_with('#');
        if prose.is_some() && line.chars().count() > COLUMNS && !line.contains("](") && !line.contains("://")
        {
            complaints.push(format!("line {n}: prose is wider than {COLUMNS} columns"));
        }
        let item = prose.and_then(|prose| ["- ", "* "].iter().find_map(|bullet| prose.strip_prefix(bullet)));
        if prose.is_none_or(str::is_empty) || item.is_some() || is_heading {
            complaints.extend(wordings(paragraph.0, &paragraph.1));
            paragraph = (n, String::new());
        }
        match item.or(prose) {
            Some(_) if is_heading => {}
            Some(prose) if paragraph.1.is_empty() => paragraph = (n, prose.to_owned()),
            Some(prose) => paragraph.1 = paragraph.1 + " " + prose,
            // Help texts and errors.
            None if line.contains('"') => complaints.extend(phrases(n, line)),
            None => {}
        }
    }
    complaints
}

/// Returns complaints about a paragraph that begins on line `n`.
fn wordings(n: usize, paragraph: &str) -> Vec<String> {
    let mut complaints: Vec<String> = phrases(n, paragraph).collect();
    for start in LATE_SUBJECTS {
        if paragraph.match_indices(start).any(|(at, _)| at == 0 || paragraph[..at].ends_with(". ")) {
            complaints.push(format!("line {n}: a sentence begins with `{start}`; begin with its subject"));
        }
    }
    let words: Vec<&str> =
        paragraph.split(' ').map(|word| word.trim_matches(['.', ',', ':', ';', ')', '('])).collect();
    for window in words.windows(3) {
        if let [quantity, "a" | "an", unit] = window
            && QUANTITIES.split(' ').any(|word| word == *quantity)
            && UNITS.split(' ').any(|word| word == *unit)
        {
            complaints.push(format!("line {n}: `{}`; write `{quantity} per {unit}`", window.join(" ")));
        }
    }
    complaints
}

fn phrases(n: usize, text: &str) -> impl Iterator<Item = String> {
    let known = PHRASES.lines().filter_map(|line| line.split_once(" | "));
    known
        .filter(move |(phrase, _)| text.contains(phrase))
        .map(move |(phrase, plain)| format!("line {n}: `{phrase}`; write `{plain}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_checked_and_code_is_not() {
        let wide = "x ".repeat(51);
        for (name, prose, code) in [
            ("a.rs", format!("    /// {wide}\n"), wide.clone()),
            ("a.md", wide.clone(), format!("```\n{wide}\n```\n| {wide}")),
        ] {
            assert_eq!(check(name, &prose), ["line 1: prose is wider than 100 columns"]);
            assert_eq!(check(name, &code), [""; 0]);
        }
        assert_eq!(check("a.md", &format!("[{wide}](https://example.org)")), [""; 0]);
        assert_eq!(check("a.md", &format!("Code:\n\n    {wide}")), [""; 0]);
    }

    #[test]
    fn wordings_are_found_across_lines() {
        let found = |text: &str| check("a.rs", text).len();
        let (phrase, _) = PHRASES.split_once(" | ").unwrap();
        let across_lines = phrase.replacen(' ', "\n/// ", 1);
        assert_eq!(found(&format!("/// It is {across_lines} it.\nlet x = \"{phrase}\";")), 2);
        assert_eq!(found("/// Of the row.\n\n/// First. What\n/// follows."), 2);
        assert_eq!(found("//! - `x`: two bytes a\n//!   vector"), 1);
        assert_eq!(found("/// The bytes per vector. Like what follows, of a row.\nlet told = apart;"), 0);
    }
}
