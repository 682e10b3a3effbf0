//! `musterd backup` while the daemon runs, and `musterd restore` as its operator meets them.

use crate::harness::TIME_LIMIT;
use crate::harness::served::Served;

#[test]
fn a_backup_of_a_running_daemon_is_put_back_and_followers_are_told() {
    let served = Served::of(30);
    let home = served.home("");
    let run = |args: &[&str], code: i32| {
        let ran = home.run(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {ran}");
        ran.stdout + &ran.stderr
    };
    let mut daemon = home.start(&["run"]);
    daemon
        .wait_for(TIME_LIMIT, |line| line.contains("sync finished"))
        .expect("the first sync");

    let file = home.path().join("backup.db");
    let file = file.to_str().unwrap();
    let said = run(&["backup", file], 0);
    assert!(said.contains("30 users, 30 records"), "{said}");
    let said = run(&["backup", file], 1);
    assert!(said.contains("already"), "{said}");
    // One leaves, and is known to have left.
    let left = served.sandbox.ids()[0].clone();
    served.sandbox.delete(&left);
    run(&["sync", "--mode", "full"], 0);
    let living = "SELECT count(*) FROM active_users";
    let active = home.one::<i64>(living);
    let epoch = home.one::<String>("SELECT epoch FROM feed");

    let said = run(&["restore", file], 1);
    assert!(said.contains("systemctl stop musterd"), "{said}");
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
    let said = run(&["restore", file], 0);
    assert!(said.contains("kept as"), "{said}");
    home.verify();
    assert_eq!(home.one::<i64>("SELECT last_seq FROM feed"), 30);
    let said = run(&["changes", "--epoch", &epoch, "--after", "31"], 3);
    assert!(said.contains("restored or rebuilt"), "{said}");

    // Whoever left after the backup is not alive for a day: the next sync reads everybody, whatever its schedule.
    run(&["sync"], 0);
    assert_eq!(home.one::<i64>(living), active);
    let modes = home.list("SELECT mode || ' ' || outcome FROM syncs ORDER BY id DESC LIMIT 1");
    assert_eq!(modes, ["full succeeded"]);
    home.verify();
}
