//! Writing groups: their columns and their members, and what the platform refuses (facts page, sections
//! 9.1, 10 and 11.1).

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::directory::{Directory, Stamp};
use super::super::error::Refusal;
use super::super::generate::sys_id;
use super::super::group::{CORE_GROUP, Group, GroupValues, SERVICENOW_GROUP};
use super::super::membership::Member;
use super::super::patch;
use super::super::sight::not_found;
use super::super::table::Table;
use super::{
    Draft, Verb, check_schemas, check_unique, is_read_only, object, reference_id, text, wrong_type,
};

/// `max.member.count`, as it is shipped: more in one write are refused (sections 2 and 10).
const MAX_MEMBERS: usize = 100;

/// Writes a group and gives what it is then. What it has for members moves no stamp.
///
/// # Errors
/// 400 for what cannot be understood or pointed to, 404 for no such group, 409 for a name that is taken.
pub(in super::super) fn write(draft: Draft<'_>) -> Result<Arc<Group>, Refusal> {
    let Draft {
        verb,
        id,
        body,
        directory,
        ids,
        now,
    } = draft;
    if verb != Verb::Post && directory.group(id).is_none() {
        return Err(not_found::<Group>(id));
    }
    let body = object(body)?;
    let mut reader = match verb {
        Verb::Patch => patch::group(&body)?,
        Verb::Post | Verb::Put => read(&body)?,
    };
    let name = reader.values.name.as_ref();
    if name.map_or(verb == Verb::Post, String::is_empty) {
        return Err(Refusal::invalid_value("Attribute displayName is required"));
    }
    if let Some(name) = name {
        let own = directory.group(id).map(|group| &*group.name);
        let all = directory.groups().iter().map(|group| &*group.name);
        check_unique(("group", "displayName"), name, own, all)?;
    }
    if reader.n_members > MAX_MEMBERS {
        return Err(Refusal::invalid_value(format!(
            "No more than {MAX_MEMBERS} members are accepted in one request"
        )));
    }
    // A company that does not exist leaves the one that is, as with users.
    reader.values.company = reader
        .values
        .company
        .filter(|company| company.is_empty() || directory.name(Table::Company, company).is_some());
    let members = match verb {
        Verb::Post => &[],
        Verb::Put | Verb::Patch => directory.members(id),
    };
    let before: BTreeSet<Member> = members.iter().cloned().collect();
    let after = members_after(&reader.edits, &before, directory)?;
    let leave: Vec<Member> = before.difference(&after).cloned().collect();
    let join: Vec<Member> = after.difference(&before).cloned().collect();

    let id = match verb {
        Verb::Post => {
            let mut group = Group::new(&sys_id(ids), now);
            group.set(&reader.values);
            directory.insert_group(group, now).sys_id.clone()
        }
        Verb::Put | Verb::Patch => {
            directory.update_group(id, &reader.values, Stamp::Ruled, now);
            id.into()
        }
    };
    directory.change_members(&id, &leave, &join, now);
    let group = directory.group(&id).cloned();
    group.ok_or_else(|| not_found::<Group>(&id))
}

/// Who is in a group after all edits of one request.
fn members_after(
    edits: &[Edit],
    before: &BTreeSet<Member>,
    directory: &Directory,
) -> Result<BTreeSet<Member>, Refusal> {
    let mut members = before.clone();
    for edit in edits {
        match edit {
            Edit::Clear => members.clear(),
            Edit::Leave(id) => {
                members.remove(&Member::user(id));
                members.remove(&Member::group(id));
            }
            Edit::Join(id) => {
                // Who was in the group may be named again, gone or not.
                let known = [Member::user(id), Member::group(id)];
                let known = known.into_iter().find(|one| before.contains(one));
                let Some(member) = known.or_else(|| directory.member(id)) else {
                    return Err(Refusal::invalid_value(format!("Invalid member id {id}")));
                };
                members.insert(member);
            }
        }
    }
    Ok(members)
}

/// Reads a whole resource.
fn read(body: &Map<String, Value>) -> Result<GroupReader, Refusal> {
    check_schemas(body, CORE_GROUP)?;
    let mut reader = GroupReader::default();
    for (key, value) in body {
        // What is read-only is not looked at in a whole resource.
        if !is_read_only(key) {
            reader.member(key, value, true)?;
        }
    }
    Ok(reader)
}

