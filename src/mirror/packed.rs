//! A list of members as the stage keeps it: it is read again at each step of a sync, and nearly all of it is in the mirror
//! already, so that nothing of it is copied before it is wanted.

use rusqlite::types::Type;

use crate::model::{MemberKind, MemberList, Shown};

/// A list of members in bytes.
///
/// Each number is eight bytes, the lowest first, and each text its length and its bytes: how many arrived, 0 or 1 and the text why not
/// all of it could be read, how many members there are; and of each member 0 for a user or 1 for a group, its id, and 0 or
/// 1 and its label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    /// Where the members begin.
    members_at: usize,
    /// How many there are.
    pub(super) n_shown: usize,
    /// How many there were as it arrived, doubles and empty ones included.
    pub(super) n_arrived: usize,
    /// Why not all of it could be read.
    pub(super) unreadable: Option<String>,
}

/// What is not the bytes of a list.
#[derive(Debug, thiserror::Error)]
#[error("a staged list of members is damaged")]
struct Damaged;

fn number(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&(number as u64).to_le_bytes());
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    number(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

fn optional(bytes: &mut Vec<u8>, one: Option<&str>) {
    bytes.push(u8::from(one.is_some()));
    if let Some(one) = one {
        text(bytes, one);
    }
}

impl Packed {
    /// Packs a list.
    pub(super) fn pack(list: &MemberList) -> Self {
        // An id and a name take so much.
        let mut bytes = Vec::with_capacity(64 + list.members.len() * 96);
        number(&mut bytes, list.n_arrived);
        optional(&mut bytes, list.unreadable.as_deref());
        number(&mut bytes, list.members.len());
        let members_at = bytes.len();
        for member in &list.members {
            bytes.push(match member.kind {
                MemberKind::User => 0,
                MemberKind::Group => 1,
            });
            text(&mut bytes, &member.id);
            optional(&mut bytes, member.label.as_deref());
        }
        Self {
            bytes,
            members_at,
            n_shown: list.members.len(),
            n_arrived: list.n_arrived,
            unreadable: list.unreadable.clone(),
        }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The list of which these are the bytes.
    ///
    /// # Errors
    /// Where they are those of none: then nothing of them is believed.
    pub(super) fn of(bytes: Vec<u8>) -> rusqlite::Result<Self> {
        Self::read(bytes).ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, Box::new(Damaged))
        })
    }

    fn read(bytes: Vec<u8>) -> Option<Self> {
        let mut place = Place(&bytes);
        let n_arrived = place.number()?;
        let unreadable = place.optional()?.map(str::to_owned);
        let n_shown = place.number()?;
        let members_at = bytes.len() - place.0.len();
        for _ in 0..n_shown {
            place.member()?;
        }
        place.0.is_empty().then_some(())?;
        Some(Self {
            members_at,
            n_shown,
            n_arrived,
            unreadable,
            bytes,
        })
    }

    /// Its members, in the order of ids.
    pub(super) fn members(&self) -> impl Iterator<Item = Shown<'_>> {
        let mut place = Place(self.bytes.get(self.members_at..).unwrap_or_default());
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
struct Place<'a>(&'a [u8]);

impl<'a> Place<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn number(&mut self) -> Option<usize> {
        let bytes = self.bytes(8)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.bytes(1)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.number()?;
        str::from_utf8(self.bytes(length)?).ok()
    }

    fn optional(&mut self) -> Option<Option<&'a str>> {
        match self.flag()? {
            true => self.text().map(Some),
            false => Some(None),
        }
    }

    fn member(&mut self) -> Option<Shown<'a>> {
        let kind = match self.flag()? {
            false => MemberKind::User,
            true => MemberKind::Group,
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
        fn a_list_is_what_was_packed_and_bytes_that_are_short_or_long_are_none(list in lists(), cut in 1..9_usize) {
            let packed = Packed::pack(&list);
            let bytes = packed.bytes().to_vec();
            prop_assert_eq!(&Packed::of(bytes.clone()).unwrap(), &packed);
            prop_assert_eq!((packed.n_shown, packed.n_arrived), (list.members.len(), list.n_arrived));
            prop_assert_eq!(packed.to_list(), list);
            let short = bytes[..bytes.len() - cut.min(bytes.len())].to_vec();
            prop_assert!(Packed::of(short).is_err());
            prop_assert!(Packed::of([&bytes[..], &[0; 8][..cut.min(8)]].concat()).is_err());
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Packed::of(bytes);
        }
    }
}
