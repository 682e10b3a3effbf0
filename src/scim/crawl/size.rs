//! How many resources are asked for at a time: fewer where a page is too slow or cannot be read, so
//! that one resource that spoils its page ends up alone (facts page, Q55).

use serde::{Deserialize, Serialize};

/// The `count` of the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PageSize {
    now: u32,
    /// Pages that went well since the last change.
    good: u32,
}

impl PageSize {
    /// Pages that go well before the next is twice as large. More than one: behind a bad resource
    /// the next bad one is often near.
    const GOOD_BEFORE_GROWTH: u32 = 2;

    pub(super) fn new(page_size: u32) -> Self {
        Self {
            now: page_size.max(1),
            good: 0,
        }
    }

    pub(super) fn get(self) -> u32 {
        self.now
    }

    /// A page failed that may be too large. False when it cannot be smaller.
    pub(super) fn shrink(&mut self) -> bool {
        self.good = 0;
        let can = self.now > 1;
        self.now = (self.now / 2).max(1);
        can
    }

    /// A page went well.
    pub(super) fn grow(&mut self, page_size: u32) {
        self.good += 1;
        if self.now >= page_size {
            self.now = page_size.max(1);
            self.good = 0;
        } else if self.good >= Self::GOOD_BEFORE_GROWTH {
            self.now = self.now.saturating_mul(2).min(page_size);
            self.good = 0;
        }
    }

    pub(super) fn is_valid(self) -> bool {
        self.now >= 1 && self.good < Self::GOOD_BEFORE_GROWTH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_to_one_and_grows_back_slowly() {
        let mut size = PageSize::new(10);
        let mut down = vec![];
        while size.shrink() {
            down.push(size.get());
        }
        assert_eq!(down, [5, 2, 1]);
        let up: Vec<u32> = (0..10)
            .map(|_| {
                size.grow(10);
                size.get()
            })
            .collect();
        assert_eq!(up, [1, 2, 2, 4, 4, 8, 8, 10, 10, 10]);
    }
}
