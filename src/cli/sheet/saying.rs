//! What the instance said of a user who is held, in words: of one, and of many alike.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::cli::words;
use crate::mirror::read::HeldRow;
use crate::model::{Foreign, Kind, membership};

/// What the instance said of one user.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Saying {
    /// It answered 404 at this time, between two living witnesses who share this with the user.
    Gone {
        asked_at: String,
        shares: String,
    },
    /// A crawl did not see the user, and nobody asked.
    Unseen,
    Inactive,
    /// Nothing for an attribute that had this value.
    Blank {
        path: String,
        was: String,
    },
    New,
    /// The list of a group has this member no more.
    Removed {
        group: String,
    },
    /// Something else for these.
    Otherwise {
        paths: String,
    },
}

impl Saying {
    pub(super) fn of(row: &HeldRow) -> Self {
        let read = |json: &Option<Box<RawValue>>| -> Value {
            json.as_ref()
                .and_then(|json| serde_json::from_str(json.get()).ok())
                .unwrap_or_default()
        };
        let changed = read(&row.changed);
        let text = |value: &Value| Foreign(value.as_str().unwrap_or("-")).to_string();
        if changed["gone_at"]["to"].is_string() {
            let proof = read(&row.proof);
            return match proof.is_null() {
                true => Self::Unseen,
                false => Self::Gone {
                    asked_at: text(&proof["asked_at"]),
                    shares: text(&proof["witnesses"][0]["shares"]),
                },
            };
        }
        if let ("Membership", Some([group, _])) = (&*row.resource, membership::parts(&row.id)) {
            return Self::Removed {
                group: Foreign(&group).to_string(),
            };
        }
        match row.path.as_str() {
            "active" => Self::Inactive,
            "all" if row.kind == Kind::Create.as_str() => Self::New,
            "all" => {
                let paths = changed
                    .as_object()
                    .into_iter()
                    .flat_map(|paths| paths.keys());
                let paths: Vec<String> = paths.map(|path| Foreign(path).to_string()).collect();
                Self::Otherwise {
                    paths: paths.join(", "),
                }
            }
            path => {
                let was = match &changed[path]["from"] {
                    Value::Null => text(&changed[format!("{path}_id")]["from"]),
                    Value::String(was) => Foreign(was).to_string(),
                    other => Foreign(&other.to_string()).to_string(),
                };
                Self::Blank {
                    path: Foreign(path).to_string(),
                    was: words::clip(&was, MAX_VALUE_CHARS),
                }
            }
        }
    }

    /// As it is counted.
    pub(super) fn of_many(&self) -> String {
        match self {
            Self::Gone { .. } => {
                "answer 404 when asked for, between two living witnesses".to_owned()
            }
            Self::Unseen => "are not shown any more, and were not asked for".to_owned(),
            Self::Inactive => "are inactive (`active: false`)".to_owned(),
            Self::Blank { path, .. } => {
                format!("have nothing for `{path}`, where the mirror has a value")
            }
            Self::Removed { group } => format!("are not in the list of group {group} any more"),
            Self::New => "are new: they were not known before".to_owned(),
            Self::Otherwise { .. } => "are other than the mirror has them".to_owned(),
        }
    }

    pub(super) fn of_one(&self) -> String {
        match self {
            Self::Gone { asked_at, shares } => {
                let witnesses = match shares.as_str() {
                    "nothing" => "two living witnesses".to_owned(),
                    shares => format!("two living witnesses of the same {shares}"),
                };
                format!("answered 404 when asked for at {asked_at}, between {witnesses}")
            }
            // Why nobody asked is said above, by the limit.
            Self::Unseen => {
                "not shown any more, and not asked for: no proof yet, approving asks".to_owned()
            }
            Self::Inactive => "says `active: false`".to_owned(),
            Self::Blank { path, was } => format!("says nothing for `{path}`, which was {was}"),
            Self::Removed { group } => format!("not in the list of group {group} any more"),
            Self::New => "not known before".to_owned(),
            Self::Otherwise { paths } => format!("says otherwise: {paths}"),
        }
    }
}

/// The longest old value that is shown in full; `--json` has them all.
const MAX_VALUE_CHARS: usize = 60;
