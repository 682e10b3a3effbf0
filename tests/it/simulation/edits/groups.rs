//! What people and scripts do to groups, and to who is in them.

use fastrand::Rng;
use musterd::sandbox::{GroupValues, Member, MemberKind, Sandbox, Table};

use super::super::plan::pick;

/// A change of groups. No stamp tells of members.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum GroupEdit {
    /// One is made, with so many users in it.
    Make(usize),
    /// One is called otherwise.
    Rename,
    /// One is deleted for good.
    Delete,
    /// All that were deleted are there again.
    Undelete,
    /// One is deleted and made anew under the same name, with the same members or with none.
    Remake(bool),
    /// So many users come into one.
    Join(usize),
    /// So many members leave one.
    Leave(usize),
    /// So many members leave one, and as many come.
    Swap(usize),
    /// Everybody leaves one.
    Empty,
    /// Such a share of one leaves it.
    MassLeave(u8),
    /// Such a share of all memberships ends.
    LeaveEverywhere(u8),
    /// One is nested in another.
    Nest,
    /// Of three, one is nested in itself, and two in each other.
    Tangle,
    /// Somebody is in one of whom nobody knows more than the id.
    Orphan,
    /// A user of a group is deleted, and his memberships stay.
    Vanish,
    /// Such a share of all groups is deleted.
    MassDelete(u8),
    /// One belongs to a company, or to none any more.
    Company,
    /// One is shown as bytes that cannot be read.
    Spoil,
    /// Three users come into one, or leave it, whatever they were, and it is called otherwise.
    Turn(bool),
}

impl GroupEdit {
    pub(in super::super) fn draw(rng: &mut Rng) -> Self {
        let few = pick(rng, &[(1, 6), (2, 3), (4, 2), (9, 1)]);
        match rng.u8(..100) {
            0..10 => Self::Make(few + 1),
            10..16 => Self::Rename,
            16..23 => Self::Delete,
            23..27 => Self::Undelete,
            27..34 => Self::Remake(rng.bool()),
            34..48 => Self::Join(few),
            48..64 => Self::Leave(few),
            64..70 => Self::Swap(few),
            70..74 => Self::Empty,
            74..79 => Self::MassLeave(rng.u8(30..=95)),
            79..82 => Self::LeaveEverywhere(rng.u8(10..=80)),
            82..86 => Self::Nest,
            86..88 => Self::Tangle,
            88..90 => Self::Orphan,
            90..92 => Self::Vanish,
            92..95 => Self::MassDelete(rng.u8(20..=90)),
            95..97 => Self::Company,
            97..98 => Self::Spoil,
            _ => Self::Turn(rng.bool()),
        }
    }

    /// Does it. Where there is no group there is nothing to change but by making one.
    pub(in super::super) fn happen(self, sandbox: &Sandbox, rng: &mut Rng) {
        let ids = sandbox.group_ids();
        let one = rng.choice(&ids).cloned();
        match (self, one) {
            (Self::Make(n), _) => {
                make(sandbox, &format!("Made {}", rng.u32(..)), n, rng);
            }
            (Self::Undelete, _) => undelete(sandbox),
            (_, None) => {}
            (Self::Rename, Some(id)) => rename(sandbox, &id, rng),
            (Self::Delete, Some(id)) => drop(sandbox.delete_group(&id)),
            (Self::Remake(with_members), Some(id)) => remake(sandbox, &id, with_members),
            (Self::Join(n), Some(id)) => join(sandbox, &id, n, rng),
            (Self::Leave(n), Some(id)) => leave(sandbox, &id, n, rng),
            (Self::Swap(n), Some(id)) => {
                leave(sandbox, &id, n, rng);
                join(sandbox, &id, n, rng);
            }
            (Self::Empty, Some(id)) => leave(sandbox, &id, usize::MAX, rng),
            (Self::MassLeave(percent), Some(id)) => {
                let n = members(sandbox, &id).len() * usize::from(percent) / 100;
                leave(sandbox, &id, n, rng);
            }
            (Self::LeaveEverywhere(percent), Some(_)) => {
                for id in &ids {
                    let members = members(sandbox, id).into_iter();
                    let some: Vec<Member> = members.filter(|_| rng.u8(..100) < percent).collect();
                    sandbox.change_members(id, &some, &[]);
                }
            }
            (Self::Nest, Some(id)) => {
                let inner = rng.choice(&ids).cloned().unwrap_or_default();
                sandbox.change_members(&id, &[], &[Member::group(&inner)]);
            }
            (Self::Tangle, Some(_)) => {
                if let [own, one, other, ..] = &ids[..] {
                    for (outer, inner) in [(own, own), (one, other), (other, one)] {
                        sandbox.change_members(outer, &[], &[Member::group(inner)]);
                    }
                }
            }
            (Self::Orphan, Some(id)) => {
                let nobody = format!("nobody {}/%", rng.u32(..));
                sandbox.change_members(&id, &[], &[Member::user(&nobody)]);
            }
            (Self::Vanish, Some(id)) => {
                let members = members(sandbox, &id);
                let users = members.iter().filter(|one| one.kind == MemberKind::User);
                if let Some(user) = rng.choice(users.collect::<Vec<_>>()) {
                    sandbox.delete(&user.id);
                    // The row of the membership is there still.
                    sandbox.change_members(&id, &[], std::slice::from_ref(user));
                }
            }
            (Self::MassDelete(percent), Some(_)) => {
                for id in ids.iter().filter(|_| rng.u8(..100) < percent) {
                    sandbox.delete_group(id);
                }
            }
            (Self::Company, Some(id)) => {
                let company = draw_company(sandbox, rng);
                let values = GroupValues {
                    company: Some(company),
                    ..GroupValues::default()
                };
                sandbox.update_group(&id, &values);
            }
            (Self::Spoil, Some(id)) => {
                let raw = pick::<&[u8]>(rng, &[(b"{\"id\":\"\xff\"}", 1), (b"{\"id\":\"\"}", 1)]);
                sandbox.show_raw(&id, Some(raw.to_vec()));
            }
            (Self::Turn(comes), Some(id)) => {
                let users: Vec<Member> = some_users(sandbox, 3, rng);
                let (leave, join) = match comes {
                    true => (&[][..], &users[..]),
                    false => (&users[..], &[][..]),
                };
                sandbox.change_members(&id, leave, join);
                let name = format!("Turned {comes} {}", rng.u32(..));
                sandbox.update_group(&id, &GroupValues::named(name));
            }
        }
    }
}

