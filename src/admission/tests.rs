use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::gate::Seat;
use super::*;

/// Later than any test ends.
const NEVER: Duration = Duration::from_secs(60);

fn admission(concurrency: usize, queue: usize) -> Admission {
    Admission::new(Limits { concurrency, queue })
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Permit, Turned>> + Send + 'a>>;

/// A request that has asked and has no answer yet.
fn waits(gate: &Admission, priority: Priority, deadline: Option<Instant>) -> Waiting<'_> {
    let mut request: Waiting<'_> = Box::pin(gate.admit(priority, deadline));
    assert!(poll(&mut request).is_none(), "expected the request to wait");
    request
}

/// The answer, if there is one by now.
fn poll(request: &mut Waiting<'_>) -> Option<Result<Permit, Turned>> {
    match request
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn admitted(request: &mut Waiting<'_>) -> Permit {
    poll(request)
        .expect("expected an answer")
        .expect("expected a permit")
}

fn online(gate: &Admission) -> Permit {
    gate.try_admit(Priority::Online).expect("a free place")
}

#[test]
fn places_are_given_while_there_are_some_and_come_back() {
    let gate = admission(2, 4);
    let first = online(&gate);
    let second = online(&gate);
    assert_eq!(gate.in_flight(), 2);
    assert!(gate.try_admit(Priority::Online).is_none());
    drop(first);
    let third = online(&gate);
    drop((second, third));
    assert_eq!(gate.in_flight(), 0);
}

#[test]
fn no_places_at_all_means_one() {
    let gate = admission(0, 0);
    let only = online(&gate);
    assert!(gate.try_admit(Priority::Online).is_none());
    drop(only);
}

#[test]
fn batch_leaves_the_last_place_to_online_requests() {
    let gate = admission(3, 4);
    let batch: Vec<Permit> = std::iter::from_fn(|| gate.try_admit(Priority::Batch)).collect();
    assert_eq!(batch.len(), 2);
    let last = online(&gate);
    drop((batch, last));
    let single = admission(1, 4);
    assert!(
        single.try_admit(Priority::Batch).is_some(),
        "where there is one place, it may take it"
    );
}

#[tokio::test]
async fn whoever_came_first_is_next() {
    let gate = admission(1, 8);
    let mut holder = online(&gate);
    let mut line: Vec<Waiting<'_>> = (0..5)
        .map(|_| waits(&gate, Priority::Online, None))
        .collect();
    assert_eq!(gate.waiting(), 5);
    while !line.is_empty() {
        drop(holder);
        holder = admitted(&mut line.remove(0));
        assert!(line.iter_mut().all(|other| poll(other).is_none()));
        assert_eq!((gate.in_flight(), gate.waiting()), (1, line.len()));
    }
}

#[tokio::test]
async fn online_requests_overtake_batch_requests() {
    let gate = admission(1, 8);
    let holder = online(&gate);
    let mut early_batch = waits(&gate, Priority::Batch, None);
    let mut late_online = waits(&gate, Priority::Online, None);
    drop(holder);
    let running = admitted(&mut late_online);
    assert!(poll(&mut early_batch).is_none());
    drop(running);
    drop(admitted(&mut early_batch));
}

#[tokio::test]
async fn a_waiting_batch_request_keeps_no_online_request_from_the_place_it_may_not_take() {
    let gate = admission(2, 8);
    let holder = online(&gate);
    let mut batch = waits(&gate, Priority::Batch, None);
    let permit = gate.admit(Priority::Online, None).await.unwrap();
    assert!(poll(&mut batch).is_none());
    drop((permit, holder));
    drop(admitted(&mut batch));
}

#[tokio::test]
async fn a_full_line_turns_away_at_once_and_says_what_the_bound_is() {
    let gate = admission(1, 2);
    let _holder = online(&gate);
    let _line = [
        waits(&gate, Priority::Online, None),
        waits(&gate, Priority::Online, None),
    ];
    let refused = gate.admit(Priority::Online, None).await.unwrap_err();
    let expected = Turned::Full {
        waiting: 2,
        limit: 2,
        retry_after_s: 1,
    };
    assert_eq!(refused, expected);
    let message = refused.to_string();
    assert!(
        message.contains("max_queue") && message.contains("in 1 s"),
        "{message}"
    );
    assert_eq!((gate.in_flight(), gate.waiting()), (1, 2));
}

#[tokio::test]
async fn without_seats_nobody_waits() {
    let gate = admission(1, 0);
    let holder = online(&gate);
    let refused = gate.admit(Priority::Online, None).await.unwrap_err();
    assert!(matches!(
        refused,
        Turned::Full {
            waiting: 0,
            limit: 0,
            ..
        }
    ));
    drop(holder);
    assert!(gate.admit(Priority::Online, None).await.is_ok());
}

#[tokio::test]
async fn in_a_full_line_the_youngest_batch_request_makes_room_for_an_online_one() {
    let gate = admission(1, 2);
    let holder = online(&gate);
    let mut older = waits(&gate, Priority::Batch, None);
    let mut younger = waits(&gate, Priority::Batch, None);
    let mut online = waits(&gate, Priority::Online, None);
    let refused = poll(&mut younger).expect("answered").unwrap_err();
    assert!(matches!(refused, Turned::Full { .. }));
    assert_eq!(gate.waiting(), 2);
    drop(holder);
    drop(admitted(&mut online));
    drop(admitted(&mut older));
    assert_eq!((gate.in_flight(), gate.waiting()), (0, 0));
}

#[tokio::test]
async fn a_request_that_is_late_already_does_not_run_even_on_a_free_place() {
    let gate = admission(1, 1);
    let late = gate.admit(Priority::Online, Some(Instant::now())).await;
    assert_eq!(late.unwrap_err(), Turned::Expired);
    assert_eq!(gate.in_flight(), 0);
}

#[tokio::test]
async fn a_waiting_request_is_answered_when_its_deadline_passes() {
    let gate = admission(1, 4);
    // Never released while the other waits, so only the deadline can be what answers.
    let _holder = online(&gate);
    let soon = Instant::now() + Duration::from_millis(5);
    let answer = gate.admit(Priority::Online, Some(soon)).await;
    assert_eq!(answer.unwrap_err(), Turned::Expired);
    assert!(Instant::now() >= soon, "not before");
    assert_eq!(gate.waiting(), 0);
}

/// A seat of a request whose deadline has passed without anybody having noticed yet.
fn late_seat(gate: &Admission) -> Seat {
    match gate.gate.join(Priority::Online, Some(Instant::now())) {
        Ok(Joined::Waits(seat)) => seat,
        _ => panic!("expected a seat"),
    }
}

#[tokio::test]
async fn a_free_place_passes_over_those_whose_deadline_has_passed() {
    let gate = admission(1, 4);
    let holder = online(&gate);
    let late = [late_seat(&gate), late_seat(&gate)];
    let mut in_time = waits(&gate, Priority::Online, Some(Instant::now() + NEVER));
    drop(holder);
    assert_eq!(gate.waiting(), 0);
    let permit = admitted(&mut in_time);
    for seat in late {
        assert_eq!(seat.turn(None).await.unwrap_err(), Turned::Expired);
    }
    drop(permit);
    assert_eq!(gate.in_flight(), 0);
}

#[tokio::test]
async fn whoever_gets_a_place_and_looks_too_late_does_not_run() {
    let gate = admission(1, 4);
    let holder = online(&gate);
    let Ok(Joined::Waits(seat)) = gate.gate.join(Priority::Online, None) else {
        panic!("expected a seat");
    };
    drop(holder);
    let answer = seat.turn(Some(Instant::now())).await;
    assert_eq!(answer.unwrap_err(), Turned::Expired);
    assert_eq!((gate.in_flight(), gate.waiting()), (0, 0));
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_line() {
    let gate = admission(1, 4);
    let holder = online(&gate);
    let gone = waits(&gate, Priority::Online, None);
    let mut stays = waits(&gate, Priority::Online, Some(Instant::now() + NEVER));
    let gone_too = waits(&gate, Priority::Batch, None);
    drop((gone, gone_too));
    assert_eq!(gate.waiting(), 1);
    drop(holder);
    drop(admitted(&mut stays));
    assert_eq!((gate.in_flight(), gate.waiting()), (0, 0));
}

#[tokio::test]
async fn a_client_that_goes_away_with_a_permit_it_never_saw_passes_it_on() {
    let gate = admission(1, 4);
    let holder = online(&gate);
    let gone = waits(&gate, Priority::Online, None);
    let mut next = waits(&gate, Priority::Online, None);
    drop(holder);
    assert!(poll(&mut next).is_none());
    drop(gone);
    drop(admitted(&mut next));
    assert_eq!((gate.in_flight(), gate.waiting()), (0, 0));
}

#[tokio::test]
async fn a_panic_gives_the_place_back() {
    let gate = admission(1, 4);
    let holder = online(&gate);
    let mut next = waits(&gate, Priority::Online, None);
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let _held = holder;
        panic!("the work failed");
    }));
    assert!(panicked.is_err());
    drop(admitted(&mut next));
    assert_eq!(gate.in_flight(), 0);
}

