//! What every online store promises.
//!
//! * `profiles` – what is known of an entity.
//! * `events` – what happened to it, and when.
//! * `reading` – one entity, some, or all.
//! * `restarts` – what is still there, and what comes again.

mod events;
mod profiles;
mod reading;
mod restarts;

use std::future::Future;
use std::pin::Pin;

use crate::world::World;

type Case = for<'a> fn(&'a World) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The promises by name. Each is kept in a world of its own.
pub const CASES: &[(&str, Case)] = &[
    ("nothing is known of what was never written", |world| {
        Box::pin(profiles::unknown(world))
    }),
    ("an update of some features keeps the others", |world| {
        Box::pin(profiles::partial_updates(world))
    }),
    (
        "the value of the latest time wins, and of equal times the last",
        |world| Box::pin(profiles::times(world)),
    ),
    ("null is a value", |world| Box::pin(profiles::null(world))),
    ("a removal forgets everything, once", |world| {
        Box::pin(profiles::removals(world))
    }),
    ("an event is applied once in 24 hours", |world| {
        Box::pin(events::duplicates(world))
    }),
    ("changes of one batch happen in their order", |world| {
        Box::pin(profiles::order_in_a_batch(world))
    }),
    ("no two keys are the same entity", |world| {
        Box::pin(profiles::keys(world))
    }),
    ("many entities at once", |world| {
        Box::pin(reading::many_entities(world))
    }),
    ("many changes of one entity at once", |world| {
        Box::pin(events::many_changes(world))
    }),
    (
        "a scan finds every entity that stays, whatever comes and goes",
        |world| Box::pin(reading::scans(world)),
    ),
    (
        "several entities are read at once, in the order asked",
        |world| Box::pin(reading::reads(world)),
    ),
    ("a reader sees a change whole or not at all", |world| {
        Box::pin(reading::whole_changes(world))
    }),
    ("everything is there after a restart", |world| {
        Box::pin(restarts::restart(world))
    }),
    ("a batch applied again changes nothing", |world| {
        Box::pin(restarts::replay(world))
    }),
    ("windows count what happened in them", |world| {
        Box::pin(events::windows_of_time(world))
    }),
    (
        "an event after the clock counts from its time on",
        |world| Box::pin(events::future(world)),
    ),
];