/// A group with somebody in it, who is in sight wherever groups are: where all lists are empty, none of them is believed.
pub(in super::super) fn found_desk(sandbox: &Sandbox, rng: &mut Rng) {
    make(sandbox, &format!("Desk {}", rng.u32(..)), 3, rng);
}

fn make(sandbox: &Sandbox, name: &str, n_users: usize, rng: &mut Rng) -> String {
    let company = match rng.bool() {
        true => draw_company(sandbox, rng),
        false => String::new(),
    };
    let id = sandbox.create_group(&GroupValues {
        company: Some(company),
        ..GroupValues::named(name)
    });
    join(sandbox, &id, n_users, rng);
    id
}

fn remake(sandbox: &Sandbox, id: &str, with_members: bool) {
    let old = sandbox.with_directory(|directory| directory.group(id).cloned());
    let Some(old) = old else { return };
    let members = members(sandbox, id);
    sandbox.delete_group(id);
    let new = sandbox.create_group(&GroupValues {
        name: Some(old.name.to_string()),
        company: Some(old.company.to_string()),
        external_id: Some(old.external_id.to_string()),
    });
    if with_members {
        sandbox.change_members(&new, &[], &members);
    }
}

fn rename(sandbox: &Sandbox, id: &str, rng: &mut Rng) {
    let name = format!("Renamed {}", rng.u32(..));
    sandbox.update_group(id, &GroupValues::named(name));
}

fn undelete(sandbox: &Sandbox) {
    let deleted: Vec<String> = sandbox.with_directory(|directory| {
        let deleted = directory.deleted_groups().into_iter();
        deleted.map(str::to_owned).collect()
    });
    for id in deleted {
        sandbox.undelete_group(&id);
    }
}

fn join(sandbox: &Sandbox, id: &str, n: usize, rng: &mut Rng) {
    let users = some_users(sandbox, n, rng);
    sandbox.change_members(id, &[], &users);
}

fn leave(sandbox: &Sandbox, id: &str, n: usize, rng: &mut Rng) {
    let mut members = members(sandbox, id);
    rng.shuffle(&mut members);
    members.truncate(n);
    sandbox.change_members(id, &members, &[]);
}

fn members(sandbox: &Sandbox, id: &str) -> Vec<Member> {
    sandbox.with_directory(|directory| directory.members(id).to_vec())
}

fn some_users(sandbox: &Sandbox, n: usize, rng: &mut Rng) -> Vec<Member> {
    let mut ids = sandbox.ids();
    rng.shuffle(&mut ids);
    ids.truncate(n);
    ids.iter().map(|id| Member::user(id)).collect()
}

fn draw_company(sandbox: &Sandbox, rng: &mut Rng) -> String {
    super::draw_name(sandbox, Table::Company, rng)
}
