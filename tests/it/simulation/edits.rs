//! What people and scripts do to a directory.

mod groups;

use std::time::Duration;

use fastrand::Rng;
use musterd::sandbox::{Column, Sandbox, Table, Values};

use super::plan::pick;

pub(super) use groups::{GroupEdit, found_desk};

/// A change of a directory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Edit {
    /// New titles and numbers for so many.
    Retitle(usize),
    /// So many move to another department, place or company.
    Move(usize),
    /// So many get another manager.
    Manager(usize),
    /// So many join.
    Join(usize),
    /// So many are made inactive.
    Leave(usize),
    /// So many who were inactive are active again.
    Return(usize),
    /// So many are made inactive and active again at once.
    Flap(usize),
    /// Three are made active or inactive, whatever they were.
    Turn(bool),
    /// So many are deleted for good.
    Delete(usize),
    /// All who were deleted are there again.
    Undelete,
    /// So many get a new title, and no stamp moves.
    Silent(usize),
    /// So many stamps move, and nothing else.
    Touch(usize),
    /// So many get a new title in transactions that commit so much later.
    Late(usize, Duration),
    /// An attribute of so many turns empty.
    Blank(Column, usize),
    /// An attribute of everybody turns empty.
    BlankAll(Column),
    /// A department is renamed.
    RenameDepartment,
    /// A department is deleted, whoever is in it.
    DeleteDepartment,
    /// Somebody is called otherwise, and so is the manager of whoever reports to him.
    Rename,
    /// Two people are each other's manager, and one is his own.
    Cycle,
    /// Somebody comes whose id is another's but for case.
    CaseTwin,
    /// Somebody comes with the user name of another.
    NameTwin,
    /// Somebody is called what breaks terminals.
    OddName,
    /// Such a share of everybody is made inactive in a day.
    MassLeave(u8),
    /// Such a share of everybody is deleted.
    MassDelete(u8),
    /// The whole directory is set back.
    Restore(Duration),
    /// So many are shown as bytes that cannot be read.
    Spoil(usize),
    /// Whoever was is not any more.
    Unspoil,
    /// The password and the secret are changed.
    Lock,
    /// They are what they were.
    Unlock,
    /// The living token dies.
    EndToken,
    /// Something of groups.
    Group(GroupEdit),
}

const BLANKED: &[(Column, u32)] = &[
    (Column::Title, 2),
    (Column::Phone, 1),
    (Column::Department, 2),
    (Column::Manager, 2),
    (Column::Email, 1),
    (Column::Location, 1),
    (Column::MobilePhone, 1),
    (Column::Street, 1),
];

