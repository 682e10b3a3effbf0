use std::collections::BTreeMap;

use proptest::prelude::*;
use rusqlite::Connection;

use super::super::seal;
use super::super::testing::{FULL, How, INCREMENTAL, World, name, pin, user};
use super::super::trim::TrimOptions;
use super::*;
use crate::model::Row;
use crate::reconcile::identity::{Link, decide, find};

const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

/// A user with an address and an employee number; the user name is `ID.name`.
fn keyed(id: &str, email: &str, number: &str) -> Row {
    let more = format!(
        r#","active":true,"emails":[{{"type":"work","value":"{email}"}}],"{ENTERPRISE}":{{"employeeNumber":"{number}"}}"#
    );
    user(id, "2026-01-01T00:00:00Z", &more)
}

fn mail(id: &str, email: &str) -> Row {
    keyed(id, email, "")
}

fn profile(name: &str, email: &str, number: &str) -> Profile {
    let key = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Profile {
        profile: name.to_owned(),
        email: key(email),
        employee_number: key(number),
        user_name: None,
    }
}

impl World {
    fn piece(&self, profiles: &[Profile]) -> Piece {
        Piece {
            instance: name("acme"),
            number: None,
            rules: Rule::ALL.to_vec(),
            after: None,
            profiles: profiles.to_vec(),
            is_last: true,
            most_removals: u64::MAX,
            may_forget: true,
            now: self.now,
        }
    }

    async fn take_up(&self) {
        let mut after: Option<String> = None;
        loop {
            let taken = self.mirror.write(move |writer| {
                writer.take_up_keys(&name("acme"), &Rule::ALL, after.as_deref())
            });
            after = taken.await.unwrap();
            if after.is_none() {
                return;
            }
        }
    }

    async fn import(&self, profiles: &[Profile]) -> Imported {
        self.take_up().await;
        let mut piece = self.piece(profiles);
        let mut sum = Imported::default();
        loop {
            let part = piece.clone();
            let imported = self.mirror.write(move |writer| writer.import(&part));
            let imported = imported.await.unwrap();
            (sum.number, piece.number) = (imported.number, Some(imported.number));
            sum.created += imported.created;
            sum.changed += imported.changed;
            sum.removed += imported.removed;
            sum.moved += imported.moved;
            let Some(after) = imported.next_after else {
                return sum;
            };
            piece.profiles.retain(|profile| profile.profile > after);
            piece.after = Some(after);
        }
    }

    async fn pin(&self, profile: &'static str, user_id: &'static str) -> Result<(), Error> {
        let now = self.now;
        let pinned = self
            .mirror
            .write(move |writer| writer.pin(&name("acme"), profile, user_id, now));
        pinned.await
    }

    async fn unpin(&self, profile: &'static str) -> Result<Identity, Error> {
        let now = self.now;
        let unpinned = self
            .mirror
            .write(move |writer| writer.unpin(&name("acme"), profile, now));
        unpinned.await
    }

    /// All profiles: name, state, user, by what, candidates.
    fn map(&self) -> String {
        self.ask::<Option<String>>(
            "SELECT group_concat(profile || ' ' || state || ' ' || coalesce(user_id, '-') || ' ' || coalesce(matched_by, '-')
                        || coalesce(' ' || candidates, ''), '; ') FROM (SELECT * FROM identities ORDER BY profile)",
        )
        .unwrap_or_default()
    }

    fn assignable(&self) -> String {
        self.ask::<Option<String>>(
            "SELECT group_concat(profile || ' ' || user_id || ' ' || user_name, '; ')
             FROM (SELECT * FROM assignable ORDER BY profile)",
        )
        .unwrap_or_default()
    }

    /// Records about profiles with a `seq` above this one.
    fn records(&self, after: i64) -> String {
        self.ask::<Option<String>>(&format!(
            "SELECT group_concat(id || ' ' || kind || ' ' || reason, '; ')
             FROM (SELECT * FROM changes WHERE resource = 'Identity' AND seq > {after} ORDER BY seq)"
        ))
        .unwrap_or_default()
    }
}

