//! An instance that is taken out of the configuration while syncs of it are under way, or wait for their turn.

use crate::harness::served::Served;
use crate::harness::{Home, Ran, Running, TIME_LIMIT};
use crate::rate::{assert_kept, done, heard, scene};

/// A daemon whose instance is being read in full, for a person, at a pace of seconds.
struct UnderWay {
    served: Served,
    home: Home,
    /// The configuration with the instance.
    linked: String,
    daemon: Running,
    full: Running,
}

impl UnderWay {
    fn begin() -> Self {
        let (served, home) = scene();
        let mut daemon = home.start(&["run"]);
        heard(&mut daemon, "sync finished");
        let before = served.sandbox.requests().len();
        let full = home.start(&["sync", "--mode", "full"]);
        while served.sandbox.requests().len() < before + 5 {
            std::thread::yield_now();
        }
        let linked = std::fs::read_to_string(home.config_path()).unwrap();
        Self {
            served,
            home,
            linked,
            daemon,
            full,
        }
    }

    fn load(&mut self, text: &str) {
        std::fs::write(self.home.config_path(), text).unwrap();
        self.daemon.hang_up();
        heard(&mut self.daemon, "configuration reloaded");
    }

    fn take_out(&mut self) {
        let linked = self.linked.clone();
        let (without, _) = linked.split_once("[instances.acme]").unwrap();
        self.load(without);
    }
}

#[test]
fn put_back_it_has_one_rate_and_one_sync_at_a_time() {
    let mut scene = UnderWay::begin();
    scene.take_out();
    let linked = scene.linked.clone();
    scene.load(&linked);
    let again = scene.home.start(&["sync", "--mode", "full"]);
    for running in [scene.full, again] {
        done(&running.finish(TIME_LIMIT));
    }
    scene.daemon.terminate();
    done(&scene.daemon.finish(TIME_LIMIT));
    assert_kept(&scene.served.sandbox.requests());
    let whole = "SELECT count(*) FROM syncs WHERE trigger = 'request'
                 AND certificate ->> 'verdict' = 'complete' AND certificate ->> 'distinct' = 150";
    assert_eq!(scene.home.one::<i64>(whole), 2);
    scene.home.verify();
}

#[test]
fn a_sync_that_waits_begins_no_more_and_who_is_dropped_stays_away() {
    let mut scene = UnderWay::begin();
    let waiting = scene.home.start(&["sync", "acme", "--mode", "full"]);
    let drop = ["unlink", "acme", "--drop", "--yes"];
    scene.take_out();
    let drops = [(), ()].map(|()| scene.home.start(&drop));
    done(&scene.full.finish(TIME_LIMIT));
    let ran = waiting.finish(TIME_LIMIT);
    // 2 where the daemon did not know the instance any more when it was asked.
    assert!(matches!(ran.code, Some(1 | 2)), "{ran}");
    assert!(ran.stderr.contains("acme"), "{ran}");
    let drops = drops.map(|running| running.finish(TIME_LIMIT));
    // One that began after the other had ended found nobody left.
    let is_late = |ran: &Ran| ran.stderr.contains("does not stand in the configuration");
    for ran in &drops {
        assert!(ran.code == Some(0) || is_late(ran), "{ran}");
    }
    assert!(!drops.iter().all(is_late), "{}", drops[0]);
    scene.home.verify();
    let left = "SELECT (SELECT count(*) FROM users) || ' ' || (SELECT count(*) FROM instances)";
    assert_eq!(scene.home.one::<String>(left), "0 0");
    scene.daemon.terminate();
    let ran = scene.daemon.finish(TIME_LIMIT);
    done(&ran);
    assert!(!ran.stderr.contains("\"ERROR\""), "{ran}");
}
