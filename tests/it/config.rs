//! The configuration as it stands in files and in the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use musterd::cli;
use musterd::config::settings::{LogFormat, MetricsSettings};
use musterd::config::{self, Secrets, Settings, Sources};
use musterd::model::InstanceName;
use musterd::scim::auth::{AuthOptions, SecretSource};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

/// Enough for one instance, its secret in a file beside it.
const ACME: &str = r#"
[instances.acme]
url = "https://acme.service-now.com"
[instances.acme.auth]
type = "client_credentials"
client_id = "4f3c"
client_secret = { file = "secret" }
"#;

#[test]
fn the_minimal_file_loads() {
    let etc = Etc::new();
    let secret = etc.secret("secrets/acme", "canary");
    let text = include_str!("../../config/minimal.toml");
    let text = text.replace("/etc/musterd/secrets/acme", secret.to_str().unwrap());
    let settings = etc.file(&text).load();
    assert_eq!(settings.warnings, [""; 0]);
    let acme = &settings.instances[&name("acme")];
    assert_eq!(acme.client.origin.as_str(), "https://acme.service-now.com/");
    assert_eq!(
        acme.client.auth_state,
        Path::new("/var/lib/musterd/mirror.db.auth-acme")
    );
    assert_eq!(
        settings.socket,
        Path::new("/var/lib/musterd/mirror.db.sock")
    );
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let etc = Etc::new().file(ACME);
    insta::assert_snapshot!(etc.config_command(false), @r#"
    [mirror]
    path = "/var/lib/musterd/mirror.db"  # from default
    history = "400d"  # from default
    sync_history = "30d"  # from default

    [daemon]
    max_full_syncs = 4  # from default

    [log]
    level = "info"  # from default
    format = "auto"  # from default

    [instances.acme]
    url = "https://acme.service-now.com"  # from [ETC]/musterd.toml: instances.acme.url
    scim_path = "/api/now/scim"  # from default
    resources = ["users", "groups"]  # from default
    page_size = 200  # from default
    concurrency = 2  # from default
    timeout = "60s"  # from default
    overlap = "5m"  # from default

    [instances.acme.auth]
    type = "client_credentials"  # from [ETC]/musterd.toml: instances.acme.auth.type
    client_id = "4f3c"  # from [ETC]/musterd.toml: instances.acme.auth.client_id
    client_secret = { file = "[ETC]/secret" }  # from [ETC]/musterd.toml: instances.acme.auth.client_secret.file
    token_url = "https://acme.service-now.com/oauth_token.do"  # from default

    [instances.acme.schedule]
    timezone = "UTC"  # from default
    incremental = "0 * * * * *"  # from default
    full = "0 30 2 * * *"  # from default
    groups = "0 0 * * * *"  # from default
    splay.incremental = "30s"  # from default
    splay.full = "60m"  # from default
    splay.groups = "30m"  # from default

    [instances.acme.rate]
    per_second = 4  # from default
    burst = 8  # from default

    [instances.acme.retry]
    attempts = 5  # from default
    max_wait = "5m"  # from default

    [instances.acme.guard]
    deactivations.at_least = 5  # from default
    deactivations.count = 200  # from default
    deactivations.percent = 5  # from default
    deactivations.window = "24h"  # from default
    blanking.at_least = 5  # from default
    blanking.count = 200  # from default
    blanking.percent = 5  # from default
    blanking.window = "24h"  # from default
    memberships.at_least = 50  # from default
    memberships.count = 2000  # from default
    memberships.percent = 5  # from default
    memberships.window = "24h"  # from default
    group_memberships.at_least = 10  # from default
    group_memberships.count = 500  # from default
    group_memberships.percent = 50  # from default
    group_memberships.window = "24h"  # from default
    source_changed.at_least = 20  # from default
    source_changed.percent = 20  # from default

    [instances.acme.identity]
    match = ["employee_number", "email", "user_name"]  # from default
    removals.at_least = 5  # from default
    removals.percent = 10  # from default
    "#);

    const DAY: Duration = Duration::from_secs(24 * 3600);
    let settings = etc.load();
    assert_eq!(settings.mirror.history, Some(400 * DAY));
    assert_eq!(settings.log.format, LogFormat::Auto);
    let acme = &settings.instances[&name("acme")];
    assert_eq!(acme.client.timeout, Duration::from_secs(60));
    assert_eq!(acme.overlap, Duration::from_secs(300));
    assert_eq!(acme.schedule.splay_full, Duration::from_secs(3600));
    assert_eq!(acme.guard.deactivations.window, DAY);
    assert_eq!(acme.guard.source_changed.percent, 20);
}

#[test]
fn the_default_file_may_be_copied_as_a_file() {
    // Every key that it explains is one that can be written.
    let text = include_str!("../../config/default.toml");
    let settings = Etc::new().file(text).load();
    assert_eq!(
        settings.warnings,
        ["no instance is configured, so that there is nothing to sync"]
    );
}

#[test]
fn the_example_of_the_default_file_works_when_its_comment_signs_are_removed() {
    let etc = Etc::new();
    let secret = etc.secret("acme", "canary");
    let text = include_str!("../../config/default.toml");
    let auth: Vec<&str> = [
        "# type = ",
        "# client_id = ",
        "# client_secret = ",
        "# per_hour = ",
    ]
    .into_iter()
    .map(|start| {
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap().trim_start_matches("# ")
    })
    .collect();
    let text = format!(
        "[instances.acme]\nurl = \"https://acme.example\"\n[instances.acme.auth]\n{}\n[defaults.rate]\n{}\n",
        auth[..3].join("\n"),
        auth[3],
    );
    let text = text.replace("/etc/musterd/secrets/acme", secret.to_str().unwrap());
    let settings = etc.file(&text).load();
    let rate = settings.instances[&name("acme")].client.rate;
    assert_eq!(rate.per_hour.map(u32::from), Some(3600));
}

#[test]
fn all_mistakes_are_told_at_once_each_with_file_key_and_what_to_do() {
    let etc = Etc::new()
        .file(
            r#"
            colour = "blue"
            [mirror]
            path = ""
            history = 400
            [daemon]
            max_full_syncs = 0
            [log]
            level = "infoo"
            format = "xml"
            [defaults]
            page_size = 2.7
            [instances.acme]
            url = "http://acme.service-now.com"
            scim_path = "api/now/scim"
            resources = ["users", "teams"]
            concurrency = 5
            timeout = "a minute"
            timeot = "60s"
            [instances.acme.auth]
            type = "oauth"
            [instances.acme.schedule]
            incremental = "* * * * *"
            full = "0 0 0 30 2 *"
            timezone = "Mars/Olympus"
            splay = "30s"
            [instances.acme.rate]
            burst = 8
            per_hour = 8
            [instances.acme.retry]
            attempts = -1
            max_wait = "-5m"
            [instances.acme.guard]
            deactivations = { percent = 101, window = "1 month" }
            blanking = { count = "200" }
            [instances.Emea]
            url = "https://emea.service-now.com"
            "#,
        )
        .instance(
            "apac",
            "url = \"https://apac.service-now.com/api\"\n[instances.x]\n",
        )
        .instance("no-name", "")
        .env("MUSTERD__INSTANCES__APAC__PAGE_SIZE", "501")
        .env("MUSTERD__INSTANCES__APAC__RATE__PER_SECOND", "4.0")
        .env("MUSTERD__LOG__COLOUR", "blue")
        .env("musterd__log__level", "info")
        .env("MUSTERD__LOG___LEVEL", "info");
    insta::assert_snapshot!(etc.mistakes(), @r#"
    the configuration is wrong
    [ETC]/instances.d/no-name.toml: the file's name cannot name an instance (got `no-name`), expected lower-case letters and digits, in words joined by single underscores, at most 40 characters and `.toml`
    environment: `MUSTERD__LOG___LEVEL`: names no key, expected `MUSTERD__SECTION__KEY`, such as `MUSTERD__LOG__LEVEL`
    environment: `musterd__log__level`: is not in upper case, expected `MUSTERD__LOG__LEVEL`
    [ETC]/musterd.toml: `mirror.path`: is not the path of a file (got ``), expected the path of a file
    [ETC]/musterd.toml: `mirror.history`: is not text (got `400`), expected a duration of at least "1s" such as "400d", or "forever"
    [ETC]/musterd.toml: `daemon.max_full_syncs`: is too small (got `0`), expected a whole number from 1 to 1000
    [ETC]/musterd.toml: `log.level`: is not a level (got `infoo`), expected "off", "error", "warn", "info", "debug", "trace", or a filter such as "info,musterd::scim=debug"
    [ETC]/musterd.toml: `log.format`: is not known (got `xml`), expected one of "auto", "text", "json", "journald"
    environment: `MUSTERD__LOG__COLOUR`: is not a known key, expected one of `format`, `level`
    [ETC]/musterd.toml: `defaults.page_size`: is not a whole number (got `2.7`), expected a whole number from 1 to 500
    [ETC]/musterd.toml: `instances.Emea`: cannot name an instance (got `Emea`), expected lower-case letters and digits, in words joined by single underscores, at most 40 characters
    [ETC]/musterd.toml: `instances.acme.url`: is not encrypted (got `http://acme.service-now.com`), expected scheme and host with nothing after them, such as "https://acme.service-now.com"; `http://` is accepted for loopback addresses only; write `https://`
    [ETC]/musterd.toml: `instances.acme.scim_path`: does not begin with `/` (got `api/now/scim`), expected a path such as "/api/now/scim"
    [ETC]/musterd.toml: `instances.acme.resources`: has a part that is not known (got `teams`), expected a list of one or more of "users", "groups"
    [ETC]/musterd.toml: `instances.acme.concurrency`: is too large (got `5`), expected a whole number from 1 to 4
    [ETC]/musterd.toml: `instances.acme.timeout`: is not a duration (got `a minute`), expected a duration from "1s" to "1h"; write a number with a unit, such as "30s", "5m", "24h" or "400d"
    [ETC]/musterd.toml: `instances.acme.auth.type`: is not known (got `oauth`), expected one of "client_credentials", "password", "refresh_token", "basic", "bearer"
    [ETC]/musterd.toml: `instances.acme.schedule.timezone`: is not a time zone that is known here (got `Mars/Olympus`), expected the IANA name of a time zone, such as "Europe/Vienna"
    [ETC]/musterd.toml: `instances.acme.schedule.incremental`: is not a schedule: Invalid pattern: Pattern must have 6 fields when seconds are required and years are disallowed (got `* * * * *`), expected cron with six fields (second minute hour day month weekday), such as "0 30 2 * * *"
    [ETC]/musterd.toml: `instances.acme.schedule.full`: never comes: there is no such time from now on (got `0 0 0 30 2 *`), expected cron with six fields (second minute hour day month weekday), such as "0 30 2 * * *"
    [ETC]/musterd.toml: `instances.acme.schedule.splay`: is not a table, expected keys in a table `[instances.acme.schedule.splay]`
    [ETC]/musterd.toml: `instances.acme.rate.per_hour`: is not greater than `burst` (got `8`), expected more than one burst
    [ETC]/musterd.toml: `instances.acme.retry.attempts`: is too small (got `-1`), expected a whole number from 1 to 20
    [ETC]/musterd.toml: `instances.acme.retry.max_wait`: is too short (got `-5m`), expected a duration from "0s" to "1d"
    [ETC]/musterd.toml: `instances.acme.guard.deactivations.percent`: is too large (got `101`), expected a whole number from 0 to 100
    [ETC]/musterd.toml: `instances.acme.guard.deactivations.window`: is not a duration (got `1 month`), expected a duration from "1s" to "366d"; write a number with a unit, such as "30s", "5m", "24h" or "400d"
    [ETC]/musterd.toml: `instances.acme.guard.blanking.count`: is not a whole number (got `200`), expected a whole number from 0 to 1000000000
    [ETC]/musterd.toml: `instances.acme.timeot`: is not a known key, expected one of `auth`, `concurrency`, `guard`, `identity`, `overlap`, `page_size`, `rate`, `resources`, `retry`, `schedule`, `scim_path`, `timeout`, `url`
    [ETC]/instances.d/apac.toml: `url`: has a path (got `https://apac.service-now.com/api`), expected scheme and host with nothing after them, such as "https://acme.service-now.com"; the path of SCIM belongs into `scim_path`
    environment: `MUSTERD__INSTANCES__APAC__PAGE_SIZE`: is too large (got `501`), expected a whole number from 1 to 500
    [ETC]/instances.d/apac.toml: `auth.type`: is missing, expected "client_credentials", "password", "refresh_token", "basic" or "bearer"
    environment: `MUSTERD__INSTANCES__APAC__RATE__PER_SECOND`: is not a whole number (got `4.0`), expected a whole number from 1 to 10000
    [ETC]/instances.d/apac.toml: `instances`: is not a known key, expected one of `auth`, `concurrency`, `guard`, `identity`, `overlap`, `page_size`, `rate`, `resources`, `retry`, `schedule`, `scim_path`, `timeout`, `url`
    [ETC]/musterd.toml: `colour`: is not a known key, expected one of `daemon`, `defaults`, `instances`, `log`, `metrics`, `mirror`
    "#);
}

#[test]
fn every_key_refuses_what_it_cannot_be() {
    let acme = [
        ("instances.acme.url", "'https://acme.service-now.com'"),
        ("instances.acme.auth.type", "'client_credentials'"),
        ("instances.acme.auth.client_id", "'4f3c'"),
        ("instances.acme.auth.client_secret", "{ file = 'secret' }"),
        ("instances.acme.rate.per_hour", "3600"),
        ("metrics.textfile", "'/tmp/musterd.prom'"),
        ("metrics.listen", "'127.0.0.1:9718'"),
        ("metrics.heartbeat", "'https://beats.example/canary'"),
    ];
    let file = |key: &str, value: &str| {
        let others = acme.into_iter().filter(|(other, _)| *other != key);
        let lines = others.chain([(key, value)]);
        let lines: Vec<String> = lines
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        Etc::new().file(&lines.join("\n"))
    };
    let right = file("daemon.max_full_syncs", "4");
    let keys = config::read(&right.sources()).shown.keys().to_vec();
    assert!(right.load().instances.len() == 1 && keys.len() > 30);
    for key in keys {
        for wrong in [
            "true",
            "2.7",
            "-1",
            "inf",
            "''",
            r#""\u001b[2J""#,
            "[]",
            "{}",
            "{ a = 1 }",
        ] {
            let mistakes = file(&key.key, wrong).mistakes();
            assert!(
                mistakes.contains(&key.key),
                "{} = {wrong}: {mistakes}",
                key.key
            );
            assert!(!mistakes.contains('\u{1b}'), "{mistakes:?}");
        }
    }
}

#[test]
fn metrics_are_off_unless_they_are_asked_for_and_their_examples_work() {
    let etc = Etc::new().file(ACME);
    assert_eq!(etc.load().metrics, MetricsSettings::default());
    let secret = etc.secret("heartbeat", "https://beats.example/canary?from=here\n");
    let text = include_str!("../../config/default.toml");
    let lines: Vec<&str> = ["# textfile = ", "# listen = ", "# heartbeat = "]
        .into_iter()
        .map(|start| text.lines().find(|line| line.starts_with(start)).unwrap())
        .map(|line| line.trim_start_matches("# "))
        .collect();
    let text = format!("[metrics]\n{}\n{ACME}", lines.join("\n"))
        .replace(
            "/var/lib/node_exporter/textfile",
            etc.folder().to_str().unwrap(),
        )
        .replace("/etc/musterd/secrets/heartbeat", secret.to_str().unwrap());
    let etc = etc.file(&text);
    let settings = etc.load();
    assert_eq!(settings.warnings, [""; 0]);
    let expected = MetricsSettings {
        textfile: Some(etc.folder().join("musterd.prom")),
        listen: Some("127.0.0.1:9718".parse().unwrap()),
        heartbeat: Some(SecretSource::File(secret)),
    };
    assert_eq!(settings.metrics, expected);
    let shown = etc.config_command(false);
    assert!(
        shown.contains("heartbeat = { file = \"[ETC]/heartbeat\" }"),
        "{shown}"
    );

    let other = text.replace("musterd.prom", "absent/musterd.prom");
    let warnings = etc.file(&other).load().warnings;
    assert!(
        warnings[0].contains("is in a folder that is not there"),
        "{warnings:?}"
    );
}

#[test]
fn metrics_go_to_nobody_beyond_this_machine() {
    for listen in [
        "0.0.0.0:9718",
        "192.0.2.7:9718",
        "[::]:9718",
        "[2001:db8::7]:9718",
        "[::ffff:127.0.0.1]:9718",
    ] {
        let mistakes = Etc::new()
            .file(&format!("metrics.listen = '{listen}'\n{ACME}"))
            .mistakes();
        let what = format!(
            "`metrics.listen`: is not a loopback address (got `{listen}`), expected a loopback address"
        );
        assert!(mistakes.contains(&what), "{mistakes}");
        assert!(
            mistakes.contains("unencrypted and without a login"),
            "{mistakes}"
        );
    }
    for listen in ["127.0.0.1:9718", "127.9.9.9:1", "[::1]:0"] {
        Etc::new()
            .file(&format!("metrics.listen = '{listen}'\n{ACME}"))
            .load();
    }
    for listen in [
        "localhost:9718",
        "9718",
        "127.0.0.1",
        ":9718",
        "127.0.0.1:65536",
    ] {
        let mistakes = Etc::new()
            .file(&format!("metrics.listen = '{listen}'\n{ACME}"))
            .mistakes();
        assert!(
            mistakes.contains("is not an address with a port"),
            "{mistakes}"
        );
    }
}

#[test]
fn a_textfile_has_a_whole_path_to_a_file_of_metrics() {
    let etc = Etc::new();
    let folder = etc.folder().to_str().unwrap().to_owned();
    for (path, what) in [
        ("musterd.prom".to_owned(), "does not begin with `/`"),
        (format!("{folder}/musterd.txt"), "does not end in `.prom`"),
        (format!("{folder}/"), "is not the path of a file"),
        (folder.clone(), "is not the path of a file"),
        ("/".to_owned(), "is not the path of a file"),
    ] {
        let mistakes = Etc::new()
            .file(&format!("metrics.textfile = '{path}'\n{ACME}"))
            .mistakes();
        assert!(
            mistakes.contains(&format!("`metrics.textfile`: {what}")),
            "{path}: {mistakes}"
        );
    }
}

#[test]
fn the_url_of_a_heartbeat_is_a_secret_however_it_is_written() {
    let urls = [
        ("https://beats.example/canary", None),
        ("https://beats.example/x?token=canary", None),
        ("http://127.0.0.1:8000/canary", None),
        ("http://canary.example/canary", Some("is not encrypted")),
        ("https://canary@beats.example/", Some("names a user")),
        (
            "https://169.254.169.254/canary",
            Some("is a link-local address"),
        ),
        ("https://beats.example/#canary", Some("has a fragment")),
        (
            "ftp://beats.example/canary",
            Some("is not an address of the web"),
        ),
        ("canary", Some("is not an address")),
    ];
    for (url, wrong) in urls {
        let literal = format!("'{url}'");
        for way in [
            &*literal,
            "{ file = 'url' }",
            "{ env = 'URL' }",
            "{ credential = 'url' }",
        ] {
            let text = format!("metrics.heartbeat = {way}\n{ACME}");
            let etc = Etc::new().file(&text).env("URL", url);
            let path = etc.secret("url", url);
            let folder = path.parent().unwrap().to_str().unwrap().to_owned();
            let etc = etc.env("CREDENTIALS_DIRECTORY", &folder);
            let reading = config::read(&etc.sources());
            let told = match (&reading.settings, wrong) {
                (Ok(settings), None) => format!("{settings:?} {:?}", settings.warnings),
                (Err(error), Some(wrong)) => {
                    let what = format!("the URL that it holds {wrong}");
                    assert!(error.to_string().contains(&what), "{error}");
                    format!("{error} {error:?}")
                }
                (other, _) => panic!("{url}: {other:?}"),
            };
            let seen = told + &reading.shown.to_toml() + &reading.shown.to_json().to_string();
            assert!(!seen.contains("canary"), "{text}\n{seen}");
        }
    }
}

#[test]
fn a_wrong_auth_says_what_its_type_needs() {
    let etc = Etc::new().file(
        r#"
        [instances.a]
        url = "https://a.example"
        [instances.a.auth]
        type = "password"
        client_id = ""
        token = "canary"
        [instances.b]
        url = "https://b.example"
        auth = "canary"
        [instances.c]
        url = "https://c.example"
        [instances.c.auth]
        type = "basic"
        username = "svc"
        password = { file = "absent" }
        token_url = "https://c.example/oauth_token.do"
        [instances.d]
        url = "https://d.example"
        [instances.d.auth]
        type = "client_credentials"
        client_id = "4f3c"
        client_secret = { file = "secret", env = "D" }
        token_url = "https://evil.example/oauth_token.do"
        [instances.e]
        url = "https://e.example"
        auth = { type = "bearer", token = { env = "E" } }
        [instances.f]
        url = "https://f.example"
        auth = { type = "bearer", token = { credential = "f" } }
        [instances.g]
        url = "https://g.example"
        auth = { type = "bearer", token = { vault = "canary" } }
        [instances.h]
        url = "https://h.example"
        auth = { type = "bearer", token = 12345 }
        [instances.i]
        url = "https://svc:canary@i.example"
        auth = { type = "bearer", token = { file = "." } }
        [instances.j]
        url = "https://j.example?token=canary"
        auth = { type = "bearer", token = { file = "lines" } }
        "#,
    );
    etc.secret("lines", "canary\ncanary\n");
    insta::assert_snapshot!(etc.mistakes(), @r#"
    the configuration is wrong
    [ETC]/musterd.toml: `instances.a.auth.token`: is not used with this `type`, expected only `client_id`, `client_secret`, `username`, `password`, `token_url`
    [ETC]/musterd.toml: `instances.a.auth.client_id`: is empty (got ``), expected the client id of the OAuth registry record
    [ETC]/musterd.toml: `instances.a.auth.client_secret`: is missing, expected { file = "PATH" }, { credential = "NAME" } or { env = "NAME" }
    [ETC]/musterd.toml: `instances.a.auth.username`: is missing, expected the user name of the integration user
    [ETC]/musterd.toml: `instances.a.auth.password`: is missing, expected { file = "PATH" }, { credential = "NAME" } or { env = "NAME" }
    [ETC]/musterd.toml: `instances.b.auth`: is not a table, expected keys in a table `[instances.b.auth]`
    [ETC]/musterd.toml: `instances.c.auth.token_url`: is not used with this `type`, expected only `username`, `password`
    [ETC]/musterd.toml: `instances.c.auth.password.file`: the secret file `[ETC]/absent` cannot be read: No such file or directory (os error 2); it holds the secret on one line, has the mode 0600 and belongs to the account that musterd runs as
    [ETC]/musterd.toml: `instances.d.auth.client_secret`: names a secret in more than one way; write { file = "PATH" }, { credential = "NAME" } or { env = "NAME" }
    [ETC]/musterd.toml: `instances.d.auth.token_url`: is not on the instance's own host (got `https://evil.example/oauth_token.do`), expected an address on the instance itself, such as its url with "/oauth_token.do"; the credentials of an instance are sent to its `url` only
    [ETC]/musterd.toml: `instances.e.auth.token.env`: the environment variable `E` is not set; set it to the secret where musterd is started
    [ETC]/musterd.toml: `instances.f.auth.token.credential`: the credential `f` is not here: $CREDENTIALS_DIRECTORY is not set; systemd lays credentials out for the unit when it starts (`LoadCredential=`): while that runs, it does what commands ask for
    [ETC]/musterd.toml: `instances.g.auth.token.vault`: is not a known key; write { file = "PATH" }, { credential = "NAME" } or { env = "NAME" }
    [ETC]/musterd.toml: `instances.h.auth.token`: is not a secret; write { file = "PATH" }, { credential = "NAME" } or { env = "NAME" }
    [ETC]/musterd.toml: `instances.i.url`: names a user (got `https://…@i.example`), expected scheme and host with nothing after them, such as "https://acme.service-now.com"; credentials belong into `auth`
    [ETC]/musterd.toml: `instances.i.auth.token.file`: `[ETC]/.` is not a regular file; it holds the secret on one line, has the mode 0600 and belongs to the account that musterd runs as
    [ETC]/musterd.toml: `instances.j.url`: has a query or a fragment (got `https://j.example…`), expected scheme and host with nothing after them, such as "https://acme.service-now.com"
    [ETC]/musterd.toml: `instances.j.auth.token.file`: the secret file `[ETC]/lines` has more than one line, or a control character; it holds the secret on one line, has the mode 0600 and belongs to the account that musterd runs as
    "#);
}

#[test]
fn a_syntax_error_shows_its_place_but_not_the_text() {
    let etc = Etc::new().file("[log]\nlevel = \"info\"\n[instances.a.auth]\ntoken = \"canary\n");
    insta::assert_snapshot!(etc.mistakes(), @r#"
    the configuration is wrong
    [ETC]/musterd.toml: line 4, column 16: is not TOML: invalid basic string, expected `"`
    "#);
    let twice = format!("{ACME}\n[instances.acme]\n");
    insta::assert_snapshot!(Etc::new().file(&twice).mistakes(), @r#"
    the configuration is wrong
    [ETC]/musterd.toml: line 9, column 12: is not TOML: duplicate key
    "#);
    let huge = Etc::new().file("[daemon]\nmax_full_syncs = 99999999999999999999\n");
    insta::assert_snapshot!(huge.mistakes(), @r#"
    the configuration is wrong
    [ETC]/musterd.toml: `daemon.max_full_syncs`: is a number out of range, expected a number of at most 64 bits
    "#);
}

#[test]
fn an_instance_defined_twice_is_told_with_both_files() {
    let etc = Etc::new()
        .file(ACME)
        .instance("acme", "url = \"https://b.example\"\n");
    insta::assert_snapshot!(etc.mistakes(), @r#"
    the configuration is wrong
    [ETC]/instances.d/acme.toml: the instance `acme` is defined twice, here and in [ETC]/musterd.toml; remove one of the two
    "#);
}

#[test]
fn two_instances_of_one_origin_and_one_account_are_refused() {
    let second = ACME.replace("instances.acme", "instances.b").replace(
        "https://acme.service-now.com",
        "https://ACME.service-now.com.:443/",
    );
    insta::assert_snapshot!(Etc::new().file(&format!("{ACME}{second}")).mistakes(), @r#"
    the configuration is wrong
    [ETC]/musterd.toml: `instances.b.url`: has the same origin and the same account as the instance `acme` (got `https://acme.service-now.com./`), expected each instance once for each account; remove one of the two
    "#);

    let another_account = second.replace("4f3c", "5a6b");
    let settings = Etc::new().file(&format!("{ACME}{another_account}")).load();
    assert_eq!(settings.instances.len(), 2);

    let another_host = second.replace("ACME", "acme2");
    let settings = Etc::new().file(&format!("{ACME}{another_host}")).load();
    assert_eq!(settings.instances.len(), 2);
}

#[test]
fn a_missing_file_says_what_to_do() {
    insta::assert_snapshot!(Etc::new().mistakes(), @r#"
    the configuration is wrong
    [ETC]/musterd.toml: there is no such file; write one (a few lines are enough, see `config/minimal.toml`), or name another with `--config FILE` or `MUSTERD_CONFIG`
    "#);
}

#[test]
fn later_layers_win_key_by_key() {
    let etc = Etc::new()
        .file(&format!(
            "{ACME}
            [defaults]
            page_size = 100
            concurrency = 1
            timeout = \"10s\"
            [defaults.guard]
            blanking = {{ count = 7 }}
            "
        ))
        .instance(
            "emea",
            "url = \"https://emea.service-now.com\"\nconcurrency = 3\nauth = { type = \"basic\", username = \"svc\", password = { env = \"EMEA\" } }\n",
        )
        .env("EMEA", "canary")
        .env("MUSTERD__DEFAULTS__TIMEOUT", "20s")
        .env("MUSTERD__INSTANCES__EMEA__PAGE_SIZE", "50")
        .env("MUSTERD__INSTANCES__EMEA__RESOURCES", "users")
        .env("MUSTERD__INSTANCES__EMEA__AUTH__USERNAME", "007")
        .env("MUSTERD__MIRROR__PATH", "/srv/m.db");
    let settings = etc.load();
    let (acme, emea) = (
        &settings.instances[&name("acme")],
        &settings.instances[&name("emea")],
    );
    assert_eq!((acme.client.page_size, emea.client.page_size), (100, 50));
    assert_eq!((acme.client.concurrency, emea.client.concurrency), (1, 3));
    assert_eq!(acme.client.timeout, Duration::from_secs(20));
    assert_eq!(emea.guard.blanking.count, 7);
    assert_eq!(emea.guard.blanking.at_least, 5);
    assert!(matches!(&emea.client.auth, AuthOptions::Basic { username, .. } if username == "007"));
    let printed = etc.config_command(false);
    let set: Vec<&str> = printed
        .lines()
        .filter(|line| !line.ends_with("# from default"))
        .collect();
    insta::assert_snapshot!(set.join("\n"), @r#"
    [mirror]
    path = "/srv/m.db"  # from MUSTERD__MIRROR__PATH

    [daemon]

    [log]

    [instances.acme]
    url = "https://acme.service-now.com"  # from [ETC]/musterd.toml: instances.acme.url
    page_size = 100  # from [ETC]/musterd.toml: defaults.page_size
    concurrency = 1  # from [ETC]/musterd.toml: defaults.concurrency
    timeout = "20s"  # from MUSTERD__DEFAULTS__TIMEOUT

    [instances.acme.auth]
    type = "client_credentials"  # from [ETC]/musterd.toml: instances.acme.auth.type
    client_id = "4f3c"  # from [ETC]/musterd.toml: instances.acme.auth.client_id
    client_secret = { file = "[ETC]/secret" }  # from [ETC]/musterd.toml: instances.acme.auth.client_secret.file

    [instances.acme.schedule]

    [instances.acme.rate]

    [instances.acme.retry]

    [instances.acme.guard]
    blanking.count = 7  # from [ETC]/musterd.toml: defaults.guard.blanking.count

    [instances.acme.identity]

    [instances.emea]
    url = "https://emea.service-now.com"  # from [ETC]/instances.d/emea.toml: url
    resources = ["users"]  # from MUSTERD__INSTANCES__EMEA__RESOURCES
    page_size = 50  # from MUSTERD__INSTANCES__EMEA__PAGE_SIZE
    concurrency = 3  # from [ETC]/instances.d/emea.toml: concurrency
    timeout = "20s"  # from MUSTERD__DEFAULTS__TIMEOUT

    [instances.emea.auth]
    type = "basic"  # from [ETC]/instances.d/emea.toml: auth.type
    username = "007"  # from MUSTERD__INSTANCES__EMEA__AUTH__USERNAME
    password = { env = "EMEA" }  # from [ETC]/instances.d/emea.toml: auth.password.env

    [instances.emea.schedule]

    [instances.emea.rate]

    [instances.emea.retry]

    [instances.emea.guard]
    blanking.count = 7  # from [ETC]/musterd.toml: defaults.guard.blanking.count

    [instances.emea.identity]
    "#);
}

#[test]
fn the_printed_configuration_can_be_used_as_a_file() {
    let etc = Etc::new().file(ACME);
    let printed = etc
        .config_command(false)
        .replace("[ETC]", etc.folder().to_str().unwrap());
    let again = Etc::new().file(&printed);
    assert_eq!(
        format!("{:?}", again.load()),
        format!("{:?}", etc.load()),
        "{printed}"
    );
}

#[test]
fn json_has_each_value_with_its_origin() {
    let etc = Etc::new()
        .file(ACME)
        .env("MUSTERD__DAEMON__MAX_FULL_SYNCS", "2");
    let json: serde_json::Value = serde_json::from_str(&etc.config_command(true)).unwrap();
    insta::assert_snapshot!(json["daemon"]["max_full_syncs"], @r#"{"from":"MUSTERD__DAEMON__MAX_FULL_SYNCS","value":2}"#);
    insta::assert_snapshot!(json["instances"]["acme"]["url"], @r#"{"from":"[ETC]/musterd.toml: instances.acme.url","value":"https://acme.service-now.com"}"#);
    insta::assert_snapshot!(json["instances"]["acme"]["auth"]["client_secret"], @r#"{"from":"[ETC]/musterd.toml: instances.acme.auth.client_secret.file","value":{"file":"[ETC]/secret"}}"#);
    insta::assert_snapshot!(json["instances"]["acme"]["guard"]["blanking"]["count"], @r#"{"from":"default","value":200}"#);
    insta::assert_snapshot!(json["warnings"], @"[]");
}

#[test]
fn a_secret_of_a_later_layer_replaces_the_way_of_an_earlier_one() {
    let etc = Etc::new()
        .file(ACME)
        .env("MUSTERD__INSTANCES__ACME__AUTH__CLIENT_SECRET__ENV", "ACME")
        .env("ACME", "canary");
    let settings = etc.load();
    let AuthOptions::ClientCredentials { client_secret, .. } =
        &settings.instances[&name("acme")].client.auth
    else {
        panic!("another type of auth");
    };
    let SecretSource::Env { name, value } = client_secret else {
        panic!("another way");
    };
    assert_eq!((name.as_str(), value.expose_secret()), ("ACME", "canary"));
}

#[test]
fn a_type_of_a_later_layer_leaves_the_keys_of_an_earlier_one_behind() {
    let etc = Etc::new()
        .file(ACME)
        .env("MUSTERD__INSTANCES__ACME__AUTH__TYPE", "bearer")
        .env("MUSTERD__INSTANCES__ACME__AUTH__TOKEN", "canary");
    let settings = etc.load();
    let auth = &settings.instances[&name("acme")].client.auth;
    assert!(matches!(
        auth,
        AuthOptions::Bearer {
            token: SecretSource::Literal(_)
        }
    ));
    assert!(
        settings.warnings[0].starts_with("environment: `MUSTERD__INSTANCES__ACME__AUTH__TOKEN`")
    );
}

#[test]
fn a_variable_for_a_table_and_one_for_its_key_are_refused() {
    let etc = Etc::new()
        .file(ACME)
        .env("MUSTERD__INSTANCES__ACME__AUTH__CLIENT_SECRET", "canary")
        .env("MUSTERD__INSTANCES__ACME__AUTH__CLIENT_SECRET__ENV", "ACME")
        .env("ACME", "canary");
    assert!(etc.mistakes().contains("is set as a whole, and"));
}

#[test]
fn a_credential_is_a_file_that_systemd_lays_out() {
    let etc = Etc::new().file(&ACME.replace("file = \"secret\"", "credential = \"acme\""));
    let path = etc.secret("credentials/acme", "canary\n");
    let etc = etc.env(
        "CREDENTIALS_DIRECTORY",
        path.parent().unwrap().to_str().unwrap(),
    );
    let settings = etc.load();
    let auth = &settings.instances[&name("acme")].client.auth;
    assert!(
        matches!(auth, AuthOptions::ClientCredentials { client_secret: SecretSource::Credential { path: Some(read), .. }, .. } if *read == path)
    );
}

#[test]
fn secrets_need_not_be_there_before_they_are_used() {
    let bearers = |one: &str, two: &str| {
        let instance = |name: &str, secret: &str| {
            format!(
                "[instances.{name}]\nurl = 'https://a.example'\nauth = {{ type = 'bearer', token = {{ {secret} }} }}\n"
            )
        };
        instance("a", one) + &instance("b", two)
    };
    let loads = |text: &str, secrets| {
        let etc = Etc::new().file(text);
        let sources = Sources {
            secrets,
            ..etc.sources()
        };
        config::load(&sources).map_err(|error| error.to_string())
    };
    let heartbeat = "metrics.heartbeat = { credential = 'beat' }\n";
    let by_hand = heartbeat.to_owned() + &bearers("credential = 'a'", "credential = 'b'");
    let told = loads(&by_hand, Secrets::All).unwrap_err();
    for name in ["a", "b", "beat"] {
        assert!(
            told.contains(&format!("the credential `{name}` is not here")),
            "{told}"
        );
    }
    let settings = loads(&by_hand, Secrets::AllButCredentials).unwrap();
    let source = settings.metrics.heartbeat.unwrap();
    let told = source.read().unwrap_err();
    assert!(told.to_string().contains("`beat`"), "{told}");
    assert!(told.hint().contains("systemd-run"), "{told}");

    // What is not there as a file is a mistake for whoever needs it, and for nobody else.
    let absent = bearers("file = 'absent'", "env = 'ABSENT'");
    assert!(loads(&absent, Secrets::AllButCredentials).is_err());
    assert_eq!(loads(&absent, Secrets::None).unwrap().instances.len(), 2);
    // One secret is one account, whether it was read or not.
    let twice = bearers("credential = 'a'", "credential = 'a'");
    for secrets in [Secrets::AllButCredentials, Secrets::None] {
        let told = loads(&twice, secrets).unwrap_err();
        assert!(told.contains("the same account"), "{told}");
    }
}

#[test]
fn a_secret_file_that_others_may_use_is_warned_about() {
    let etc = Etc::new().file(ACME);
    let path = etc.folder().join("secret");
    for (mode, warned) in [
        (0o400, false),
        (0o600, false),
        (0o640, true),
        (0o604, true),
        (0o620, true),
        (0o666, true),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let warnings = etc.load().warnings;
        assert_eq!(!warnings.is_empty(), warned, "{mode:o}: {warnings:?}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    insta::assert_snapshot!(etc.censor(&etc.load().warnings.join("\n")), @r#"[ETC]/musterd.toml: `instances.acme.auth.client_secret.file`: others than its owner may read or write `[ETC]/secret` (its mode is 0644); run `chmod 600` on it"#);
}

#[test]
fn history_may_be_kept_for_ever() {
    let etc = Etc::new().file("[mirror]\nhistory = \"forever\"\n");
    assert_eq!(etc.load().mirror.history, None);
}

/// What a guard counts is kept as long as it counts; a person who wanted less is told.
#[test]
fn a_history_shorter_than_the_longest_window_of_a_guard_is_warned_about() {
    let guards = "[instances.acme.guard]\nblanking.window = \"36h\"\n";
    let etc = |history: &str| {
        let mirror = format!("[mirror]\nhistory = {history:?}\n");
        Etc::new().file(&format!("{mirror}{ACME}{guards}"))
    };
    for enough in ["36h", "forever"] {
        assert_eq!(etc(enough).load().warnings, [""; 0], "{enough}");
    }
    insta::assert_snapshot!(etc("35h").load().warnings.join("\n"), @"`mirror.history` is 35h, but `instances.acme.guard.blanking.window` is 36h, within which a guard counts: change records are kept 36h; shorten the window as well if they must go sooner");
}

#[test]
fn the_mirror_is_found_without_looking_at_instances_or_secrets() {
    let etc = Etc::new()
        .file("[mirror]\npath = \"m.db\"\nhistory = 1\n[instances.acme]\nurl = 7\n")
        .instance("b", "not toml");
    let path = config::mirror_path(&etc.sources()).unwrap();
    assert_eq!(path, etc.folder().join("m.db"));
    let wrong = Etc::new().file("[mirror]\npath = 7\n");
    assert!(config::mirror_path(&wrong.sources()).is_err());
}

#[test]
fn a_socket_path_that_is_too_long_is_a_mistake() {
    let long = format!("/{}/m.db", "a".repeat(96));
    let file = format!("[mirror]\npath = \"{long}\"\n");
    assert_eq!(Etc::new().file(&file).load().socket.as_os_str().len(), 107);
    let file = file.replace("/m.db", "/mm.db");
    insta::assert_snapshot!(Etc::new().file(&file).mistakes(), @r#"
    the configuration is wrong
    [ETC]/musterd.toml: `mirror.path`: makes a control socket whose path has 108 bytes (got `/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/mm…`), expected at most 107; choose a shorter folder or name
    "#);
    let settings = Etc::new()
        .file(&file)
        .env("RUNTIME_DIRECTORY", "/run/musterd:/run/b")
        .load();
    assert_eq!(settings.socket, Path::new("/run/musterd/mm.db.sock"));
}

#[test]
fn keys_that_the_config_crate_reads_as_expressions_are_refused() {
    let etc = Etc::new().file("\"log.level\" = \"debug\"\n\"a[99999999999]\" = 1\n\"\" = 2\n");
    insta::assert_snapshot!(etc.mistakes(), @r#"
    the configuration is wrong
    [ETC]/musterd.toml: ``: is not a known key
    [ETC]/musterd.toml: `a[99999999999]`: is not a known key
    [ETC]/musterd.toml: `log.level`: is not a known key
    "#);
}

#[test]
fn the_digest_of_a_crawl_depends_on_what_it_sees_alone() {
    let digest = |text: &str| Etc::new().file(text).load().instances[&name("acme")].crawl_digest();
    let acme = digest(ACME);
    assert_eq!(
        digest(&ACME.replace("[instances.acme]", "[instances.acme]\npage_size = 10")),
        acme
    );
    for other in [
        ACME.replace("acme.service-now", "b.service-now"),
        ACME.replace("4f3c", "5a6b"),
        ACME.replace(
            "[instances.acme]",
            "[instances.acme]\nscim_path = \"/api/now/v1/scim\"",
        ),
    ] {
        assert_ne!(digest(&other), acme, "{other}");
    }
}

#[test]
fn secrets_are_nowhere_to_be_seen() {
    let auths = [
        "type = 'client_credentials'\nclient_id = 'a'\nclient_secret = SECRET",
        "type = 'password'\nclient_id = 'a'\nusername = 'u'\nclient_secret = SECRET\npassword = SECRET",
        "type = 'refresh_token'\nclient_id = 'a'\nclient_secret = SECRET\nrefresh_token = SECRET",
        "type = 'basic'\nusername = 'u'\npassword = SECRET",
        "type = 'bearer'\ntoken = SECRET",
    ];
    let ways = [
        "'canary'",
        "{ file = 'canary-free' }",
        "{ env = 'A' }",
        "{ credential = 'canary-free' }",
    ];
    for auth in auths {
        for way in ways {
            for url in ["https://a.example", "http://a.example"] {
                let auth = auth.replace("SECRET", way);
                let text = format!("[instances.a]\nurl = '{url}'\n[instances.a.auth]\n{auth}\n");
                let etc = Etc::new().file(&text).env("A", "canary");
                let path = etc.secret("canary-free", "canary");
                let folder = path.parent().unwrap().to_str().unwrap().to_owned();
                let etc = etc.env("CREDENTIALS_DIRECTORY", &folder);
                let reading = config::read(&etc.sources());
                assert_eq!(reading.settings.is_ok(), url.starts_with("https"), "{text}");
                let told = match &reading.settings {
                    Ok(settings) => format!("{settings:?} {:?}", settings.warnings),
                    Err(error) => format!("{error} {error:?}"),
                };
                let seen = told + &reading.shown.to_toml() + &reading.shown.to_json().to_string();
                let seen = seen.replace("canary-free", "");
                assert!(!seen.contains("canary"), "{text}\n{seen}");
            }
        }
    }
}

fn name(text: &str) -> InstanceName {
    InstanceName::parse(text).unwrap()
}

/// A folder like `/etc/musterd`, and an environment. A secret stands in its file `secret`.
struct Etc {
    folder: TempDir,
    env: BTreeMap<OsString, OsString>,
}

impl Etc {
    fn new() -> Self {
        let etc = Self {
            folder: TempDir::new().unwrap(),
            env: BTreeMap::new(),
        };
        etc.secret("secret", "canary");
        etc
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn file(self, text: &str) -> Self {
        fs::write(self.folder().join("musterd.toml"), text).unwrap();
        self
    }

    fn instance(self, name: &str, text: &str) -> Self {
        let folder = self.folder().join("instances.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{name}.toml")), text).unwrap();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    fn secret(&self, path: &str, text: &str) -> PathBuf {
        let path = self.folder().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn sources(&self) -> Sources {
        Sources {
            file: self.folder().join("musterd.toml"),
            env: self.env.clone(),
            now: "2026-02-27T12:00:00Z".parse().unwrap(),
            secrets: Secrets::All,
        }
    }

    fn load(&self) -> Settings {
        config::load(&self.sources()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Everything that is wrong, the folder's name left out.
    fn mistakes(&self) -> String {
        let error = config::load(&self.sources()).unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
        self.censor(&error)
    }

    fn config_command(&self, json: bool) -> String {
        let mut out = Vec::new();
        cli::config::run(&cli::config::Args { json }, &self.sources(), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(!out.contains("canary"), "{out}");
        self.censor(&out)
    }

    fn censor(&self, text: &str) -> String {
        text.replace(self.folder().to_str().unwrap(), "[ETC]")
    }
}
