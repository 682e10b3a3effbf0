//! In which order an instance puts ids. It is not told, so every order that the rows do not
//! contradict stays possible; a crawl by key is sound under any one of them, as long as it is one.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// The orders that are still possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::scim) struct Orders {
    /// Byte for byte.
    bytes: bool,
    /// As if all ASCII letters were small.
    lower: bool,
    /// As if all ASCII letters were capital. Differs from `lower` where `_` meets a letter.
    upper: bool,
}

impl Orders {
    /// Nothing was seen yet.
    pub(in crate::scim) const ALL: Self = Self {
        bytes: true,
        lower: true,
        upper: true,
    };

    /// Whether no order is left.
    pub(in crate::scim) fn is_none(self) -> bool {
        !(self.bytes || self.lower || self.upper)
    }

    /// The orders that are possible by both accounts.
    pub(in crate::scim) fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes && other.bytes,
            lower: self.lower && other.lower,
            upper: self.upper && other.upper,
        }
    }

    /// Those in which `a` comes before `b`.
    pub(in crate::scim) fn ascending(self, a: &str, b: &str) -> Self {
        self.keep(a, b, Ordering::is_lt)
    }

    /// Those in which `a` comes before `b` or in its place.
    pub(in crate::scim) fn not_descending(self, a: &str, b: &str) -> Self {
        self.keep(a, b, Ordering::is_le)
    }

    fn keep(self, a: &str, b: &str, wanted: fn(Ordering) -> bool) -> Self {
        let folded = |fold: fn(&u8) -> u8| {
            wanted(a.bytes().map(|x| fold(&x)).cmp(b.bytes().map(|x| fold(&x))))
        };
        Self {
            bytes: self.bytes && wanted(a.cmp(b)),
            lower: self.lower && folded(u8::to_ascii_lowercase),
            upper: self.upper && folded(u8::to_ascii_uppercase),
        }
    }
}

/// Whether two ids are equal but for case.
pub(in crate::scim) fn are_case_twins(a: &str, b: &str) -> bool {
    a != b && a.eq_ignore_ascii_case(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ids: &[&str]) -> Orders {
        ids.windows(2)
            .fold(Orders::ALL, |left, pair| left.ascending(pair[0], pair[1]))
    }

    #[test]
    fn rows_leave_the_orders_that_they_do_not_contradict() {
        assert_eq!(after(&["0a", "0b", "f1"]), Orders::ALL);
        let only = |bytes, lower, upper| Orders {
            bytes,
            lower,
            upper,
        };
        assert_eq!(after(&["a", "B", "c"]), only(false, true, true));
        assert_eq!(after(&["A", "B", "a"]), only(true, false, false));
        assert_eq!(after(&["A_", "Ab"]), only(true, true, false));
        assert_eq!(after(&["Ab", "A_"]), only(false, false, true));
        assert!(after(&["9", "10"]).is_none());
        assert!(after(&["a", "a"]).is_none());
        assert!(after(&["a", "B", "A"]).is_none());
    }

    #[test]
    fn case_twins_are_told_from_repeats() {
        assert!(are_case_twins("aB", "Ab"));
        assert!(!are_case_twins("ab", "ab"));
        assert!(!are_case_twins("ab", "ac"));
    }
}
