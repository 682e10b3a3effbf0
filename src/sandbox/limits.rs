//! Rate limit rules: requests an hour, counted late (facts page, section 12.1).

use std::time::Duration;

use jiff::Timestamp;

use super::error::Refusal;

/// One row of `sys_rate_limit_rules` that meets the account.
#[derive(Clone, Debug)]
pub struct RateRule {
    /// Requests an hour.
    pub per_hour: u32,
    /// The rule's `sys_id`.
    pub id: String,
    /// How often a node writes its count to the database: the limit bites no sooner.
    pub flush_every: Duration,
}

impl RateRule {
    /// A rule as the platform keeps it.
    #[must_use]
    pub fn per_hour(per_hour: u32) -> Self {
        Self {
            per_hour,
            id: "7c0ffee0a1b24d0f9e110badc0de0429".to_owned(),
            flush_every: Duration::from_secs(30),
        }
    }
}

/// The count under a rule.
#[derive(Clone, Debug)]
pub(super) struct RateCount {
    rule: RateRule,
    hour: i64,
    flush: i64,
    written: u32,
    unwritten: u32,
}

impl RateCount {
    /// Nothing counted yet.
    #[must_use]
    pub(super) fn new(rule: RateRule) -> Self {
        Self {
            rule,
            hour: i64::MIN,
            flush: i64::MIN,
            written: 0,
            unwritten: 0,
        }
    }

    /// Counts one request. The headers go with its answer, whatever that is.
    pub(super) fn count(
        &mut self,
        now: Timestamp,
    ) -> (Vec<(&'static str, String)>, Result<(), Refusal>) {
        let second = now.as_second();
        let hour = second.div_euclid(3_600);
        if hour != self.hour {
            (self.hour, self.written, self.unwritten) = (hour, 0, 0);
        }
        let every = i64::try_from(self.rule.flush_every.as_secs()).unwrap_or(i64::MAX);
        let flush = if every == 0 {
            self.flush.wrapping_add(1)
        } else {
            second.div_euclid(every)
        };
        if flush != self.flush {
            self.flush = flush;
            self.written = self
                .written
                .saturating_add(std::mem::take(&mut self.unwritten));
        }
        let reset = (hour + 1) * 3_600;
        let headers = vec![
            ("x-ratelimit-limit", self.rule.per_hour.to_string()),
            ("x-ratelimit-reset", reset.to_string()),
            ("x-ratelimit-rule", self.rule.id.clone()),
        ];
        if self.written >= self.rule.per_hour {
            let detail = format!(
                "Rate limit of {} requests per hour for SCIM API exceeded",
                self.rule.per_hour
            );
            let refusal = Refusal::Platform {
                status: 429,
                message: "Rate limit exceeded",
                detail: Some(detail),
                headers: vec![("retry-after", (reset - second).to_string())],
            };
            return (headers, Err(refusal));
        }
        self.unwritten = self.unwritten.saturating_add(1);
        (headers, Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(count: &mut RateCount, second: i64) -> bool {
        let now = Timestamp::from_second(1_772_377_200 + second).unwrap();
        let (headers, answer) = count.count(now);
        assert_eq!(headers[0], ("x-ratelimit-limit", "3".to_owned()));
        answer.is_err()
    }

    #[test]
    fn the_limit_bites_late_and_ends_with_the_hour() {
        let mut count = RateCount::new(RateRule::per_hour(3));
        // Six requests within one flush: overshot, as on a real node.
        assert!((0..6).all(|second| !refused(&mut count, second)));
        assert!(refused(&mut count, 30));
        assert!(refused(&mut count, 3_599));
        assert!(!refused(&mut count, 3_600));
    }

    #[test]
    fn an_exact_limit_can_be_had_for_tests() {
        let mut count = RateCount::new(RateRule {
            flush_every: Duration::ZERO,
            ..RateRule::per_hour(3)
        });
        assert!((0..3).all(|second| !refused(&mut count, second)));
        assert!(refused(&mut count, 3));
        let now = Timestamp::from_second(1_772_377_200 + 100).unwrap();
        let Refusal::Platform { headers, .. } = count.count(now).1.unwrap_err() else {
            panic!("SCIM-shaped");
        };
        assert_eq!(headers, [("retry-after", "3500".to_owned())]);
    }
}