#[tokio::test]
async fn an_address_of_a_new_person_never_inherits_the_link_of_the_old_one() {
    let mut world = World::new().await;
    world.sync(&[mail("a", "jo@example.com")]).await;
    world.import(&[profile("p", "jo@example.com", "")]).await;
    assert_eq!(world.map(), "p matched a email");
    assert_eq!(world.assignable(), "p a a.name");

    // The old person has another address, and somebody new has this one.
    let head = world.mirror.head();
    world
        .sync_as(
            INCREMENTAL,
            &[mail("a", "old@example.com"), mail("b", "jo@example.com")],
        )
        .await;
    assert_eq!(world.map(), r#"p ambiguous a email ["b"]"#);
    assert_eq!(world.assignable(), "");
    assert_eq!(
        world.records(head),
        "p update changed",
        "once, for both users"
    );
    assert_eq!(world.difference(), None);
    // Nor does the same list once more decide it.
    let content = |world: &World| {
        let mut tables = world.dump();
        // The number of the import is another.
        assert!(tables.remove("imports").is_some());
        tables
    };
    let before = content(&world);
    let nothing = Imported {
        number: 2,
        ..Imported::default()
    };
    assert_eq!(
        world.import(&[profile("p", "jo@example.com", "")]).await,
        nothing
    );
    assert_eq!(content(&world), before);

    // A person does: by a pin, or by other keys.
    world.pin("p", "b").await.unwrap();
    assert_eq!(world.map(), "p pinned b pin");
    assert_eq!(world.assignable(), "p b b.name");
    let unpinned = world.unpin("p").await.unwrap();
    assert_eq!(unpinned.user_id.as_deref(), Some("b"));
    assert_eq!(world.map(), "p matched b email");
    let imported = world.import(&[profile("p", "OLD@example.com", "")]).await;
    assert_eq!((imported.changed, imported.moved), (1, 1));
    assert_eq!(world.map(), "p matched a email");
    // Keys that lead to nobody yet do not take the user away.
    let imported = world.import(&[profile("p", "later@example.com", "")]).await;
    assert_eq!((imported.changed, imported.moved), (1, 0));
    assert_eq!(world.map(), "p matched a email");
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn an_import_moves_a_link_by_a_key_that_is_another_and_by_no_other() {
    let mut world = World::new().await;
    world.sync(&[mail("a", "jo@x")]).await;
    world.import(&[profile("p", "jo@x", "")]).await;
    world
        .sync(&[
            mail("a", "old@x"),
            mail("b", "jo@x"),
            keyed("c", "c@x", "9"),
        ])
        .await;
    let in_doubt = r#"p ambiguous a email ["b"]"#;
    for same in [profile("p", "jo@x", "7"), profile("p", "JO@x", "7")] {
        world.import(&[same]).await;
        assert_eq!(world.map(), in_doubt);
    }
    world.import(&[profile("p", "jo@x", "9")]).await;
    assert_eq!(world.map(), "p matched c employee_number");
    assert_eq!(world.difference(), None);
}

/// Otherwise who came again would be matched by a key that is somebody else's by then.
#[tokio::test]
async fn whose_keys_do_not_lead_to_its_user_leaves_a_list_only_where_that_is_meant() {
    let mut world = World::new().await;
    world
        .sync(&[mail("a", "jo@x"), mail("b", "b@x"), mail("c", "c@x")])
        .await;
    let keys = [("p", "jo@x"), ("q", "b@x"), ("r", "nobody@x")];
    let [p, q, r] = keys.map(|(name, key)| profile(name, key, ""));
    world.import(&[p, q.clone(), r]).await;
    world
        .sync(&[mail("a", "new@x"), mail("b", "b@x"), mail("c", "c@x")])
        .await;
    assert_eq!(
        world.map(),
        "p matched a email; q matched b email; r missing - -"
    );
    let removals = |listed: &'static str| {
        let removals = world
            .reader()
            .removals(&name("acme"), None, |name| name == listed);
        removals.map(|removals| (removals.all, removals.to_be_kept))
    };
    assert_eq!(removals("q").unwrap(), (2, 1));
    assert_eq!(removals("p").unwrap(), (2, 0));
    // By a rule that leads to nobody, none finds its user.
    let by_number = world
        .reader()
        .removals(&name("acme"), Some(&[Rule::EmployeeNumber]), |_| false);
    assert_eq!(by_number.unwrap().to_be_kept, 2);

    let before = world.dump();
    let piece = Piece {
        may_forget: false,
        ..world.piece(&[q])
    };
    let imported = world.mirror.write(move |writer| writer.import(&piece));
    assert!(matches!(imported.await, Err(Error::ToBeKept(_))));
    assert_eq!(world.dump(), before);
    let piece = Piece {
        may_forget: false,
        ..world.piece(&[profile("p", "jo@x", "")])
    };
    let imported = world.mirror.write(move |writer| writer.import(&piece));
    assert_eq!(imported.await.unwrap().removed, 2);
    // Back again under an address that somebody else has got, the one is still the old person's.
    world
        .sync(&[mail("a", "new@x"), mail("b", "b@x"), mail("c", "jo@x")])
        .await;
    assert_eq!(world.map(), r#"p ambiguous a email ["c"]"#);
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn what_a_person_decided_leaves_a_list_only_where_that_is_meant() {
    let mut world = World::new().await;
    world.sync(&[mail("a", "a@x"), mail("b", "b@x")]).await;
    world
        .import(&[profile("p", "a@x", ""), profile("q", "b@x", "")])
        .await;
    world.pin("p", "b").await.unwrap();
    let before = world.dump();
    for (may_forget, expected) in [(false, None), (true, Some(2))] {
        let piece = Piece {
            may_forget,
            ..world.piece(&[])
        };
        let imported = world.mirror.write(move |writer| writer.import(&piece));
        match expected {
            None => assert!(matches!(imported.await, Err(Error::ToBeKept(_)))),
            Some(removed) => assert_eq!(imported.await.unwrap().removed, removed),
        }
        assert_eq!(world.dump() == before, expected.is_none());
    }
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn an_address_that_two_have_is_ambiguous_also_where_one_had_it_first() {
    let mut world = World::new().await;
    world.sync(&[mail("a", "jo@example.com")]).await;
    world.import(&[profile("p", "jo@example.com", "")]).await;
    let left = user(
        "a",
        "2026-02-01T00:00:00Z",
        r#","active":false,"emails":[{"type":"work","value":"jo@example.com"}]"#,
    );
    world
        .sync(&[left.clone(), mail("b", "jo@example.com")])
        .await;
    assert_eq!(world.map(), r#"p ambiguous a email ["a","b"]"#);
    world
        .import(&[
            profile("p", "jo@example.com", ""),
            profile("q", "jo@example.com", ""),
        ])
        .await;
    assert_eq!(
        world.map(),
        r#"p ambiguous a email ["a","b"]; q ambiguous - - ["a","b"]"#
    );
    // The new one is gone: the link is what it was, and whoever has none gets one.
    world.sync(&[left]).await;
    assert_eq!(world.map(), "p matched a email; q matched a email");
    assert_eq!(world.assignable(), "", "inactive");
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn who_is_gone_and_returns_is_the_same_and_a_new_name_is_no_new_person() {
    let mut world = World::new().await;
    world
        .sync(&[keyed("a", "a@x", "7"), mail("b", "b@x")])
        .await;
    world
        .import(&[
            profile("p", "", "7"),
            profile("q", "b@x", ""),
            profile("r", "", ""),
        ])
        .await;
    world.pin("q", "b").await.unwrap();
    assert_eq!(
        world.map(),
        "p matched a employee_number; q pinned b pin; r missing - -"
    );
    let head = world.mirror.head();
    world.sync(&[]).await;
    assert_eq!(
        world.map(),
        "p gone a employee_number; q gone b pin; r missing - -"
    );
    assert_eq!(world.records(head), "p update gone; q update gone");
    assert_eq!(world.difference(), None);
    let head = world.mirror.head();
    // With other keys than before.
    world
        .sync(&[keyed("a", "new@x", "8"), mail("b", "c@x")])
        .await;
    assert_eq!(
        world.map(),
        "p matched a employee_number; q pinned b pin; r missing - -"
    );
    assert_eq!(world.records(head), "p update returned; q update returned");
    assert_eq!(world.assignable(), "p a a.name; q b b.name");
    // Gone, and somebody else has the number: nobody follows it.
    world.sync(&[keyed("a", "new@x", "7")]).await;
    world.sync(&[keyed("n", "n@x", "7")]).await;
    assert_eq!(
        world.map(),
        r#"p ambiguous a employee_number ["n"]; q gone b pin; r missing - -"#
    );
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn a_stronger_key_decides_and_case_is_looked_at_last() {
    let mut world = World::new().await;
    world
        .sync(&[
            keyed("a", "A@x", "1"),
            keyed("b", "a@x", ""),
            keyed("c", "É@x", ""),
        ])
        .await;
    let list = [
        profile("p1", "a@x", "1"),
        profile("p2", "a@x", ""),
        profile("p3", "A@X", ""),
        profile("p4", "é@x", ""),
        // No accent is taken for none.
        profile("p5", "e@x", ""),
        // Blanks are no key.
        profile("p6", " ", "  "),
    ];
    world.import(&list).await;
    assert_eq!(
        world.map(),
        r#"p1 matched a employee_number; p2 matched b email; p3 ambiguous - - ["a","b"]; p4 matched c email; p5 missing - -; p6 missing - -"#
    );
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn a_pin_needs_a_profile_and_a_user_who_is_shown() {
    let mut world = World::new().await;
    world.sync(&[mail("a", "a@x"), mail("b", "b@x")]).await;
    let told = |result: Result<(), Error>| result.unwrap_err().to_string();
    let unpinned = |result: Result<Identity, Error>| told(result.map(drop));
    assert!(told(world.pin("p", "a").await).contains("no list"));
    world.import(&[profile("p", "a@x", "")]).await;
    world.sync(&[mail("a", "a@x")]).await;
    let before = world.dump();
    assert!(told(world.pin("q", "a").await).contains("no profile `q`"));
    assert!(told(world.pin("p", "nobody").await).contains("shows no user"));
    assert!(
        told(world.pin("p", "b").await).contains("shows no user"),
        "gone"
    );
    assert!(unpinned(world.unpin("p").await).contains("is not pinned"));
    assert_eq!(world.dump(), before);
    let unlinked = world.mirror.write(|writer| writer.link(&[pin("globex")]));
    unlinked.await.unwrap();
    assert!(matches!(
        world.pin("p", "a").await,
        Err(Error::NotLinked(_))
    ));
    let piece = world.piece(&[]);
    let imported = world.mirror.write(move |writer| writer.import(&piece));
    assert!(matches!(imported.await, Err(Error::NotLinked(_))));
    assert_eq!(world.assignable(), "", "of an instance that is not linked");
}

#[tokio::test]
async fn a_list_is_imported_in_pieces_and_removes_no_more_than_it_may() {
    let mut world = World::new().await;
    world.sync(&[mail("a", "p0003@x")]).await;
    let list: Vec<Profile> = (0..2 * MOST_PROFILES + 7)
        .map(|n| profile(&format!("p{n:04}"), &format!("p{n:04}@x"), ""))
        .collect();
    let n_profiles = list.len() as u64;
    assert_eq!(world.import(&list).await.created, n_profiles);
    // Pieces as a client sends them: each says of its own range only.
    let one = Piece {
        profiles: list[1..3].to_vec(),
        is_last: false,
        ..world.piece(&[])
    };
    let mut imported = Vec::new();
    for most_removals in [0, 1] {
        let piece = Piece {
            most_removals,
            ..one.clone()
        };
        imported.push(
            world
                .mirror
                .write(move |writer| writer.import(&piece))
                .await,
        );
    }
    assert!(matches!(imported[0], Err(Error::TooManyRemovals(_))));
    let first = imported.pop().unwrap().unwrap();
    assert_eq!((first.removed, first.next_after), (1, None));
    assert_eq!(
        world.reader().n_profiles(&name("acme")).unwrap(),
        n_profiles - 1
    );
    // All but one: in several transactions.
    let head = world.mirror.head();
    assert_eq!(world.import(&list[3..4]).await.removed, n_profiles - 2);
    assert_eq!(world.mirror.head() - head, list.len() as i64 - 2);
    assert_eq!(world.map(), "p0003 matched a email");
    assert!(
        world
            .records(head)
            .starts_with("p0001 deactivate gone; p0002 deactivate gone")
    );
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn what_is_older_is_trimmed_and_who_left_the_list_comes_again() {
    let mut world = World::new().await;
    world.sync(&[mail("a", "a@x")]).await;
    let list = [profile("p", "a@x", ""), profile("q", "q@x", "")];
    world.import(&list).await;
    world.import(&list[..1]).await;
    world.sync(&[mail("a", "a@x"), mail("q", "q@x")]).await;
    world.import(&list).await;
    world.import(&list[1..]).await;
    world.sync(&[mail("a", "a@x"), mail("q", "later@x")]).await;
    let now = world.now;
    let base = "SELECT coalesce(group_concat(seq || id, ' '), '') FROM
                    (SELECT * FROM changes_base WHERE resource = 'Identity' ORDER BY id)";
    let mut bases = Vec::new();
    loop {
        let options = TrimOptions {
            changes_before: Some(now + jiff::SignedDuration::from_hours(1)),
            syncs_before: now,
            batch: 1,
        };
        let more = world
            .mirror
            .write(move |writer| writer.trim(&options))
            .await;
        assert_eq!(world.difference(), None);
        bases.push(world.ask::<String>(base));
        if !more.unwrap() {
            break;
        }
    }
    bases.dedup();
    assert_eq!(bases, ["", "2p", "2p 3q", "2p", "2p 6q", "6q"]);
}

#[tokio::test]
async fn the_profiles_of_a_dropped_instance_leave_before_its_users_and_a_rename_takes_all_along() {
    let mut world = World::new().await;
    world.sync(&["a", "b", "c"].map(|id| mail(id, id))).await;
    world
        .import(&["a", "b", "c"].map(|id| profile(id, id, "")))
        .await;
    let renamed = world
        .mirror
        .write(|writer| writer.rename(&name("acme"), &pin("emea"), "epoch two"));
    renamed.await.unwrap();
    assert_eq!(world.difference(), None);
    let left = world
        .dump()
        .into_iter()
        .filter(|(_, rows)| format!("{rows:?}").contains("\"acme\""))
        .map(|(table, _)| table);
    assert_eq!(left.collect::<Vec<_>>(), [""; 0]);
    // A list alone is content that no other instance's rows are mixed with.
    let again = world.mirror.write(|writer| {
        writer.link(&[pin("emea"), pin("acme")])?;
        writer.take_up_keys(&name("acme"), &Rule::ALL, None)?;
        writer.rename(&name("emea"), &pin("acme"), "epoch three")
    });
    assert!(matches!(again.await, Err(Error::NameTaken(_))));

    let now = world.now;
    let begun = world.mirror.write(move |writer| {
        writer.link(&[pin("globex")])?;
        writer.begin_removal(&name("emea"), now)
    });
    let sync_id = begun.await.unwrap();
    let head = world.mirror.head();
    for expected in [(0, false), (1, false), (2, false), (0, true)] {
        let removed = world
            .mirror
            .write(move |writer| writer.remove_users(&name("emea"), sync_id, now, 2));
        let removed = removed.await.unwrap();
        assert_eq!(world.difference(), None);
        assert_eq!((removed.users, removed.is_over), expected);
        if expected == (0, false) {
            // Killed between two of them, no profile is linked to a user who left.
            assert_eq!(world.map(), "c matched c email");
        }
    }
    assert_eq!(
        world.records(head),
        "a deactivate unlinked; b deactivate unlinked; c deactivate unlinked"
    );
    for table in [
        "identities",
        "identity_maps",
        "profiles",
        "identity_keys",
        "user_keys",
        "imports",
    ] {
        assert!(world.dump()[table].is_empty(), "{table}");
    }
}

#[tokio::test]
async fn of_two_imports_at_once_the_later_one_goes_on_alone() {
    let mut world = World::new().await;
    world.sync(&[mail("a", "a@x"), mail("b", "b@x")]).await;
    world.take_up().await;
    let write = async |piece: Piece| {
        world
            .mirror
            .write(move |writer| writer.import(&piece))
            .await
    };
    let first = Piece {
        is_last: false,
        ..world.piece(&[profile("p", "a@x", "")])
    };
    let begun = write(first.clone()).await.unwrap();
    let rest = |number| Piece {
        number: Some(number),
        after: Some("p".to_owned()),
        ..world.piece(&[profile("q", "b@x", "")])
    };
    let later = write(world.piece(&[profile("p", "b@x", "")]))
        .await
        .unwrap();
    assert_eq!(later.number, begun.number + 1);
    let refused = write(rest(begun.number)).await;
    assert!(matches!(refused, Err(Error::Overtaken(_))), "{refused:?}");
    let list = world.ask::<String>("SELECT group_concat(profile || ' ' || email) FROM profiles");
    assert_eq!(list, "p b@x");
    // Alone, it goes to its end.
    let again = write(first).await.unwrap();
    write(rest(again.number)).await.unwrap();
    assert_eq!(world.map(), "p matched a email; q matched b email");
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn a_user_has_no_more_pins_than_one_change_can_look_at() {
    let mut world = World::new().await;
    world.sync(&[mail("a", "a@x")]).await;
    let list: Vec<Profile> = (0..=MOST_OF_A_KEY)
        .map(|n| profile(&format!("p{n:04}"), "", ""))
        .collect();
    world.import(&list).await;
    let now = world.now;
    let pin = async |n: usize| {
        let pinned = world
            .mirror
            .write(move |writer| writer.pin(&name("acme"), &format!("p{n:04}"), "a", now));
        pinned.await
    };
    for n in 0..MOST_OF_A_KEY {
        pin(n).await.unwrap();
    }
    let refused = pin(MOST_OF_A_KEY).await;
    assert!(
        matches!(refused, Err(Error::TooManyLinks { .. })),
        "{refused:?}"
    );
    // One that is pinned to that user already takes no more room.
    pin(0).await.unwrap();
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn verify_finds_what_is_wrong_with_a_map() {
    for (damage, expected) in [
        (
            "UPDATE identities SET user_id = 'b'",
            "column `user_id` is not what the feed says",
        ),
        (
            "UPDATE identities SET changed_seq = 1",
            "column `changed_seq`",
        ),
        (
            "DELETE FROM identities",
            "in the feed, but not in the mirror",
        ),
        (
            "INSERT INTO identities VALUES ('acme', 'z', NULL, NULL, 'missing', NULL, 1)",
            "in the mirror, but not in the feed",
        ),
        (
            "DELETE FROM profiles",
            "in `identities`, but not in the list",
        ),
        (
            "UPDATE profiles SET email = 'z'",
            "`identity_keys` has not its `email`",
        ),
        (
            "INSERT INTO identity_keys VALUES ('acme', 'p', 'user_name', 'z', 'z')",
            "`identity_keys` has 2 keys",
        ),
        (
            "DELETE FROM user_keys WHERE id = 'b'",
            "`user_keys` has 2 keys",
        ),
        (
            "UPDATE user_keys SET folded = 'z' WHERE id = 'b' AND rule = 'email'",
            "`user_keys` has a key",
        ),
        ("DELETE FROM identity_maps", "of an instance that has none"),
    ] {
        let mut world = World::new().await;
        world.sync(&[mail("a", "a@x"), mail("b", "b@x")]).await;
        world.import(&[profile("p", "a@x", "")]).await;
        assert_eq!(world.difference(), None);
        let conn = Connection::open(world.path()).unwrap();
        conn.execute_batch(damage).unwrap();
        if !damage.contains("user_keys") {
            assert!(world.difference().is_some(), "{damage}: the seals tell");
        }
        seal::everything(&conn).unwrap();
        let found = world.difference().unwrap_or_default();
        assert!(found.contains(expected), "{damage}: {found}");
    }
    // A user whose change reached no profile.
    let mut world = World::new().await;
    world.sync(&[mail("a", "a@x")]).await;
    world.import(&[profile("p", "a@x", "")]).await;
    let conn = Connection::open(world.path()).unwrap();
    let map = conn.query_row("SELECT rules FROM identity_maps", [], |row| {
        row.get::<_, String>(0)
    });
    conn.execute_batch("DELETE FROM identity_maps; DELETE FROM user_keys")
        .unwrap();
    world.sync(&[]).await;
    conn.execute(
        "INSERT INTO identity_maps VALUES ('acme', ?1, 1)",
        [map.unwrap()],
    )
    .unwrap();
    seal::everything(&conn).unwrap();
    let found = world.difference().unwrap();
    assert!(
        found.contains("its state is not that of its user"),
        "{found}"
    );
}

#[tokio::test]
async fn a_transaction_is_no_longer_for_the_profiles_that_follow() {
    let mut world = World::new().await;
    let users: Vec<Row> = (0..6)
        .map(|n| mail(&format!("u{n}"), &format!("u{n}@x")))
        .collect();
    let list: Vec<Profile> = (0..6)
        .map(|n| profile(&format!("p{n}"), &format!("u{n}@x"), ""))
        .collect();
    world.import(&list).await;
    let limit = 4;
    let applied = world.sync_as(How { limit, ..FULL }, &users).await;
    let per_transaction: Vec<i64> = world
        .reader()
        .conn
        .prepare("SELECT count(*) FROM changes WHERE sync_id = (SELECT max(id) FROM syncs) GROUP BY resource")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(per_transaction, [6, 6]);
    assert_eq!(applied.len(), 3);
    assert_eq!(
        applied.iter().map(|one| one.created).collect::<Vec<_>>(),
        [2, 2, 2]
    );
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn users_who_change_while_their_keys_are_taken_up_are_not_lost() {
    let mut world = World::new().await;
    let some = MOST_USERS + 2;
    let users: Vec<Row> = (0..some)
        .map(|n| mail(&format!("u{n:05}"), &format!("{n}@x")))
        .collect();
    world.sync(&users).await;
    let first = world
        .mirror
        .write(|writer| writer.take_up_keys(&name("acme"), &Rule::ALL, None));
    assert_eq!(
        first.await.unwrap().unwrap(),
        format!("u{:05}", MOST_USERS - 1)
    );
    let piece = world.piece(&[]);
    let early = world
        .mirror
        .write(move |writer| writer.import(&piece))
        .await;
    assert!(matches!(early, Err(Error::NoList(_))));
    let last = format!("u{:05}", some - 1);
    world
        .sync_as(
            INCREMENTAL,
            &[mail("u00000", "first@x"), mail(&last, "last@x")],
        )
        .await;
    assert_eq!(world.difference(), None);
    world
        .import(&[
            profile("p", "first@x", ""),
            profile("q", "last@x", ""),
            profile("r", "0@x", ""),
        ])
        .await;
    assert_eq!(
        world.map(),
        format!("p matched u00000 email; q matched {last} email; r missing - -")
    );
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn profiles_and_users_are_found_by_index() {
    let world = World::new().await;
    let reader = world.reader();
    for (sql, expected) in [
        (
            "SELECT profile FROM identity_keys WHERE instance = ?1 AND rule = ?2 AND folded = ?3",
            "identity_keys_by_key (instance=? AND rule=? AND folded=?)",
        ),
        (
            "SELECT profile FROM identities WHERE instance = ?1 AND user_id = ?2",
            "identities_by_user (instance=? AND user_id=?)",
        ),
        (
            "SELECT id FROM user_keys WHERE instance = ?1 AND rule = ?2 AND folded = ?3 ORDER BY id LIMIT ?4",
            "PRIMARY KEY (instance=? AND rule=? AND folded=?)",
        ),
        (
            "SELECT count(*) FROM identities WHERE identities.instance = ?1 AND identities.state = 'ambiguous'",
            "identities_ambiguous (instance=?)",
        ),
        (
            "SELECT * FROM assignable WHERE instance = 'acme' AND profile = 'p'",
            "SEARCH identities USING INDEX sqlite_autoindex_identities_1 (instance=? AND profile=?)",
        ),
    ] {
        let plan = super::super::testing::plan_of(&reader.conn, sql);
        assert!(plan.contains(expected), "{sql}: {plan}");
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A user has these keys from now on, or is gone.
    User(usize, Option<(usize, usize)>),
    /// A list of profiles, each with its keys.
    List(Vec<(usize, usize)>),
    Pin(usize, usize),
    Unpin(usize),
}

const MAILS: [&str; 5] = ["", "x@x", "X@x", "y@x", "Z@x"];
const NUMBERS: [&str; 4] = ["", "1", "2", "01"];
const N_PROFILES: usize = 4;
const PROFILES: [&str; N_PROFILES] = ["p0", "p1", "p2", "p3"];
const IDS: [&str; 4] = ["a", "b", "c", "d"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = || (0..MAILS.len(), 0..NUMBERS.len());
    let step = prop_oneof![
        6 => (0..IDS.len(), prop::option::weighted(0.85, keys())).prop_map(|(id, keys)| Step::User(id, keys)),
        2 => prop::collection::vec(keys(), 0..=N_PROFILES).prop_map(Step::List),
        1 => (0..N_PROFILES, 0..IDS.len()).prop_map(|(profile, id)| Step::Pin(profile, id)),
        1 => (0..N_PROFILES).prop_map(Step::Unpin),
    ];
    prop::collection::vec(step, 1..14)
}

type Users = BTreeMap<usize, (usize, usize)>;

fn rows(users: &Users) -> Vec<Row> {
    let row = |(id, (mail, number)): (&usize, &(usize, usize))| {
        keyed(IDS[*id], MAILS[*mail], NUMBERS[*number])
    };
    users.iter().map(row).collect()
}

fn list(keys: &[(usize, usize)]) -> Vec<Profile> {
    let profiles = PROFILES.iter().zip(keys);
    profiles
        .map(|(name, (mail, number))| profile(name, MAILS[*mail], NUMBERS[*number]))
        .collect()
}

/// How each profile must stand, by its link and by the users as they are, looked for one by one.
fn expected(users: &Users, profile: &Profile, link: Option<Link>) -> Identity {
    let has = |keys: &(usize, usize), rule: Rule| match rule {
        Rule::Email => MAILS[keys.0],
        Rule::EmployeeNumber => NUMBERS[keys.1],
        Rule::UserName => "",
    };
    let found = find(&Rule::ALL, |rule, fit| {
        let Some(key) = profile.key(rule) else {
            return Ok::<_, ()>(Vec::new());
        };
        let is_same = |other: &str| match fit {
            crate::reconcile::identity::Fit::Exact => other == key,
            crate::reconcile::identity::Fit::Folded => other.eq_ignore_ascii_case(key),
        };
        let ids = users.iter().filter(|(_, keys)| is_same(has(keys, rule)));
        Ok(ids.map(|(id, _)| IDS[*id].to_owned()).collect())
    });
    decide(link.as_ref(), found.unwrap())
}

async fn identities_of(world: &World) -> BTreeMap<String, Identity> {
    let mut found = BTreeMap::new();
    for name in PROFILES {
        let row = identities::load(
            &world.reader().conn,
            &super::super::testing::name("acme"),
            name,
        );
        found.extend(row.unwrap().map(|identity| (name.to_owned(), identity)));
    }
    found
}

/// Plays the steps; after each, every profile stands as it must by its link and by who is there, with one record for what changed.
async fn play(steps: &[Step]) -> (World, Users, Vec<Profile>) {
    let mut world = World::new().await;
    world.sync(&[]).await;
    let (mut users, mut profiles) = (Users::new(), Vec::new());
    for step in steps {
        let (before, head) = (identities_of(&world).await, world.mirror.head());
        match step {
            Step::User(id, keys) => {
                match keys {
                    Some(keys) => drop(users.insert(*id, *keys)),
                    None => drop(users.remove(id)),
                }
                world.sync(&rows(&users)).await;
            }
            Step::List(keys) => {
                profiles = list(keys);
                world.import(&profiles).await;
            }
            Step::Pin(profile, id) => {
                let can = *profile < profiles.len() && users.contains_key(id);
                let pinned = world.pin(PROFILES[*profile], IDS[*id]).await;
                assert_eq!(pinned.is_ok(), can);
            }
            Step::Unpin(profile) => {
                let was = before.get(PROFILES[*profile]);
                let can = was.is_some_and(|was| was.matched_by == Some(MatchedBy::Pin));
                assert_eq!(world.unpin(PROFILES[*profile]).await.is_ok(), can);
            }
        }
        let after = identities_of(&world).await;
        assert_eq!(after.len(), profiles.len());
        for profile in &profiles {
            let found = &after[&profile.profile];
            let link = found
                .user_id
                .clone()
                .zip(found.matched_by)
                .map(|(user_id, matched_by)| Link {
                    is_shown: users.keys().any(|id| IDS[*id] == user_id),
                    user_id,
                    matched_by,
                });
            assert_eq!(found, &expected(&users, profile, link), "{profile:?}");
            // Nothing but a person moves a link.
            let was = before
                .get(&profile.profile)
                .and_then(|was| was.user_id.as_ref());
            if matches!(step, Step::User(..)) && was.is_some() {
                assert_eq!(found.user_id.as_ref(), was);
            }
        }
        let names = PROFILES
            .iter()
            .filter(|name| before.get(**name) != after.get(**name));
        let told: i64 = world.ask(&format!(
            "SELECT count(*) FROM changes WHERE resource = 'Identity' AND seq > {head}"
        ));
        assert_eq!(told, names.count() as i64);
    }
    assert_eq!(world.difference(), None);
    (world, users, profiles)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_came_first_the_map_is_that_of_the_users_and_the_list_but_for_links(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (world, users, profiles) = play(&steps).await;
            // The same users and the same list, come otherwise.
            let mut other = World::new().await;
            other.import(&profiles).await;
            for (id, keys) in users.iter().rev() {
                other.sync_as(INCREMENTAL, &rows(&Users::from([(*id, *keys)]))).await;
            }
            let (found, others) = (identities_of(&world).await, identities_of(&other).await);
            for profile in &profiles {
                let (one, two) = (&found[&profile.profile], &others[&profile.profile]);
                if one.user_id == two.user_id && one.matched_by != Some(MatchedBy::Pin) {
                    assert_eq!((one.state, &one.candidates), (two.state, &two.candidates), "{profile:?}");
                }
                let fresh = expected(&users, profile, None);
                if one.user_id.is_none() {
                    assert_eq!(one, &fresh);
                }
            }
            assert_eq!(other.difference(), None);
        });
    }
}
