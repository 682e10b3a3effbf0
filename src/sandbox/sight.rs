//! What the account sees of users and groups: rows hidden by rules and access lists (facts page,
//! section 13.4), before a page is cut or after.

use std::collections::BTreeSet;

use super::effect::Effect;
use super::error::Refusal;
use super::resource_type::Resource;

/// What is hidden in one request.
#[derive(Debug, Default)]
pub(super) struct Sight<'a> {
    inactive: bool,
    shares: Vec<f64>,
    ids: BTreeSet<&'a str>,
    unlisted: Vec<f64>,
    unlisted_ids: BTreeSet<&'a str>,
    after_cut: Vec<f64>,
    unreadable: Vec<(&'a [String], u16)>,
}

impl<'a> Sight<'a> {
    /// Reads it from the effects that met the request.
    #[must_use]
    pub(super) fn of(effects: &'a [Effect]) -> Self {
        let mut sight = Self::default();
        for effect in effects {
            match effect {
                Effect::InactiveHidden => sight.inactive = true,
                Effect::RowsHidden { share } => sight.shares.push(*share),
                Effect::RowsHiddenAfterCut { share } => sight.after_cut.push(*share),
                Effect::RowsUnlisted { share, ids } => {
                    sight.unlisted.push(*share);
                    sight.unlisted_ids.extend(ids.iter().map(String::as_str));
                }
                Effect::UsersHidden { ids } => {
                    sight.ids.extend(ids.iter().map(String::as_str));
                }
                Effect::GroupsUnreadable { ids, status } => sight.unreadable.push((ids, *status)),
                _ => {}
            }
        }
        sight
    }

    /// Whether lists are cut from all rows.
    #[must_use]
    pub(super) fn is_full(&self) -> bool {
        !self.inactive && self.ids.is_empty() && self.shares.is_empty() && self.unlisted.is_empty()
    }

    /// Whether a list counts this row.
    #[must_use]
    pub(super) fn lists<T: Resource>(&self, row: &T) -> bool {
        self.allows(row)
            && !within(&self.unlisted, row.sys_id())
            && !self.unlisted_ids.contains(row.sys_id())
    }

    /// Whether a list shows this row once it has counted it.
    #[must_use]
    pub(super) fn shows<T: Resource>(&self, row: &T) -> bool {
        !within(&self.after_cut, row.sys_id()) && self.refusal(row, row.sys_id()).is_none()
    }

    /// Why asking for `asked` does not give this row; `None` if it does.
    #[must_use]
    pub(super) fn refusal<T: Resource>(&self, row: &T, asked: &str) -> Option<Refusal> {
        let id = row.sys_id();
        if !self.allows(row) || within(&self.after_cut, id) {
            return Some(not_found::<T>(asked));
        }
        let unreadable = self.unreadable.iter();
        let status = unreadable
            .filter(|(ids, _)| names(ids, id))
            .map(|(_, status)| *status)
            .next()?;
        Some(match status {
            404 => not_found::<T>(asked),
            other => Refusal::platform(other, "User Not Authorized", None),
        })
    }

    fn allows<T: Resource>(&self, row: &T) -> bool {
        (row.is_active() || !self.inactive)
            && !self.ids.contains(row.sys_id())
            && !within(&self.shares, row.sys_id())
    }
}

/// What asking for a key that there is not is answered, and for one that may not be seen (section 11.1).
#[must_use]
pub(super) fn not_found<T: Resource>(id: &str) -> Refusal {
    Refusal::scim(404, None, format!("{} not found {id}", T::TYPE))
}

/// Whether a list of ids in a fault means this one; an empty list means all.
#[must_use]
pub(super) fn names(ids: &[String], id: &str) -> bool {
    ids.is_empty() || ids.iter().any(|one| one == id)
}

/// Whether a row is among a share of all rows: the same ones every time.
#[must_use]
pub(super) fn is_among(id: &str, share: f64) -> bool {
    // FNV-1a: stable between versions of the compiler.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let place = u32::try_from(hash >> 32).unwrap_or_default();
    f64::from(place) / f64::from(u32::MAX) < share || share >= 1.0
}

fn within(shares: &[f64], id: &str) -> bool {
    shares.iter().any(|share| is_among(id, *share))
}

#[cfg(test)]
mod tests {
    use super::super::Values;
    use super::super::testbed::Testbed;
    use super::*;

