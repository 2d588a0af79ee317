use proptest::prelude::*;

use super::*;

/// A rollback of whatever is to be taken back.
const BACK: Transition = Transition::Rollback { from: None };

const NOW_US: i64 = 1_700_000_000_000_000;

fn share(percent: f64) -> Share {
    Share::from_percent(percent).unwrap()
}

fn canary_of(version: u64, percent: f64) -> Transition {
    Transition::Canary {
        version,
        share: share(percent),
        guardrails: None,
    }
}

/// The roles after transitions, each of which is possible.
fn after(roles: Roles, transitions: &[Transition]) -> Roles {
    transitions.iter().fold(roles, |roles, transition| {
        let next = apply(&roles, transition, NOW_US);
        next.unwrap_or_else(|refusal| panic!("{transition:?}: {refusal}"))
    })
}

fn refusal(roles: &Roles, transition: &Transition) -> String {
    apply(roles, transition, NOW_US).unwrap_err().to_string()
}

fn first() -> Roles {
    Roles::unsaid(1, Vec::new())
}

#[test]
fn a_version_goes_from_shadow_over_canary_to_champion_and_back() {
    let steps = [
        (Transition::Shadow { version: 2 }, Role::Shadow, 1),
        (canary_of(2, 5.0), Role::Canary, 1),
        (canary_of(2, 50.0), Role::Canary, 1),
        (Transition::Promote { version: 2 }, Role::Champion, 2),
        (BACK, Role::Candidate, 1),
        (Transition::Retire { version: 2 }, Role::Retired, 1),
        (Transition::Candidate { version: 2 }, Role::Candidate, 1),
    ];
    let mut roles = first();
    for (transition, role, champion) in steps {
        let revision = roles.revision;
        roles = after(roles, &[transition]);
        assert_eq!(roles.role(2), role);
        assert_eq!(roles.champion, champion);
        assert_eq!(roles.revision, revision + 1);
    }
}

#[test]
fn a_rollback_ends_the_canary_before_it_touches_the_champion() {
    let roles = after(
        first(),
        &[Transition::Promote { version: 2 }, canary_of(3, 1.0)],
    );
    assert_eq!(BACK.subject(&roles), 3);
    let from = |version| Transition::Rollback {
        from: Some(version),
    };
    assert_eq!(
        refusal(&roles, &from(2)),
        "version 3 is what a rollback would take back now"
    );
    let roles = after(roles, &[from(3)]);
    assert_eq!((roles.champion, roles.role(3)), (2, Role::Candidate));
    assert_eq!(BACK.subject(&roles), 2);
    let roles = after(roles, &[BACK]);
    assert_eq!(roles.champion, 1);
    assert_eq!(
        refusal(&roles, &BACK),
        "there is no champion before version 1 to go back to, and no canary to end"
    );
}

#[test]
fn rollbacks_return_through_the_champions_in_their_order() {
    let promote = |version| Transition::Promote { version };
    let roles = after(first(), &[promote(2), promote(3), promote(2), promote(4)]);
    assert_eq!(roles.before, [2, 3, 1]);
    let roles = after(roles, &[BACK, BACK]);
    assert_eq!((roles.champion, &roles.before[..]), (3, &[1][..]));
    // Without anything said, the numbers say what was before.
    let unsaid = after(Roles::unsaid(3, vec![2, 1]), &[BACK]);
    assert_eq!((unsaid.champion, &unsaid.before[..]), (2, &[1][..]));
}

#[test]
fn the_server_ends_the_canary_that_it_judged_and_no_other() {
    let judged = Transition::EndCanary {
        version: 2,
        reason: "half of its requests failed".to_owned(),
    };
    let roles = after(first(), &[canary_of(2, 5.0)]);
    assert_eq!(
        after(roles.clone(), std::slice::from_ref(&judged)).canary,
        None
    );
    let promoted = after(roles, &[Transition::Promote { version: 2 }]);
    assert_eq!(refusal(&promoted, &judged), "it is not the canary any more");
}

#[test]
fn why_a_canary_was_taken_back_is_known_until_it_gets_another_role() {
    let judged = |version| Transition::EndCanary {
        version,
        reason: format!("version {version} drifts"),
    };
    let roles = after(first(), &[canary_of(2, 5.0), judged(2)]);
    let taken_back = roles.taken_back(2).unwrap();
    assert_eq!(
        (taken_back.at_us, taken_back.reason.as_str()),
        (NOW_US, "version 2 drifts")
    );
    // What happens to others changes nothing.
    let roles = after(roles, &[canary_of(3, 5.0), judged(3)]);
    assert!(roles.taken_back(2).is_some() && roles.taken_back(3).is_some());
    for next in [
        Transition::Shadow { version: 2 },
        canary_of(2, 1.0),
        Transition::Promote { version: 2 },
        Transition::Retire { version: 2 },
        Transition::Candidate { version: 2 },
    ] {
        let later = after(roles.clone(), &[next]);
        assert_eq!(later.taken_back(2), None);
        assert!(later.taken_back(3).is_some());
    }
    // Somebody who ends a canary knows why.
    let ended = after(first(), &[canary_of(2, 5.0), BACK]);
    assert_eq!(ended.taken_back, []);
    // Of many, the latest.
    let many = (2..40).flat_map(|version| [canary_of(version, 5.0), judged(version)]);
    let roles = after(first(), &many.collect::<Vec<_>>());
    assert_eq!(roles.taken_back.len(), MAX_TAKEN_BACK);
    assert!(roles.taken_back(39).is_some());
}