#[test]
fn a_permit_moves_to_another_thread() {
    let gate = admission(1, 0);
    let permit = online(&gate);
    std::thread::spawn(move || drop(permit)).join().unwrap();
    assert_eq!(gate.in_flight(), 0);
}

#[test]
fn those_who_only_enter_are_counted_and_bounded() {
    let gate = admission(2, 4);
    let inside: Vec<InFlight> = (0..96)
        .map(|_| gate.enter(Priority::Online).unwrap())
        .collect();
    assert_eq!(gate.in_flight(), 96);
    let expected = Turned::Full {
        waiting: 96,
        limit: 96,
        retry_after_s: 1,
    };
    assert_eq!(gate.enter(Priority::Online).unwrap_err(), expected);
    assert!(
        gate.try_admit(Priority::Online).is_some(),
        "they take no place"
    );
    drop(inside);
    assert_eq!(gate.in_flight(), 0);
}

#[test]
fn batch_requests_enter_only_while_half_is_free() {
    let gate = admission(2, 4);
    let batch: Vec<InFlight> = std::iter::from_fn(|| gate.enter(Priority::Batch).ok()).collect();
    assert_eq!(batch.len(), 48);
    assert!(gate.enter(Priority::Online).is_ok());
    assert!(admission(1, 0).enter(Priority::Batch).is_ok());
}

#[test]
fn the_priority_is_a_word() {
    assert_eq!(Priority::parse(None), Ok(Priority::Online));
    assert_eq!(Priority::parse(Some("online")), Ok(Priority::Online));
    assert_eq!(Priority::parse(Some(" batch ")), Ok(Priority::Batch));
    let error = Priority::parse(Some("urgent")).unwrap_err();
    assert_eq!(error, "expected online or batch, found \"urgent\"");
}
