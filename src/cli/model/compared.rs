//! How a version on trial does, as `bellwether model show` prints it.

use serde_json::Value as Json;

/// What is said of one version of the server's answer: lines without the name of the version.
pub fn lines(version: &Json) -> Vec<String> {
    let mut lines = Vec::new();
    if version["shadow"].is_object() {
        lines.extend(shadow(&version["shadow"]));
    }
    if version["canary"].is_object() {
        lines.extend(canary(&version["canary"]));
    }
    lines
}

fn shadow(report: &Json) -> Vec<String> {
    let mut counts = format!("in shadow: {} rows compared", report["pairs"]);
    for (field, words) in [
        ("errors", "failed"),
        ("dropped", "left out, more came than it keeps up with"),
        ("unrecorded", "not recorded"),
    ] {
        if report[field] != 0 {
            counts.push_str(&format!(", {} {words}", report[field]));
        }
    }
    let mut lines = vec![counts];
    if report["pairs"] != 0 {
        let difference = &report["difference"];
        let mut scores = format!(
            "scores: {} on average, {} either way, p99 {}, at most {}; {} the same to the last bit",
            signed(&difference["mean"]),
            number(&difference["mean_absolute"]),
            number(&difference["p99"]),
            number(&difference["max"]),
            difference["identical"]
        );
        add(&mut scores, "rank correlation", &report["rank_correlation"]);
        add(&mut scores, "stability index", &report["score_drift"]);
        let latency = &report["latency"];
        lines.push(scores);
        lines.push(format!(
            "time: p50 {} ms, p99 {} ms; of the versions that answered {} and {} ms",
            number(&latency["p50_ms"]),
            number(&latency["p99_ms"]),
            number(&latency["served_p50_ms"]),
            number(&latency["served_p99_ms"])
        ));
    }
    let faults = report["faults"].as_array().into_iter().flatten();
    lines.extend(faults.filter_map(Json::as_str).map(str::to_owned));
    lines
}

fn canary(report: &Json) -> Vec<String> {
    let guardrails = &report["guardrails"];
    let mut lines = vec![format!(
        "in canary: {} requests, {} failed; in the last {} s:",
        report["requests"],
        report["errors"],
        number(&guardrails["window_s"])
    )];
    for side in ["canary", "champion"] {
        let period = &report[side];
        lines.push(format!(
            "{side}: {} requests, {} failed, p50 {} ms, p95 {} ms, mean score {}",
            period["requests"],
            period["errors"],
            number(&period["p50_ms"]),
            number(&period["p95_ms"]),
            number(&period["mean_score"])
        ));
    }
    let mut limits = format!(
        "limits: {} more errors, {} times as long, stability index {}",
        number(&guardrails["max_error_rate"]),
        number(&guardrails["max_latency_ratio"]),
        number(&guardrails["max_score_drift"])
    );
    add(&mut limits, "which is now", &report["score_drift"]);
    lines.push(limits);
    lines.extend(report["breach"].as_str().map(str::to_owned));
    lines
}

fn add(line: &mut String, words: &str, value: &Json) {
    if value.is_number() {
        line.push_str(&format!(", {words} {}", number(value)));
    }
}

/// Four digits that count.
fn number(value: &Json) -> String {
    let value = value.as_f64().unwrap_or_default();
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.001 => format!("{value:.1e}"),
        size if size < 10.0 => trimmed(format!("{value:.4}")),
        _ => trimmed(format!("{value:.1}")),
    }
}

fn signed(value: &Json) -> String {
    let sign = match value.as_f64() {
        Some(value) if value > 0.0 => "+",
        _ => "",
    };
    format!("{sign}{}", number(value))
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_shadow_is_told_in_a_few_lines() {
        let version = json!({"shadow": {
            "pairs": 400, "errors": 3, "dropped": 0, "unrecorded": 0,
            "difference": {"mean": 0.0123, "mean_absolute": 0.02, "p99": 0.1, "max": 0.25, "identical": 7},
            "rank_correlation": 0.9876, "score_drift": 0.00042,
            "latency": {"p50_ms": 0.12, "p99_ms": 3.0, "served_p50_ms": 0.08, "served_p99_ms": 0.4},
            "faults": ["fails: 3 of 403 rows (0.7 %); last: no"],
        }});
        let expected = [
            "in shadow: 400 rows compared, 3 failed",
            "scores: +0.0123 on average, 0.02 either way, p99 0.1, at most 0.25; 7 the same to the last \
             bit, rank correlation 0.9876, stability index 4.2e-4",
            "time: p50 0.12 ms, p99 3 ms; of the versions that answered 0.08 and 0.4 ms",
            "fails: 3 of 403 rows (0.7 %); last: no",
        ];
        assert_eq!(lines(&version), expected);
        let fresh = json!({"shadow": {
            "pairs": 0, "errors": 0, "dropped": 12, "unrecorded": 0, "faults": [],
        }});
        let expected = ["in shadow: 0 rows compared, 12 left out, more came than it keeps up with"];
        assert_eq!(lines(&fresh), expected);
    }

    #[test]
    fn a_canary_is_told_beside_the_champion_and_its_limits() {
        let side = |requests: u64| json!({"requests": requests, "errors": 0, "p50_ms": 0.08, "p95_ms": 0.4, "mean_score": 0.27});
        let version = json!({"canary": {
            "requests": 90, "errors": 41, "canary": side(50), "champion": side(950),
            "guardrails": {
                "window_s": 60.0, "max_error_rate": 0.02, "max_latency_ratio": 2.0, "max_score_drift": 0.25,
            },
            "breach": "41 of 90 requests failed",
        }});
        let expected = [
            "in canary: 90 requests, 41 failed; in the last 60 s:",
            "canary: 50 requests, 0 failed, p50 0.08 ms, p95 0.4 ms, mean score 0.27",
            "champion: 950 requests, 0 failed, p50 0.08 ms, p95 0.4 ms, mean score 0.27",
            "limits: 0.02 more errors, 2 times as long, stability index 0.25",
            "41 of 90 requests failed",
        ];
        assert_eq!(lines(&version), expected);
        assert_eq!(lines(&json!({"version": "1"})), [""; 0]);
    }
}
