//! Who is in a group.

use std::borrow::Cow;

use super::id::ResourceId;

/// What a member is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum MemberKind {
    /// A user.
    User,
    /// A group that is nested in the other.
    Group,
}

impl MemberKind {
    /// The word in `memberships.member_type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
        }
    }
}

/// A member of a group, as its list shows it. The mirror need not know who that is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// The member's id, exactly as it arrived.
    pub id: String,
    /// What it is.
    pub kind: MemberKind,
    /// Its name as the list shows it.
    pub label: Option<String>,
}

impl Member {
    /// It without a copy.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        Shown {
            id: &self.id,
            kind: self.kind,
            label: self.label.as_deref(),
        }
    }
}

/// The same as it stands somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// The member's id, exactly as it arrived.
    pub id: &'a str,
    /// What it is.
    pub kind: MemberKind,
    /// Its name as the list shows it.
    pub label: Option<&'a str>,
}

impl Shown<'_> {
    /// A copy of it.
    #[must_use]
    pub fn to_member(self) -> Member {
        Member {
            id: self.id.to_owned(),
            kind: self.kind,
            label: self.label.map(str::to_owned),
        }
    }
}

/// The list of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberList {
    /// In the order of ids, each once.
    pub members: Vec<Member>,
    /// How many there were as it arrived, doubles and empty ones included.
    pub n_arrived: usize,
    /// Why not all of it could be read, with the path; nothing can be missing from such a list.
    pub unreadable: Option<String>,
    /// Members whose link leads to somebody else: their value counts (facts page, section 9.1).
    pub mislinked: u64,
}

/// How far the members of a group are known: `groups.members_known`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MembersKnown {
    /// All of them.
    All,
    /// Who is shown is in it; others may be as well.
    Cut,
    /// The list could not be read, or was not believed.
    #[default]
    Unknown,
}

impl MembersKnown {
    /// The word in `groups.members_known`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Cut => "cut",
            Self::Unknown => "unknown",
        }
    }
}

/// The id of a membership: `GROUP/MEMBER`, with `%` and `/` in either escaped, so that no two memberships have one.
#[must_use]
pub fn id(group: &str, member: &str) -> ResourceId {
    ResourceId::new(format!("{}/{}", escape(group), escape(member)))
}

/// What the ids of all memberships of a group begin with, and what comes behind the last of them.
#[must_use]
pub fn range(group: &str) -> [String; 2] {
    let group = escape(group);
    // `0` follows on `/`.
    [format!("{group}/"), format!("{group}0")]
}

/// Group and member of a membership's id; `None` for a text that is none.
#[must_use]
pub fn parts(id: &str) -> Option<[String; 2]> {
    let (group, member) = id.split_once('/')?;
    Some([unescape(group)?, unescape(member)?])
}

fn escape(part: &str) -> Cow<'_, str> {
    match part.contains(['%', '/']) {
        true => Cow::Owned(part.replace('%', "%25").replace('/', "%2F")),
        false => Cow::Borrowed(part),
    }
}

fn unescape(part: &str) -> Option<String> {
    let mut pieces = part.split('%');
    let mut text = pieces.next()?.to_owned();
    for piece in pieces {
        let (escaped, rest) = piece.split_at_checked(2)?;
        text.push(match escaped {
            "25" => '%',
            "2F" => '/',
            _ => return None,
        });
        text.push_str(rest);
    }
    // A plain one parts group and member, and there is but one of those.
    (!part.contains('/')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_memberships_have_one_id_and_each_tells_its_parts() {
        let texts = ["a", "a/b", "b", "%", "%2F", "a%2Fb", "", "Zoë", "25"];
        let mut ids = std::collections::BTreeSet::new();
        for group in texts {
            for member in texts {
                let id = id(group, member);
                assert_eq!(
                    parts(id.as_str()),
                    Some([group.to_owned(), member.to_owned()])
                );
                let [first, behind] = range(group);
                assert!((first.as_str()..behind.as_str()).contains(&id.as_str()));
                for other in texts.into_iter().filter(|other| *other != group) {
                    let [first, behind] = range(other);
                    assert!(!(first.as_str()..behind.as_str()).contains(&id.as_str()));
                }
                assert!(ids.insert(id));
            }
        }
        for wrong in ["a", "a/b/c", "a/%", "a/%2", "a/%2f", "%41/b", "a/%é"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
