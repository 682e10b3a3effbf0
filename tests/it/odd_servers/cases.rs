//! The table: in what a server is odd, and what the contract demands of a full sync against it.

use serde_json::{Value, json};

use super::Expect::{Complete, Fails, Harmless, Partial, Refused, Short, Unproved};
use super::directory::{case_twin, number, sys_id};
use super::scim::{Filter, Odd, WELL_BEHAVED};
use super::server::{Answer, Request};
use super::{Case, LEAVER, PAGE_SIZE};
use crate::ledger;

macro_rules! cases {
    ($($(#[$doc:meta])* $name:ident = $case:expr;)*) => {
        $($(#[$doc])* #[test] fn $name() {
            $case.run();
            ledger::enter_case("odd_server_cases", stringify!($name));
        })*
    };
}

/// Does not honour `filter=id gt "…"`, so that a crawl goes by `startIndex`.
pub(super) const BY_INDEX: Odd = Odd {
    id_filter: Filter::Refused,
    ..WELL_BEHAVED
};

/// Of a crawl by `startIndex`, wherever its second page begins.
fn in_the_middle(request: &Request) -> bool {
    let page = PAGE_SIZE as usize;
    (2..=2 * page).contains(&request.start_index())
}

// Page sizes.
cases! {
    /// The control of all others.
    nothing_odd_by_key = Case::always(WELL_BEHAVED, Complete);
    nothing_odd_by_index = Case::always(BY_INDEX, Complete);
    pages_are_capped_in_silence = Case::always(
        Odd { count: |asked| asked.min(7), ..WELL_BEHAVED }, Complete);
    pages_are_capped_in_silence_by_index = Case::always(
        Odd { count: |asked| asked.min(7), ..BY_INDEX }, Complete);
    pages_hold_one_user = Case::always(
        Odd { count: |asked| asked.min(1), ..WELL_BEHAVED }, Complete);
    /// More rows than were asked for are no page (facts page, section 11.3).
    count_is_ignored = Case::later(Odd { count: |_| 1000, ..WELL_BEHAVED }, Harmless);
    short_page_in_the_middle = Case::always(
        Odd {
            rows: |rows, request| if in_the_middle(request) { rows.truncate(5) },
            ..BY_INDEX
        },
        Complete);
    empty_page_in_the_middle = Case::later(
        Odd {
            rows: |rows, request| if in_the_middle(request) { rows.clear() },
            ..BY_INDEX
        },
        Short);
    /// A page of an account that may not see half of the users: cut first, hidden after.
    rows_hidden_after_the_cut = Case::later(
        Odd { rows: |rows, _| rows.retain(visible), ..WELL_BEHAVED }, Short);
    rows_hidden_after_the_cut_by_index = Case::later(
        Odd { rows: |rows, _| rows.retain(visible), ..BY_INDEX }, Short);
    pages_of_nothing_but_totals = Case::later(
        Odd { rows: |rows, _| rows.clear(), ..WELL_BEHAVED }, Short);
    resources_missing = Case::later(
        Odd {
            list: |answer, _| answer.edit(|list| remove(list, "Resources")),
            ..WELL_BEHAVED
        },
        Short);
    resources_missing_only_when_empty = Case::always(
        Odd {
            list: |answer, _| answer.edit(|list| if list["Resources"] == json!([]) {
                remove(list, "Resources");
            }),
            ..WELL_BEHAVED
        },
        Complete);
    first_page_is_empty_and_so_is_the_total = Case::later(
        Odd { listed: |_| false, ..WELL_BEHAVED }, Refused);
    first_page_is_empty_by_index = Case::later(
        Odd { listed: |_| false, ..BY_INDEX }, Refused);
}

// `startIndex` and order.
cases! {
    start_index_is_ignored = Case::always(
        Odd { start: |_, _| 1, ..WELL_BEHAVED }, Complete);
    start_index_is_ignored_and_the_filter_refused = Case::later(
        Odd { start: |_, _| 1, ..BY_INDEX }, Short);
    start_index_counts_from_zero = Case::always(
        Odd { start: |asked, _| if asked > 1 { asked - 1 } else { 1 }, ..BY_INDEX }, Complete);
    past_the_end_comes_the_first_page_again = Case::always(
        Odd { start: |asked, _| if asked > 60 { 1 } else { asked }, ..BY_INDEX }, Complete);
    past_the_end_comes_the_last_page_again = Case::always(
        Odd { start: |asked, _| asked.min(60), ..BY_INDEX }, Complete);
    every_page_is_in_an_order_of_its_own = Case::later(
        Odd {
            rows: |rows, request| {
                let n = rows.len().max(1);
                rows.rotate_left(request.number % n);
            },
            ..WELL_BEHAVED
        },
        Harmless);
    sorting_is_ignored_by_index = Case::later(
        Odd { start: |asked, request| (asked + 7 * request.number) % 60 + 1, ..BY_INDEX }, Harmless);
    ids_are_numbers = Case { id: number, ..Case::always(
        Odd {
            key: |id| format!("{:>9}", id),
            user: |user| {
                let id: u64 = user["id"].as_str().unwrap().parse().unwrap();
                user["id"] = json!(id);
            },
            ..WELL_BEHAVED
        },
        Complete) };
    ids_differ_only_in_case = Case { id: case_twin, ..Case::always(
        Odd { key: str::to_lowercase, ..WELL_BEHAVED }, Complete) };
    ids_differ_only_in_case_and_the_server_knows = Case { id: case_twin, ..Case::always(
        WELL_BEHAVED, Complete) };
    ids_need_care_in_urls_and_filters = Case {
        id: |n| format!("{:02} \"q\"\\é/?#%2e+&=,()'{}", n * 37 % 100, sys_id(n)),
        ..Case::always(WELL_BEHAVED, Complete) };
}

// Totals.
cases! {
    total_is_too_small = Case::later(
        Odd { total: |honest, _| honest.min(20), ..WELL_BEHAVED }, Partial);
    total_is_too_small_by_index = Case::later(
        Odd { total: |honest, _| honest.min(20), ..BY_INDEX }, Partial);
    total_is_a_page = Case::later(
        Odd { total: |honest, request| honest.min(request.count().max(1)), ..BY_INDEX }, Partial);
    total_is_too_large_for_ever = Case::later(
        Odd { total: |honest, _| honest + 40, ..WELL_BEHAVED }, Partial);
    total_is_too_large_for_ever_by_index = Case::later(
        Odd { total: |honest, _| honest + 40, ..BY_INDEX }, Partial);
    total_is_beyond_all_bounds = Case::later(
        Odd { total: |_, _| 4_000_000_000_000, ..WELL_BEHAVED }, Short);
    total_is_beyond_all_bounds_by_index = Case::later(
        Odd { total: |_, _| 4_000_000_000_000, ..BY_INDEX }, Short);
    /// Never twice the same, and never right.
    total_flaps = Case::later(
        Odd { total: |honest, request| honest + 1 + request.number % 1000, ..WELL_BEHAVED }, Short);
    total_flaps_by_index = Case::later(
        Odd { total: |honest, request| honest + 1 + request.number % 1000, ..BY_INDEX }, Short);
    total_is_a_text = Case::later(
        Odd {
            list: |answer, _| answer.edit(|list| {
                list["totalResults"] = json!(list["totalResults"].to_string());
            }),
            ..WELL_BEHAVED
        },
        Harmless);
}

// Filters.
cases! {
    filter_on_ids_is_refused = Case::always(BY_INDEX, Complete);
    filter_on_ids_is_ignored = Case::always(
        Odd { id_filter: Filter::Ignored, ..WELL_BEHAVED }, Complete);
    filter_on_ids_is_ignored_from_now_on = Case::later(
        Odd { id_filter: Filter::Ignored, ..WELL_BEHAVED }, Harmless);
    filter_on_ids_answers_nobody = Case::always(
        Odd { id_filter: Filter::Nobody, ..WELL_BEHAVED }, Complete);
    filter_on_ids_answers_nobody_from_now_on = Case::later(
        Odd { id_filter: Filter::Nobody, ..WELL_BEHAVED }, Harmless);
    filter_on_ids_answers_the_others = Case::always(
        Odd { id_filter: Filter::Reversed, ..WELL_BEHAVED }, Complete);
    filter_on_ids_answers_the_others_from_now_on = Case::later(
        Odd { id_filter: Filter::Reversed, ..WELL_BEHAVED }, Harmless);
    filter_on_stamps_is_refused = Case::always(
        Odd { modified_filter: Filter::Refused, ..WELL_BEHAVED }, Complete);
    filter_on_stamps_is_ignored = Case::always(
        Odd { modified_filter: Filter::Ignored, ..WELL_BEHAVED }, Complete);
    filter_on_stamps_is_ignored_from_now_on = Case::later(
        Odd { modified_filter: Filter::Ignored, ..WELL_BEHAVED }, Complete);
    filter_on_stamps_answers_nobody = Case::always(
        Odd { modified_filter: Filter::Nobody, ..WELL_BEHAVED }, Complete);
    filter_on_stamps_answers_nobody_from_now_on = Case::later(
        Odd { modified_filter: Filter::Nobody, ..WELL_BEHAVED }, Complete);
    filter_on_stamps_answers_the_others_from_now_on = Case::later(
        Odd { modified_filter: Filter::Reversed, ..WELL_BEHAVED }, Complete);
    every_filter_is_ignored = Case::always(
        Odd { id_filter: Filter::Ignored, modified_filter: Filter::Ignored, ..WELL_BEHAVED }, Complete);
    every_filter_answers_nobody = Case::always(
        Odd { id_filter: Filter::Nobody, modified_filter: Filter::Nobody, ..WELL_BEHAVED }, Complete);
    every_filter_is_refused = Case::always(
        Odd { id_filter: Filter::Refused, modified_filter: Filter::Refused, ..WELL_BEHAVED }, Complete);
}

// How users look.
cases! {
    users_have_no_meta = Case::always(
        Odd { user: |user| remove(user, "meta"), ..WELL_BEHAVED }, Complete);
    users_have_no_stamps_from_now_on = Case::later(
        Odd { user: |user| remove(&mut user["meta"], "lastModified"), ..WELL_BEHAVED }, Complete);
    users_have_no_extension = Case::always(
        Odd {
            user: |user| remove(user, "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User"),
            ..WELL_BEHAVED
        },
        Complete);
    stamps_cannot_be_read = Case::always(
        Odd { user: |user| user["meta"]["lastModified"] = json!("yesterday"), ..WELL_BEHAVED }, Complete);
    active_is_a_text = Case::always(
        Odd { user: |user| user["active"] = json!(user["active"].to_string()), ..WELL_BEHAVED }, Complete);
    /// Whoever is active has no `active` at all: missing is unknown, never false.
    active_is_shown_only_when_false = Case::always(
        Odd { user: |user| if user["active"] == json!(true) { remove(user, "active") }, ..WELL_BEHAVED },
        Complete);
    schemas_are_missing = Case::always(
        Odd { user: |user| remove(user, "schemas"), ..WELL_BEHAVED }, Complete);
    every_user_comes_twice = Case::later(
        Odd {
            rows: |rows, request| if request.count() > 1 {
                let half = rows.len().div_ceil(2);
                let twice = rows[..half].iter().flat_map(|user| [user.clone(), user.clone()]);
                *rows = twice.take(rows.len()).collect();
            },
            ..WELL_BEHAVED
        },
        Harmless);
    groups_come_among_the_users = Case::later(
        Odd {
            user: |user| if user["userName"] == json!("user.40") {
                user["meta"]["resourceType"] = json!("Group");
            },
            ..WELL_BEHAVED
        },
        Harmless);
}

// Asking for one user.
cases! {
    by_id_the_404_is_a_page_of_a_proxy = Case::later(
        Odd { one: |answer, _| if answer.status == 404 {
            *answer = Answer::html(404, "Not Found");
        }, ..WELL_BEHAVED },
        Unproved);
    by_id_everybody_is_a_404 = Case::later(
        Odd { one: |answer, _| {
            *answer = Answer::scim_error(404, "User not found");
        }, ..WELL_BEHAVED },
        Unproved);
    /// The first witness is seen, and then nobody any more.
    by_id_sight_is_lost_on_the_way = Case::later(
        Odd { one: |answer, request| if request.n_by_id > 0 {
            *answer = Answer::scim_error(404, "User not found");
        }, ..WELL_BEHAVED },
        Unproved);
    by_id_comes_somebody_else = Case::later(
        Odd { one: |answer, _| {
            *answer = Answer::json(200, &json!({
                "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
                "id": sys_id(3), "userName": "user.03", "active": true,
            }));
        }, ..WELL_BEHAVED },
        Unproved);
    by_id_comes_an_error_in_200 = Case::later(
        Odd { one: |answer, _| {
            answer.status = 200;
        }, ..WELL_BEHAVED },
        Unproved);
    by_id_comes_a_list = Case::later(
        Odd { one: |answer, _| if answer.status == 404 {
            *answer = Answer::json(200, &json!({
                "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
                "totalResults": 0, "startIndex": 1, "itemsPerPage": 0, "Resources": [],
            }));
        }, ..WELL_BEHAVED },
        Unproved);
    by_id_the_server_breaks = Case::later(
        Odd { one: |answer, _| {
            *answer = Answer::html(500, "Internal Server Error");
        }, ..WELL_BEHAVED },
        Unproved);
    by_id_nobody_may_ask = Case::later(
        Odd { one: |answer, _| {
            *answer = Answer::scim_error(403, "Not authorized");
        }, ..WELL_BEHAVED },
        Unproved);
    by_id_he_is_gone_as_410 = Case::later(
        Odd { one: |answer, _| if answer.status == 404 {
            *answer = Answer::scim_error(410, "Gone");
        }, ..WELL_BEHAVED },
        Unproved);
    /// The platform's own 404 is as good as SCIM's.
    by_id_the_404_is_the_platforms = Case::always(
        Odd { one: |answer, _| if answer.status == 404 {
            *answer = Answer::platform_error(404, "No Record found");
        }, ..WELL_BEHAVED },
        Complete);
    /// Not in the list and not counted, but alive when asked: `complete`, and nobody but the real
    /// leaver goes.
    one_living_user_is_left_out = Case::later(
        Odd { listed: |user| user["userName"] != json!("user.44"), ..WELL_BEHAVED }, Complete);
    one_living_user_is_left_out_but_counted = Case::later(
        Odd {
            rows: |rows, _| rows.retain(|user| user["userName"] != json!("user.44")),
            ..WELL_BEHAVED
        },
        Partial);
}

// Answers that are no pages.
cases! {
    html_with_200 = Case::later(
        odd_list(|answer, _| *answer = Answer::html(200, "Instance Hibernating page")),
        Fails);
    html_with_404 = Case::later(
        odd_list(|answer, _| *answer = Answer::html(404, "Not Found")),
        Fails);
    html_with_503 = Case::later(
        odd_list(|answer, _| *answer = Answer::html(503, "Service Unavailable")),
        Fails);
    html_that_says_it_is_json = Case::later(odd_list(|answer, _| {
        let json = answer.headers.clone();
        *answer = Answer::html(200, "Log in");
        answer.headers = json;
    }), Fails);
    json_that_says_it_is_html = Case::later(odd_list(|answer, _| {
        answer.headers[0].1 = "text/html".into();
    }), Fails);
    error_object_with_200 = Case::later(odd_list(|answer, _| *answer = Answer::json(200, &json!({
        "error": {"message": "Transaction cancelled: maximum execution time exceeded", "detail": null},
        "status": "failure",
    }))), Fails);
    error_beside_a_good_list = Case::later(odd_list(|answer, _| answer.edit(|list| {
        list["error"] = json!({"message": "Transaction cancelled"});
    })), Fails);
    error_after_a_good_list = Case::later(odd_list(|answer, _| answer.body.extend(
        br#"{"error":{"message":"Transaction cancelled"},"status":"failure"}"#)), Fails);
    json_cut_off = Case::later(
        odd_list(|answer, _| answer.body.truncate(answer.body.len() / 2)),
        Fails);
    json_cut_off_before_the_last_brace = Case::later(
        odd_list(|answer, _| answer.body.truncate(answer.body.len() - 1)),
        Fails);
    connection_cut_off = Case::later(odd_list(|answer, _| {
        answer.headers.push(("Content-Length", (answer.body.len() + 1).to_string()));
    }), Fails);
    list_without_schemas = Case::later(
        odd_list(|answer, _| answer.edit(|list| remove(list, "schemas"))),
        Fails);
    list_without_total = Case::later(
        odd_list(|answer, _| answer.edit(|list| remove(list, "totalResults"))),
        Fails);
    list_is_an_array = Case::later(
        odd_list(|answer, _| answer.edit(|list| *list = list["Resources"].take())),
        Fails);
    body_is_empty = Case::later(odd_list(|answer, _| answer.body.clear()), Fails);
    no_content = Case::later(
        odd_list(|answer, _| { answer.status = 204; answer.body.clear(); }),
        Fails);
    /// What ServiceNow says when it did nothing at all (facts page, section 12.3).
    accepted_and_not_executed = Case::later(odd_list(|answer, _| answer.status = 202), Fails);
    redirect_to_a_login = Case::later(odd_list(|answer, request| {
        *answer = Answer::html(302, "Log in");
        answer.headers.push(("Location", format!("http://{}/login.do", request.elsewhere)));
    }), Fails);
    redirect_for_ever = Case::later(odd_list(|answer, request| {
        *answer = Answer::html(308, "Moved");
        answer.headers.push(("Location", format!("http://{}/api/now/scim/Users", request.elsewhere)));
    }), Fails);
    forbidden_for_all = Case::later(
        odd_list(|answer, _| *answer = Answer::scim_error(403, "User Not Authorized")),
        Fails);
    plugin_is_off = Case::later(
        Odd { list: plugin_off, one: plugin_off, ..WELL_BEHAVED }, Fails);
    everything_breaks_after_the_first_page = Case::later(odd_list(|answer, request| {
        if request.number % 5 > 1 { *answer = Answer::html(502, "Bad Gateway") }
    }), Harmless);
}

// HTTP.
cases! {
    http_1_0 = Case::always(
        both(|answer, _| answer.protocol = "HTTP/1.0"),
        Complete);
    media_type_is_scims = Case::always(
        both(|answer, _| answer.headers[0].1 = "application/scim+json".into()), Complete);
    answers_have_no_date = Case::later(
        both(|answer, _| answer.headers.retain(|(name, _)| *name != "Date")), Harmless);
    date_is_in_the_year_9999 = Case::later(
        both(|answer, _| answer.headers[1].1 = "Fri, 31 Dec 9999 23:59:59 GMT".into()),
        Harmless);
    headers_of_the_rate_limit_are_garbage = Case::always(
        both(|answer, _| answer.headers.extend([
            ("X-RateLimit-Limit", "many".to_owned()),
            ("X-RateLimit-Reset", "-1e99".to_owned()),
            ("Retry-After", "soon".to_owned()),
        ])),
        Complete);
    cookies_are_set = Case::always(
        both(|answer, _| answer.headers.push(("Set-Cookie", "glide_user_route=x; Path=/".to_owned()))),
        Complete);
}

/// Odd in every list answer, and in nothing else.
fn odd_list(list: fn(&mut Answer, &Request)) -> Odd {
    Odd {
        list,
        ..WELL_BEHAVED
    }
}

/// Odd in every answer in the same way.
fn both(answer: fn(&mut Answer, &Request)) -> Odd {
    Odd {
        list: answer,
        one: answer,
        ..WELL_BEHAVED
    }
}

fn plugin_off(answer: &mut Answer, _: &Request) {
    *answer = Answer::platform_error(404, "Requested URI does not represent any resource");
}

/// Whom an account sees that may not see every other user. The leaver is not among the hidden: he
/// is not there.
fn visible(user: &Value) -> bool {
    let number = user["userName"]
        .as_str()
        .and_then(|name| name.strip_prefix("user."));
    number
        .and_then(|number| number.parse::<usize>().ok())
        .is_some_and(|n| n != LEAVER && n.is_multiple_of(2))
}

fn remove(object: &mut Value, member: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(member);
    }
}
