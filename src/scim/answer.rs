//! Judges answers: a page is believed only if it keeps every rule of the facts page's section 11.3,
//! and a resource is gone only if the instance says so in JSON. Everything else is a fault.

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::value::RawValue;

use super::client::{Answer, Asked, Listing};
use super::error::{Body, Fault, Page, Refusal};
use super::headers;
use super::wire::{self, ErrorForm, ErrorMessage, ListResponse};
use crate::model::{Reject, ResourceId, Row};
use crate::reconcile::decode;

/// How much of an instance's text is kept for messages, in characters.
const TEXT_CHARS: usize = 200;

/// Error objects are short: what is longer is not parsed for a message.
const ERROR_BYTES: usize = 64 * 1024;

/// How much of the end of a broken body is searched for the words of a cancelled transaction, and
/// of the beginning of a page for people for its title.
const SEARCHED_BYTES: usize = 4096;

/// Judges the answer to a list request that asked for at most `asked` resources, and cuts it into
/// its resources, which stay slices of the page.
///
/// # Errors
/// The rule that the answer breaks.
pub fn judge_list(answer: &Answer, asked: u32) -> Result<Listing, Fault> {
    expect_json(answer)?;
    let list = match ListResponse::read_quickly(&answer.body) {
        Some(list) => list,
        None => parse(&answer.body)?,
    };
    expect_no_error(&list, &answer.body)?;
    if !list.has_schema(wire::LIST_RESPONSE) {
        return Err(Fault::NotAsAsked(
            "`schemas` does not name a list response".to_owned(),
        ));
    }
    let total = list
        .total_results
        .as_deref()
        .and_then(whole_number)
        .ok_or_else(|| {
            Fault::NotAsAsked("`totalResults` is missing or no whole number".to_owned())
        })?;
    let resources = list.resources.unwrap_or_default();
    if resources.len() > asked as usize {
        return Err(Fault::TooManyRows {
            asked,
            got: resources.len(),
        });
    }
    let mut listing = Listing {
        total,
        rows: Vec::with_capacity(resources.len()),
        rejects: Vec::new(),
        date: headers::date(&answer.headers),
    };
    for raw in resources {
        match row(&answer.body, raw) {
            Ok(row) => listing.rows.push(row),
            Err(reason) => {
                listing
                    .rejects
                    .push(Reject::new(None, reason, raw.as_bytes()));
            }
        }
    }
    Ok(listing)
}

/// Judges the answer to a request for one resource by its id.
///
/// # Errors
/// The rule that the answer breaks; what that says of the resource is for the caller to judge.
pub fn judge_get(answer: &Answer, id: &ResourceId) -> Result<Asked, Fault> {
    match expect_json(answer) {
        Ok(()) => {}
        Err(Fault::Status(refusal)) if is_not_found(answer, &refusal) => {
            return Ok(Asked::NotFound);
        }
        Err(fault) => return Err(fault),
    }
    expect_no_error(&parse(&answer.body)?, &answer.body)?;
    let raw: &RawValue = parse(&answer.body)?;
    let row = row(&answer.body, raw.get()).map_err(Fault::NotAsAsked)?;
    if row.id == *id {
        Ok(Asked::Found(row))
    } else {
        Err(Fault::NotAsAsked(
            "with a resource of another id than the one asked for".to_owned(),
        ))
    }
}

/// The fault of an answer whose status is not 200.
#[must_use]
pub fn refusal(answer: &Answer) -> Refusal {
    let html = is_html(answer);
    let message = if html { None } else { error_of(&answer.body) };
    let (form, code, text) = match message {
        Some(message) => (Some(message.form), message.code, message.text),
        None => (None, None, String::new()),
    };
    Refusal {
        status: answer.status,
        form,
        code: code.map(|code| capped(&code)),
        text: capped(&text),
        html,
        second_factor: answer
            .headers
            .get("x-mfa_token")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"invalid")),
    }
}

/// Rules (a) and (b): status 200 and a JSON content type.
///
/// # Errors
/// [`Fault::Status`] or [`Fault::NotJson`].
pub fn expect_json(answer: &Answer) -> Result<(), Fault> {
    if answer.status != StatusCode::OK {
        return Err(Fault::Status(refusal(answer)));
    }
    if is_json(answer) {
        return Ok(());
    }
    let start = &answer.body[..answer.body.len().min(SEARCHED_BYTES)];
    let start = String::from_utf8_lossy(start);
    let lower = start.to_ascii_lowercase();
    let title = lower.find("<title>").and_then(|at| {
        let from = at + "<title>".len();
        let to = from + lower[from..].find("</title>")?;
        Some(capped(start[from..to].trim()))
    });
    Err(Fault::NotJson(Page {
        content_type: capped(content_type(answer)),
        title,
        hibernating: lower.contains("hibernat"),
    }))
}

