//! Section E: data. One bad record costs one record, odd ones are kept as they are, and what means the
//! same is the same.

use std::collections::BTreeSet;
use std::time::Duration;

use musterd::sandbox::{Column, Values};
use serde_json::Value;

use super::cases;
use super::course::{CASE, Case, Ends, INCOMPLETE, Meanwhile, Own};
use super::laws::Healing;
use super::matrix::Promise::{P4, P9};
use super::trial::{ACME, SETUP, Trial};

/// The victim's resource cannot be read: he is in `rejects` and stays as he was; everybody else is
/// mirrored, who left goes, and once he can be read again he is as he is.
const ONE_REJECT: Case = Case {
    edits: |trial| {
        let values = Values::new().with(Column::Title, "Unreadable");
        assert!(trial.sandbox().update(&trial.people.victim, &values));
    },
    meanwhile: Meanwhile::Open,
    demands: |trial| {
        let people = &trial.people;
        trial.rejects_exactly(&[&people.victim]);
        trial.stays(&people.victim);
        trial.equals_the_directory_but(&[&people.victim]);
        trial.went(&people.inactive, "inactive");
        trial.went(&people.deleted, "gone");
    },
    ..CASE
};

cases! {
    62 invalid_utf8_in_one_record = Case {
        fault: r#"
            [[fault]]
            kind = "poisoned_row"
            id = "$victim"
            with = "invalid_utf8"
        "#,
        ..ONE_REJECT
    };

    63 raw_control_character_in_one_record = Case {
        fault: r#"
            [[fault]]
            kind = "poisoned_row"
            id = "$victim"
            with = "control_character"
        "#,
        ..ONE_REJECT
    };

    64 deep_json_in_one_record = Case {
        fault: r#"
            [[fault]]
            kind = "poisoned_row"
            id = "$victim"
            with = "deep"
        "#,
        ..ONE_REJECT
    };

    64 _1e400 = Case {
        fault: r#"
            [[fault]]
            kind = "poisoned_row"
            id = "$victim"
            with = "huge_number"
        "#,
        ..ONE_REJECT
    };

    64 lone_surrogate = Case {
        fault: r#"
            [[fault]]
            kind = "poisoned_row"
            id = "$victim"
            with = "lone_surrogate"
        "#,
        ..ONE_REJECT
    };

    64 doubled_key = Case {
        fault: r#"
            [[fault]]
            kind = "poisoned_row"
            id = "$victim"
            with = "doubled_key"
        "#,
        ..ONE_REJECT
    };

    /// Nobody can say whose this is, so nobody can be said to be absent.
    65 id_missing = Case {
        fault: r#"
            [[fault]]
            kind = "poisoned_row"
            id = "$victim"
            with = "no_id"
        "#,
        full: Ends::Partial,
        incremental: Ends::Open,
        meanwhile: Meanwhile::AllButTheDeleted,
        warnings: &[INCOMPLETE],
        demands: |trial| {
            assert_eq!(trial.rejected().len(), 1);
            assert!(trial.rejected()[0].starts_with("sha256:"), "{:?}", trial.rejected());
            trial.stays(&trial.people.victim);
            trial.keeps(P9);
        },
        ..CASE
    };

    /// An id that is there, and is nothing: as if it were not there.
    65 id_empty = Case {
        fault: r#"
            [[fault]]
            kind = "odd_id"
            id = ""
            times = 1
        "#,
        full: Ends::Open,
        incremental: Ends::Open,
        meanwhile: Meanwhile::Open,
        warnings: &[INCOMPLETE],
        demands: |trial| {
            assert_eq!(trial.rejected().len(), 1, "{}", trial.told());
            trial.went(&trial.people.inactive, "inactive");
            trial.stays(&trial.people.deleted);
            trial.keeps(P9);
            // It is set right at the source.
            assert!(trial.sandbox().delete(""));
        },
        ..CASE
    };

    /// Kept exactly. Asking for it would ask for the list, so that nobody asks: he stays when he leaves.
    65 id_dot_dot = Case {
        fault: r#"
            [[fault]]
            kind = "odd_id"
            id = ".."
            times = 1
        "#,
        demands: |trial| trial.is_kept_exactly(".."),
        ..CASE
    };

    65 id_with_slash = Case {
        fault: r#"
            [[fault]]
            kind = "odd_id"
            id = "a/b?c#d%2e é"
            times = 1
        "#,
        demands: |trial| trial.is_kept_exactly("a/b?c#d%2e é"),
        ..CASE
    };

    65 id_with_newline = Case {
        fault: r#"
            [[fault]]
            kind = "odd_id"
            id = "a\nb"
            times = 1
        "#,
        demands: |trial| trial.is_kept_exactly("a\nb"),
        ..CASE
    };

    /// The instance orders them without regard to case, and its `gt` passes one over: such an instance is
    /// read by `startIndex`.
    66 id_differs_only_in_case = Case {
        fault: r#"
            [[fault]]
            kind = "odd_id"
            id = "Twin_import-7"
            times = 1

            [[fault]]
            kind = "odd_id"
            id = "twin_IMPORT-7"
            times = 1
        "#,
        full: Ends::Open,
        demands: |trial| {
            trial.is_kept_exactly("Twin_import-7");
            trial.is_kept_exactly("twin_IMPORT-7");
        },
        ..CASE
    };

    /// The last one counts, each time the same, so that nothing flaps.
    67 same_id_twice_with_different_content = Case {
        fault: r#"
            [[fault]]
            kind = "same_id_twice"
            id = "$victim"
            title = "Second self"
        "#,
        meanwhile: Meanwhile::Open,
        demands: |trial| {
            let people = &trial.people;
            assert_eq!(trial.column(&people.victim, "title").as_deref(), Some("Second self"));
            assert_eq!(trial.records_of(&people.victim), ["update changed"], "once");
            trial.equals_the_directory_but(&[&people.victim]);
            trial.went(&people.deleted, "gone");
            trial.every_full(|certificate| certificate["rows"].as_u64() > certificate["distinct"].as_u64());
        },
        ..CASE
    };

    68 keys_and_arrays_shuffled_every_time = Case {
        fault: r#"
            [[fault]]
            kind = "members_shuffled"
        "#,
        demands: Trial::only_the_edited_have_records,
        ..CASE
    };

    69 null_missing_empty_are_one = Case {
        fault: r#"
            [[fault]]
            kind = "empty_forms"
        "#,
        demands: Trial::only_the_edited_have_records,
        ..CASE
    };

    70 active_as_text_false = Case {
        fault: r#"
            [[fault]]
            kind = "active_as_text"
        "#,
        demands: Trial::only_the_edited_have_records,
        ..CASE
    };

    /// Nobody is inactive because nothing is said, and nobody is reactivated. Who really left is found
    /// when it is said again.
    70 active_missing = Case {
        fault: r#"
            [[fault]]
            kind = "member_missing"
            member = "active"
        "#,
        meanwhile: Meanwhile::Open,
        demands: |trial| {
            let people = &trial.people;
            trial.stays(&people.inactive);
            trial.went(&people.deleted, "gone");
            assert_eq!(trial.column(&people.titled, "title").as_deref(), Some("Principal"));
            assert_eq!(trial.column(&people.hired, "active").as_deref(), Some("1"));
            trial.equals_the_directory_but(&[&people.inactive]);
        },
        ..CASE
    };

    /// A name is no key: the new one is somebody else.
    71 user_name_reused_by_new_id = Own(SETUP, async |trial: &mut Trial| {
        trial.baseline().await;
        let old = trial.people.victim.clone();
        let name = trial.row(&old).get(Column::UserName).to_owned();
        trial.fault(r#"
            [[fault]]
            kind = "users_deleted"
            ids = ["$victim"]
            times = 1
        "#);
        trial.left.borrow_mut().insert(old.clone());
        trial.edit();
        let values = Values::new().with(Column::UserName, &name).with(Column::Title, "Successor");
        let new = trial.sandbox().create(&values);
        trial.pass(Duration::from_mins(64)).await;
        assert_eq!(trial.records_of(&new), ["create new"]);
        trial.went(&old, "gone");
        assert_eq!(trial.column(&old, "user_name").as_ref(), Some(&name), "his last state");
        let n: i64 = trial.one(&format!("SELECT count(*) FROM users WHERE user_name = '{name}'"));
        assert_eq!(n, 2);
        trial.equals_the_directory();
        trial.keeps_the_laws();
        trial.lift();
        trial.heals(&Healing::BY_ITSELF).await;
        trial.ends().await;
    });

    72 gone_user_returns = Case {
        fault: r#"
            [[fault]]
            kind = "users_deleted"
            ids = ["$victim"]
            times = 1

            [[fault]]
            kind = "undeleted"
            after = "35m"
            times = 1
        "#,
        edits: |trial| {
            trial.left.borrow_mut().insert(trial.people.victim.clone());
        },
        meanwhile: Meanwhile::Open,
        demands: |trial| {
            let people = &trial.people;
            assert_eq!(trial.records_of(&people.victim), ["deactivate gone", "update returned"]);
            assert_eq!(trial.records_of(&people.deleted), ["deactivate gone", "update returned"]);
            let rows: i64 = trial.one(&format!(
                "SELECT count(*) FROM users WHERE id = '{}' AND gone_at IS NULL AND active = 1",
                people.victim
            ));
            assert_eq!(rows, 1, "the same row");
            trial.equals_the_directory();
        },
        healing: Healing { deleted: "returned", ..Healing::BY_ITSELF },
        ..CASE
    };

    /// They are stored as they are. `musterd chain`, which will name what is wrong with each, is not there
    /// yet; `manager_id` has all that it needs.
    73 manager_cycle_self_missing_inactive = Case {
        fault: r#"
            [[fault]]
            kind = "managers_tangled"
            times = 1

            [[fault]]
            kind = "twins"
            times = 1
        "#,
        demands: |trial| {
            let reports: Vec<(String, String)> = trial
                .rows("SELECT id, manager_id FROM users WHERE instance = 'acme' AND manager_id IS NOT NULL")
                .iter()
                .map(|row| ["id", "manager_id"].map(|column| crate::harness::text(row, column).unwrap()))
                .map(|[id, manager]| (id, manager))
                .collect();
            let manager = |of: &str| reports.iter().find(|(id, _)| id == of).map(|(_, one)| one.as_str());
            let own = reports.iter().filter(|(id, manager)| id == manager).count();
            let mutual = reports
                .iter()
                .filter(|(id, one)| id != one && manager(one) == Some(id.as_str()))
                .count();
            assert!(own >= 1 && mutual >= 2, "{own} {mutual}");
            assert!(reports.iter().any(|(_, one)| one.bytes().all(|byte| byte == b'0')));
        },
        ..CASE
    };

    /// The name of a department is another one, and nobody's stamp has moved: full syncs find it.
    74 department_renamed_without_stamp = Case {
        fault: r#"
            [[fault]]
            kind = "department_renamed"
            request = 1
            path = "*filter=meta*"
        "#,
        demands: |trial| {
            let by = trial.list(
                "SELECT DISTINCT mode FROM changes JOIN syncs ON syncs.id = sync_id
                 WHERE changes.instance = 'acme' AND changed LIKE '%\"to\":\"Department %'",
            );
            // The few that were edited just then came with the next incremental sync.
            assert!(by.iter().any(|mode| mode == "full"), "{}", trial.told());
            let ids: i64 = trial.one(
                "SELECT count(*) FROM changes WHERE changed LIKE '%\"to\":\"Department %'
                    AND json_extract(changed, '$.department_id.from')
                        IS NOT json_extract(changed, '$.department_id.to')",
            );
            assert_eq!(ids, 0, "the department is the same one");
        },
        ..CASE
    };

    75 names_with_escapes_newlines_bidi_nul_4mb = Case {
        fault: r#"
            [[fault]]
            kind = "edited"
            ids = ["$victim"]
            column = "first_name"
            value = "\u001b[31mred\u001b[0m\nINFO forged line\r\u202Egnirts\u0000\u0085 </title>"
            times = 1
        "#,
        lasts: Duration::from_mins(34),
        edits: |trial| {
            let long = "Ω\u{202e}\n".repeat(700_000);
            let values = Values::new().with(Column::Title, long);
            assert!(trial.sandbox().update(&trial.people.other, &values));
        },
        meanwhile: Meanwhile::Open,
        demands: |trial| {
            let people = &trial.people;
            let kept = trial.column(&people.victim, "given_name").unwrap();
            assert_eq!(kept, trial.row(&people.victim).get(Column::FirstName), "exactly");
            assert!(kept.contains('\0') && kept.contains('\u{1b}'));
            // Four megabytes are more than one resource may have, or exactly what they are.
            let title = trial.column(&people.other, "title").unwrap();
            let is_whole = title == trial.row(&people.other).get(Column::Title);
            assert!(is_whole || trial.rejected() == [people.other.as_str()], "{}", title.len());
            trial.equals_the_directory_but(&[&people.other]);
            trial.went(&people.inactive, "inactive");
            trial.went(&people.deleted, "gone");
            // That the log has no control character is a law.
            trial.sandbox().update(&people.other, &Values::new().with(Column::Title, "Short"));
            trial.keeps(P9);
        },
        ..CASE
    };

    /// Somebody adds columns to the answer: they are attributes, and what is new blanks nothing.
    76 custom_extension_appears = Case {
        fault: r#"
            [[fault]]
            kind = "member_added"
            member = "urn:ietf:params:scim:schemas:extension:servicenow:custom:2.0:User"
            json = '{"badge": 7, "floors": ["2", "1"]}'
        "#,
        meanwhile: Meanwhile::Open,
        demands: |trial| {
            let without: i64 = trial.one(
                "SELECT count(*) FROM users WHERE instance = 'acme' AND gone_at IS NULL
                    AND attributes NOT LIKE '%custom:2.0:User\":{\"badge\":7%'",
            );
            assert_eq!(without, 0, "{}", trial.told());
            trial.went(&trial.people.inactive, "inactive");
            trial.went(&trial.people.deleted, "gone");
        },
        // The columns are taken away again, from everybody: that is one blanking hold for each, and a
        // person says that it is meant.
        healing: Healing::BY_APPROVAL,
        ..CASE
    };
}

impl Trial {
    /// Somebody with an odd id is in the mirror, under exactly this id, and nobody else was touched for
    /// it.
    #[track_caller]
    fn is_kept_exactly(&self, id: &str) {
        assert_eq!(self.records_of(id), ["create new"], "{}", self.told());
        let shown: Value = self.shown(id).expect("he is there");
        assert_eq!(
            self.column(id, "user_name").as_deref(),
            shown["userName"].as_str()
        );
        let strangers: BTreeSet<String> = self
            .list(&format!(
                "SELECT id FROM users WHERE instance = '{ACME}' AND gone_at IS NULL"
            ))
            .into_iter()
            .collect();
        let ids: BTreeSet<String> = self.sandbox().ids().into_iter().collect();
        assert_eq!(strangers, ids);
        self.keeps(P9);
    }

    /// Another form of the same is no change.
    #[track_caller]
    fn only_the_edited_have_records(&self) {
        let people = &self.people;
        let records: BTreeSet<String> = self
            .list(&format!(
                "SELECT id FROM changes WHERE instance = 'acme' AND seq > {}",
                self.seq_before
            ))
            .into_iter()
            .collect();
        let edited = [
            &people.inactive,
            &people.deleted,
            &people.titled,
            &people.emptied,
            &people.hired,
        ];
        let edited: BTreeSet<String> = edited.into_iter().cloned().collect();
        assert_eq!(records, edited, "{}", self.told());
        self.keeps(P4);
    }
}