    #[test]
    fn rows_are_hidden_before_the_cut_or_after_it() {
        let bed = Testbed::of(100);
        let all: Vec<String> = bed.sandbox.ids();
        let listed = |bed: &Testbed| -> (u64, Vec<String>) {
            let page = bed.list("count=500");
            (
                page.total(),
                page.ids().into_iter().map(str::to_owned).collect(),
            )
        };
        let finds = |id: &str| bed.get(&format!("/Users/{id}")).status == 200;

        bed.fault(Effect::RowsHidden { share: 0.3 });
        let (total, before) = listed(&bed);
        assert!((15..45).contains(&(100 - before.len())), "{}", before.len());
        assert_eq!(total, before.len() as u64);
        assert_eq!(listed(&bed).1, before);
        assert!(all.iter().all(|id| finds(id) == before.contains(id)));

        bed.fault(Effect::RowsHiddenAfterCut { share: 0.3 });
        let (total, after) = listed(&bed);
        assert_eq!((total, &after), (100, &before));
        assert!(all.iter().all(|id| finds(id) == after.contains(id)));

        bed.fault(Effect::RowsUnlisted {
            share: 0.3,
            ids: Vec::new(),
        });
        let (total, unlisted) = listed(&bed);
        assert_eq!((total, &unlisted), (before.len() as u64, &before));
        assert!(all.iter().all(|id| finds(id)));

        bed.fault(Effect::RowsHidden { share: 1.0 });
        assert_eq!(listed(&bed), (0, Vec::new()));

        let ids = all[..2].to_vec();
        bed.fault(Effect::UsersHidden { ids });
        assert_eq!(listed(&bed), (98, all[2..].to_vec()));
        assert!(!finds(&all[0]) && finds(&all[2]));
    }

    #[test]
    fn inactive_users_are_hidden_and_shown_again() {
        let bed = Testbed::of(50);
        let id = bed.sandbox.ids()[7].clone();
        bed.sandbox.update(&id, &Values::new().active(false));
        bed.fault(Effect::InactiveHidden);
        let page = bed.list("count=500");
        assert!(page.total() < 50 && !page.ids().contains(&id.as_str()));
        assert!(page.rows().iter().all(|user| user["active"] == true));
        assert_eq!(bed.list("filter=active eq false").total(), 0);
        assert_eq!(bed.get(&format!("/Users/{id}")).status, 404);
        bed.sandbox.remove_fault("inactive_hidden");
        assert_eq!(bed.list("count=500").total(), 50);
    }

    #[test]
    fn asking_by_id_can_give_another_user() {
        let bed = Testbed::of(3);
        let ids = bed.sandbox.ids();
        bed.fault(Effect::AnotherUser);
        for (asked, given) in [(0, 1), (2, 0)] {
            let answered = bed.get(&format!("/Users/{}", ids[asked]));
            assert_eq!(answered.json["id"], ids[given]);
        }
        assert_eq!(bed.get("/Users/zzz").json["id"], ids[0]);
        // One who is hidden is not told by his id.
        bed.sandbox
            .add_fault(super::super::Fault::new(Effect::UsersHidden {
                ids: vec![ids[1].clone()],
            }));
        let hidden = bed.get(&format!("/Users/{}", ids[0])).json;
        assert_eq!(hidden["detail"], format!("User not found {}", ids[0]));
    }

    #[test]
    fn groups_are_forbidden_or_cannot_be_read_while_users_can() {
        let bed = Testbed::with(super::super::Options {
            users: 20,
            groups: 10,
            odd: false,
            ..super::super::Options::default()
        });
        let ids = bed.sandbox.group_ids();
        let status = |target: &str| bed.get(target).status;
        let one = |place: usize| format!("/Groups/{}", ids[place]);

        bed.fault(Effect::GroupsForbidden);
        let refused = bed.get("/Groups");
        assert_eq!(refused.status, 403);
        assert_eq!(refused.json["error"]["message"], "User Not Authorized");
        assert_eq!(status(&one(0)), 403);
        let post = bed.write(http::Method::POST, "/Groups", &serde_json::json!({}));
        assert_eq!(post.status, 403);
        assert_eq!(bed.sandbox.fired()[0].times, 3);
        assert_eq!((status("/Users"), status("/Departments")), (200, 200));
        assert_eq!(bed.sandbox.fired()[0].times, 3);

        for (given, shape) in [(404, "scim"), (403, "platform")] {
            bed.fault(Effect::GroupsUnreadable {
                ids: ids[..2].to_vec(),
                status: given,
            });
            let page = bed.groups("count=500");
            assert_eq!((page.total(), page.ids().len()), (10, 8));
            assert_eq!(page.ids(), ids[2..]);
            let refused = bed.get(&one(0));
            assert_eq!(refused.status, given);
            let is_scim = refused.json["detail"].is_string();
            assert_eq!(is_scim, shape == "scim", "{}", refused.json);
            assert_eq!(status(&one(2)), 200);
        }
        bed.fault(Effect::GroupsUnreadable {
            ids: Vec::new(),
            status: 404,
        });
        let page = bed.groups("count=500");
        assert_eq!((page.total(), page.ids().len()), (10, 0));
        assert_eq!(bed.list("count=500").ids().len(), 20);

        // The rules that hide users hide groups as well.
        bed.fault(Effect::RowsHidden { share: 0.5 });
        let page = bed.groups("count=500");
        assert!(page.total() < 10 && page.total() == page.ids().len() as u64);
        let listed = page.ids();
        assert!(
            (0..10)
                .all(|place| (status(&one(place)) == 200) == listed.contains(&ids[place].as_str()))
        );
        bed.fault(Effect::InactiveHidden);
        assert_eq!(bed.groups("").total(), 10);
        bed.fault(Effect::AnotherUser);
        assert_eq!(bed.group(&ids[3])["id"], ids[4]);
    }
}
