//! `tsne.svg`: items by t-SNE of their features and of their reconstructions at each code length.

use std::collections::BTreeSet;

use crate::Error;
use crate::embed::{NEIGHBOURS, embed};
use crate::svg::{escape, svg};

/// Places of items in a square of [`SIDE`] units.
type Panel = Vec<[u16; 2]>;

const SIDE: f32 = 600.0;

/// Draws the same items by several sets of features.
///
/// `panels` are titles and features, f32 `[n, dim]` each. `labels` are the classes of each item,
/// `classes` the names of the classes. The picture depends on nothing else, so it repeats. Returns
/// `None` for 150 items or fewer, too few for a perplexity of 50.
///
/// # Errors
/// [`Error::Thread`] if the system refuses a thread.
pub fn tsne(
    panels: &[(String, Vec<f32>)],
    dim: usize,
    labels: &[Vec<usize>],
    classes: &[String],
) -> Result<Option<String>, Error> {
    if labels.len() <= NEIGHBOURS {
        return Ok(None);
    }
    let sets: Vec<&[f32]> = panels.iter().map(|(_, features)| features.as_slice()).collect();
    let points = embed(&sets, dim)?;
    let titles = panels.iter().map(|(title, _)| title.clone());
    let panels: Vec<(String, Panel)> = titles.zip(points.iter().map(|points| fit(points))).collect();
    let (groups, names) = groups(labels, classes);
    Ok(Some(draw(&panels, &groups, &names)))
}

/// Moves points into the square without changing the shape.
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

/// Returns the group of each item and the names of the groups: classes or, if any item has several
/// classes, the number of classes.
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
    let last = groups.iter().copied().max().unwrap_or(0);
    (groups, (0..=last).map(name).collect())
}

/// Colours that most people can distinguish, on white and on black.
const COLOURS: [&str; 10] = [
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f",
    "#a0a4a8",
];

/// The size of a panel, and the distances between panels.
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
    let n_rows = (panels.len() + 1).div_ceil(3) as f64;
    svg(480.0, n_rows * PITCH[1] + 4.0, "t-SNE of features and reconstructions", &body)
}

/// Returns dots as lines of length zero. They are sorted, so that the steps between them take few
/// digits; equal dots are drawn once.
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
    fn groups_are_classes_or_numbers_of_classes() {
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
    fn dots_are_relative_to_each_other() {
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
