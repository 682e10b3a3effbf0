//! What an instance shows and honours, step by step.

use super::super::client::{Client, ListQuery};
use super::super::{filter, probe};
use super::visible::Seen;
use super::{Finding, Page, ShortBy};
use crate::model::words::{count, span};
use crate::model::{Obeyed, ResourceType, Step, StepOutcome};

/// The requests of a check, as they are told: without the values of their filters.
pub(super) struct Asked<'a> {
    pub(super) client: &'a Client,
    pub(super) resource: ResourceType,
}

impl Asked<'_> {
    /// The first request.
    pub(super) fn first(&self) -> String {
        self.line(None, 1)
    }

    /// A page as a crawl asks for it.
    pub(super) fn page(&self) -> String {
        self.line(None, self.client.options().page_size)
    }

    /// The rows that the probe chooses from.
    fn window(&self) -> String {
        self.line(None, probe::ROWS.min(self.client.options().page_size))
    }

    /// The first row by a filter.
    fn filter(&self, filter: &str) -> String {
        self.line(Some(filter), 1)
    }

    fn line(&self, filter: Option<&str>, count: u32) -> String {
        let query = ListQuery {
            filter: None,
            start_index: 1,
            count,
        };
        let url = self.client.list_url(self.resource, &query);
        let filter = filter.map_or_else(String::new, |filter| format!("filter={filter}&"));
        let (path, query) = (url.path(), url.query().unwrap_or_default());
        format!("GET {path}?{filter}{query}")
    }
}

/// The steps behind the first answer, as far as they were taken.
pub(super) fn steps(found: &Finding, asked: &Asked<'_>) -> Vec<Step> {
    let Some(total) = found.total else {
        return Vec::new();
    };
    let mut steps = vec![
        answers(total).by(asked.first()),
        clock(found).by(asked.first()),
    ];
    if let Some(page) = found.page {
        steps.push(pages(page, found.short_by).by(asked.page()));
    }
    if let Some(full_sync) = found.full_sync {
        let span = span(full_sync.seconds.ceil() as i64);
        let says = format!(
            "{}, at least {span} at this pace",
            count(full_sync.requests, "page")
        );
        steps.push(Step::new("full_sync", StepOutcome::Passed, says));
        steps.push(rate_limit(found.told_per_hour).by(asked.page()));
    }
    if found.unreadable {
        let says = "one that cannot be read is among the first: a sync sets it aside, see the table `rejects`";
        let step = Step::new("records", StepOutcome::Warned, says);
        steps.push(step.mend("have the record mended on the instance"));
    }
    let shown = found.visible.iter();
    steps.extend(shown.map(|(name, seen)| attribute(name, *seen).by(asked.page())));
    steps.extend(honoured(found, asked));
    steps
}

fn answers(total: u64) -> Step {
    match total {
        0 => Step::new("answers", StepOutcome::Failed, super::NOBODY).mend(super::NOBODY_HINT),
        total => {
            let says = format!("yes, {} shown", count(total, "user"));
            Step::new("answers", StepOutcome::Passed, says)
        }
    }
}

fn clock(found: &Finding) -> Step {
    let step = |outcome, says: &str| Step::new("clock", outcome, says);
    match found.clock_skew_seconds {
        None => step(StepOutcome::Unknown, "the answer has no date"),
        Some(-60..=60) => step(StepOutcome::Passed, "agrees with ours"),
        Some(skew) => {
            let says = format!(
                "{} s {} ours: watermarks go by the instance's clock, schedules by ours",
                skew.abs(),
                if skew > 0 { "ahead of" } else { "behind" }
            );
            step(StepOutcome::Warned, &says).mend("have the one that is wrong set right")
        }
    }
}

fn pages(page: Page, short_by: Option<ShortBy>) -> Step {
    let Page {
        asked,
        rows,
        seconds,
        ..
    } = page;
    let short = format!("{rows} users where {asked} were asked for, in {seconds:.1} s");
    let warned = |says: String, mend: &str| {
        let step = Step::new("pages", StepOutcome::Warned, says);
        step.mend(mend)
    };
    match short_by {
        _ if rows == 0 => {
            let says = format!("no user where {asked} were asked for, though some are counted");
            Step::new("pages", StepOutcome::Failed, says)
                .mend("give the account the right to read users, or have the instance's list looked at: no sync succeeds so")
        }
        Some(ShortBy::Cap) => warned(short, &format!("set `page_size` to what it gives: {rows}")),
        Some(ShortBy::HiddenRows) => warned(
            format!(
                "{short}, and a smaller page is short as well: the account may not see some rows"
            ),
            "give the account the right to read all users: full syncs are not complete without",
        ),
        None if page.is_whole() => {
            let says = format!("whole, {rows} users in {seconds:.1} s");
            Step::new("pages", StepOutcome::Passed, says)
        }
        None => warned(short, "have the instance's list looked at"),
    }
}