/// Rule (c): the body parses completely, and nothing follows.
///
/// # Errors
/// [`Fault::Cut`], [`Fault::Unreadable`], or [`Fault::NotAsAsked`] for JSON of another shape.
pub fn parse<'a, T: serde::Deserialize<'a>>(body: &'a Bytes) -> Result<T, Fault> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = T::deserialize(&mut json).map_err(|reason| match reason.classify() {
        // Not the library's own words: they quote what they found, which may be somebody's name.
        serde_json::error::Category::Data => Fault::NotAsAsked(format!(
            "the JSON has another shape at line {} column {}",
            reason.line(),
            reason.column()
        )),
        serde_json::error::Category::Syntax if !says_out_of_time(body) => Fault::Unreadable {
            reason,
            body: Body(body.clone()),
        },
        _ => cut(reason, body),
    })?;
    json.end().map_err(|reason| cut(reason, body))?;
    Ok(value)
}

fn cut(reason: serde_json::Error, body: &Bytes) -> Fault {
    Fault::Cut {
        reason,
        out_of_time: says_out_of_time(body),
        body: Body(body.clone()),
    }
}

/// Rule (e): no error object, of the platform or of SCIM, where a success was announced.
fn expect_no_error(message: &ListResponse<'_>, body: &Bytes) -> Result<(), Fault> {
    if !message.has_error && !message.has_schema(wire::ERROR) {
        return Ok(());
    }
    Err(Fault::ErrorInside {
        text: error_of(body).map_or_else(String::new, |error| capped(&error.text)),
        out_of_time: says_out_of_time(body),
    })
}

fn row(page: &Bytes, raw: &str) -> Result<Row, String> {
    let head = decode::head(raw)?;
    Ok(Row {
        id: head.id,
        modified_at: head.modified_at,
        raw: page.slice_ref(raw.as_bytes()),
    })
}

/// Whether a 404 speaks of the resource: an error object, and not that the whole API is missing.
fn is_not_found(answer: &Answer, refusal: &Refusal) -> bool {
    let status_agrees = || {
        error_of(&answer.body)
            .and_then(|error| error.status)
            .is_none_or(|status| status.trim() == "404")
    };
    refusal.status == StatusCode::NOT_FOUND
        && is_json(answer)
        && matches!(refusal.form, Some(ErrorForm::Scim | ErrorForm::Platform))
        && !refusal.no_such_api()
        && status_agrees()
}

/// `totalResults`: a whole number, also as text, also with zeros behind a point, as the platform's
/// scripts write numbers.
fn whole_number(raw: &RawValue) -> Option<u64> {
    let text = raw.get();
    let unquoted: String;
    let text = if text.starts_with('"') {
        unquoted = serde_json::from_str(text).ok()?;
        unquoted.trim()
    } else {
        text
    };
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    let digits = !whole.is_empty() && whole.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| whole.parse().ok())?
}

fn error_of(body: &Bytes) -> Option<ErrorMessage> {
    if body.len() > ERROR_BYTES {
        return None;
    }
    ErrorMessage::read(&serde_json::from_slice(body).ok()?)
}

/// Whether a body ends with the words of a cancelled transaction (facts page, section 11.3).
fn says_out_of_time(body: &Bytes) -> bool {
    let end = &body[body.len().saturating_sub(SEARCHED_BYTES)..];
    let end = String::from_utf8_lossy(end).to_ascii_lowercase();
    end.contains("\"error\"") && end.contains("transaction cancelled")
}