#[test]
fn a_canary_keeps_its_time_and_its_guardrails_when_its_share_is_raised() {
    let strict = Guardrails {
        max_error_rate: Some(0.001),
        ..Guardrails::default()
    };
    let begin = Transition::Canary {
        version: 2,
        share: share(1.0),
        guardrails: Some(strict),
    };
    let roles = after(first(), &[begin]);
    let raised = apply(&roles, &canary_of(2, 10.0), NOW_US + 5).unwrap();
    let canary = raised.canary.unwrap();
    assert_eq!((canary.since_us, canary.guardrails), (NOW_US, strict));
    assert_eq!(canary.share, share(10.0));
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let roles = after(
        first(),
        &[
            Transition::Promote { version: 2 },
            canary_of(3, 5.0),
            Transition::Shadow { version: 4 },
            Transition::Retire { version: 5 },
            Transition::Candidate { version: 6 },
        ],
    );
    let promote_first = "it is the champion; promote another version first";
    for (transition, reason) in [
        (Transition::Retire { version: 2 }, promote_first),
        (Transition::Shadow { version: 2 }, promote_first),
        (Transition::Candidate { version: 2 }, promote_first),
        (canary_of(2, 5.0), promote_first),
        (
            Transition::Promote { version: 2 },
            "it is the champion already",
        ),
        (Transition::Shadow { version: 4 }, "it is in shadow already"),
        (Transition::Retire { version: 5 }, "it is retired already"),
        (
            Transition::Candidate { version: 6 },
            "it is a candidate that is kept loaded already",
        ),
        (
            canary_of(3, 5.0),
            "it is the canary, with that share and those guardrails, already",
        ),
        (
            canary_of(4, 5.0),
            "version 3 is the canary; promote it or end it (rollback) before another becomes one",
        ),
    ] {
        assert_eq!(refusal(&roles, &transition), reason, "{transition:?}");
    }
}

#[test]
fn there_are_four_shadows_at_most() {
    let shadow = |version| Transition::Shadow { version };
    let roles = after(first(), &[shadow(2), shadow(3), shadow(4), shadow(5)]);
    let problem = refusal(&roles, &shadow(6));
    assert!(problem.contains("4 versions are in shadow"), "{problem}");
    let roles = after(roles, &[Transition::Candidate { version: 3 }, shadow(6)]);
    let shadows: Vec<u64> = roles.shadows.iter().map(|shadow| shadow.version).collect();
    assert_eq!(shadows, [2, 4, 5, 6]);
}

