//! Section D: time. The instance's clock decides what is read, ours when; and neither decides who is
//! there.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use musterd::sandbox::{Column, RequestKind, Values};

use super::cases;
use super::course::{CASE, Case, Own};
use super::laws::Healing;
use super::matrix::Promise::{P2, P6, P7};
use super::trial::{SETUP, Setup, Trial};

/// Neither the watermark nor the pace depends on our clock, and the schedule goes on by the new time.
async fn our_clock_is_set(trial: &mut Trial, by: SignedDuration) {
    trial.baseline().await;
    trial.begin();
    trial.edit();
    trial.set_clocks(by, SignedDuration::ZERO);
    let before = trial.one::<i64>("SELECT max(id) FROM syncs");
    trial.pass(Duration::from_mins(64)).await;
    let since = trial.list(&format!(
        "SELECT mode || ' ' || outcome FROM syncs WHERE instance = 'acme' AND id > {before}"
    ));
    trial.saw("our clock is another one", since.len() >= 13);
    let n = |what: &str| since.iter().filter(|one| *one == what).count();
    // Missed ticks are one.
    assert!(
        (12..=15).contains(&n("incremental succeeded")),
        "{since:?}\n{}",
        trial.told()
    );
    assert!(
        (2..=3).contains(&n("full succeeded")),
        "{since:?}\n{}",
        trial.told()
    );
    assert_eq!(
        n("incremental succeeded") + n("full succeeded"),
        since.len()
    );
    trial.keeps(P7);
    let watermark = trial.watermark().unwrap();
    assert!(
        watermark.starts_with("2026-03-01T09:08"),
        "the instance's time: {watermark}"
    );
    trial.keeps(P2);
    trial.the_rate_was_kept();
    trial.equals_the_directory();
    trial.went(&trial.people.inactive, "inactive");
    trial.went(&trial.people.deleted, "gone");
}

