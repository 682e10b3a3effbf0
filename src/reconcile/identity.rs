//! Which user a profile is: found by its keys, held on to by the id.
//!
//! Whom the keys lead to is a function of the users and the profile alone, whatever came first. Only a link remembers: it
//! is made once, to an id, and nothing but a person moves it to another.

use serde_json::{Map, Value, json};

use crate::model::{Identity, IdentityState, Kind, MatchedBy, Profile, Reason, Rule};

/// What records and rows call it: `changes.resource`.
pub const RESOURCE: &str = "Identity";

/// The most candidates that are kept of one profile, the first by id: a key that thousands share tells nobody apart, and must not
/// fill the feed.
pub const MOST_CANDIDATES: usize = 20;

/// The most profiles that may have one key, or be pinned to one user: a change of that user looks at each of them, in the transaction
/// that makes it.
pub const MOST_OF_A_KEY: usize = 1_000;

/// How a key of a user must fit one of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The same characters.
    Exact,
    /// The same but for case, by [`folded`].
    Folded,
}

/// Whom the keys of a profile lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The first rule by which anybody is found.
    pub rule: Rule,
    /// The ids of all whom it finds, ascending and without twins; never empty.
    pub ids: Vec<String>,
}

/// The link of a profile before it is looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The user.
    pub user_id: String,
    /// By what the link was made.
    pub matched_by: MatchedBy,
    /// Whether the instance still shows this user, active or not.
    pub is_shown: bool,
}

/// A key without its case: each character in lower case, by itself. No accent, blank or look-alike is taken for another: that would be
/// fuzzy. So a character stays what it is where its lower case is another one's as well, as with the sign for kelvin.
#[must_use]
pub fn folded(key: &str) -> String {
    let mut folded = String::with_capacity(key.len());
    for one in key.chars() {
        let lower = one.to_lowercase();
        match lower.clone().flat_map(char::to_uppercase).eq([one]) {
            true => folded.extend(lower),
            false => folded.push(one),
        }
    }
    folded
}

/// Looks by the rules in their order, by each of them first for the same key and then for the same but for case; the first that finds
/// anybody decides. `look` gives the ids of users whom the instance shows and who have the profile's key, ascending.
///
/// # Errors
/// Of `look`.
pub fn find<E>(
    rules: &[Rule],
    mut look: impl FnMut(Rule, Fit) -> Result<Vec<String>, E>,
) -> Result<Option<Found>, E> {
    for rule in rules.iter().copied() {
        for fit in [Fit::Exact, Fit::Folded] {
            let ids = look(rule, fit)?;
            if !ids.is_empty() {
                return Ok(Some(Found { rule, ids }));
            }
        }
    }
    Ok(None)
}

/// How a profile stands, by its link and by whom its keys lead to now.
///
/// A pin stays whatever the keys say. Any other link stays where they lead to its user or to nobody; where they lead to anybody else,
/// the person behind a key may be another one, and the profile is ambiguous until a person decides.
#[must_use]
pub fn decide(link: Option<&Link>, found: Option<Found>) -> Identity {
    let linked = |link: &Link, matched_by, shown| Identity {
        user_id: Some(link.user_id.clone()),
        matched_by: Some(matched_by),
        state: match link.is_shown {
            true => shown,
            false => IdentityState::Gone,
        },
        candidates: Vec::new(),
    };
    match (link, found) {
        (Some(link), _) if link.matched_by == MatchedBy::Pin => {
            linked(link, MatchedBy::Pin, IdentityState::Pinned)
        }
        (Some(link), None) => linked(link, link.matched_by, IdentityState::Matched),
        (Some(link), Some(found)) if found.ids == [link.user_id.as_str()] => {
            linked(link, MatchedBy::Rule(found.rule), IdentityState::Matched)
        }
        (None, Some(mut found)) if found.ids.len() == 1 => Identity {
            user_id: found.ids.pop(),
            matched_by: Some(MatchedBy::Rule(found.rule)),
            state: IdentityState::Matched,
            candidates: Vec::new(),
        },
        (link, Some(mut found)) => {
            found.ids.truncate(MOST_CANDIDATES);
            Identity {
                user_id: link.map(|link| link.user_id.clone()),
                matched_by: link.map(|link| link.matched_by),
                state: IdentityState::Ambiguous,
                candidates: found.ids,
            }
        }
        (None, None) => Identity {
            user_id: None,
            matched_by: None,
            state: IdentityState::Missing,
            candidates: Vec::new(),
        },
    }
}

