//! Text of an instance on its way to a person (T10): no name, no word of an error forges a line or
//! steers a terminal, in any command and in any form of the log.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use base64::Engine as _;
use fastrand::Rng;
use musterd::model::Foreign;
use proptest::{prop_assert, prop_assert_eq};
use serde_json::{Value, json};

use super::{Checked, Corpus, Target, mutate};
use crate::filled::{Filled, person};
use crate::harness::{Auth, Home, Instance, Ran};
use crate::ledger;

const TARGET: Target = Target {
    name: "foreign",
    executions: 20_000,
    make,
};

/// What a terminal or a log reader takes for orders.
const WORDS: &[&str] = &[
    "\u{1b}[2J",
    "\u{1b}[31m",
    "\u{1b}]0;title\u{7}",
    "\u{1b}]8;;https://evil.example\u{1b}\\link",
    "\u{1b}]52;c;YQ==\u{7}",
    "\u{1b}P$q\u{1b}\\",
    "\u{1b}c",
    "\u{1b}[6n",
    "\u{1b}[?1049h",
    "\u{9b}31m",
    "\u{9d}0;x\u{9c}",
    "\u{90}x\u{9c}",
    "\u{85}",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\u{8}\u{8}\u{8}",
    "\u{b}",
    "\u{c}",
    "\0",
    "\u{7f}",
    "\u{202e}",
    "\u{2066}\u{202d}",
    "\u{2069}",
    "\u{200e}",
    "\u{61c}",
    "\u{2028}",
    "\u{2029}",
    "\u{200b}",
    "\u{feff}",
    "\u{e0041}",
    "\u{fff9}a\u{fffb}",
    "\u{2060}",
    "\nMar 01 12:00:00 host musterd[1]: all is well",
    "\n{\"level\":\"INFO\",\"message\":\"sync finished\"}",
    "2026-02-27T12:00:00.000Z ERROR forged",
    "\",\"level\":\"INFO",
    "\\u001b",
    "\\n",
    "\\",
    "\"",
    "'",
    "`",
    "%s%n",
    "{}",
    "{0}",
    "$(id)",
    "`id`",
    "<script>",
    "=cmd|' /C calc'!A0",
    "é",
    "東京",
    "\u{1f468}\u{200d}\u{1f469}",
    "e\u{301}",
    "ﷺ",
    "",
    " ",
];

fn make(rng: &mut Rng, corpus: &Corpus) -> Vec<u8> {
    let mut input = match rng.bool() {
        true => mutate::text(rng, 60).into_bytes(),
        false => corpus.draw(rng).to_vec(),
    };
    if rng.bool() {
        let other = corpus.draw(rng);
        mutate::spoil(rng, &mut input, WORDS, other);
    }
    input.truncate(4_000);
    input
}

#[test]
fn fuzz() {
    TARGET.run(|input| {
        let text = String::from_utf8_lossy(input);
        let shown = Foreign(&text).to_string();
        prop_assert!(is_inert(&shown), "{shown:?}");
        prop_assert_eq!(format!("{:?}", Foreign(&text)), format!("\"{shown}\""));
        shows_the_rest(&text, &shown)
    });
}

/// What is harmless is shown as it is, and what is not as the number that it has.
fn shows_the_rest(text: &str, shown: &str) -> Checked {
    let mut left = shown;
    for c in text.chars() {
        let as_it_is = left.strip_prefix(c).filter(|_| !steers(c));
        let as_number = || left.strip_prefix(&format!("\\u{{{:x}}}", u32::from(c)));
        let Some(rest) = as_it_is.or_else(as_number) else {
            prop_assert!(false, "{left:?} does not show {c:?}");
            return Ok(());
        };
        left = rest;
    }
    prop_assert_eq!(left, "");
    Ok(())
}

/// Whether a character is an order to a terminal or to who lays out a line, by Unicode's own lists:
/// `Cc`, `Bidi_Control`, the separators of lines and paragraphs, and what is never shown.
fn steers(c: char) -> bool {
    let ranges = [
        '\0'..='\x1f',
        '\x7f'..='\u{9f}',
        '\u{61c}'..='\u{61c}',
        '\u{200b}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{2064}',
        '\u{2066}'..='\u{206f}',
        '\u{feff}'..='\u{feff}',
        '\u{fff9}'..='\u{fffb}',
        '\u{e0001}'..='\u{e007f}',
    ];
    ranges.iter().any(|range| range.contains(&c))
}