cases! {
    54 local_clock_set_back_a_day = Own(SETUP, async |trial: &mut Trial| {
        our_clock_is_set(trial, SignedDuration::from_hours(-24)).await;
        let backwards: i64 = trial.one(
            "SELECT count(*) FROM changes AS one, changes AS next
             WHERE next.seq = one.seq + 1 AND next.observed_at < one.observed_at",
        );
        assert_eq!(backwards, 0, "`observed_at` never goes back");
        trial.lift();
        trial.set_clocks(SignedDuration::from_hours(24), SignedDuration::ZERO);
        trial.recovers_by_its_schedule().await;
    });

    54 forward_a_year = Own(SETUP, async |trial: &mut Trial| {
        our_clock_is_set(trial, SignedDuration::from_hours(365 * 24)).await;
        trial.lift();
        trial.set_clocks(SignedDuration::from_hours(-365 * 24), SignedDuration::ZERO);
        trial.recovers_by_its_schedule().await;
    });

    /// In the night in which clocks go forward there is no half past two: the full sync comes once, when
    /// the clock has jumped. In the one in which they go back there are two: it comes the first time.
    55 daylight_saving_in_schedule_timezone = Own(
        Setup {
            start: "2026-03-28T23:00:30Z",
            config: OSLO,
            ring_every: Duration::from_secs(30),
            ..SETUP
        },
        async |trial: &mut Trial| {
            trial.pass(Duration::from_mins(7)).await;
            trial.equals_the_directory();
            trial.begin();
            trial.edit();
            trial.pass(Duration::from_hours(26)).await;
            let fulls = trial.nightly_fulls();
            assert_eq!(fulls, ["2026-03-29T01:30", "2026-03-30T00:30"], "{}", trial.told());

            // The other night, seven months later, for both clocks.
            let months = SignedDuration::from_hours(208 * 24 + 22);
            trial.set_clocks(months, months);
            trial.pass(Duration::from_hours(27)).await;
            let fulls = trial.nightly_fulls();
            // One for all the nights that were slept through, then the night of two half past twos.
            // Rows of syncs that changed nothing are forgotten after a month.
            let autumn: Vec<&String> = fulls.iter().filter(|at| at.starts_with("2026-10")).collect();
            let nights = ["2026-10-24T23:07", "2026-10-25T00:30", "2026-10-26T01:30"];
            assert_eq!(autumn, nights, "{}", trial.told());
            trial.saw("the clocks went back", fulls.iter().any(|at| at.starts_with("2026-10-25")));
            trial.equals_the_directory();
            trial.went(&trial.people.deleted, "gone");
            trial.lift();
            trial.is_well();
            trial.verifies();
            trial.keeps_the_laws();
        },
    );

    /// Everybody is changed in one second: six times as many as fit in a page. Not one is missed.
    56 same_second_more_rows_than_a_page = Case {
        fault: r#"
            [[fault]]
            kind = "late_commit"
            share = 1.0
            seconds = 1
            times = 1
        "#,
        demands: |trial| {
            let stamps: BTreeSet<String> = trial.list(
                "SELECT source_modified_at FROM changes WHERE instance = 'acme'
                    AND changed LIKE '%\"title\"%'",
            ).into_iter().collect();
            assert!(stamps.len() <= 3, "{stamps:?}");
            let by_incremental: i64 = trial.one(
                "SELECT sum(updated) FROM syncs WHERE instance = 'acme' AND mode = 'incremental'",
            );
            assert!(by_incremental > 110, "{by_incremental}\n{}", trial.told());
        },
        ..CASE
    };

    /// Stamped now, seen seven minutes later: behind the watermark by then, and within the overlap.
    57 late_commit_within_overlap = Case {
        fault: r#"
            [[fault]]
            kind = "late_commit"
            share = 0.1
            seconds = 400
            request = 1
            path = "*filter=meta*"

            [[fault]]
            kind = "edited"
            ids = ["$other"]
            column = "city"
            value = "Bergen"
            after = "6m"
            times = 1

            [[fault]]
            kind = "edited"
            ids = ["$other"]
            column = "city"
            value = "Oslo"
            after = "11m"
            times = 1
        "#,
        demands: |trial| trial.titles_came_by("incremental"),
        ..CASE
    };

    /// Seen a quarter of an hour later: no incremental sync looks back so far, and the full one finds it.
    57 beyond_overlap = Case {
        fault: r#"
            [[fault]]
            kind = "late_commit"
            share = 0.1
            seconds = 900
            request = 1
            path = "*filter=meta*"

            [[fault]]
            kind = "edited"
            ids = ["$other"]
            column = "city"
            value = "Bergen"
            after = "6m"
            times = 1

            [[fault]]
            kind = "edited"
            ids = ["$other"]
            column = "city"
            value = "Oslo"
            after = "11m"
            times = 1
        "#,
        demands: |trial| trial.titles_came_by("full"),
        ..CASE
    };

    /// No stamp at all, words, and a year that has not come: content decides in each of them.
    58 last_modified_missing_or_unparsable_or_2099 = Own(SETUP, async |trial: &mut Trial| {
        trial.baseline().await;
        for (form, title) in [("missing", "One"), ("nonsense", "Two"), ("future", "Three")] {
            trial.fault(&format!("
                [[fault]]
                kind = \"stamp_form\"
                form = \"{form}\"
            "));
            let victim = trial.people.victim.clone();
            trial.sandbox().update(&victim, &Values::new().with(Column::Title, title));
            trial.pass(Duration::from_mins(32)).await;
            assert_eq!(trial.column(&victim, "title").as_deref(), Some(title), "{form}\n{}", trial.told());
            let watermark = trial.watermark().unwrap();
            assert!(watermark.as_str() < "2026-03-02", "{form}: {watermark}");
            assert!(trial.sandbox().fired()[0].times > 0);
        }
        trial.edit();
        trial.pass(Duration::from_mins(32)).await;
        trial.equals_the_directory();
        trial.keeps_the_laws();
        trial.lift();
        trial.heals(&Healing::BY_ITSELF).await;
        trial.ends().await;
    });

    /// A full sync takes its time. Its first page shows people with a title that the mirror has not heard of;
    /// before it ends they get another one, and the incremental sync learns of that. What the page showed
    /// undoes nothing, and never was.
    59 full_sync_result_older_than_incremental = Own(SETUP, async |trial: &mut Trial| {
        trial.baseline().await;
        // Full syncs are the ones that go by key: a minute for each page but the first.
        trial.fault(r#"
            [[fault]]
            kind = "slow"
            ms = 55000
            path = "*filter=id%20gt*count=20&*"
        "#);
        trial.edit();
        trial.pass(Duration::from_mins(21)).await;
        // Those of the first page, by a script that moves no stamp: no incremental sync sees it.
        let ids = trial.sandbox().ids();
        let parts = trial.people.clone();
        let early: Vec<&String> = ids[..15]
            .iter()
            .filter(|id| ![&parts.inactive, &parts.deleted, &parts.titled, &parts.emptied, &parts.hired].contains(id))
            .collect();
        for id in &early {
            let read = Values::new().with(Column::Title, "Read");
            trial.sandbox().update_silently(id, &read);
        }
        trial.pass(Duration::from_mins(3)).await;
        // 09:32: that page has been read, and others are on their way.
        assert!(trial.syncs("full").is_empty(), "it is under way\n{}", trial.told());
        for id in &early {
            let learnt = Values::new().with(Column::Title, "Learnt meanwhile");
            trial.sandbox().update(id, &learnt);
        }
        trial.pass(Duration::from_mins(40)).await;
        let by = trial.list(
            "SELECT DISTINCT mode FROM changes JOIN syncs ON syncs.id = sync_id
             WHERE changes.instance = 'acme' AND changed LIKE '%\"to\":\"Learnt meanwhile\"%'",
        );
        assert_eq!(by, ["incremental"], "{}", trial.told());
        for id in &early {
            assert_eq!(trial.column(id, "title").as_deref(), Some("Learnt meanwhile"));
            let records = trial.records_of(id);
            assert_eq!(records.len(), 1, "it is not undone and done again: {records:?}");
        }
        trial.keeps(P6);
        trial.keeps(P7);
        trial.equals_the_directory();
        trial.keeps_the_laws();
        trial.lift();
        trial.heals(&Healing::BY_ITSELF).await;
        trial.ends().await;
    });

    /// The machine sleeps over the weekend: the ticks of three days are one sync of each kind.
    60 suspend_for_three_days = Own(SETUP, async |trial: &mut Trial| {
        trial.baseline().await;
        trial.begin();
        trial.edit();
        let before = trial.one::<i64>("SELECT max(id) FROM syncs WHERE instance = 'acme'");
        // Monotonic time stands still meanwhile.
        let weekend = SignedDuration::from_hours(72);
        trial.set_clocks(weekend, weekend);
        trial.pass(Duration::from_secs(100)).await;
        let woken = trial.list(&format!(
            "SELECT mode FROM syncs WHERE instance = 'acme' AND id > {before} ORDER BY mode"
        ));
        assert_eq!(woken, ["full", "incremental"], "{}", trial.told());
        trial.saw("three days passed", trial.seq() > trial.seq_before);
        trial.equals_the_directory();
        trial.went(&trial.people.inactive, "inactive");
        trial.went(&trial.people.deleted, "gone");
        trial.the_rate_was_kept();
        trial.lift();
        trial.recovers_by_its_schedule().await;
    });

    /// A machine without a battery starts in 1970 and is told the time an hour later.
    61 boot_without_time_sync = Own(SETUP, async |trial: &mut Trial| {
        trial.baseline().await;
        trial.world.stop().await;
        trial.begin();
        trial.edit();
        let years = SignedDuration::from_secs(-1_772_300_000);
        trial.set_clocks(years, SignedDuration::ZERO);
        trial.world.start();
        trial.pass(Duration::from_mins(64)).await;
        let in_1970: i64 =
            trial.one("SELECT count(*) FROM syncs WHERE started_at < '1970-02-01' AND outcome = 'succeeded'");
        trial.saw("syncs in 1970", in_1970 > 10);
        let watermark = trial.watermark().unwrap();
        assert!(watermark.starts_with("2026-03-01T09:08"), "the instance's time: {watermark}");
        trial.keeps(P2);
        trial.equals_the_directory();
        trial.went(&trial.people.inactive, "inactive");
        trial.went(&trial.people.deleted, "gone");
        trial.lift();
        trial.set_clocks(-years, SignedDuration::ZERO);
        trial.recovers_by_its_schedule().await;
    });
}

/// Full syncs at half past two in the night, in Oslo.
const OSLO: &str = r#"
[instances.acme.schedule]
incremental = "0 0 * * * *"
full = "0 30 2 * * *"
timezone = "Europe/Oslo"
"#;

impl Trial {
    /// When scheduled full syncs began, to the minute.
    fn nightly_fulls(&self) -> Vec<String> {
        self.list(
            "SELECT substr(started_at, 1, 16) FROM syncs
             WHERE instance = 'acme' AND mode = 'full' AND trigger = 'schedule' ORDER BY id",
        )
    }

    /// What was committed late was found by syncs of this mode.
    #[track_caller]
    fn titles_came_by(&self, mode: &str) {
        let modes: BTreeSet<String> = self
            .list(
                "SELECT mode FROM changes JOIN syncs ON syncs.id = sync_id
                 WHERE changes.instance = 'acme' AND changed LIKE '%\"to\":\"Specialist%'",
            )
            .into_iter()
            .collect();
        assert_eq!(modes, BTreeSet::from([mode.to_owned()]), "{}", self.told());
        let requests = self.asked(RequestKind::List);
        assert!(!requests.is_empty());
    }

    /// An hour by the right time again, and all is well.
    async fn recovers_by_its_schedule(&mut self) {
        let before = self.one::<i64>("SELECT max(id) FROM syncs");
        self.pass(Duration::from_mins(64)).await;
        let since = self.list(&format!(
            "SELECT mode FROM syncs WHERE instance = 'acme' AND id > {before}"
        ));
        let n = |mode: &str| since.iter().filter(|one| *one == mode).count();
        assert!(
            (11..=14).contains(&n("incremental")),
            "{since:?}\n{}",
            self.told()
        );
        assert!((2..=3).contains(&n("full")), "{since:?}\n{}", self.told());
        self.equals_the_directory();
        self.is_well();
        self.ends().await;
    }
}
