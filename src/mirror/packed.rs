//! A list of members as the stage keeps it: it is read again at each step of a sync, and nearly all of it is in the mirror
//! already, so that nothing of it is copied before it is wanted.

use rusqlite::types::Type;

use crate::model::{MemberKind, MemberList, Shown};

/// A list of members as one text, of which the texts in it are pieces: none is looked at twice for being one.
///
/// Each text has its length in bytes before it and a colon between (`2:id`), each number a colon behind it, and what may be missing `-`
/// or `+` before it: how many arrived, why not all of it could be read, how many members there are; and of each member `U` or
/// `G` for a user or a group, its id, and its label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Packed {
    text: String,
    /// Where the members begin.
    members_at: usize,
    /// How many there are.
    pub(super) n_shown: usize,
    /// How many there were as it arrived, doubles and empty ones included.
    pub(super) n_arrived: usize,
    /// Why not all of it could be read.
    pub(super) unreadable: Option<String>,
}

/// What is not the text of a list.
#[derive(Debug, thiserror::Error)]
#[error("a staged list of members is damaged")]
struct Damaged;

fn push_number(to: &mut String, number: usize) {
    to.push_str(&number.to_string());
    to.push(':');
}

fn push_text(to: &mut String, text: &str) {
    push_number(to, text.len());
    to.push_str(text);
}

fn push_optional(to: &mut String, text: Option<&str>) {
    match text {
        None => to.push('-'),
        Some(text) => {
            to.push('+');
            push_text(to, text);
        }
    }
}

impl Packed {
    /// Packs a list.
    pub(super) fn pack(list: &MemberList) -> Self {
        // An id and a name take so much.
        let mut text = String::with_capacity(64 + list.members.len() * 64);
        push_number(&mut text, list.n_arrived);
        push_optional(&mut text, list.unreadable.as_deref());
        push_number(&mut text, list.members.len());
        let members_at = text.len();
        for member in &list.members {
            text.push(match member.kind {
                MemberKind::User => 'U',
                MemberKind::Group => 'G',
            });
            push_text(&mut text, &member.id);
            push_optional(&mut text, member.label.as_deref());
        }
        Self {
            text,
            members_at,
            n_shown: list.members.len(),
            n_arrived: list.n_arrived,
            unreadable: list.unreadable.clone(),
        }
    }

    /// Its text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The list of which this is the text.
    ///
    /// # Errors
    /// Where it is that of none: then nothing of it is believed.
    pub(super) fn of(text: String) -> rusqlite::Result<Self> {
        Self::read(text).ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(Damaged))
        })
    }

    fn read(text: String) -> Option<Self> {
        let mut place = Place(&text);
        let n_arrived = place.number()?;
        let unreadable = place.optional()?.map(str::to_owned);
        let n_shown = place.number()?;
        let members_at = text.len() - place.0.len();
        for _ in 0..n_shown {
            place.member()?;
        }
        place.0.is_empty().then_some(())?;
        Some(Self {
            members_at,
            n_shown,
            n_arrived,
            unreadable,
            text,
        })
    }

    /// Its members, in the order of ids.
    pub(super) fn members(&self) -> impl Iterator<Item = Shown<'_>> {
        let mut place = Place(self.text.get(self.members_at..).unwrap_or_default());
        std::iter::from_fn(move || place.member())
    }

    /// The list as it was decoded.
    pub(super) fn to_list(&self) -> MemberList {
        MemberList {
            members: self.members().map(|member| member.to_member()).collect(),
            n_arrived: self.n_arrived,
            unreadable: self.unreadable.clone(),
            mislinked: 0,
        }
    }
}

/// What is left to read. Each method goes past what it is named after; `None` where that does not stand there.
struct Place<'a>(&'a str);

impl<'a> Place<'a> {
    fn piece(&mut self, length: usize) -> Option<&'a str> {
        let (piece, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(piece)
    }

    fn number(&mut self) -> Option<usize> {
        let mut number = 0_usize;
        for (place, byte) in self.0.bytes().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    number = number
                        .checked_mul(10)?
                        .checked_add(usize::from(byte - b'0'))?
                }
                b':' if place > 0 => {
                    self.piece(place + 1)?;
                    return Some(number);
                }
                _ => return None,
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.number()?;
        self.piece(length)
    }

    fn optional(&mut self) -> Option<Option<&'a str>> {
        match self.piece(1)? {
            "-" => Some(None),
            "+" => self.text().map(Some),
            _ => None,
        }
    }

    fn member(&mut self) -> Option<Shown<'a>> {
        let kind = match self.piece(1)? {
            "U" => MemberKind::User,
            "G" => MemberKind::Group,
            _ => return None,
        };
        Some(Shown {
            kind,
            id: self.text()?,
            label: self.optional()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Member;

    fn lists() -> impl Strategy<Value = MemberList> {
        let kind = prop_oneof![Just(MemberKind::User), Just(MemberKind::Group)];
        let member = (any::<String>(), kind, proptest::option::of(any::<String>()));
        let members = proptest::collection::vec(member, 0..4);
        (members, 0..9_usize, proptest::option::of(any::<String>())).prop_map(
            |(members, n_arrived, unreadable)| MemberList {
                members: (members.into_iter())
                    .map(|(id, kind, label)| Member { id, kind, label })
                    .collect(),
                n_arrived,
                unreadable,
                mislinked: 0,
            },
        )
    }

    proptest! {
        #[test]
        fn a_list_is_what_was_packed_and_a_text_that_is_short_or_long_is_none(list in lists()) {
            let packed = Packed::pack(&list);
            let text = packed.text().to_owned();
            prop_assert_eq!(&Packed::of(text.clone()).unwrap(), &packed);
            prop_assert_eq!((packed.n_shown, packed.n_arrived), (list.members.len(), list.n_arrived));
            prop_assert_eq!(packed.to_list(), list);
            for (end, _) in text.char_indices() {
                prop_assert!(Packed::of(text[..end].to_owned()).is_err());
            }
            prop_assert!(Packed::of(text + "U").is_err());
        }

        #[test]
        fn no_text_is_a_panic(text in "[0-9:UG+-]{0,24}|.{0,24}") {
            let _ = Packed::of(text);
        }
    }
}
