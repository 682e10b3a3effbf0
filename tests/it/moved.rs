//! The mirror moves to another folder, and the configuration with it: it is the same mirror there.

use musterd::sandbox::{Column, Values};
use serde_json::Value;

use crate::harness::served::Served;
use crate::harness::{Running, TIME_LIMIT};

/// An incremental sync every second.
const EVERY_SECOND: &str = "schedule = { incremental = \"* * * * * *\", full = \"0 0 0 1 1 *\", \
     splay = { incremental = \"0s\", full = \"0s\" } }";

fn wait_for(daemon: &mut Running, said: &[&str]) {
    let fits = |line: &str| said.iter().all(|said| line.contains(said));
    daemon.wait_for(TIME_LIMIT, fits).expect("it runs");
}

#[test]
fn a_mirror_goes_on_in_another_folder_and_no_daemon_changes_its_own() {
    let served = Served::of(30);
    let home = served.home(EVERY_SECOND);
    let set = |title: &str| {
        let id = served.sandbox.ids().pop().unwrap();
        let values = Values::new().with(Column::Title, title);
        assert!(served.sandbox.update(&id, &values));
    };
    let there = std::fs::read_to_string(home.config_path()).unwrap();
    let before = home.path().join("before");
    std::fs::create_dir(&before).unwrap();
    let here = there.replace("/mirror.db", "/before/mirror.db");
    assert_ne!(here, there);
    std::fs::write(home.config_path(), here).unwrap();
    let mut daemon = home.start(&["run"]);
    wait_for(&mut daemon, &["sync finished"]);

    // A daemon that runs stays where it is, says so, and goes on.
    std::fs::write(home.config_path(), there).unwrap();
    daemon.hang_up();
    wait_for(
        &mut daemon,
        &[
            "the configuration stays as it was",
            "`mirror.path` cannot change",
            "restart",
        ],
    );
    set("Astronaut");
    wait_for(&mut daemon, &["sync finished", "\"updated\":1"]);
    assert!(!home.mirror_path().exists());
    daemon.terminate();
    let ran = daemon.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");

    for file in before.read_dir().unwrap() {
        let file = file.unwrap();
        std::fs::rename(file.path(), home.path().join(file.file_name())).unwrap();
    }
    let place = |sql: &str| home.list(sql);
    let feed = place("SELECT epoch || ' ' || last_seq FROM feed");
    let baseline = place("SELECT baseline_at || ' ' || watermark FROM sources");
    assert_eq!(baseline.len(), 1);
    let (epoch, seq) = feed[0].split_once(' ').unwrap();
    assert_eq!(seq, "31");

    // Nobody is read anew, and who follows the feed goes on as well.
    let mut daemon = home.start(&["run"]);
    wait_for(&mut daemon, &["started"]);
    set("Diver");
    wait_for(
        &mut daemon,
        &["sync finished", "\"incremental\"", "\"updated\":1"],
    );
    let ran = home.run(&["changes", "--epoch", epoch, "--after", seq, "--json"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let record: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(record["changed"]["title"]["to"], "Diver", "{record}");
    assert_eq!(
        place("SELECT count(*) || '' FROM syncs WHERE mode = 'full'"),
        ["1"]
    );
    assert_eq!(before.read_dir().unwrap().count(), 0);
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
    home.verify();
}
