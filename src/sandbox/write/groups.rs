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
    let before: BTreeSet<Member> = directory.members(id).iter().cloned().collect();
    let after = members_after(&reader.edits, before.clone(), directory)?;
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
    mut members: BTreeSet<Member>,
    directory: &Directory,
) -> Result<BTreeSet<Member>, Refusal> {
    for edit in edits {
        match edit {
            Edit::Clear => members.clear(),
            Edit::Leave(id) => members.retain(|member| *member.id != **id),
            Edit::Join(id) => {
                // Who is gone and still in the group may be named again.
                let is_there = members.iter().any(|member| *member.id == **id);
                let member = directory.member(id);
                if member.is_none() && !is_there {
                    return Err(Refusal::invalid_value(format!("Invalid member id {id}")));
                }
                members.extend(member);
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