/// Collects what members of a body say.
#[derive(Debug, Default)]
pub(in super::super) struct GroupReader {
    values: GroupValues,
    edits: Vec<Edit>,
    n_members: usize,
}

/// What becomes of the members of the group.
#[derive(Debug)]
enum Edit {
    /// All leave.
    Clear,
    /// The one with this id leaves, if he is in it.
    Leave(String),
    /// The one with this id joins, unless he is in it.
    Join(String),
}

impl GroupReader {
    /// Reads one top-level member. `null`, `""` and `[]` clear it. `whole` says that an array is all
    /// there is of it; else its elements are set beside others. Names of no column are accepted and
    /// forgotten, the customer's own extension among them.
    ///
    /// # Errors
    /// 400 for a value of a wrong type.
    pub(in super::super) fn member(
        &mut self,
        name: &str,
        value: &Value,
        whole: bool,
    ) -> Result<(), Refusal> {
        if name.eq_ignore_ascii_case(SERVICENOW_GROUP) {
            return self.extension(value);
        }
        match name.to_ascii_lowercase().as_str() {
            "displayname" => self.values.name = Some(text(name, value)?.to_owned()),
            "externalid" => self.values.external_id = Some(text(name, value)?.to_owned()),
            "members" => {
                if whole || *value == Value::Null {
                    self.clear();
                }
                self.join(value)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads the company.
    ///
    /// # Errors
    /// 400 for a value of a wrong type.
    pub(in super::super) fn company(&mut self, value: &Value) -> Result<(), Refusal> {
        if let Some(id) = reference_id("company", value)? {
            self.values.company = Some(id.to_owned());
        }
        Ok(())
    }

    /// All members leave.
    pub(in super::super) fn clear(&mut self) {
        self.edits.push(Edit::Clear);
    }

    /// Members join.
    ///
    /// # Errors
    /// 400 for anything but objects with an id as `value`.
    pub(in super::super) fn join(&mut self, members: &Value) -> Result<(), Refusal> {
        let ids = member_ids(members)?;
        self.n_members += ids.len();
        self.edits.extend(ids.into_iter().map(Edit::Join));
        Ok(())
    }

    /// Members leave.
    ///
    /// # Errors
    /// As [`GroupReader::join`].
    pub(in super::super) fn leave(&mut self, members: &Value) -> Result<(), Refusal> {
        let ids = member_ids(members)?;
        self.n_members += ids.len();
        self.edits.extend(ids.into_iter().map(Edit::Leave));
        Ok(())
    }

    fn extension(&mut self, value: &Value) -> Result<(), Refusal> {
        let members = match value {
            Value::Null => return self.company(value),
            Value::Object(members) => members,
            _ => return Err(wrong_type(SERVICENOW_GROUP, "an object")),
        };
        match super::member(members, "company") {
            Some(company) => self.company(company),
            None => Ok(()),
        }
    }
}

/// The ids in an array of members, or of the one that stands there without an array.
fn member_ids(members: &Value) -> Result<Vec<String>, Refusal> {
    let members = match members {
        Value::Null => &[],
        Value::Array(members) => members.as_slice(),
        Value::Object(_) => std::slice::from_ref(members),
        _ => return Err(wrong_type("members", "an array")),
    };
    let ids = members.iter().map(|member| match member {
        Value::Object(_) => match reference_id("members", member)? {
            Some(id) if !id.is_empty() => Ok(id.to_owned()),
            _ => Err(Refusal::invalid_value("A member must have a value")),
        },
        _ => Err(wrong_type("members", "an array of objects")),
    });
    ids.collect()
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::super::super::group::CUSTOM_GROUP;
    use super::super::super::testbed::{Answered, Testbed};
    use super::super::super::{Member, Options};
    use super::*;

    fn bed(users: usize) -> Testbed {
        Testbed::with(Options {
            users,
            groups: 0,
            odd: false,
            ..Options::default()
        })
    }

    fn created(bed: &Testbed, body: &Value) -> Answered {
        bed.write(Method::POST, "/Groups", body)
    }

    fn named(name: &str) -> Value {
        json!({ "schemas": [CORE_GROUP], "displayName": name })
    }

    fn with_members(name: &str, ids: &[String]) -> Value {
        let members: Vec<Value> = ids.iter().map(|id| json!({ "value": id })).collect();
        json!({ "schemas": [CORE_GROUP], "displayName": name, "members": members })
    }

    #[test]
    fn what_is_created_is_shown_as_far_as_columns_keep_it() {
        let bed = bed(2);
        let inner = created(&bed, &named("Inner")).json["id"].clone();
        let company = bed.get("/Companies").rows()[0]["id"].clone();
        let user = bed.sandbox.ids()[1].clone();
        let answered = created(
            &bed,
            &json!({
                "schemas": [CORE_GROUP, SERVICENOW_GROUP, CUSTOM_GROUP],
                "id": "mine", "meta": { "created": "2001-01-01T00:00:00Z" },
                "DISPLAYNAME": "Night Desk", "externalId": "x".repeat(300), "nickName": "N",
                "members": [
                    { "value": user, "display": "Somebody else", "type": "User" },
                    { "Value": inner },
                    { "value": user },
                ],
                SERVICENOW_GROUP: { "company": { "value": company }, "colour": "red" },
                CUSTOM_GROUP: { "floor": 3 },
            }),
        );
        assert_eq!(answered.status, 201, "{}", answered.json);
        let group = &answered.json;
        assert_ne!(group["id"], "mine");
        assert_eq!(group["meta"]["created"], "2026-03-01T08:00:00Z");
        assert_eq!(group["meta"]["resourceType"], "Group");
        assert_eq!(group["displayName"], "Night Desk");
        assert_eq!(group["externalId"].as_str().map(str::len), Some(255));
        let members = group["members"].as_array().unwrap();
        assert_eq!(members.len(), 2);
        let of = |id: &Value| members.iter().find(|one| one["value"] == *id).unwrap();
        assert_eq!(of(&inner)["display"], "Inner");
        assert_ne!(of(&user.as_str().into())["display"], "Somebody else");
        assert_eq!(group[SERVICENOW_GROUP]["company"]["value"], company);
        assert!(group.get("nickName").is_none() && group.get(CUSTOM_GROUP).is_none());
        let place = answered.reply.headers["location"].to_str().unwrap();
        assert_eq!(Some(place), group["meta"]["location"].as_str());
        let id = group["id"].as_str().unwrap();
        assert_eq!(bed.group(id), *group);
    }

    #[test]
    fn what_the_platform_refuses_is_refused_and_changes_nothing() {
        let bed = bed(120);
        let first = created(&bed, &named("Night Desk"));
        let id = first.json["id"].as_str().unwrap();
        let other = created(&bed, &named("Öl")).json["id"].clone();
        let ids = bed.sandbox.ids();
        let group = |more: Value| {
            let mut body = named("New");
            let members = body.as_object_mut().unwrap();
            members.extend(more.as_object().unwrap().clone());
            body
        };
        for (body, status, scim_type) in [
            (named("nIGHT dESK"), 409, "uniqueness"),
            (named("öL"), 409, "uniqueness"),
            (json!({ "displayName": "New" }), 400, "invalidSyntax"),
            (json!([]), 400, "invalidSyntax"),
            (json!({ "schemas": [CORE_GROUP] }), 400, "invalidValue"),
            (named(""), 400, "invalidValue"),
            (group(json!({ "displayName": 7 })), 400, "invalidValue"),
            (group(json!({ "externalId": [] })), 400, "invalidValue"),
            (group(json!({ "members": "x" })), 400, "invalidValue"),
            (group(json!({ "members": ["x"] })), 400, "invalidValue"),
            (group(json!({ "members": [{}] })), 400, "invalidValue"),
            (
                group(json!({ "members": [{ "value": "" }] })),
                400,
                "invalidValue",
            ),
            (
                group(json!({ "members": [{ "value": 7 }] })),
                400,
                "invalidValue",
            ),
            (
                group(json!({ "members": [{ "value": "nobody" }] })),
                400,
                "invalidValue",
            ),
            (group(json!({ SERVICENOW_GROUP: {} })), 400, "invalidSyntax"),
            (with_members("New", &ids[..101]), 400, "invalidValue"),
        ] {
            let answered = created(&bed, &body);
            assert_eq!(answered.status, status, "{body}");
            assert_eq!(answered.json["scimType"], scim_type, "{body}");
        }
        let taken = bed.write(Method::PUT, &format!("/Groups/{id}"), &named("ÖL"));
        assert_eq!(taken.status, 409);
        let blank = bed.write(Method::PUT, &format!("/Groups/{id}"), &named(""));
        assert_eq!(blank.status, 400);
        assert_eq!(bed.groups("").total(), 2);
        assert_eq!(bed.group(id), first.json);
        // Its own name, in another spelling, is free.
        let own = bed.write(Method::PUT, &format!("/Groups/{id}"), &named("NIGHT DESK"));
        assert_eq!(
            (own.status, &own.json["displayName"]),
            (200, &"NIGHT DESK".into())
        );

        for method in [Method::PUT, Method::PATCH, Method::DELETE] {
            let nobody = bed.write(method.clone(), "/Groups/nobody", &named("x"));
            let detail = nobody.json["detail"].as_str().unwrap();
            let word = if method == Method::DELETE {
                "Invalid group id nobody"
            } else {
                "Group not found nobody"
            };
            assert_eq!((nobody.status, detail), (404, word), "{method}");
        }
        let text = [("content-type", "text/plain")];
        assert_eq!(bed.ask(Method::POST, "/Groups", &text, "{}").status, 415);
        assert_eq!(bed.ask(Method::PUT, "/Groups", &[], "{}").status, 405);
        let gone = bed.ask(
            Method::DELETE,
            &format!("/Groups/{}", other.as_str().unwrap()),
            &[],
            "",
        );
        assert!(gone.status == 204 && gone.reply.body.is_empty());
        assert_eq!(created(&bed, &named("Öl")).status, 201);
    }

    #[test]
    fn put_keeps_what_is_left_out_and_clears_what_is_null() {
        let bed = bed(120);
        let ids = bed.sandbox.ids();
        let first = created(&bed, &with_members("Night Desk", &ids[..100]));
        assert_eq!(first.status, 201);
        let target = format!("/Groups/{}", first.json["id"].as_str().unwrap());
        bed.pass(5);
        let put = |body: Value| {
            let answered = bed.write(Method::PUT, &target, &body);
            assert_eq!(answered.status, 200, "{body}: {}", answered.json);
            answered.json
        };
        let count = |group: &Value| group["members"].as_array().map_or(0, Vec::len);
        let kept = put(json!({ "schemas": [CORE_GROUP], "externalId": "x" }));
        assert_eq!(
            (count(&kept), &kept["displayName"]),
            (100, &"Night Desk".into())
        );
        // What stands in another table moves no stamp; the name does.
        assert_eq!(kept["meta"], first.json["meta"]);
        let fewer = put(with_members("Night Desk", &ids[99..102]));
        assert_eq!(count(&fewer), 3);
        assert_eq!(fewer["meta"], first.json["meta"]);
        for empty in [json!([]), Value::Null] {
            put(with_members("Night Desk", &ids[..2]));
            let body = json!({ "schemas": [CORE_GROUP], "members": empty, "externalId": null });
            let cleared = put(body);
            assert!(cleared.get("members").is_none() && cleared.get("externalId").is_none());
        }
        let renamed = put(named("Day Desk"));
        assert_eq!(renamed["meta"]["lastModified"], "2026-03-01T08:00:05Z");
    }

    /// What is odd already may stay and go: nobody has to put it right first.
    #[test]
    fn members_who_are_gone_can_be_kept_and_removed() {
        let bed = bed(3);
        let id = created(&bed, &named("Night Desk")).json["id"].clone();
        let id = id.as_str().unwrap();
        let gone = [Member::user("gone"), Member::group("gone too")];
        bed.sandbox.change_members(id, &[], &gone);
        let ids = [bed.sandbox.ids()[0].clone(), "gone".to_owned()];
        let target = format!("/Groups/{id}");
        let kept = bed.write(Method::PUT, &target, &with_members("Night Desk", &ids));
        assert_eq!(kept.status, 200, "{}", kept.json);
        let members = kept.json["members"].as_array().unwrap();
        assert_eq!(members.len(), 2);
        let cleared = bed.write(Method::PUT, &target, &with_members("Night Desk", &[]));
        assert!(cleared.json.get("members").is_none());
        // Once he is out he cannot come in again.
        let again = bed.write(Method::PUT, &target, &with_members("Night Desk", &ids));
        assert_eq!(again.status, 400);
    }
}