/// How a profile stands whose list a person has just imported, and which `was` another before: the link moves where a key that is
/// another leads to one user, and to no more. A key that stayed says no more of a person than it did. Nothing moves a pin but another
/// one.
#[must_use]
pub fn decide_anew(
    link: Option<&Link>,
    found: Option<Found>,
    was: &Profile,
    profile: &Profile,
) -> Identity {
    let is_pinned = link.is_some_and(|link| link.matched_by == MatchedBy::Pin);
    let is_other = |rule| was.key(rule).map(folded) != profile.key(rule).map(folded);
    match found {
        Some(found) if found.ids.len() == 1 && !is_pinned && is_other(found.rule) => {
            decide(None, Some(found))
        }
        found => decide(link, found),
    }
}

/// What the feed says of a profile: a row of `changes` without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRecord {
    /// `create`: the profile is new in the list. `deactivate`: it is not in it any more. Else `update`.
    pub kind: Kind,
    /// `new`; `gone` where its user is gone, or the profile itself; `returned` where its user is shown again; `unlinked`; `changed`.
    pub reason: Reason,
    /// As of any record.
    pub changed: Option<String>,
    /// The row of `identities`, see [`text`].
    pub after: String,
}

/// The record of a profile; `None` where nothing changed.
#[must_use]
pub fn record(
    profile: &str,
    before: Option<&Identity>,
    after: &Identity,
) -> Option<IdentityRecord> {
    let is_gone = |identity: &Identity| identity.state == IdentityState::Gone;
    let is_linked = |state| matches!(state, IdentityState::Matched | IdentityState::Pinned);
    let (kind, reason) = match before {
        None => (Kind::Create, Reason::New),
        Some(before) if before == after => return None,
        Some(_) if is_gone(after) => (Kind::Update, Reason::Gone),
        Some(before) if is_gone(before) && is_linked(after.state) => {
            (Kind::Update, Reason::Returned)
        }
        Some(_) => (Kind::Update, Reason::Changed),
    };
    Some(IdentityRecord {
        kind,
        reason,
        changed: before.map(|before| changed(&members(before), &members(after))),
        after: text(profile, after),
    })
}

/// The last record of a profile that leaves the table `identities`, for the reason [`Reason::Gone`] where it is not in the list any
/// more, or [`Reason::Unlinked`] with all others of its instance.
#[must_use]
pub fn removed(profile: &str, before: &Identity, reason: Reason) -> IdentityRecord {
    let state = json!(before.state.as_str());
    let nothing = Map::new();
    let was = Map::from_iter([("state".to_owned(), state)]);
    IdentityRecord {
        kind: Kind::Deactivate,
        reason,
        changed: Some(changed(&was, &nothing)),
        after: text(profile, before),
    }
}

/// A row of `identities` as one JSON text: members in the order of their names, none that is null.
#[must_use]
pub fn text(profile: &str, identity: &Identity) -> String {
    let mut members = members(identity);
    members.insert("profile".to_owned(), json!(profile));
    Value::Object(members).to_string()
}

/// The columns that a record decides, by their names.
fn members(identity: &Identity) -> Map<String, Value> {
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
    add("state", json!(identity.state.as_str()));
    if let Some(user_id) = &identity.user_id {
        add("user_id", json!(user_id));
    }
    if let Some(matched_by) = identity.matched_by {
        add("matched_by", json!(matched_by.as_str()));
    }
    if !identity.candidates.is_empty() {
        add("candidates", json!(identity.candidates));
    }
    members
}

fn changed(from: &Map<String, Value>, to: &Map<String, Value>) -> String {
    let mut changed = Map::new();
    for name in ["candidates", "matched_by", "state", "user_id"] {
        let [from, to] = [from, to].map(|members| members.get(name).cloned().unwrap_or_default());
        if from != to {
            changed.insert(name.to_owned(), json!({ "from": from, "to": to }));
        }
    }
    Value::Object(changed).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_folded_and_nothing_else() {
        for (key, expected) in [
            ("Ada.LOVELACE@X", "ada.lovelace@x"),
            ("ÉΣ", "éσ"),
            // The signs for kelvin, angstrom and ohm, and letters whose other case is several letters.
            ("\u{212a}\u{212b}\u{2126}", "\u{212a}\u{212b}\u{2126}"),
            ("İẞß", "İẞß"),
        ] {
            assert_eq!(folded(key), expected);
        }
    }
}
