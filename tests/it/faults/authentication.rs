//! Section C: authentication. Nobody's absence is ever concluded from a door that is closed, and no
//! account is locked by us.

use std::time::Duration;

use musterd::sandbox::{AuthRules, RequestKind};

use super::cases;
use super::course::{CASE, Case, Ends, Meanwhile, Own};
use super::laws::Healing;
use super::matrix::Promise::{P8, P11};
use super::trial::{SETUP, Setup, Trial, write_secret};

const PASSWORD: Setup = Setup {
    auth: "password",
    ..SETUP
};
const BASIC: Setup = Setup {
    auth: "basic",
    ..SETUP
};

/// Credentials that were refused are tried again after half an hour.
const AFTER_A_REFUSAL: Healing = Healing {
    within: Duration::from_mins(70),
    ..Healing::BY_ITSELF
};

cases! {
    /// One token more, and the same page again.
    46 token_expires_between_pages = Case {
        fault: r#"
            [[fault]]
            kind = "token_ends"
            path = "*filter=id%20gt*"
            request = 3
        "#,
        demands: |trial| {
            let requests = trial.sandbox().requests();
            let place = requests.iter().position(|one| one.status == 401).expect("one is refused");
            let (refused, after) = (&requests[place], &requests[place + 1..]);
            let page = after.iter().position(|one| one.line == refused.line).expect("again");
            assert_eq!(after[page].status, 200);
            let tokens = after[..page].iter().filter(|one| one.kind == RequestKind::Token);
            assert_eq!(tokens.count(), 1, "{}", trial.told());
        },
        ..CASE
    };

    /// A connector's old friend: good credentials, and 401 for seconds.
    47 good_credentials_refused_for_seconds = Case {
        fault: r#"
            [[fault]]
            kind = "unauthorized"
            after = "2m"
            times = 2

            [[fault]]
            kind = "login_refused"
            after = "21m"
            times = 1

            [[fault]]
            kind = "token_ends"
            after = "21m"
            times = 1
        "#,
        demands: |trial| {
            let refused = trial.asked(RequestKind::List).iter().filter(|one| one.status == 401).count();
            assert!((2..=4).contains(&refused), "{refused}\n{}", trial.told());
        },
        ..CASE
    };

    /// Somebody mistyped the new password. Two tries, then half an hour of peace, again and again: the
    /// account does not lock, whoever else uses it.
    48 wrong_secret = Own(PASSWORD, async |trial: &mut Trial| {
        trial.baseline().await;
        trial.begin();
        trial.edit();
        let good = trial.sandbox().auth().password;
        let path = trial.world.folder().join("acme-password");
        write_secret(&path, "mistyped");
        trial.sandbox().end_token();
        trial.pass(Duration::from_hours(5)).await;

        let tries = trial.asked(RequestKind::Token);
        trial.saw("a token is refused", tries.iter().any(|one| one.status == 401));
        for (n, one) in tries.iter().enumerate() {
            let within = tries[n..].iter().take_while(|other| {
                other.at.duration_since(one.at).as_secs() < 29 * 60
            });
            assert!(within.count() <= 3, "{tries:?}");
        }
        assert!((3..=24).contains(&tries.len()), "slowly, and for ever: {tries:?}");
        assert!(!trial.sandbox().is_locked());
        assert_eq!(trial.seq(), trial.seq_before);
        assert_eq!(trial.state(), "failing");
        trial.failed_so_often(Some(1));
        trial.keeps(P8);
        trial.keeps_the_laws();

        // A changed secret is tried at once.
        write_secret(&path, &good);
        trial.lift();
        trial.heals(&Healing::BY_ITSELF).await;
        trial.ends().await;
    });

    /// The other way round: the instance's administrator changed it, and changes it back two hours later.
    49 password_changed_then_corrected = Own(BASIC, async |trial: &mut Trial| {
        trial.baseline().await;
        trial.begin();
        trial.edit();
        let good = trial.sandbox().auth().password;
        let change = |password: &str| {
            let password = password.to_owned();
            move |rules: &mut AuthRules| rules.password = password
        };
        trial.sandbox().set_auth(change("another one"));
        trial.pass(Duration::from_hours(2)).await;
        let refused = trial.asked(RequestKind::List).iter().filter(|one| one.status == 401).count();
        trial.saw("401", refused > 1);
        assert!(refused <= 3 + 2 * 4, "{refused} bad passwords\n{}", trial.told());
        assert!(!trial.sandbox().is_locked());
        assert_eq!(trial.seq(), trial.seq_before, "nobody was removed");
        trial.failed_so_often(Some(1));
        trial.keeps_the_laws();
        trial.sandbox().set_auth(change(&good));
        trial.lift();
        trial.heals(&AFTER_A_REFUSAL).await;
        assert_eq!(trial.n_lines("WARN", "instance recovered"), 1);
        trial.ends().await;
    });

    50 role_lost_403_for_all = Case {
        fault: r#"
            [[fault]]
            kind = "role_missing"
        "#,
        full: Ends::Fails,
        incremental: Ends::Fails,
        meanwhile: Meanwhile::Nothing,
        episodes: Some(1),
        demands: |trial| {
            assert_eq!(trial.state(), "failing");
            trial.fails_with("the account needs the role");
            assert!(trial.known_active().len() > 100, "the mirror is kept");
        },
        ..CASE
    };

    /// The token that is in use works for as long as it lives; then it fails, once.
    51 token_endpoint_down_while_api_up = Case {
        fault: r#"
            [[fault]]
            kind = "edge_error"
            status = 503
            on = ["token"]
        "#,
        full: Ends::Open,
        incremental: Ends::Open,
        meanwhile: Meanwhile::Open,
        episodes: Some(1),
        demands: |trial| {
            trial.went(&trial.people.inactive, "inactive");
            let good = trial.list(
                "SELECT mode FROM syncs WHERE instance = 'acme' AND outcome = 'succeeded'
                    AND started_at > '2026-03-01T09:10' ORDER BY id",
            );
            assert!(good.len() >= 2, "{}", trial.told());
            trial.fails_with("503");
        },
        ..CASE
    };

    /// The token dies at the moment in which both kinds of syncs begin.
    52 two_refreshes_at_once = Case {
        fault: r#"
            [[fault]]
            kind = "token_ends"
            after = "22m"
            times = 1
        "#,
        demands: |trial| {
            let requests = trial.sandbox().requests();
            let place = requests.iter().position(|one| one.status == 401).expect("it died");
            let tokens = requests[place..].iter().filter(|one| {
                one.kind == RequestKind::Token && one.at.duration_since(requests[place].at).as_secs() < 60
            });
            assert_eq!(tokens.count(), 1, "{}", trial.told());
            let both = trial.list(
                "SELECT mode FROM syncs WHERE instance = 'acme'
                    AND started_at LIKE '2026-03-01T09:30:00%' ORDER BY mode",
            );
            assert_eq!(both, ["full", "incremental"]);
            trial.keeps(P11);
        },
        ..CASE
    };

    53 scope_missing_text_403 = Case {
        fault: r#"
            [[fault]]
            kind = "scope_missing"
        "#,
        full: Ends::Fails,
        incremental: Ends::Fails,
        meanwhile: Meanwhile::Nothing,
        episodes: Some(1),
        demands: |trial| {
            trial.fails_with("the token's scope lacks the SCIM API");
            let refused = trial.asked(RequestKind::List).len();
            let syncs = trial.syncs("full").len() + trial.syncs("incremental").len();
            assert_eq!(refused, syncs, "it is final: once in each sync");
        },
        ..CASE
    };
}
