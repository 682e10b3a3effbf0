//! The configuration of a plan.

use std::time::Duration;

use musterd::sandbox::{AuthRules, Sandbox};

use super::plan::{Instance, Plan};
use super::watch::Watch;
use crate::login::{Login, login};

/// Who may come in.
pub(super) fn rules(instance: &Instance) -> AuthRules {
    let mut rules = AuthRules::default();
    if instance.auth == Login::Bearer {
        // A token that a person was given by hand.
        rules.access_lifetime = Duration::from_hours(24 * 365);
    }
    rules
}

/// The configuration of all instances.
pub(super) fn text(plan: &Plan, watch: &Watch) -> String {
    let mut text = format!("history = \"{}d\"\n", plan.history_days);
    for instance in &plan.instances {
        text += &section(instance, watch.sandbox(instance.name), instance.page_size);
    }
    text
}

/// The same, with another page size for one of them.
pub(super) fn reloaded(plan: &Plan, watch: &Watch, place: usize, page_size: u32) -> String {
    let mut plan = plan.clone();
    plan.instances[place].page_size = page_size;
    text(&plan, watch)
}

fn section(instance: &Instance, sandbox: &Sandbox, page_size: u32) -> String {
    let Instance {
        name,
        concurrency,
        overlap_minutes,
        incremental,
        full,
        splay: [splay_incremental, splay_full],
        per_second,
        burst,
        per_hour,
        guard,
        groups,
        ..
    } = instance;
    let (resources, groups, splay_groups, guards) = match groups {
        None => ("[\"users\"]", String::new(), String::new(), String::new()),
        Some(groups) => (
            "[\"users\", \"groups\"]",
            format!("groups = \"{}\"\n", groups.full.cron()),
            format!(", groups = \"{}s\"", groups.splay.as_secs()),
            [
                ("memberships", groups.memberships),
                ("group_memberships", groups.group_memberships),
            ]
            .map(|(name, guard)| {
                format!(
                    "{name} = {{ at_least = {}, count = {}, percent = {}, window = \"{}h\" }}\n",
                    guard.at_least, guard.count, guard.percent, guard.window_hours
                )
            })
            .concat(),
        ),
    };
    let per_hour = per_hour.map_or(String::new(), |n| format!("per_hour = {n}\n"));
    let limit = format!(
        "{{ at_least = {}, count = {}, percent = {}, window = \"{}h\" }}",
        guard.at_least, guard.count, guard.percent, guard.window_hours
    );
    format!(
        r#"
[instances.{name}]
url = "https://{name}.example"
resources = {resources}
page_size = {page_size}
concurrency = {concurrency}
overlap = "{overlap_minutes}m"
[instances.{name}.auth]
{}
[instances.{name}.schedule]
incremental = "{}"
full = "{}"
{groups}splay = {{ incremental = "{}s", full = "{}s"{splay_groups} }}
[instances.{name}.rate]
per_second = {per_second}
burst = {burst}
{per_hour}
[instances.{name}.guard]
deactivations = {limit}
blanking = {limit}
source_changed = {{ at_least = {}, percent = {} }}
{guards}"#,
        login(instance.auth, &AuthRules::default(), sandbox),
        incremental.cron(),
        full.cron(),
        splay_incremental.as_secs(),
        splay_full.as_secs(),
        guard.source_at_least,
        guard.source_percent,
    )
}
