//! Fault scripts: TOML, one `[[fault]]` for each fault.
//!
//! ```toml
//! [[fault]]
//! kind = "html_page"          # what it does: an effect, with its members beside it
//! name = "hibernating"        # what the report calls it; default: the kind
//! on = ["list"]               # list, get, write, token, discovery, other; default: where it shows
//! path = "/api/now/scim/Users?*"   # path and query; `*` is anything
//! request = [10, 12]          # the first and the last of those, counted from 1, or one number
//! every = 2                   # each second of those
//! after = "5m"                # since the faults were set
//! until = "10m"
//! probability = 0.5
//! times = 3                   # at most
//! ```

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::effect::Effect;
use super::faults::Fault;
use super::route::RequestKind;

/// What can be wrong with a script.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file cannot be read.
    #[error("cannot read the fault script `{path}`")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, or holds something but faults.
    #[error("the fault script is not a list of `[[fault]]` tables")]
    NotAScript(#[source] toml::de::Error),
    /// When a fault fires cannot be understood.
    #[error("fault {number} of the script: cannot understand when it fires")]
    When {
        /// Which fault, counted from 1.
        number: usize,
        /// Why.
        #[source]
        source: toml::de::Error,
    },
    /// What a fault does cannot be understood.
    #[error("fault {number} of the script: cannot understand what it does")]
    What {
        /// Which fault, counted from 1.
        number: usize,
        /// Why.
        #[source]
        source: toml::de::Error,
    },
    /// A number is out of bounds.
    #[error("fault {number} of the script: `{key}` must be {expected}")]
    OutOfBounds {
        /// Which fault, counted from 1.
        number: usize,
        /// Which key.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// Reads a script from a file.
///
/// # Errors
/// When the file cannot be read or understood.
pub fn read_script(path: &Path) -> Result<Vec<Fault>, ScriptError> {
    let text = std::fs::read_to_string(path).map_err(|source| ScriptError::Unreadable {
        path: path.display().to_string(),
        source,
    })?;
    parse_script(&text)
}

/// Reads a script.
///
/// # Errors
/// When it cannot be understood.
pub(super) fn parse_script(text: &str) -> Result<Vec<Fault>, ScriptError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Script {
        #[serde(default)]
        fault: Vec<toml::Table>,
    }

    let script: Script = toml::from_str(text).map_err(ScriptError::NotAScript)?;
    let numbered = script.fault.into_iter().enumerate();
    numbered
        .map(|(place, table)| read_fault(place + 1, table))
        .collect()
}

/// When a fault fires, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct When {
    name: Option<String>,
    on: Option<Vec<RequestKind>>,
    path: Option<String>,
    request: Option<Requests>,
    every: Option<u64>,
    after: Option<jiff::SignedDuration>,
    until: Option<jiff::SignedDuration>,
    probability: Option<f64>,
    times: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a number, or the first and the last of a run")]
enum Requests {
    One(u64),
    Run([u64; 2]),
}

const WHEN_KEYS: [&str; 9] = [
    "name",
    "on",
    "path",
    "request",
    "every",
    "after",
    "until",
    "probability",
    "times",
];

fn read_fault(number: usize, table: toml::Table) -> Result<Fault, ScriptError> {
    let (when, what): (toml::Table, toml::Table) = table
        .into_iter()
        .partition(|(key, _)| WHEN_KEYS.contains(&key.as_str()));
    let when: When = when
        .try_into()
        .map_err(|source| ScriptError::When { number, source })?;
    let effect: Effect = what
        .try_into()
        .map_err(|source| ScriptError::What { number, source })?;
    let out_of_bounds = |key, expected| ScriptError::OutOfBounds {
        number,
        key,
        expected,
    };

    let mut fault = Fault::new(effect);
    if let Some(name) = when.name {
        fault = fault.named(name);
    }
    if let Some(kinds) = when.on {
        fault = fault.on(&kinds);
    }
    if let Some(path) = when.path {
        fault = fault.path(path);
    }
    match when.request {
        Some(Requests::One(one)) if one > 0 => fault = fault.requests(one, one),
        Some(Requests::Run([from, to])) if 0 < from && from <= to => {
            fault = fault.requests(from, to);
        }
        Some(_) => return Err(out_of_bounds("request", "at least 1, and ascending")),
        None => {}
    }
    match when.every {
        Some(0) => return Err(out_of_bounds("every", "at least 1")),
        Some(every) => fault = fault.every(every),
        None => {}
    }
    let duration = |key, given: Option<jiff::SignedDuration>| {
        given
            .map(Duration::try_from)
            .transpose()
            .map_err(|_| out_of_bounds(key, "a duration that is not negative"))
    };
    if let Some(after) = duration("after", when.after)? {
        fault = fault.after(after);
    }
    if let Some(until) = duration("until", when.until)? {
        fault = fault.until(until);
    }
    match when.probability {
        Some(given) if (0.0..=1.0).contains(&given) => fault = fault.probability(given),
        Some(_) => return Err(out_of_bounds("probability", "from 0 to 1")),
        None => {}
    }
    if let Some(times) = when.times {
        fault = fault.times(times);
    }
    Ok(fault)
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Testbed;
    use super::*;

    fn error(text: &str) -> String {
        let error = parse_script(text).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    }

    #[test]
    fn a_script_says_what_happens_and_when() {
        let faults = parse_script(
            r#"
            [[fault]]
            kind = "html_page"
            name = "hibernating"
            on = ["list"]
            path = "/api/now/scim/Users*"
            request = [2, 4]
            every = 2
            after = "1m"
            until = "1h 30m"
            probability = 1
            times = 9

            [[fault]]
            kind = "header"
            header = "X-Odd"
            value = "yes"
            request = 1
            "#,
        )
        .unwrap();
        let bed = Testbed::of(5);
        bed.sandbox.set_faults(faults);
        assert_eq!(bed.list("").reply.headers["x-odd"], "yes");
        assert!(bed.get("/Users").json.is_object());
        bed.pass(60);
        bed.get("/Users");
        assert!(bed.get("/Users").json.is_null());
        let fired = bed.sandbox.fired();
        assert_eq!(fired[0].name, "hibernating");
        assert_eq!([fired[0].times, fired[1].times], [1, 1]);
    }

    #[test]
    fn mistakes_are_told_with_the_fault_and_the_word() {
        for (text, words) in [
            ("[[faults]]", "not a list of `[[fault]]` tables: "),
            (
                "[[fault]]\nkind = \"htlm_page\"",
                "fault 1 of the script: cannot understand what it does",
            ),
            ("[[fault]]\nkind = \"htlm_page\"", "htlm_page"),
            ("[[fault]]\nkind = \"slow\"", "ms"),
            ("[[fault]]\nkind = \"slow\"\nms = 1\nseconds = 2", "seconds"),
            (
                "[[fault]]\nkind = \"reset\"\n[[fault]]\nkind = \"reset\"\non = [\"lists\"]",
                "fault 2",
            ),
            (
                "[[fault]]\nkind = \"reset\"\nrequest = 0",
                "`request` must be",
            ),
            (
                "[[fault]]\nkind = \"reset\"\nrequest = [4, 2]",
                "`request` must be",
            ),
            (
                "[[fault]]\nkind = \"reset\"\nrequest = \"x\"",
                "a number, or the first and the last",
            ),
            ("[[fault]]\nkind = \"reset\"\nevery = 0", "`every` must be"),
            (
                "[[fault]]\nkind = \"reset\"\nprobability = 1.5",
                "`probability` must be",
            ),
            (
                "[[fault]]\nkind = \"reset\"\nafter = \"-5s\"",
                "`after` must be",
            ),
            (
                "[[fault]]\nkind = \"reset\"\nuntil = \"soon\"",
                "cannot understand when",
            ),
        ] {
            let told = error(text);
            assert!(told.contains(words), "{text}: {told}");
        }
    }
}
