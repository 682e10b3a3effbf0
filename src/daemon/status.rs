//! The one line that `systemctl status` shows.

use jiff::Timestamp;

use super::fleet::Fleet;
use crate::mirror::read::Health;

/// Sums up all instances: how many are well, how many users are mirrored, when the next sync comes.
pub(super) async fn line(fleet: &Fleet, next_due_at: Option<Timestamp>) -> String {
    let now = fleet.clock.now();
    let health = fleet.mirror.read(move |reader| reader.health(now)).await;
    let Ok(health) = health else {
        return "the mirror cannot be read".to_owned();
    };
    let wait = next_due_at.map(|due_at| due_at.duration_since(now).as_secs().max(0));
    sum_up(&health, wait)
}

fn sum_up(health: &[Health], next_tick_in_secs: Option<i64>) -> String {
    let count = |state: &str| {
        health
            .iter()
            .filter(|instance| instance.state == state)
            .count()
    };
    let linked = health
        .iter()
        .filter(|instance| instance.state != "unlinked");
    let active: i64 = linked.clone().map(|instance| instance.active).sum();
    let mut line = format!(
        "{} of {} instances healthy, {active} active users",
        count("healthy"),
        linked.count()
    );
    for state in ["failing", "source_changed", "new"] {
        if count(state) > 0 {
            line.push_str(&format!(", {} {}", count(state), state.replace('_', " ")));
        }
    }
    let holds: i64 = health.iter().map(|instance| instance.open_holds).sum();
    if holds > 0 {
        let plural = if holds == 1 { "" } else { "s" };
        line.push_str(&format!(", {holds} open hold{plural}: see `musterd holds`"));
    }
    if let Some(wait) = next_tick_in_secs {
        line.push_str(&format!("; next tick in {wait} s"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(state: &str, open_holds: i64) -> Health {
        Health {
            being_removed: false,
            instance: "acme".to_owned(),
            url: String::new(),
            state: state.to_owned(),
            not_before: None,
            last_success_at: None,
            last_success_age_seconds: None,
            last_error: None,
            last_error_at: None,
            consecutive_failures: 0,
            users: 10,
            active: 9,
            open_holds,
            approved_hold_id: None,
            rejects: 0,
            ambiguous_profiles: 0,
            baseline_at: None,
            last_full_success_at: None,
            watermark: None,
            capabilities: None,
            groups: None,
        }
    }

    #[test]
    fn the_line_says_how_many_are_well_and_where_to_look_when_something_is_held() {
        assert_eq!(
            sum_up(&[one("healthy", 0)], Some(12)),
            "1 of 1 instances healthy, 9 active users; next tick in 12 s"
        );
        let all = [
            one("healthy", 1),
            one("failing", 0),
            one("source_changed", 1),
            one("unlinked", 0),
        ];
        assert_eq!(
            sum_up(&all, None),
            "1 of 3 instances healthy, 27 active users, 1 failing, 1 source changed, \
             2 open holds: see `musterd holds`"
        );
    }
}
