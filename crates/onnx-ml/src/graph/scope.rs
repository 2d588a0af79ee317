//! [`Scope`]: the names of a graph while it is built.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::Source;

/// The values known while a graph is built.
pub(crate) struct Scope<'a> {
    names: RefCell<HashMap<String, Source>>,
    slots: Cell<usize>,
    /// What is taken from the graph around, and the slots it gets in this one.
    captures: RefCell<Vec<(String, usize)>>,
    parent: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(parent: Option<&'a Scope<'a>>) -> Scope<'a> {
        Scope {
            names: RefCell::new(HashMap::new()),
            slots: Cell::new(0),
            captures: RefCell::new(Vec::new()),
            parent,
        }
    }

    /// A place for one more value of the run.
    pub(super) fn new_slot(&self) -> usize {
        let slot = self.slots.get();
        self.slots.set(slot + 1);
        slot
    }

    /// Whether the name was free.
    pub(super) fn define(&self, name: &str, source: Source) -> bool {
        self.names
            .borrow_mut()
            .insert(name.to_string(), source)
            .is_none()
    }

    /// Where the value is, taking it from the graph around if it is there.
    pub(super) fn resolve(&self, name: &str) -> Option<Source> {
        if name.is_empty() {
            return Some(Source::Absent);
        }
        if let Some(source) = self.names.borrow().get(name) {
            return Some(*source);
        }
        self.parent?.resolve(name)?;
        let slot = self.new_slot();
        self.captures.borrow_mut().push((name.to_string(), slot));
        self.define(name, Source::Slot(slot));
        Some(Source::Slot(slot))
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.slots.get()
    }

    /// What was taken from the graph around, and the slots it got in this one.
    pub(super) fn into_captures(self) -> Vec<(String, usize)> {
        self.captures.into_inner()
    }
}