fn is_inert(line: &str) -> bool {
    !line.contains(steers)
}

/// So many texts, each of them an attempt.
const N_HOSTILE: usize = 500;

/// Every order alone, between letters, and beside another.
fn hostile() -> Vec<String> {
    let mut texts: BTreeSet<String> = (0..=0xe_007f)
        .filter_map(char::from_u32)
        .filter(|c| steers(*c))
        .map(|c| format!("a{c}b"))
        .collect();
    let words = WORDS.iter().filter(|word| !word.trim().is_empty());
    texts.extend(words.clone().map(|word| (*word).to_owned()));
    let pairs = words
        .clone()
        .flat_map(|one| words.clone().map(move |other| format!("{one} Ada {other}")));
    let missing = N_HOSTILE.saturating_sub(texts.len());
    // Every so many, so that each word comes first and last in some.
    texts.extend(pairs.step_by(7).take(missing + 50));
    texts.into_iter().take(N_HOSTILE).collect()
}

#[test]
fn names_steer_no_terminal_in_any_command() {
    const EXTENSION: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
    let texts = hostile();
    assert_eq!(texts.len(), N_HOSTILE);
    let user = |n: usize, id: &str, title: Option<&str>, active: bool| {
        let text = &texts[n];
        let label = |kind: &str| json!({"value": format!("{kind}{n}"), "displayName": text});
        let mut user = person(id, text);
        user["displayName"] = json!(text);
        user["title"] = json!(title);
        user["active"] = json!(active);
        user["nickName"] = json!(title);
        user["emails"] = json!([{"value": text, "type": "work"}]);
        user[EXTENSION] = json!({"company": label("c"), "department": label("d"), "manager": {"value": ids_of(n + 1), "displayName": text}});
        // The attribute's name is the instance's, too.
        user[format!("urn:example{text}:User")] = json!({text.as_str(): title});
        user
    };
    fn ids_of(n: usize) -> String {
        format!("id-{}", n % N_HOSTILE)
    }
    // The last hundred have ids of this kind as well.
    let id = |n: usize| if n < 400 { ids_of(n) } else { texts[n].clone() };
    let users: Vec<Value> = (0..N_HOSTILE)
        .map(|n| user(n, &id(n), Some(&texts[n]), true))
        .collect();
    let mut filled = Filled::new(&users);
    // Two hundred get another title, fifty turn inactive, fifty lose their title: the last two are held.
    let changed: Vec<Value> = (0..300)
        .map(|n| match n {
            0..200 => user(n, &id(n), Some(&texts[N_HOSTILE - 1 - n]), true),
            200..250 => user(n, &id(n), Some(&texts[n]), false),
            _ => user(n, &id(n), None, true),
        })
        .collect();
    filled.apply(&changed);
    let n_holds: i64 = filled.home().one("SELECT count(*) FROM holds");
    assert!(n_holds >= 2, "{n_holds}");
    let n_changes: usize = filled
        .home()
        .one::<i64>("SELECT count(*) FROM changes")
        .try_into()
        .unwrap();
    assert!(n_changes > N_HOSTILE);

    for json in [&[][..], &["--json"]] {
        let run = |args: &[&str]| {
            let ran = filled.run(&[args, json].concat());
            every_line_is_inert(args, &ran);
            ran
        };
        let ran = run(&["changes", "--after", "0", "--limit", "100000"]);
        assert_eq!(
            ran.stdout.lines().count(),
            n_changes,
            "one line for each record"
        );
        run(&["holds", "list"]);
        for hold in 1..=n_holds {
            let ran = run(&["holds", "show", &hold.to_string()]);
            assert_eq!(ran.code, Some(0), "{ran}");
        }
        run(&["status"]);
        run(&["verify"]);
        for key in ["id-0", "id-210", "id-260"] {
            assert_eq!(run(&["user", "acme", key]).code, Some(0));
            run(&["user", "acme", key, "--history"]);
            run(&["chain", "acme", key, "--levels", "10"]);
        }
        for text in texts
            .iter()
            .skip(5)
            .step_by(50)
            .filter(|text| !text.contains('\0'))
        {
            // By a name like this, found or not: what a person typed is shown as safely.
            run(&["user", "acme", "--", text]);
        }
    }
}

fn every_line_is_inert(what: &[&str], ran: &Ran) {
    for line in ran.stdout.lines().chain(ran.stderr.lines()) {
        assert!(is_inert(line), "{what:?}: {line:?}");
    }
}