impl Edit {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let few = pick(rng, &[(1, 6), (2, 3), (3, 2), (6, 1)]);
        let ago = Duration::from_secs(60 * rng.u64(1..=600));
        match rng.u8(..100) {
            0..14 => Self::Retitle(few),
            14..19 => Self::Move(few),
            19..24 => Self::Manager(few),
            24..33 => Self::Join(few),
            33..45 => Self::Leave(few),
            45..50 => Self::Return(few),
            50..52 => Self::Flap(few),
            52..61 => Self::Delete(few),
            61..64 => Self::Undelete,
            64..68 => Self::Silent(few),
            68..70 => Self::Touch(few),
            70..73 => Self::Late(few, Duration::from_secs(rng.u64(1..=900))),
            73..77 => Self::Blank(pick(rng, BLANKED), few),
            77..79 => Self::BlankAll(pick(rng, BLANKED)),
            79..82 => Self::RenameDepartment,
            82..83 => Self::DeleteDepartment,
            83..85 => Self::Rename,
            85..86 => Self::Cycle,
            86..87 => Self::CaseTwin,
            87..88 => Self::NameTwin,
            88..89 => Self::OddName,
            89..91 => Self::MassLeave(rng.u8(10..=95)),
            91..93 => Self::MassDelete(rng.u8(5..=80)),
            93..94 => Self::Restore(ago),
            94..96 => Self::Spoil(few),
            96..97 => Self::Unspoil,
            97..98 => Self::Lock,
            98..99 => Self::Unlock,
            _ => Self::EndToken,
        }
    }

    /// Does it. Whom it meets is drawn from `lot`.
    pub(super) fn happen(self, sandbox: &Sandbox, lot: u64) {
        let mut rng = Rng::with_seed(lot);
        let ids = sandbox.ids();
        let some = |n: usize, rng: &mut Rng| -> Vec<String> {
            let mut ids = ids.clone();
            rng.shuffle(&mut ids);
            ids.truncate(n);
            ids
        };
        match self {
            Self::Retitle(n) => {
                for id in some(n, &mut rng) {
                    let values = Values::new()
                        .with(Column::Title, title(&mut rng))
                        .with(Column::Phone, format!("+47 555 {:05}", rng.u32(..100_000)));
                    sandbox.update(&id, &values);
                }
            }
            Self::Move(n) => {
                for id in some(n, &mut rng) {
                    let (table, column) = pick(
                        &mut rng,
                        &[
                            ((Table::Department, Column::Department), 3),
                            ((Table::Location, Column::Location), 2),
                            ((Table::CostCenter, Column::CostCenter), 1),
                            ((Table::Company, Column::Company), 1),
                        ],
                    );
                    let place = draw_name(sandbox, table, &mut rng);
                    sandbox.update(&id, &Values::new().with(column, place));
                }
            }
            Self::Manager(n) => {
                for id in some(n, &mut rng) {
                    let manager = rng.choice(&ids).cloned().unwrap_or_default();
                    sandbox.update(&id, &Values::new().with(Column::Manager, manager));
                }
            }
            Self::Join(n) => {
                for _ in 0..n {
                    join(sandbox, None, &mut rng);
                }
            }
            Self::Leave(n) => set_active(sandbox, &some(n, &mut rng), false),
            Self::Return(n) => {
                let inactive = sandbox.with_directory(|directory| {
                    let users = directory.users().iter().filter(|user| !user.active);
                    users
                        .map(|user| user.sys_id.to_string())
                        .collect::<Vec<_>>()
                });
                set_active(sandbox, &inactive[..n.min(inactive.len())], true);
            }
            Self::Flap(n) => {
                let who = some(n, &mut rng);
                set_active(sandbox, &who, false);
                set_active(sandbox, &who, true);
            }
            Self::Turn(active) => set_active(sandbox, &some(3, &mut rng), active),
            Self::Delete(n) => delete(sandbox, &some(n, &mut rng)),
            Self::Undelete => undelete(sandbox),
            Self::Silent(n) => {
                for id in some(n, &mut rng) {
                    let values = Values::new().with(Column::Title, title(&mut rng));
                    sandbox.update_silently(&id, &values);
                }
            }
            Self::Touch(n) => {
                for id in some(n, &mut rng) {
                    sandbox.touch(&id);
                }
            }
            Self::Late(n, after) => {
                for id in some(n, &mut rng) {
                    let values = Values::new().with(Column::Title, title(&mut rng));
                    sandbox.update_late(&id, values, after);
                }
            }
            Self::Blank(column, n) => {
                for id in some(n, &mut rng) {
                    sandbox.update(&id, &Values::new().with(column, ""));
                }
            }
            Self::BlankAll(column) => {
                for id in &ids {
                    sandbox.update(id, &Values::new().with(column, ""));
                }
            }
            Self::RenameDepartment => {
                let id = draw_name(sandbox, Table::Department, &mut rng);
                let name = format!("Department {}", rng.u16(..));
                sandbox.rename(Table::Department, &id, &name);
            }
            Self::DeleteDepartment => {
                let id = draw_name(sandbox, Table::Department, &mut rng);
                sandbox.delete_name(Table::Department, &id);
            }
            Self::Rename => {
                for id in some(1, &mut rng) {
                    let name = format!("Renamed{}", rng.u16(..));
                    sandbox.update(&id, &Values::new().with(Column::LastName, name));
                }
            }
            Self::Cycle => {
                let who = some(2, &mut rng);
                for (id, manager) in who.iter().zip(who.iter().rev()) {
                    sandbox.update(id, &Values::new().with(Column::Manager, manager));
                }
                for id in some(1, &mut rng) {
                    sandbox.update(&id, &Values::new().with(Column::Manager, &id));
                }
            }
            Self::CaseTwin => {
                for id in some(1, &mut rng) {
                    join(sandbox, Some(id.to_ascii_uppercase()), &mut rng);
                }
            }
            Self::NameTwin => {
                let name = sandbox.with_directory(|directory| {
                    let user = rng.choice(directory.users());
                    user.map(|user| user.get(Column::UserName).to_owned())
                });
                let id = join(sandbox, None, &mut rng);
                let name = name.unwrap_or_default();
                sandbox.update(&id, &Values::new().with(Column::UserName, name));
            }
            Self::OddName => {
                for id in some(1, &mut rng) {
                    let name = pick(
                        &mut rng,
                        &[
                            ("\u{1b}[2J\u{1b}]0;x\u{7}", 1),
                            ("a\nb\r\n\"outcome\":\"succeeded\"", 1),
                            ("\u{202e}gnp.exe \u{2066}", 1),
                            ("=cmd|' /C calc'!A0", 1),
                            ("'; DROP TABLE users; --", 1),
                            ("N\u{0}UL \u{ffff} \u{10ffff}", 1),
                        ],
                    );
                    sandbox.update(&id, &Values::new().with(Column::LastName, name));
                }
            }
            Self::MassLeave(percent) => {
                let n = ids.len() * usize::from(percent) / 100;
                set_active(sandbox, &some(n, &mut rng), false);
            }
            Self::MassDelete(percent) => {
                let n = ids.len() * usize::from(percent) / 100;
                delete(sandbox, &some(n, &mut rng));
            }
            Self::Restore(ago) => sandbox.roll_back(ago),
            Self::Spoil(n) => {
                for id in some(n, &mut rng) {
                    let raw = pick::<&[u8]>(
                        &mut rng,
                        &[
                            (b"{\"id\":\"\xff\"}", 1),
                            (b"{\"userName\":\"nobody\"}", 1),
                            (b"{\"id\":\"\"}", 1),
                            (b"[]", 1),
                            (b"null", 1),
                        ],
                    );
                    sandbox.show_raw(&id, Some(raw.to_vec()));
                }
            }
            Self::Unspoil => {
                for id in ids.into_iter().chain(sandbox.group_ids()) {
                    sandbox.show_raw(&id, None);
                }
            }
            Self::Lock => sandbox.set_auth(|rules| {
                rules.password = "another password".to_owned();
                rules.client_secret = "another secret".to_owned();
            }),
            Self::Unlock => unlock(sandbox),
            Self::EndToken => sandbox.end_token(),
            Self::Group(edit) => edit.happen(sandbox, &mut rng),
        }
    }
}

