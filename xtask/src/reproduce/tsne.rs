//! `tsne.svg`: gallery items by t-SNE of their features and of their reconstructions at each code length.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use super::dpq::Decoded;
use super::embed::{NEIGHBOURS, embed};
use super::npy::Rows;
use super::pipeline::{BITS, SeedRun};
use super::plot::{escape, svg};
use super::stage::Runner;

/// Where items lie in a square of [`SIDE`] units.
type Panel = Vec<[u16; 2]>;

const SIDE: f32 = 600.0;

/// Draws `n_items` items of the gallery at equal distances in it, or as many as there are; nothing of a gallery that is too
/// small for t-SNE.
pub(crate) fn tsne(
    runner: &Runner,
    dir: &Path,
    run: &SeedRun,
    n_items: usize,
    classes: &[String],
) -> Result<Option<String>> {
    let labels = Rows::read(&run.gallery.file("labels.npy"), "|u1")?;
    let n_items = n_items.min(labels.len());
    if n_items <= NEIGHBOURS {
        return Ok(None);
    }
    let (codes, model) = (run.gallery.file("codes.npy"), run.train.file("model.safetensors"));
    let decode = |bits: &u32| {
        let command =
            format!("decode --codes {codes} --codebook {model} --bits {bits} --out OUT/features.npy");
        runner.run::<Decoded>(
            &dir.join(format!("decode-{bits}")),
            &[&run.train.key, &run.gallery.key],
            &command,
        )
    };
    let decoded = BITS.iter().map(decode).collect::<Result<Vec<_>>>()?;
    let dim = decoded.first().context("there are code lengths")?.result.dim;

    let rows: Vec<usize> = (0..n_items).map(|i| i * labels.len() / n_items).collect();
    let upstream: Vec<&str> = [&run.gallery.key]
        .into_iter()
        .chain(decoded.iter().map(|stage| &stage.key))
        .map(String::as_str)
        .collect();
    let code = format!("{n_items} {} {}", include_str!("embed.rs"), include_str!("tsne.rs"));
    let panels = runner.compute(&dir.join("tsne"), &upstream, &code, || {
        let files = [run.gallery.file("features.npy")]
            .into_iter()
            .chain(decoded.iter().map(|stage| stage.file("features.npy")));
        let read = |file: String| {
            let features = Rows::read(&file, "<f4")?;
            Ok(rows.iter().flat_map(|&row| features.f32(row)).collect::<Vec<f32>>())
        };
        Ok(embed(&files.map(read).collect::<Result<Vec<_>>>()?, dim)?
            .iter()
            .map(|points| fit(points))
            .collect::<Vec<Panel>>())
    })?;

    let labels: Vec<Vec<usize>> = rows.iter().map(|&row| labels.classes(row)).collect();
    let (groups, names) = groups(&labels, classes);
    let titles = ["features".to_owned()].into_iter().chain(BITS.map(|bits| format!("{bits} bits")));
    Ok(Some(draw(&titles.zip(panels.result).collect::<Vec<_>>(), &groups, &names)))
}

/// Moves points into the square, shapes kept.
fn fit(points: &[[f32; 2]]) -> Panel {
    let range = |axis: usize| {
        let values = points.iter().map(|point| point[axis]);
        values.fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(x), high.max(x)))
    };
    let ranges = [range(0), range(1)];
    let scale = SIDE / ranges.map(|(low, high)| high - low).into_iter().fold(1e-6, f32::max);
    let place =
        |x: f32, (low, high): (f32, f32)| (SIDE / 2.0 + (x - (low + high) / 2.0) * scale).round() as u16;
    points.iter().map(|point| [place(point[0], ranges[0]), place(point[1], ranges[1])]).collect()
}

/// The group of each item and the names of the groups: its class, or how many it has where any has several.
fn groups(labels: &[Vec<usize>], classes: &[String]) -> (Vec<usize>, Vec<String>) {
    let several = labels.iter().any(|labels| labels.len() > 1);
    let group =
        |labels: &Vec<usize>| if several { labels.len() } else { labels.first().copied().unwrap_or(0) };
    let groups: Vec<usize> = labels.iter().map(group).collect();
    let name = |group: usize| match classes.get(group) {
        _ if several => format!("{group} label{}", if group == 1 { "" } else { "s" }),
        Some(name) => name.clone(),
        None => format!("class {group}"),
    };
    let most = groups.iter().copied().max().unwrap_or(0);
    (groups, (0..=most).map(name).collect())
}