fn content_type(answer: &Answer) -> &str {
    answer
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// `application/json`, `application/scim+json` and their kin, whatever the parameters.
fn is_json(answer: &Answer) -> bool {
    let essence = essence(answer);
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn is_html(answer: &Answer) -> bool {
    matches!(
        essence(answer).as_str(),
        "text/html" | "application/xhtml+xml"
    )
}

fn essence(answer: &Answer) -> String {
    let value = content_type(answer);
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

fn capped(text: &str) -> String {
    text.chars().take(TEXT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::super::script;
    use super::*;

    const JSON: &str = "application/json;charset=UTF-8";

    fn list_of(body: &str) -> Result<Listing, Fault> {
        list_as(200, JSON, body.as_bytes())
    }

    fn list_as(status: u16, content_type: &str, body: &[u8]) -> Result<Listing, Fault> {
        judge_list(
            &script::answer(
                status,
                &[
                    ("content-type", content_type),
                    ("date", "Sun, 01 Mar 2026 08:00:00 GMT"),
                ],
                body,
            ),
            2,
        )
    }

    /// A good page with one part of it replaced.
    fn with(part: &str, by: &str) -> String {
        let page = r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":3,"Resources":[{"id":"a"},{"id":"b"}],"startIndex":1,"itemsPerPage":2}"#;
        assert!(page.contains(part), "{part}");
        page.replace(part, by)
    }

    #[test]
    fn a_good_page_is_believed_and_its_rows_are_slices_of_it() {
        let body = Bytes::from(with("", ""));
        let mut answer = script::answer(200, &[("content-type", JSON)], b"");
        answer.body = body.clone();
        let listing = judge_list(&answer, 2).unwrap();
        assert_eq!(listing.total, 3);
        let ids: Vec<_> = listing.rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(&listing.rows[1].raw[..], br#"{"id":"b"}"#);
        let within = body.as_ptr_range();
        assert!(within.contains(&listing.rows[1].raw.as_ptr()), "not copied");
    }

    #[test]
    fn what_servers_do_differently_is_tolerated() {
        for body in [
            with("schemas", "SCHEMAS"),
            with("Resources", "resources"),
            with("urn:ietf", "URN:IETF"),
            with("\"totalResults\":3", "\"totalResults\":\"3\""),
            with("\"totalResults\":3", "\"totalResults\":3.0"),
            with(
                "\"startIndex\":1",
                "\"startIndex\":\"1\",\"x\":{\"error\":1}",
            ),
            with(",\"startIndex\":1", ",\"error\":null"),
            format!(" \n{}\n ", with("", "")),
        ] {
            let listing = list_of(&body).unwrap_or_else(|fault| panic!("{body}: {fault}"));
            assert_eq!((listing.total, listing.rows.len()), (3, 2), "{body}");
            assert_eq!(listing.date, Some("2026-03-01T08:00:00Z".parse().unwrap()));
        }
        for content_type in [
            "application/json",
            "Application/SCIM+JSON; charset=utf-8",
            "application/vnd.x+json",
        ] {
            list_as(200, content_type, with("", "").as_bytes()).unwrap();
        }
        for empty in ["", "\"Resources\":[],", "\"Resources\":null,"] {
            let body = with("\"Resources\":[{\"id\":\"a\"},{\"id\":\"b\"}],", empty);
            assert_eq!(list_of(&body).unwrap().rows.len(), 0, "{body}");
        }
    }

    #[test]
    fn each_rule_of_section_11_3_refuses_what_breaks_it() {
        let good = with("", "");
        // (a) the status is 200
        for status in [201, 202, 204, 206, 301, 400, 401, 403, 404, 500] {
            let fault = list_as(status, JSON, good.as_bytes()).unwrap_err();
            assert!(matches!(fault, Fault::Status(_)), "{status}");
        }
        // (b) the content type is JSON
        for content_type in ["text/html", "text/plain", "", "application/xml", "json"] {
            let fault = list_as(200, content_type, good.as_bytes()).unwrap_err();
            assert!(matches!(fault, Fault::NotJson(_)), "{content_type}");
        }
        // (c) the body parses completely
        for length in 0..good.len() {
            let fault = list_of(&good[..length]).unwrap_err();
            assert!(matches!(fault, Fault::Cut { .. }), "{length}: {fault}");
        }
        let trailing = format!(
            "{good}{{\"error\":{{\"message\":\"Transaction cancelled: maximum execution time exceeded\"}},\"status\":\"failure\"}}"
        );
        for (body, out_of_time) in [
            (format!("{good}x"), false),
            (format!("{good}{good}"), false),
            (trailing.clone(), true),
            (trailing.replacen("\"a\"}", "\"a", 1), true),
        ] {
            let fault = list_of(&body).unwrap_err();
            assert!(
                matches!(fault, Fault::Cut { out_of_time: told, .. } if told == out_of_time),
                "{body}: {fault}"
            );
        }
        for spoiled in [
            &b"{\"id\":\"\xff\"}"[..],
            b"{\"id\":\"\x01\"}",
            b"{\"id\":tru}",
            b"{\"id\" 1}",
        ] {
            let (before, after) = good.split_once("{\"id\":\"a\"}").unwrap();
            let body = [before.as_bytes(), spoiled, after.as_bytes()].concat();
            let fault = list_as(200, JSON, &body).unwrap_err();
            assert!(matches!(fault, Fault::Unreadable { .. }), "{fault}");
        }
        // (d) `schemas` contains the URN
        for body in [
            with(":2.0:ListResponse", ":2.0:SearchRequest"),
            with(
                "[\"urn:ietf:params:scim:api:messages:2.0:ListResponse\"]",
                "[]",
            ),
            with(
                "[\"urn:ietf:params:scim:api:messages:2.0:ListResponse\"]",
                "7",
            ),
            with("\"schemas\"", "\"schema\""),
            "{}".to_owned(),
            "[]".to_owned(),
            "\"ok\"".to_owned(),
            "null".to_owned(),
        ] {
            let fault = list_of(&body).unwrap_err();
            assert!(matches!(fault, Fault::NotAsAsked(_)), "{body}: {fault}");
        }
        // (e) no top-level error
        for body in [
            with(",\"startIndex\":1", ",\"error\":{\"message\":\"x\"}"),
            with(",\"startIndex\":1", ",\"Error\":\"x\""),
            with(",\"startIndex\":1", ",\"errors\":[]"),
            with(":2.0:ListResponse", ":2.0:Error"),
            r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"500","detail":"time limit"}"#.to_owned(),
        ] {
            let fault = list_of(&body).unwrap_err();
            assert!(matches!(fault, Fault::ErrorInside { .. }), "{body}: {fault}");
        }
        // (f) `totalResults` is a number, and not more rows than were asked for
        for total in [
            "null",
            "-1",
            "1.5",
            "\"\"",
            "\"many\"",
            "[]",
            "true",
            "1e3",
            "3.",
            "99999999999999999999",
        ] {
            let fault = list_of(&with(
                "\"totalResults\":3",
                &format!("\"totalResults\":{total}"),
            ))
            .unwrap_err();
            // `3.` is no JSON at all.
            assert!(
                matches!(fault, Fault::NotAsAsked(_) | Fault::Unreadable { .. }),
                "{total}: {fault}"
            );
        }
        let fault = list_of(&with("{\"id\":\"a\"}", "{\"id\":\"a\"},{\"id\":\"c\"}")).unwrap_err();
        assert!(matches!(fault, Fault::TooManyRows { asked: 2, got: 3 }));
        // A doubled member: nobody can say which one counts.
        let fault = list_of(&with("\"startIndex\":1", "\"totalResults\":3")).unwrap_err();
        assert!(matches!(fault, Fault::NotAsAsked(_)), "{fault}");
    }

    #[test]
    fn a_row_without_a_readable_id_costs_itself_alone() {
        for bad in [
            "7",
            "null",
            "{}",
            "{\"id\":null}",
            "{\"id\":{}}",
            "[]",
            "\"a\"",
        ] {
            let listing = list_of(&with("{\"id\":\"a\"}", bad)).unwrap();
            assert_eq!(listing.rows.len(), 1, "{bad}");
            assert_eq!(listing.rejects.len(), 1, "{bad}");
            assert_eq!(listing.rejects[0].id, None);
            assert_eq!(listing.rejects[0].body, bad);
        }
    }

    #[test]
    fn one_resource_may_be_as_odd_as_json_allows() {
        let deep = format!(
            "{{\"id\":\"a\",\"x\":{}1{}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        for odd in [
            deep.as_str(),
            r#"{"id":"a","x":1e400}"#,
            r#"{"id":"a","x":"\ud800"}"#,
            r#"{"id":"a","x":1,"x":2}"#,
        ] {
            let listing = list_of(&with("{\"id\":\"a\"}", odd)).unwrap();
            assert_eq!(listing.rows.len(), 2);
            assert_eq!(listing.rows[0].raw.len(), odd.len());
        }
    }

    #[test]
    fn a_page_for_people_is_named_by_its_title_in_safe_letters() {
        let page = b"<html><TITLE> Instance \x1b[31mHibernating page </TITLE>";
        let Err(Fault::NotJson(page)) = list_as(200, "text/html", page) else {
            panic!("a page was believed");
        };
        assert!(page.hibernating);
        assert_eq!(
            page.to_string(),
            "`text/html` (`Instance \\u{1b}[31mHibernating page`)"
        );
    }

    #[test]
    fn a_refusal_says_what_the_instance_said() {
        let refused = |status, headers: &[(&str, &str)], body: &str| {
            refusal(&script::answer(status, headers, body.as_bytes()))
        };
        let filter = refused(
            400,
            &[],
            r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"400","scimType":"invalidFilter","detail":"Invalid filter\n[x]"}"#,
        );
        assert_eq!(
            filter.to_string(),
            "400 (Bad Request): invalidFilter: Invalid filter\\u{a}[x]"
        );
        let denied = refused(
            401,
            &[],
            r#"{"error":"server_error","error_description":"access_denied"}"#,
        );
        assert_eq!(
            denied.to_string(),
            "401 (Unauthorized): server_error: access_denied"
        );
        assert!(refused(401, &[("x-mfa_token", "invalid")], "").second_factor);
        let html = refused(503, &[("content-type", "text/html")], "<title>x</title>");
        assert_eq!(
            html.to_string(),
            "503 (Service Unavailable) with an HTML page"
        );
        let long = format!("{{\"error\":{{\"message\":\"{}\"}}}}", "x".repeat(9999));
        assert!(refused(500, &[], &long).text.len() <= TEXT_CHARS);
    }
}
