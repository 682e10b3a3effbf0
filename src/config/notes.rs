//! What is found out while the tree is read: mistakes, warnings, and what is in force.

use std::cell::RefCell;

use super::problem::Problem;
use super::shown::{Shown, ShownKey};

/// Collects. Shared by all sections of one reading, on one thread.
#[derive(Default)]
pub(super) struct Notes {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<String>>,
    keys: RefCell<Vec<ShownKey>>,
}

impl Notes {
    /// Notes a mistake. One in `[defaults]` is met once for each instance, and told once.
    pub(super) fn problem(&self, problem: Problem) {
        push_new(&self.problems, problem);
    }

    /// Notes what is allowed but unwise.
    pub(super) fn warning(&self, warning: String) {
        push_new(&self.warnings, warning);
    }

    /// Notes the value of a key. `null` is a secret, left out.
    pub(super) fn in_force(&self, key: ShownKey) {
        self.keys.borrow_mut().push(key);
    }

    /// Everything that was noted.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<String>, Shown) {
        let warnings = self.warnings.into_inner();
        let shown = Shown::new(self.keys.into_inner(), warnings.clone());
        (self.problems.into_inner(), warnings, shown)
    }
}

fn push_new<T: PartialEq>(list: &RefCell<Vec<T>>, item: T) {
    let mut list = list.borrow_mut();
    if !list.contains(&item) {
        list.push(item);
    }
}