/// Readable on white and on black, and told apart by most eyes.
const COLOURS: [&str; 10] = [
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f",
    "#a0a4a8",
];

/// Of a panel in the figure, and from one to the next.
const SIZE: f64 = 148.0;
const PITCH: [f64; 2] = [160.0, 176.0];

fn draw(panels: &[(String, Panel)], groups: &[usize], names: &[String]) -> String {
    let place = |i: usize| [6.0 + PITCH[0] * (i % 3) as f64, 22.0 + PITCH[1] * (i / 3) as f64];
    let mut body = String::new();
    for (i, (title, points)) in panels.iter().enumerate() {
        let [x, y] = place(i);
        body += &format!(
            "<text x=\"{x}\" y=\"{}\">{title}</text>\n<g transform=\"translate({x} {y})scale({:.4})\" \
             style=\"fill:none;stroke-width:7;stroke-linecap:round;stroke-opacity:.7\">\n",
            y - 6.0,
            SIZE / f64::from(SIDE)
        );
        for group in 0..names.len() {
            let of_group =
                points.iter().zip(groups).filter(|(_, of)| **of == group).map(|(&[x, y], _)| (y, x));
            let path = path(&of_group.collect());
            if !path.is_empty() {
                body += &format!("<path stroke=\"{}\" d=\"{path}\"/>\n", COLOURS[group % COLOURS.len()]);
            }
        }
        body += "</g>\n";
    }
    let [x, y] = place(panels.len());
    let used: BTreeSet<usize> = groups.iter().copied().collect();
    if used.len() > COLOURS.len() {
        body += &format!(
            "<text class=\"soft\" x=\"{x}\" y=\"{y}\">{} classes, {} colours</text>\n",
            used.len(),
            COLOURS.len()
        );
    } else {
        for (line, group) in used.into_iter().enumerate() {
            let (y, colour) = (y + 15.0 * line as f64, COLOURS[group % COLOURS.len()]);
            body += &format!(
                "<circle cx=\"{}\" cy=\"{y}\" r=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{}</text>\n",
                x + 5.0,
                x + 16.0,
                y + 4.5,
                escape(&names[group])
            );
        }
    }
    svg(480.0, 2.0 * PITCH[1] + 4.0, "t-SNE of features and reconstructions", &body)
}

/// Dots, each a line of no length. In order, so that the steps between them are short to write; equal dots are one.
fn path(points: &BTreeSet<(u16, u16)>) -> String {
    let (mut path, mut from) = (String::new(), (0, 0));
    for &(y, x) in points {
        let (dx, dy) = (i32::from(x) - from.1, i32::from(y) - from.0);
        path += &format!("m{dx} {dy}z");
        from = (y.into(), x.into());
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_fill_the_square() {
        assert_eq!(fit(&[[-1.0, 0.0], [3.0, 1.0], [1.0, 0.5]]), [[0, 225], [600, 375], [300, 300]]);
        assert_eq!(fit(&[[2.0, 2.0]]), [[300, 300]]);
    }

    #[test]
    fn groups_are_classes_or_numbers_of_them() {
        let classes = ["cat".to_owned()];
        assert_eq!(
            groups(&[vec![0], vec![1]], &classes),
            (vec![0, 1], vec!["cat".to_owned(), "class 1".to_owned()])
        );
        let (of, names) = groups(&[vec![0], vec![0, 1]], &classes);
        assert_eq!(
            (of, names),
            (vec![1, 2], ["0 labels", "1 label", "2 labels"].map(str::to_owned).to_vec())
        );
    }

    #[test]
    fn dots_are_steps_from_one_to_the_next() {
        let points = [(5, 10), (5, 7), (5, 10), (9, 0)].into();
        assert_eq!(path(&points), "m7 5zm3 0zm-10 4z");
    }

    #[test]
    fn figures_have_panels_and_a_legend() {
        let panels = vec![
            ("features".to_owned(), vec![[0, 0], [600, 600]]),
            ("8 bits".to_owned(), vec![[0, 0], [0, 0]]),
        ];
        let figure = draw(&panels, &[0, 2], &["a".to_owned(), "b".to_owned(), "c".to_owned()]);
        assert_eq!(figure.matches("<path stroke").count(), 4, "{figure}");
        assert!(
            figure.contains(">a</text>") && !figure.contains(">b</text>") && figure.contains(">c</text>")
        );
        let many: Vec<usize> = (0..11).collect();
        let figure = draw(&[("features".to_owned(), vec![[0, 0]; 11])], &many, &vec![String::new(); 11]);
        assert!(figure.contains("11 classes, 10 colours"));
    }
}