/// Makes the credentials good again.
pub(super) fn unlock(sandbox: &Sandbox) {
    let good = musterd::sandbox::AuthRules::default();
    sandbox.set_auth(|rules| {
        rules.password = good.password;
        rules.client_secret = good.client_secret;
    });
}

/// Somebody joins, under an id set by hand or a new one.
pub(super) fn join(sandbox: &Sandbox, id: Option<String>, rng: &mut Rng) -> String {
    let number = rng.u32(..);
    let mut values = Values::new()
        .active(rng.u8(..10) > 0)
        .with(Column::UserName, format!("joiner.{number}"))
        .with(Column::FirstName, "Joiner")
        .with(Column::LastName, format!("Number {number}"))
        .with(Column::Email, format!("joiner.{number}@example.org"))
        .with(Column::Title, title(rng));
    for (table, column) in [
        (Table::Company, Column::Company),
        (Table::Department, Column::Department),
        (Table::Location, Column::Location),
    ] {
        if rng.u8(..5) > 0 {
            values = values.with(column, draw_name(sandbox, table, rng));
        }
    }
    match id {
        Some(id) => {
            sandbox.create_as(&id, &values);
            id
        }
        None => sandbox.create(&values),
    }
}

fn title(rng: &mut Rng) -> String {
    format!("Specialist {}", rng.u32(..))
}

fn set_active(sandbox: &Sandbox, ids: &[String], active: bool) {
    for id in ids {
        sandbox.update(id, &Values::new().active(active));
    }
}

fn delete(sandbox: &Sandbox, ids: &[String]) {
    for id in ids {
        sandbox.delete(id);
    }
}

fn undelete(sandbox: &Sandbox) {
    let deleted: Vec<String> = sandbox
        .with_directory(|directory| directory.deleted().into_iter().map(str::to_owned).collect());
    for id in deleted {
        sandbox.undelete(&id);
    }
}

fn draw_name(sandbox: &Sandbox, table: Table, rng: &mut Rng) -> String {
    sandbox.with_directory(|directory| {
        let row = rng.choice(directory.named(table));
        row.map(|row| row.sys_id.to_string()).unwrap_or_default()
    })
}
