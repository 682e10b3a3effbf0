//! Section B: the network. What the exchange in process cannot show goes over sockets; what needs TLS
//! goes to the built binary ([`super::tls`]).

use std::sync::atomic::Ordering;
use std::time::Duration;

use musterd::sandbox::RequestKind;

use super::cases;
use super::course::{CASE, Case, Ends, Meanwhile, Own};
use super::laws::Healing;
use super::matrix::Promise::{P7, P11};
use super::tls::{Bad, ByBinary};
use super::trial::{SETUP, Setup, Trial, Way};
use crate::harness::text;

const DAY: Duration = Duration::from_hours(24);

const FOR_A_DAY: Setup = Setup {
    ring_every: Duration::from_secs(30),
    ..SETUP
};

const OVER_SOCKETS: Setup = Setup {
    way: Way::Loopback,
    ..SETUP
};

/// Said once each, however long it lasts: its headers tell a limit as well.
const THROTTLED: &[&str] = &[
    "the instance allows fewer requests than `rate`",
    "the instance refuses requests because there are too many",
];

cases! {
    /// One line when it begins and one when it is over, in a day of failures.
    34 dns_fails_for_a_day = Own(Setup { way: Way::ByName, ..FOR_A_DAY }, async |trial: &mut Trial| {
        trial.baseline().await;
        trial.names.are_lost.store(true, Ordering::Relaxed);
        trial.begin();
        trial.edit();
        trial.pass(DAY).await;
        assert_eq!(trial.seq(), trial.seq_before);
        assert_eq!(trial.watermark(), trial.watermark_before);
        assert_eq!(trial.state(), "failing");
        trial.fails_with("cannot resolve the host name");
        trial.failed_so_often(Some(1));
        trial.keeps_the_laws();
        trial.saw("a name was asked for", trial.names.n_asked.load(Ordering::Relaxed) > 300);
        trial.names.are_lost.store(false, Ordering::Relaxed);
        trial.lift();
        trial.heals(&Healing::BY_ITSELF).await;
        assert_eq!(trial.n_lines("WARN", "instance recovered"), 1);
        trial.ends().await;
    });

    35 connection_reset_after_headers = Case {
        setup: OVER_SOCKETS,
        fault: r#"
            [[fault]]
            kind = "cut"
            share = 0.0
            every = 3
        "#,
        demands: Trial::retried,
        ..CASE
    };

    /// The body of a page of twenty stops half way and never ends: it is given up, half as many are asked
    /// for, and the crawl goes on.
    36 body_stalls_at_half = Case {
        setup: OVER_SOCKETS,
        fault: r#"
            [[fault]]
            kind = "stall"
            path = "*filter=id%20gt*count=20&*"
        "#,
        demands: |trial| {
            let lists = trial.asked(RequestKind::List);
            assert!(lists.iter().any(|one| one.line.contains("count=10&")), "{}", trial.told());
            // Nobody waits for a full sync that takes its time.
            assert!(trial.syncs("incremental").len() >= 12, "{}", trial.told());
            trial.keeps(P7);
        },
        ..CASE
    };

    /// A byte a second: each answer is given up as a whole. The other instance is on time.
    37 slow_drip_one_byte_a_second = Case {
        setup: OVER_SOCKETS,
        fault: r#"
            [[fault]]
            kind = "drip"
            ms = 1000
            on = ["list"]
        "#,
        full: Ends::Fails,
        incremental: Ends::Fails,
        meanwhile: Meanwhile::Nothing,
        episodes: Some(1),
        demands: |trial| trial.fails_with("no complete answer within 60 s"),
        ..CASE
    };

    /// 128 MB out of 128 KB.
    38 gzip_bomb = ByBinary::answers(r#"
        [[fault]]
        kind = "gzip_bomb"
        megabytes = 128
        on = ["list"]
    "#, "answer is longer than 33554432 bytes");

    39 gzip_trailer_missing = ByBinary::answers(r#"
        [[fault]]
        kind = "gzip_cut"
        on = ["list"]
    "#, "connection broke before the answer was complete");

    40 tls_certificate_expired = ByBinary::certificate(Bad::Expired);

    /// It is not followed: nobody knocks there, with a credential or without.
    41 redirect_to_login = Own(OVER_SOCKETS, async |trial: &mut Trial| {
        let elsewhere = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = elsewhere.local_addr().unwrap();
        trial.baseline().await;
        trial.fault(&format!("
            [[fault]]
            kind = \"redirect\"
            location = \"http://{address}/login.do\"
        "));
        trial.edit();
        trial.pass(Duration::from_mins(64)).await;
        assert_eq!(trial.seq(), trial.seq_before);
        trial.fails_with("302");
        trial.fails_with("redirects are not followed");
        trial.failed_so_often(Some(1));
        let knocked = tokio::time::timeout(Duration::from_secs(1), elsewhere.accept()).await;
        assert!(knocked.is_err(), "somebody came: {knocked:?}");
        trial.keeps(P11);
        trial.keeps_the_laws();
        trial.lift();
        trial.heals(&Healing { within: Duration::from_mins(70), ..Healing::BY_ITSELF }).await;
        trial.ends().await;
    });

    /// Told to come back in four minutes, all day: it waits, it stays configured, and nothing says that
    /// something is set up wrongly.
    42 throttled_429_all_day = Case {
        setup: FOR_A_DAY,
        fault: r#"
            [[fault]]
            kind = "rate_limited"
            retry_after = "240"
        "#,
        lasts: DAY,
        full: Ends::Fails,
        incremental: Ends::Fails,
        meanwhile: Meanwhile::Nothing,
        episodes: Some(1),
        demands: |trial| {
            assert_eq!(trial.state(), "failing");
            let refused = trial.asked(RequestKind::List);
            // With patience: one request for each wait, no more.
            assert!(refused.len() <= 24 * 60 / 4 + 10, "{} requests", refused.len());
            let configured: i64 =
                trial.one("SELECT count(*) FROM instances WHERE state <> 'unlinked'");
            assert_eq!(configured, 2);
        },
        warnings: THROTTLED,
        ..CASE
    };

    /// No semaphore is free, and nothing says for how long.
    43 _429_without_headers = Case {
        fault: r#"
            [[fault]]
            kind = "semaphore_full"
            every = 3
        "#,
        demands: Trial::retried,
        ..CASE
    };

    /// Eight centuries are asked for; it waits for an hour at most.
    43 retry_after_absurd = Case {
        fault: r#"
            [[fault]]
            kind = "rate_limited"
            retry_after = "25000000000"
            times = 1
        "#,
        full: Ends::Never,
        incremental: Ends::Fails,
        meanwhile: Meanwhile::Nothing,
        lasts: Duration::from_mins(55),
        episodes: Some(1),
        healing: Healing { within: Duration::from_mins(60), ..Healing::BY_ITSELF },
        warnings: THROTTLED,
        ..CASE
    };

    /// Nothing was done, which is not a list of nobody. It is asked again, and with no cookie.
    44 _202_not_executed = Case {
        setup: OVER_SOCKETS,
        fault: r#"
            [[fault]]
            kind = "dropped"
            every = 3
        "#,
        demands: |trial| {
            trial.retried();
            let requests = trial.sandbox().requests();
            assert!(requests.iter().all(|request| !request.has_cookie));
        },
        ..CASE
    };

    45 _503_for_one_node_in_three = Case {
        fault: r#"
            [[fault]]
            kind = "edge_error"
            status = 503
            every = 3
        "#,
        demands: |trial| {
            trial.retried();
            for sync in trial.syncs("full") {
                let certificate = Trial::certificate(&sync);
                assert_eq!(certificate["verdict"], "complete");
                let retries: u64 = text(&sync, "retries").unwrap().parse().unwrap();
                assert!(retries >= 3, "each third of them: {sync:?}");
            }
        },
        ..CASE
    };
}