/// Instances that answer with a hostile word each: what is said of that in the log, on the command
/// line and in the mirror's `last_error`.
#[test]
fn errors_steer_no_terminal_and_forge_no_line() {
    let hostile = hostile();
    let texts = packed(&hostile);
    let origin = errors_of(texts.clone());
    let n_instances = FORMS * texts.len();
    let names: Vec<String> = (0..n_instances).map(|n| format!("i{n}")).collect();
    let accounts: Vec<String> = (0..n_instances).map(|n| n.to_string()).collect();
    let instances: Vec<Instance<'_>> = names
        .iter()
        .zip(&accounts)
        .map(|(name, account)| Instance {
            name,
            url: &origin,
            scim_path: "/api/now/scim",
            auth: Auth::Basic {
                username: account,
                password: "hush",
            },
            page_size: 200,
            more: "",
        })
        .collect();
    let mut n_lines = BTreeSet::new();
    for format in ["json", "text"] {
        // A mirror of its own each time: who was failing before is not told again.
        let home = Home::new(&instances);
        let configuration = std::fs::read_to_string(home.config_path()).unwrap();
        let configuration =
            configuration.replace("format = \"json\"", &format!("format = \"{format}\""));
        std::fs::write(home.config_path(), configuration).unwrap();
        let ran = home.run(&["sync", "--mode", "full"]);
        assert_eq!(ran.code, Some(1));
        every_line_is_inert(&["sync"], &ran);
        // Every line begins as ours do: with its time.
        let is_ours = |line: &&str| {
            let stamp = match format {
                "json" => serde_json::from_str::<Value>(line).unwrap()["timestamp"].to_string(),
                _ => line.split(' ').next().unwrap().to_owned(),
            };
            stamp.trim_matches('"').parse::<jiff::Timestamp>().is_ok()
        };
        let (ours, others): (Vec<_>, Vec<_>) = ran.stderr.lines().partition(is_ours);
        assert!(others.is_empty(), "{others:?}");
        if format == "json" {
            let finished = ours
                .iter()
                .filter(|line| line.contains(r#","message":"sync finished""#));
            assert_eq!(finished.count(), n_instances, "one line for each sync");
        }
        n_lines.insert(ran.stderr.lines().count());
        for args in [&["status"][..], &["status", "--json"]] {
            let ran = home.run(args);
            every_line_is_inert(args, &ran);
        }
        let kept: i64 = home.one("SELECT count(last_error) FROM instances");
        assert_eq!(usize::try_from(kept).unwrap(), n_instances);
    }
    assert_eq!(n_lines.len(), 1, "as many lines in every form: {n_lines:?}");
    ledger::enter("hostile_errors", FORMS * hostile.len());
}

/// Forms in which an instance refuses.
const FORMS: usize = 4;

/// As many texts in one as a message keeps.
fn packed(texts: &[String]) -> Vec<String> {
    const MOST_CHARS: usize = 200;
    let mut packed = vec![String::new()];
    for text in texts {
        let chars = |text: &str| text.chars().count();
        if chars(packed.last().unwrap()) + chars(text) > MOST_CHARS {
            packed.push(String::new());
        }
        packed.last_mut().unwrap().push_str(text);
    }
    packed
}

/// A server that answers each account with an error about one of the texts, in one of the forms.
fn errors_of(texts: Vec<String>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let account = head.iter().find_map(|line| {
                let (name, value) = line.split_once(": Basic ")?;
                let pair = base64::engine::general_purpose::STANDARD
                    .decode(value)
                    .ok()?;
                let pair = String::from_utf8(pair).ok()?;
                name.eq_ignore_ascii_case("authorization")
                    .then(|| pair.split(':').next().map(str::to_owned))?
            });
            let Some(n) = account.and_then(|account| account.parse::<usize>().ok()) else {
                continue;
            };
            let text = &texts[n / FORMS];
            let (status, kind, body) = match n % FORMS {
                0 => (403, "application/json", json!({"error": {"message": text, "detail": text}, "status": "failure"}).to_string()),
                1 => (400, "application/scim+json", json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"], "scimType": text, "detail": text}).to_string()),
                2 => (200, "text/html", format!("<html><title>{text}</title>")),
                _ => (200, "application/json", json!({"error": {"message": text}}).to_string()),
            };
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            // A client that has gone is an answer less.
            let _gone = stream.write_all(answer.as_bytes());
        }
    });
    origin
}
