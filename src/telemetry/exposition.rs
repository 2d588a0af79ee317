//! Prometheus' text format for what is counted elsewhere, and is written down when somebody asks.
//!
//! For metrics of things that come and go, such as versions of a model: what is not there any more is
//! not written, and nothing is remembered of it. Metrics of what stays are kept by the crate `metrics`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::timer::Timer;

/// What a metric is called, what it is, and what it says.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

/// The kinds of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A label's name and value.
pub type Label<'a> = (&'static str, &'a str);

/// Samples, gathered by metric.
#[derive(Default)]
pub struct Exposition {
    families: BTreeMap<&'static str, String>,
}

impl Exposition {
    /// Adds how often something has happened.
    pub fn count(&mut self, metric: &'static Metric, labels: &[Label<'_>], value: u64) {
        let text = self.family(metric);
        sample(text, metric.name, "", labels, &value.to_string());
    }

    /// Adds how something is now.
    pub fn gauge(&mut self, metric: &'static Metric, labels: &[Label<'_>], value: f64) {
        let text = self.family(metric);
        sample(text, metric.name, "", labels, &number(value));
    }

    /// Adds how long something took.
    pub fn histogram(&mut self, metric: &'static Metric, labels: &[Label<'_>], timer: &Timer) {
        let text = self.family(metric);
        let mut total = 0;
        for (bound, count) in timer.cumulative() {
            bucket(text, metric.name, labels, &number(bound), count);
            total = count;
        }
        total += timer.beyond();
        bucket(text, metric.name, labels, "+Inf", total);
        let sum = number(timer.sum_seconds());
        sample(text, metric.name, "_sum", labels, &sum);
        sample(text, metric.name, "_count", labels, &total.to_string());
    }

    /// All samples, each metric under its description.
    pub fn finish(self) -> String {
        let mut text = String::new();
        for family in self.families.into_values() {
            text.push_str(&family);
            text.push('\n');
        }
        text
    }

    fn family(&mut self, metric: &'static Metric) -> &mut String {
        self.families.entry(metric.name).or_insert_with(|| {
            let Metric { name, help, .. } = metric;
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
        })
    }
}

fn bucket(text: &mut String, name: &str, labels: &[Label<'_>], bound: &str, count: u64) {
    let labels = [labels, &[("le", bound)]].concat();
    sample(text, name, "_bucket", &labels, &count.to_string());
}

fn sample(text: &mut String, name: &str, part: &str, labels: &[Label<'_>], value: &str) {
    text.push_str(name);
    text.push_str(part);
    for (index, (label, value)) in labels.iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        text.push_str(label);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    if !labels.is_empty() {
        text.push('}');
    }
    // A String takes whatever is written.
    let _ = writeln!(text, " {value}");
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    static ASKED: Metric = Metric {
        name: "asked_total",
        kind: Kind::Counter,
        help: "How often.",
    };
    static SHARE: Metric = Metric {
        name: "share",
        kind: Kind::Gauge,
        help: "How much.",
    };
    static TOOK: Metric = Metric {
        name: "took_seconds",
        kind: Kind::Histogram,
        help: "How long.",
    };

    #[test]
    fn samples_of_a_metric_stand_together_under_its_description() {
        let mut exposition = Exposition::default();
        exposition.gauge(&SHARE, &[], 0.125);
        exposition.count(&ASKED, &[("model", "a")], 3);
        exposition.gauge(&SHARE, &[("model", "b"), ("version", "1")], 0.0);
        exposition.count(&ASKED, &[("model", "say \"\\\n\"")], 0);
        let expected = "# HELP asked_total How often.\n# TYPE asked_total counter\n\
                        asked_total{model=\"a\"} 3\n\
                        asked_total{model=\"say \\\"\\\\\\n\\\"\"} 0\n\n\
                        # HELP share How much.\n# TYPE share gauge\nshare 0.125\n\
                        share{model=\"b\",version=\"1\"} 0\n\n";
        assert_eq!(exposition.finish(), expected);
        assert_eq!(Exposition::default().finish(), "");
    }

    #[test]
    fn a_histogram_counts_what_does_not_exceed_each_bound() {
        let timer = Timer::default();
        for took in [0, 5_000, 5_001, 100_000, 2_500_000_000, 3_000_000_000] {
            timer.record(Duration::from_nanos(took));
        }
        let mut exposition = Exposition::default();
        exposition.histogram(&TOOK, &[("stage", "model")], &timer);
        let text = exposition.finish();
        for (bound, count) in [
            ("0.000005", 2),
            ("0.00001", 3),
            ("0.00008", 3),
            ("0.0001", 4),
            ("1", 4),
            ("2.5", 5),
            ("+Inf", 6),
        ] {
            let line = format!("took_seconds_bucket{{stage=\"model\",le=\"{bound}\"}} {count}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(
            text.contains("took_seconds_count{stage=\"model\"} 6\n"),
            "{text}"
        );
        assert!(
            text.contains("took_seconds_sum{stage=\"model\"} 5.500110001\n"),
            "{text}"
        );
    }
}