#[test]
fn a_candidate_that_was_asked_for_is_held_until_it_gets_a_role_or_is_retired() {
    let candidate = |version| Transition::Candidate { version };
    let asked: Vec<Transition> = (2..10).map(candidate).collect();
    let roles = after(first(), &asked);
    assert_eq!(roles.held(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let problem = refusal(&roles, &candidate(10));
    let expected = "8 candidates are kept loaded because somebody asked for them, which is the most: \
                    2, 3, 4, 5, 6, 7, 8, 9; give one of them a role or retire it first";
    assert_eq!(problem, expected);
    let ways = [
        Transition::Retire { version: 2 },
        Transition::Shadow { version: 3 },
        Transition::Promote { version: 4 },
        canary_of(5, 5.0),
    ];
    let roles = after(roles, &ways);
    assert_eq!(roles.candidates, [6, 7, 8, 9]);
    // Back from a trial it is held again, for that was asked for.
    assert_eq!(after(roles, &[candidate(3)]).candidates, [3, 6, 7, 8, 9]);
}

#[test]
fn what_is_held_in_memory_is_what_answers_or_would_after_a_rollback() {
    let roles = after(
        first(),
        &[
            Transition::Promote { version: 2 },
            Transition::Promote { version: 3 },
            Transition::Shadow { version: 5 },
            canary_of(4, 5.0),
        ],
    );
    assert_eq!(roles.held(), [2, 3, 4, 5]);
}

#[test]
fn in_place_of_a_champion_that_is_gone_the_last_before_it_answers() {
    let promote = |version| Transition::Promote { version };
    let roles = after(
        first(),
        &[promote(2), promote(3), Transition::Shadow { version: 2 }],
    );
    assert_eq!(in_force(&roles, |_| true), roles);
    let without = in_force(&roles, |version| version != 3);
    assert_eq!((without.champion, &without.before[..]), (2, &[1][..]));
    assert!(without.shadows.is_empty());
    let oldest = in_force(&roles, |version| version == 1);
    assert_eq!((oldest.champion, &oldest.before[..]), (1, &[][..]));
    assert_eq!(in_force(&roles, |_| false), roles);

    let mut to_one = roles.clone();
    without_unready(&mut to_one, |version| version == 1);
    assert_eq!(to_one.before, [1]);
    without_unready(&mut to_one, |_| false);
    assert!(to_one.before.is_empty());
}

fn any_transition() -> impl Strategy<Value = Transition> {
    // Few versions, so that they meet each other.
    let version = 0..8_u64;
    prop_oneof![
        version
            .clone()
            .prop_map(|version| Transition::Shadow { version }),
        (version.clone(), 1..=10_000_u32).prop_map(|(version, steps)| Transition::Canary {
            version,
            share: Share::from_percent(f64::from(steps) / 100.0).unwrap(),
            guardrails: None,
        }),
        version
            .clone()
            .prop_map(|version| Transition::Promote { version }),
        Just(BACK),
        version.clone().prop_map(|version| Transition::EndCanary {
            version,
            reason: "drifts".to_owned(),
        }),
        version
            .clone()
            .prop_map(|version| Transition::Retire { version }),
        version.prop_map(|version| Transition::Candidate { version }),
    ]
}

/// What holds of all roles, however they came about.
fn check(roles: &Roles) {
    let sorted = |versions: &[u64]| versions.windows(2).all(|pair| pair[0] < pair[1]);
    let shadows: Vec<u64> = roles.shadows.iter().map(|shadow| shadow.version).collect();
    assert!(sorted(&shadows) && sorted(&roles.retired), "{roles:?}");
    assert!(roles.candidates.len() <= MAX_CANDIDATES);
    assert!(shadows.len() <= MAX_SHADOWS && roles.before.len() <= MAX_BEFORE);
    let mut before = roles.before.clone();
    before.sort_unstable();
    assert!(sorted(&before), "{roles:?}");

    // No version is two of these.
    let mut taken = vec![roles.champion];
    taken.extend(roles.canary.as_ref().map(|canary| canary.version));
    taken.extend(&shadows);
    taken.extend(&roles.retired);
    taken.extend(&roles.candidates);
    taken.sort_unstable();
    assert!(sorted(&taken), "{roles:?}");
    // And nobody returns to the champion there is or to one that is not loaded.
    assert!(!roles.before.contains(&roles.champion), "{roles:?}");
    assert!(
        !roles
            .before
            .iter()
            .any(|before| roles.retired.contains(before)),
        "{roles:?}"
    );

    let held = roles.held();
    assert!(
        held.iter()
            .all(|version| roles.role(*version) != Role::Retired)
    );
    let written = serde_json::to_string(roles).unwrap();
    assert_eq!(&serde_json::from_str::<Roles>(&written).unwrap(), roles);
}

proptest! {
    #[test]
    fn any_sequence_of_transitions_leaves_roles_that_make_sense(
        transitions in prop::collection::vec(any_transition(), 0..60),
    ) {
        let mut roles = first();
        for transition in transitions {
            let before = roles.clone();
            match apply(&roles, &transition, NOW_US) {
                Ok(next) => {
                    prop_assert_eq!(next.revision, before.revision + 1);
                    // Only two transitions change who answers most customers.
                    if !matches!(transition, Transition::Promote { .. } | Transition::Rollback { .. }) {
                        prop_assert_eq!(next.champion, before.champion);
                    }
                    roles = next;
                }
                // A refusal does not depend on when it is asked.
                Err(refusal) => prop_assert_eq!(
                    Err(refusal),
                    apply(&roles, &transition, NOW_US + 1)
                ),
            }
            check(&roles);
        }
    }

    #[test]
    fn a_rollback_undoes_a_promotion(
        transitions in prop::collection::vec(any_transition(), 0..30),
        version in 0..8_u64,
    ) {
        let reached = transitions.iter().fold(first(), |roles, transition| {
            apply(&roles, transition, NOW_US).unwrap_or(roles)
        });
        let promote = Transition::Promote { version };
        if reached.canary.is_none()
            && let Ok(promoted) = apply(&reached, &promote, NOW_US)
        {
            let back = apply(&promoted, &BACK, NOW_US).unwrap();
            prop_assert_eq!(back.champion, reached.champion);
        }
    }
}
