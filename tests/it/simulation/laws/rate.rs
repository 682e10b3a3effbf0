//! The rate limit is a promise, over deaths and starts, too (promise P8).

use jiff::SignedDuration;

use super::super::watch::{Asked, Seen};
use super::{Law, Laws, broken};

/// Timers are in whole milliseconds: a request may be early by so much.
const ROUNDING_SECONDS: f64 = 0.002;

impl Laws {
    /// Holds all requests that were sent against the limits.
    pub(in super::super) fn check_rates(&self, seen: &Seen) -> Law {
        for (name, requests) in &seen.requests {
            let instance = &self.instances[name];
            let (rate, burst) = (f64::from(instance.per_second), f64::from(instance.burst));
            // The most that any window ending here holds above its share.
            let mut level = 0.0_f64;
            let mut last = None;
            for asked in requests {
                let passed = last.map_or(0.0, |last| asked.at.duration_since(last).as_secs_f64());
                level = (level - rate * passed).max(0.0) + 1.0;
                last = Some(asked.at);
                if level > burst + rate * ROUNDING_SECONDS + 1e-6 {
                    return broken(
                        "no window has more requests than its share",
                        format!("{name} at {}: {level} of {burst}", asked.at),
                    );
                }
            }
            if let Some(per_hour) = instance.per_hour {
                within_the_hour(name, requests, per_hour as usize)?;
            }
        }
        Ok(())
    }
}

fn within_the_hour(name: &str, requests: &[Asked], per_hour: usize) -> Law {
    let hour = SignedDuration::from_hours(1) - SignedDuration::from_millis(2);
    for (place, asked) in requests.iter().enumerate().skip(per_hour) {
        let before = &requests[place - per_hour];
        if asked.at.duration_since(before.at) < hour {
            return broken(
                "no hour has more requests than its share",
                format!("{name}: {} since {}", per_hour + 1, before.at),
            );
        }
    }
    Ok(())
}
