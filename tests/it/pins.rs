//! Is it still the same directory? What the mirror pins of an instance, and the two ways to change it.

use crate::harness::{Auth, Home, Instance};
use crate::odd_servers::directory::{Directory, sys_id};
use crate::odd_servers::scim::WELL_BEHAVED;
use crate::odd_servers::server::{SCIM_PATH, Server, TOKEN};

fn instance<'a>(name: &'a str, url: &'a str) -> Instance<'a> {
    Instance {
        name,
        url,
        scim_path: SCIM_PATH,
        auth: Auth::Bearer(TOKEN),
        page_size: 20,
        more: "",
    }
}

#[test]
fn a_changed_url_is_refused_with_the_way_out_and_asked_nothing_until_it_is_relinked() {
    let old = Server::start(Directory::of(40, sys_id), WELL_BEHAVED);
    let new = Server::start(Directory::of(40, sys_id), WELL_BEHAVED);
    let home = Home::new(&[instance("acme", &old.url())]);
    assert_eq!(home.sync("full").code, Some(0));

    home.configure(&[instance("acme", &new.url())]);
    for args in [
        &["sync"][..],
        &["sync", "--dry-run"],
        &["run"],
        &["check"],
        &["check", "--offline"],
    ] {
        let ran = home.run(args);
        assert_eq!(ran.code, Some(78), "{args:?}: {ran}");
        assert!(
            ran.stderr.contains("musterd relink acme"),
            "{args:?}: {ran}"
        );
    }
    assert_eq!(
        new.asked(),
        Vec::<String>::new(),
        "no credential went there"
    );

    let relinked = home.run(&["relink", "acme"]);
    assert_eq!(relinked.code, Some(0), "{relinked}");
    let seq: i64 = home.one("SELECT last_seq FROM feed");
    assert_eq!(home.sync("full").code, Some(0));
    assert_eq!(
        home.one::<i64>("SELECT last_seq FROM feed"),
        seq,
        "the same directory"
    );
    assert_eq!(home.one::<String>("SELECT url FROM instances"), new.url());
    home.verify();
}

#[test]
fn a_renamed_instance_keeps_its_users_without_records_and_its_readers_are_told() {
    let server = Server::start(Directory::of(40, sys_id), WELL_BEHAVED);
    let home = Home::new(&[instance("acme", &server.url())]);
    assert_eq!(home.sync("full").code, Some(0));
    let epoch: String = home.one("SELECT epoch FROM feed");
    let seq: i64 = home.one("SELECT last_seq FROM feed");

    let early = home.run(&["rename", "acme", "acme_emea"]);
    assert_eq!(
        early.code,
        Some(1),
        "the configuration comes first: {early}"
    );
    home.configure(&[instance("acme_emea", &server.url())]);
    let renamed = home.run(&["rename", "acme", "acme_emea"]);
    assert_eq!(renamed.code, Some(0), "{renamed}");

    assert_eq!(
        home.list("SELECT DISTINCT instance FROM users"),
        ["acme_emea"]
    );
    assert_eq!(home.one::<i64>("SELECT last_seq FROM feed"), seq);
    assert_ne!(home.one::<String>("SELECT epoch FROM feed"), epoch);
    home.verify();
    assert_eq!(home.sync("full").code, Some(0));
    assert_eq!(
        home.one::<i64>("SELECT last_seq FROM feed"),
        seq,
        "nobody changed"
    );
    let place = home.run(&["changes", "--after", &seq.to_string(), "--epoch", &epoch]);
    assert_eq!(place.code, Some(3), "read `users` again: {place}");
}
