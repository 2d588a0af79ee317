//! Which canaries stay, and which do not.

use std::time::Duration;

use super::*;
use crate::models::comparison::window::Window;
use crate::models::rollout::Guardrails;

/// A period with so many requests: answered ones with scores about `score` that took `took_us`, then
/// failed ones.
fn period(succeeded: u64, failed: u64, took_us: u64, score: f64) -> Period {
    let mut window = Window::new(Duration::from_secs(60));
    let mut random = fastrand::Rng::with_seed(succeeded + took_us);
    for number in 0..succeeded {
        let at = Duration::from_millis(number * 50_000 / succeeded.max(1));
        let score = score + (random.f64() - 0.5) * 0.2;
        // One in forty takes ten times as long, on either side.
        let took = if number % 40 == 0 {
            10 * took_us
        } else {
            took_us
        };
        window.success(at, score, Duration::from_micros(took), number as u32);
    }
    for _ in 0..failed {
        window.failure(Duration::from_secs(50));
    }
    window.period(Duration::from_secs(51))
}

fn judged(canary: &Period, champion: &Period) -> Option<Broken> {
    judge(&Limits::default(), canary, champion).map(|breach| breach.limit)
}

#[test]
fn a_canary_like_the_champion_stays() {
    let champion = period(20_000, 5, 80, 0.4);
    for requests in [1, 30, 500, 5000] {
        let canary = period(requests, 0, 90, 0.4);
        assert_eq!(judged(&canary, &champion), None, "{requests}");
    }
}

#[test]
fn errors_count_from_five_of_twenty_on_and_beside_those_of_the_champion() {
    let champion = period(2280, 0, 80, 0.4);
    assert_eq!(judged(&period(15, 4, 80, 0.4), &champion), None);
    assert_eq!(judged(&period(0, 19, 80, 0.4), &champion), None);
    let failing = judged(&period(15, 5, 80, 0.4), &champion);
    assert_eq!(failing, Some(Broken::ErrorRate));
    let breach = judge(&Limits::default(), &period(79, 41, 80, 0.4), &champion);
    assert_eq!(
        breach.map(|breach| breach.words).as_deref(),
        Some("41 of 120 requests failed (34 %), the champion 0 of 2,280")
    );
    // Where the champion fails as often, it is not the canary.
    let failing_too = period(2000, 600, 80, 0.4);
    assert_eq!(judged(&period(100, 25, 80, 0.4), &failing_too), None);
    // Without a champion that answers at all, errors still are errors.
    let none = Period::default();
    let failing = judged(&period(100, 25, 80, 0.4), &none);
    assert_eq!(failing, Some(Broken::ErrorRate));
}

#[test]
fn what_chance_explains_is_no_breach() {
    // One in five fails on both sides, five of the canary's first twenty.
    let failing = period(1600, 400, 80, 0.4);
    assert_eq!(judged(&period(15, 5, 80, 0.4), &failing), None);
    // Whoever shares a busy machine is interrupted for 20 ms every now and then.
    let interrupted = |requests: u32, seed: u64| {
        let mut window = Window::new(Duration::from_secs(60));
        let mut random = fastrand::Rng::with_seed(seed);
        for number in 0..requests {
            let took = if random.f64() < 0.05 { 20_000 } else { 500 };
            let at = Duration::from_millis(u64::from(number % 50_000));
            window.success(at, random.f64(), Duration::from_micros(took), number);
        }
        window.period(Duration::from_secs(51))
    };
    for seed in 0..200 {
        let champion = interrupted(2000, 1000 + seed);
        let canary = interrupted(60 + 5 * seed as u32, seed);
        assert_eq!(judged(&canary, &champion), None, "{seed}");
    }
}

#[test]
fn slow_is_twice_as_long_and_a_millisecond_more() {
    let champion = period(2000, 0, 900, 0.4);
    assert_eq!(judged(&period(100, 0, 1700, 0.4), &champion), None);
    let slow = judged(&period(100, 0, 2000, 0.4), &champion);
    assert_eq!(slow, Some(Broken::Latency));
    // Ten times as long, but not a millisecond more.
    assert_eq!(
        judged(&period(100, 0, 800, 0.4), &period(2000, 0, 80, 0.4)),
        None
    );
    // Fifty requests, or eight that together take a second.
    assert_eq!(judged(&period(49, 0, 5000, 0.4), &champion), None);
    assert_eq!(judged(&period(7, 0, 300_000, 0.4), &champion), None);
    let breach = judge(&Limits::default(), &period(8, 0, 300_000, 0.4), &champion);
    let words = breach.map(|breach| breach.words).unwrap_or_default();
    assert!(
        words.starts_with("half of its requests took more than 300 ms"),
        "{words}"
    );
    // Nothing to compare with.
    assert_eq!(
        judged(&period(100, 0, 50_000, 0.4), &Period::default()),
        None
    );
}

#[test]
fn a_large_drift_shows_on_fifty_customers_and_a_small_one_on_five_hundred() {
    let champion = period(5000, 0, 80, 0.4);
    let drifted = Some(Broken::ScoreDrift);
    // Nobody of the canary's has a score that the champion's customers have.
    for score in [0.2, 0.6] {
        assert_eq!(judged(&period(49, 0, 80, score), &champion), None);
        assert_eq!(judged(&period(50, 0, 80, score), &champion), drifted);
        let few = period(49, 0, 80, 0.4);
        assert_eq!(judged(&period(500, 0, 80, score), &few), None);
    }
    // An index of about 0.7, which chance may bring about where there are few.
    assert_eq!(judged(&period(500, 0, 80, 0.416), &champion), drifted);
    assert!((0.5..1.0).contains(&drift_by_chance(50, 5000)));
    assert!(drift_by_chance(100, 100) < drift_by_chance(50, 100));
    assert_eq!(drift_by_chance(500, 500), 0.0);
}

#[test]
fn few_customers_of_the_same_distribution_have_not_drifted() {
    let champion = period(1000, 0, 80, 0.4);
    for seed in 0..2000_u32 {
        let customers = 50 + u64::from(seed % 450);
        let mut window = Window::new(Duration::from_secs(60));
        let mut random = fastrand::Rng::with_seed(u64::from(seed));
        for number in 0..customers {
            let score = 0.4 + (random.f64() - 0.5) * 0.2;
            let took = Duration::from_micros(80);
            window.success(Duration::from_secs(1), score, took, number as u32);
        }
        let canary = window.period(Duration::from_secs(2));
        assert_eq!(judged(&canary, &champion), None, "{seed}: {customers}");
    }
}

#[test]
fn a_canary_may_have_limits_of_its_own_and_wrong_ones_are_refused() {
    let own = |text: &str| {
        let own: Guardrails = serde_json::from_str(text).unwrap();
        Limits::default().with(&own)
    };
    let limits = own(r#"{"max_score_drift": 1.5}"#).unwrap();
    assert_eq!((limits.max_error_rate, limits.max_score_drift), (0.02, 1.5));
    assert_eq!(own("{}"), Ok(Limits::default()));
    for (text, word) in [
        (r#"{"max_error_rate": -0.1}"#, "max_error_rate"),
        (r#"{"max_latency_ratio": 0.9}"#, "max_latency_ratio"),
        (r#"{"max_score_drift": 0}"#, "max_score_drift"),
    ] {
        let problem = own(text).unwrap_err();
        assert!(problem.contains(word), "{text}: {problem}");
    }
}
