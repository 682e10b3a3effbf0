//! Times of an instance as text: RFC 3339 in all its forms, and what looks like it. Held against
//! another library's reading.

use std::cell::Cell;

use chrono::DateTime;
use fastrand::Rng;
use jiff::Timestamp;
use musterd::model::time::{our_text, parse_lenient, their_text};
use musterd::reconcile::decode::head;
use proptest::{prop_assert, prop_assert_eq};

use super::{Corpus, Target, mutate};

const WORDS: &[&str] = &[
    "Z",
    "z",
    "T",
    "t",
    " ",
    "+00:00",
    "-00:00",
    "+23:59",
    "-23:59",
    "+24:00",
    "+0100",
    "+01",
    "[Europe/Berlin]",
    "[u-ca=hebrew]",
    "[!UTC]",
    ".",
    ",",
    ".000",
    ".123456789",
    ".12345678901234567890",
    ":60",
    ":61",
    "24:00:00",
    "00:00:00",
    "23:59:60",
    "0000-01-01",
    "0001-01-01",
    "9999-12-31",
    "9999-12-30T21:59:59",
    "10000-01-01",
    "-000001-",
    "+002026-",
    "1970-01-01",
    "2026-02-29",
    "2024-02-29",
    "2026-W09-5",
    "2026-058",
    "20260227T120000Z",
    "−",
    "０",
    "now",
    "1772193600",
];

const TARGET: Target = Target {
    name: "times",
    executions: 40_000,
    make,
};

fn make(rng: &mut Rng, corpus: &Corpus) -> Vec<u8> {
    let mut input = match rng.u8(..4) {
        0 => corpus.draw(rng).to_vec(),
        _ => stamp(rng).into_bytes(),
    };
    if rng.u8(..3) == 0 {
        let other = corpus.draw(rng);
        mutate::spoil(rng, &mut input, WORDS, other);
    }
    input.truncate(200);
    input
}

/// A stamp of RFC 3339, or a little beside it.
fn stamp(rng: &mut Rng) -> String {
    let year = match rng.u8(..4) {
        0 => rng
            .choice([0, 1, 999, 1582, 1969, 1970, 9998, 9999])
            .unwrap(),
        _ => rng.u16(2000..2100),
    };
    let mut text = format!(
        "{year:04}-{:02}-{:02}{}{:02}:{:02}:{:02}",
        rng.u8(0..=13),
        rng.u8(0..=32),
        rng.choice(["T", "T", "T", "t", " "]).unwrap(),
        rng.u8(0..=24),
        rng.u8(0..=60),
        rng.u8(0..=61),
    );
    if rng.bool() {
        text.push('.');
        for _ in 0..rng.u8(..=20) {
            text.push(rng.digit(10));
        }
    }
    match rng.u8(..6) {
        0 => {}
        1 => text.push('z'),
        2 | 3 => text.push('Z'),
        _ => {
            text.push(if rng.bool() { '+' } else { '-' });
            text.push_str(&format!("{:02}:{:02}", rng.u8(0..=25), rng.u8(0..=61)));
        }
    }
    text
}

#[test]
fn fuzz() {
    let count = Cell::new(0_u64);
    TARGET.run(|input| {
        let text = String::from_utf8_lossy(input);
        let time = parse_lenient(&text);
        prop_assert_eq!(time, wanted(text.trim()), "`{}`", text);

        // As a resource has it.
        let json = serde_json::Value::from(&*text);
        let head = head(&format!(r#"{{"meta":{{"lastModified":{json}}},"id":"a"}}"#)).unwrap();
        prop_assert_eq!(head.modified_at, time);

        let Some(time) = time else { return Ok(()) };
        count.set(count.get() + 1);
        let theirs = their_text(time);
        prop_assert_eq!(parse_lenient(&theirs), Some(time), "{}", theirs);
        prop_assert_eq!(theirs.parse::<Timestamp>().ok(), Some(time));
        let ours = our_text(time);
        prop_assert_eq!(ours.len(), "2026-02-27T12:00:00.000Z".len());
        let again = parse_lenient(&ours).unwrap();
        prop_assert!(
            (0..1_000_000).contains(&time.duration_since(again).as_nanos()),
            "{ours} for {theirs}"
        );
        Ok(())
    });
    assert!(count.get() > 1_000, "{} were times", count.get());
}

/// What RFC 3339 section 5.6 has, by its own grammar and `chrono`'s arithmetic; an offset may be
/// without its colon or missing, which means UTC (facts page, Q42). Of a leap second no library here keeps more than the
/// fraction. Years before 0000 and beyond 9999 have no text.
fn wanted(text: &str) -> Option<Timestamp> {
    let digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    let parts = |text: &str, mark: char| text.split(mark).map(str::to_owned).collect::<Vec<_>>();
    let (date, rest) = text.split_at_checked(10)?;
    let date = parts(date, '-');
    let [year, month, day] = date.as_slice() else {
        return None;
    };
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let time = parts(time, ':');
    let [hour, minute, second] = time.as_slice() else {
        return None;
    };
    if !digits(year, 4)
        || ![month, day, hour, minute, second]
            .iter()
            .all(|part| digits(part, 2))
    {
        return None;
    }
    let end_of_fraction = rest
        .find(|c: char| c != '.' && !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (fraction, offset) = rest.split_at(end_of_fraction);
    if !fraction.is_empty()
        && !fraction
            .strip_prefix('.')
            .is_some_and(|f| !f.is_empty() && digits(f, f.len()))
    {
        return None;
    }
    let offset = match offset {
        "" | "Z" | "z" => "Z",
        other => {
            let both = other.strip_prefix(['+', '-'])?;
            let (hours, minutes) = both.split_once(':').or(both.split_at_checked(2))?;
            if !digits(hours, 2) || !digits(minutes, 2) || hours > "23" || minutes > "59" {
                return None;
            }
            &format!("{}{hours}:{minutes}", &other[..1])
        }
    };
    let fraction = &fraction[..fraction.len().min(10)];
    let whole = format!("{year}-{month}-{day}T{hour}:{minute}:{second}{fraction}{offset}");
    let time = DateTime::parse_from_rfc3339(&whole).ok()?;
    let nanos = i128::from(time.timestamp()) * 1_000_000_000
        + i128::from(time.timestamp_subsec_nanos() % 1_000_000_000);
    let time = Timestamp::from_nanosecond(nanos).ok()?;
    (time >= "0000-01-01T00:00:00Z".parse().unwrap()).then_some(time)
}
