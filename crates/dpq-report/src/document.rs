//! A document as a list of blocks, written as Markdown or as one self-contained HTML page.

use std::borrow::Cow;

use crate::results::Machine;
use crate::svg::escape;
use crate::table::Table;

/// A part of a document. Text may have `code` between backticks and **strong** text.
pub(crate) enum Block {
    /// The heading of a section.
    Heading(Cow<'static, str>),
    Text(String),
    /// A table and its caption, which may be empty.
    Table(Table, String),
    /// An SVG file beside the document and its caption.
    Figure(&'static str, String),
    List(Vec<String>),
    Code(String),
}

/// Returns the last section of a page: the command, the commit and the computer.
pub(crate) fn measured(command: &str, commit: &str, machine: &Machine) -> [Block; 2] {
    let list = [format!("`{command}`"), format!("Commit {commit}"), format!("Machine: {machine}")];
    [Block::Heading("How it was measured".into()), Block::List(list.into())]
}

pub(crate) fn markdown(title: &str, blocks: &[Block]) -> String {
    let block = |block: &Block| match block {
        Block::Heading(text) => format!("## {text}"),
        Block::Text(text) => text.clone(),
        Block::Table(table, caption) if caption.is_empty() => table.to_string(),
        Block::Table(table, caption) => format!("{table}\n\n{caption}"),
        Block::Figure(file, caption) => {
            let name = caption.split([',', '.', ':', '(']).next().unwrap_or_default().trim_end();
            format!("![{name}]({file})\n\n{caption}")
        }
        Block::List(items) => items.iter().map(|item| format!("- {item}")).collect::<Vec<_>>().join("\n"),
        Block::Code(text) => format!("```json\n{text}\n```"),
    };
    let blocks: Vec<String> = blocks.iter().map(block).collect();
    format!("# {title}\n\n{}\n", blocks.join("\n\n"))
}

/// Returns the page. `svg` finds a figure by file name.
pub(crate) fn html<'a>(title: &str, blocks: &[Block], svg: impl Fn(&str) -> Option<&'a str>) -> String {
    let headings = blocks.iter().filter_map(|block| match block {
        Block::Heading(text) => Some(format!("<li><a href=\"#{}\">{}</a></li>", anchor(text), escape(text))),
        _ => None,
    });
    let contents = headings.collect::<String>();
    let mut body = String::new();
    for block in blocks {
        body += &match block {
            Block::Heading(text) => format!("<h2 id=\"{}\">{}</h2>\n", anchor(text), escape(text)),
            Block::Text(text) => format!("<p>{}</p>\n", inline(text)),
            Block::Table(table, caption) => format!(
                "<figure><div class=\"wide\">{}</div>{}</figure>\n",
                html_table(table),
                html_caption(caption)
            ),
            Block::Figure(file, caption) => {
                let figure = svg(file).unwrap_or_default();
                format!("<figure>{figure}{}</figure>\n", html_caption(caption))
            }
            Block::List(items) => {
                let items = items.iter().map(|item| format!("<li>{}</li>", inline(item))).collect::<String>();
                format!("<ul>{items}</ul>\n")
            }
            Block::Code(text) => format!("<pre>{}</pre>\n", escape(text)),
        };
    }
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<nav><ul>{contents}</ul></nav>\n{body}</body>\n</html>\n"
    )
}

fn html_table(table: &Table) -> String {
    let header: String =
        table.header.iter().map(|cell| format!("<th scope=\"col\">{}</th>", inline(cell))).collect();
    let row = |row: &Vec<String>| {
        let cells: String = (0..table.header.len())
            .map(|column| match (column, row.get(column).map_or("", String::as_str)) {
                (0, cell) => format!("<th scope=\"row\">{}</th>", inline(cell)),
                (_, cell) => format!("<td>{}</td>", inline(cell)),
            })
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = table.rows.iter().map(row).collect();
    format!("<table>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>")
}

fn html_caption(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<figcaption>{}</figcaption>", inline(text)) }
}

/// Escapes text and tags code and strong text.
fn inline(text: &str) -> String {
    let tagged = |text: &str, mark: &str, tag: &str| {
        let parts = text.split(mark).enumerate();
        parts
            .map(|(i, part)| if i % 2 == 0 { part.to_owned() } else { format!("<{tag}>{part}</{tag}>") })
            .collect()
    };
    let text: String = tagged(&escape(text), "`", "code");
    tagged(&text, "**", "strong")
}

fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

const STYLE: &str = include_str!("document.css");

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::table::line;

    fn blocks() -> Vec<Block> {
        let table = Table::new("", ["8 bits"], [line("a < b", ["1"]), line("c", [""; 0])]);
        vec![
            Block::Heading("How & why".into()),
            Block::Text("Run `cargo` on **this**.".to_owned()),
            Block::Table(table, "A table.".to_owned()),
            Block::Figure("a.svg", "A figure.".to_owned()),
            Block::List(vec!["one".to_owned(), "two".to_owned()]),
            Block::Code("{}".to_owned()),
        ]
    }

    #[test]
    fn as_markdown() {
        expect![[r#"
            # Title

            ## How & why

            Run `cargo` on **this**.

            |       | 8 bits |
            |-------|-------:|
            | a < b |      1 |
            | c     |        |

            A table.

            ![A figure](a.svg)

            A figure.

            - one
            - two

            ```json
            {}
            ```
        "#]]
        .assert_eq(&markdown("Title", &blocks()));
    }

    #[test]
    fn as_html() {
        let page = html("Title", &blocks(), |file| (file == "a.svg").then_some("<svg/>"));
        let body = page.split_once("<body>").unwrap().1;
        expect![[r##"

            <h1>Title</h1>
            <nav><ul><li><a href="#how---why">How &amp; why</a></li></ul></nav>
            <h2 id="how---why">How &amp; why</h2>
            <p>Run <code>cargo</code> on <strong>this</strong>.</p>
            <figure><div class="wide"><table>
            <thead><tr><th scope="col"></th><th scope="col">8 bits</th></tr></thead>
            <tbody>
            <tr><th scope="row">a &lt; b</th><td>1</td></tr>
            <tr><th scope="row">c</th><td></td></tr>
            </tbody>
            </table></div><figcaption>A table.</figcaption></figure>
            <figure><svg/><figcaption>A figure.</figcaption></figure>
            <ul><li>one</li><li>two</li></ul>
            <pre>{}</pre>
            </body>
            </html>
        "##]]
        .assert_eq(body);
        for reference in ["<script", "src=", "url(", "@import", "<link"] {
            assert!(!page.contains(reference), "{page}");
        }
    }
}
