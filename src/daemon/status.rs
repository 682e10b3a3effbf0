//! The one line that `systemctl status` shows.

use jiff::Timestamp;

use super::fleet::Fleet;

/// Sums up all instances: how many are well, how many users are mirrored, when the next sync comes.
pub(super) async fn line(fleet: &Fleet, next_due_at: Option<Timestamp>) -> String {
    let now = fleet.clock.now();
    let health = fleet.mirror.read(move |reader| reader.health(now)).await;
    let Ok(health) = health else {
        return "the mirror cannot be read".to_owned();
    };
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
        line.push_str(&format!(", {holds} open holds"));
    }
    if let Some(due_at) = next_due_at {
        let wait = due_at.duration_since(now).as_secs().max(0);
        line.push_str(&format!("; next tick in {wait} s"));
    }
    line
}
