//! Pictures: a histogram as SVG, bars beside figures, the matrix of migration as a heat map.
//!
//! Every picture says in words what it shows, and has its figures in a table.

use super::text::{count, end_of_scale, escaped, percent};
use crate::batch::score::diff::ModelDiff;
use crate::batch::score::summary::Histogram;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 170.0;
/// Room for the counts on the left, and for the scale below.
const LEFT: f64 = 8.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 20.0;

/// The scores of one model; `id` is unique in the page.
pub fn histogram(id: &str, model: &str, histogram: &Histogram) -> String {
    let counts = &histogram.counts;
    let most = counts.iter().copied().max().unwrap_or_default();
    let total: u64 = counts.iter().sum();
    let width = (WIDTH - 2.0 * LEFT) / counts.len().max(1) as f64;
    let floor = HEIGHT - BOTTOM;
    let step = (histogram.high - histogram.low) / counts.len().max(1) as f64;
    let mut bars = String::new();
    let mut rows = String::new();
    for (index, rows_here) in counts.iter().enumerate() {
        let from = end_of_scale(histogram.low + step * index as f64);
        let to = end_of_scale(histogram.low + step * (index + 1) as f64);
        // What is there is seen, however little it is.
        let height = match rows_here {
            0 => 0.0,
            rows_here => (*rows_here as f64 / most as f64 * (floor - TOP)).max(1.0),
        };
        bars.push_str(&format!(
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{from} to \
             {to}: {} rows</title></rect>",
            LEFT + width * index as f64 + 0.5,
            floor - height,
            (width - 1.0).max(0.5),
            count(*rows_here)
        ));
        rows.push_str(&format!(
            "<tr><th scope=\"row\">{from} to {to}</th><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
            count(*rows_here),
            percent(*rows_here, total)
        ));
    }
    let middle = histogram.low + (histogram.high - histogram.low) / 2.0;
    let mark = |x: f64, anchor: &str, number: f64| {
        format!(
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT - 6.0,
            end_of_scale(number)
        )
    };
    let marks = [
        mark(LEFT, "start", histogram.low),
        mark(WIDTH / 2.0, "middle", middle),
        mark(WIDTH - LEFT, "end", histogram.high),
    ];
    let model = escaped(model);
    format!(
        "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-title {id}-words\">\
         <title id=\"{id}-title\">Scores of {model}</title><desc id=\"{id}-words\">How many of {} rows have a \
         score in each of {} parts from {} to {}; at most {}. The figures are in the table below.</desc>\
         {bars}<line class=\"axis\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{floor}\" y2=\"{floor}\"/>{}\
         <text x=\"{LEFT}\" y=\"13\">highest bar: {} rows</text></svg></figure>\n\
         <details><summary>The figures of this picture</summary><div class=\"scroll\"><table><thead><tr>\
         <th scope=\"col\">score</th><th scope=\"col\" class=\"number\">rows</th>\
         <th scope=\"col\" class=\"number\">share</th></tr></thead><tbody>{rows}</tbody></table></div></details>\n",
        count(total),
        counts.len(),
        end_of_scale(histogram.low),
        end_of_scale(histogram.high),
        count(most),
        WIDTH - LEFT,
        marks.concat(),
        count(most),
    )
}

/// A bar of parts of `all`, each with its class. The figures stand beside it.
pub fn meter(parts: &[(&str, u64)], all: u64) -> String {
    let parts: String = parts
        .iter()
        .filter(|(_, part)| *part > 0)
        .map(|(class, part)| {
            let width = (100.0 * *part as f64 / all.max(1) as f64).clamp(0.5, 100.0);
            format!("<i class=\"{class}\" style=\"width:{width:.2}%\"></i>")
        })
        .collect();
    format!("<div class=\"meter\" aria-hidden=\"true\">{parts}</div>")
}

/// Who went from which band to which. Colour is the share of those who were in the band then.
pub fn migration(diff: &ModelDiff) -> String {
    let heads = diff.bands.iter();
    let heads: String = heads
        .map(|band| format!("<th scope=\"col\">{}</th>", escaped(band)))
        .collect();
    let mut rows = String::new();
    let each = diff.bands.iter().zip(&diff.migration).zip(&diff.gone);
    for (from, ((band, counts), gone)) in each.enumerate() {
        let all: u64 = counts.iter().sum::<u64>() + gone;
        let cells = counts.iter().enumerate();
        let cells: String = cells
            .map(|(to, here)| {
                let same = if from == to { " same" } else { "" };
                let share = 100.0 * *here as f64 / all.max(1) as f64;
                format!(
                    "<td class=\"cell{same}\" style=\"--share:{share:.0}%\">{}<small>{}</small></td>",
                    count(*here),
                    percent(*here, all)
                )
            })
            .collect();
        rows.push_str(&format!(
            "<tr><th scope=\"row\">{}</th>{cells}<td>{}<small>{}</small></td></tr>\n",
            escaped(band),
            count(*gone),
            percent(*gone, all)
        ));
    }
    let new = diff
        .new
        .iter()
        .map(|new| format!("<td>{}</td>", count(*new)));
    format!(
        "<div class=\"scroll\"><table class=\"matrix\"><caption><span>From the band of the last run (rows) to the band \
         of this one (columns), with shares of the row. Outlined: stayed.</span></caption><thead><tr>\
         <th scope=\"col\">then, now</th>{heads}<th scope=\"col\">gone</th></tr></thead><tbody>{rows}\
         <tr><th scope=\"row\">new</th>{}<td></td></tr></tbody></table></div>\n",
        new.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_count_is_seen_and_an_empty_picture_is_none() {
        let some = Histogram {
            low: 0.0,
            high: 1.0,
            counts: vec![1, 0, 1_000_000],
        };
        let picture = histogram("a", "<b>", &some);
        assert_eq!(picture.matches("height=\"1.0\"").count(), 1);
        assert_eq!(picture.matches("height=\"0.0\"").count(), 1);
        assert!(picture.contains("Scores of &lt;b&gt;") && !picture.contains("NaN"));
        for counts in [vec![], vec![0; 4]] {
            let none = Histogram {
                counts,
                low: 0.0,
                high: 1.0,
            };
            let picture = histogram("a", "m", &none);
            assert!(
                !picture.contains("NaN") && !picture.contains("inf"),
                "{picture}"
            );
        }
    }
}