fn rate_limit(told_per_hour: Option<u32>) -> Step {
    let step = |outcome, says: String| Step::new("rate_limit", outcome, says);
    match told_per_hour {
        None => step(
            StepOutcome::Passed,
            "no header tells of one that is tighter than `rate`".to_owned(),
        ),
        Some(limit) => step(
            StepOutcome::Warned,
            format!(
                "tighter than `rate`: {} an hour are kept to",
                count(limit, "request")
            ),
        )
        .mend(format!(
            "set `rate.per_hour = {limit}`, or have the rate limit rule raised"
        )),
    }
}

fn attribute(name: &'static str, Seen { seen, of }: Seen) -> Step {
    match seen {
        0 => Step::new(
            name,
            StepOutcome::Warned,
            format!(
                "not shown for any of {of} users: nobody has one, or the account may not read it"
            ),
        )
        .mend("give the account the right to read the field, if somebody has one"),
        seen => {
            let says = format!("shown, for {seen} of {of} users");
            Step::new(name, StepOutcome::Passed, says)
        }
    }
}

/// What is honoured of sorting and filters. An unknown one may not have been asked for: it names no request.
fn honoured(found: &Finding, asked: &Asked<'_>) -> Vec<Step> {
    const ID_HINT: &str = "give the account the right to query and sort `sys_id`";
    const MODIFIED_HINT: &str = "give the account the right to query `sys_updated_on`";
    let Some(can) = &found.capabilities else {
        return Vec::new();
    };
    let sort = match (can.order_unknown, can.ids_differ_in_case) {
        (true, _) => Step::new(
            "sort_by_id",
            StepOutcome::Warned,
            "not honoured, or by no order that is known: pages go by startIndex",
        )
        .mend(ID_HINT),
        (false, true) => Step::new(
            "sort_by_id",
            StepOutcome::Passed,
            "honoured; some ids differ in case alone",
        ),
        (false, false) => Step::new("sort_by_id", StepOutcome::Passed, "honoured"),
    };
    let any = "…";
    let (after, from, before) = (
        filter::id_after(any),
        filter::id_from(any),
        filter::id_before(any),
    );
    let modified = "meta.lastModified ge \"…\"";
    let filters = [
        (
            "filter_by_id",
            can.id_after,
            asked.filter(&after),
            "pages go by startIndex",
            ID_HINT,
        ),
        (
            "filter_by_id_range",
            can.id_range,
            asked.line(Some(&format!("{from} and {before}")), probe::RANGE),
            "one range at a time",
            ID_HINT,
        ),
        (
            "filter_by_last_modified",
            can.modified_filter,
            asked.filter(modified),
            "every sync is a full one",
            MODIFIED_HINT,
        ),
        (
            "both_filters",
            can.modified_and_id,
            asked.filter(&format!("{modified} and {after}")),
            "long incremental syncs go by startIndex",
            MODIFIED_HINT,
        ),
    ];
    let filters = filters.map(|(name, obeyed, request, otherwise, hint)| {
        let lacking = |word: &str| {
            let says = format!("{word}: {otherwise}");
            Step::new(name, StepOutcome::Warned, says).mend(hint)
        };
        match obeyed {
            Obeyed::Obeyed => Step::new(name, StepOutcome::Passed, "honoured").by(request),
            Obeyed::Ignored => lacking("ignored").by(request),
            Obeyed::Refused => lacking("refused").by(request),
            Obeyed::Unknown => untold(name),
        }
    });
    let mut steps = vec![sort.by(asked.window())];
    steps.extend(filters);
    steps.push(inactive(found, can.inactive_shown, asked));
    steps
}

fn inactive(found: &Finding, shown: Obeyed, asked: &Asked<'_>) -> Step {
    let name = "inactive_users";
    let request = asked.filter(probe::INACTIVE);
    match shown {
        Obeyed::Obeyed => {
            let on_the_page = found.rows.iter().any(probe::is_inactive);
            let request = if on_the_page { asked.page() } else { request };
            Step::new(name, StepOutcome::Passed, "shown").by(request)
        }
        Obeyed::Ignored => Step::new(
            name,
            StepOutcome::Warned,
            "none is shown: either there is none, or leavers are found by full syncs only",
        )
        .by(request)
        .mend("if there is one, have the rule changed that hides inactive users from the account"),
        Obeyed::Refused | Obeyed::Unknown => untold(name),
    }
}

fn untold(name: &'static str) -> Step {
    let says = "cannot be told from what the instance answers";
    Step::new(name, StepOutcome::Unknown, says)
}
