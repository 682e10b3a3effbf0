//! What a fault can do: the switches of the facts page's section 19.3, as data.

use serde::{Deserialize, Serialize};

use super::column::Column;

/// One kind of misbehaviour. In a script its name is the value of `kind`, its members stand beside
/// it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// 200 with a page that says the instance hibernates (Q43).
    HtmlPage,
    /// An HTML answer of an edge node.
    EdgeError {
        /// 502, 503 or 504.
        #[serde(default = "unavailable")]
        status: u16,
    },
    /// 302 (Q54).
    Redirect {
        /// Where to.
        location: String,
    },
    /// 202: nothing was executed (Q45).
    Dropped,
    /// 429 with the headers of a rule (Q46).
    RateLimited {
        /// `Retry-After` as it stands: also a date, a negative number, or nonsense (Q47).
        #[serde(default = "an_hour")]
        retry_after: String,
    },
    /// 429 without headers: the queue of a semaphore is full (Q46).
    SemaphoreFull,
    /// 401 for good credentials (Q52).
    Unauthorized,
    /// 403: the role was taken away (Q53).
    RoleMissing,
    /// 403: the token's scope lacks this interface (section 11.2).
    ScopeMissing,
    /// 403 for groups, and all else goes on: the role that reads them was taken away (Q53).
    GroupsForbidden,
    /// The plugin is off (Q53).
    PluginInactive {
        /// 400 or 404.
        #[serde(default = "not_found")]
        status: u16,
    },
    /// 500: a quota rule cancelled the transaction before the first byte (Q55).
    Cancelled,
    /// 200 with nothing but the platform's error object (section 11.3).
    ErrorInstead,
    /// Token requests are refused, as with a wrong secret (Q51).
    LoginRefused,

    /// 200, and the JSON stops in the middle and ends with an error object (Q44).
    BrokenJson {
        /// How much of the body is sent first.
        #[serde(default = "half")]
        share: f64,
    },
    /// 200 with a whole list and an error object behind it (Q44).
    TrailingError,
    /// One resource of a page is spoiled.
    PoisonedRow {
        /// Whose.
        id: String,
        /// How.
        with: Poison,
    },

    /// The connection is reset before an answer (Q56).
    Reset,
    /// The connection is cut within the body (Q56).
    Cut {
        /// How much of the body is sent first.
        #[serde(default = "half")]
        share: f64,
    },
    /// The body stops, and the connection stays.
    Stall {
        /// How much of the body is sent first.
        #[serde(default = "half")]
        share: f64,
    },
    /// The body comes byte by byte.
    Drip {
        /// Milliseconds between two bytes.
        #[serde(default = "a_second")]
        ms: u64,
    },
    /// The answer comes late (Q55).
    Slow {
        /// Milliseconds before the first byte.
        ms: u64,
    },
    /// The compressed body ends early (Q56).
    GzipCut,
    /// A small compressed body that is a large one: blanks, and nothing else.
    GzipBomb {
        /// How large.
        megabytes: u32,
    },
    /// A header has another value; an empty one takes it away.
    Header {
        /// Which.
        header: String,
        /// Its value.
        value: String,
    },

    /// The order of a list without `sortBy` is another with each request (Q3).
    OrderScrambled,
    /// Rows that tie under the sort change places (Q4).
    TiesShuffled,
    /// The sort is not done.
    SortIgnored,
    /// The sort is refused.
    SortRefused,
    /// Conditions are dropped without an error (Q13, section 13.4).
    FilterIgnored {
        /// Only when the filter names this attribute; else every filter.
        attribute: Option<String>,
    },
    /// Filters are refused.
    FilterRefused {
        /// Only when the filter names this attribute; else every filter.
        attribute: Option<String>,
    },
    /// A filter finds nobody.
    FilterFindsNobody {
        /// Only when the filter names this attribute; else every filter.
        attribute: Option<String>,
    },
    /// A filter finds everybody but those it should.
    FilterReversed {
        /// Only when the filter names this attribute; else every filter.
        attribute: Option<String>,
    },
    /// `startIndex` is not looked at.
    StartIndexIgnored,
    /// A page beyond the end is the first page again.
    FirstPageAgain,
    /// A page has fewer rows than asked for; the rest follows with the next (Q8).
    ShortPage {
        /// At most so many.
        rows: usize,
    },
    /// A page has no rows, though the total says that there are more (Q9).
    EmptyPage,
    /// One row comes twice in a page (Q14).
    RepeatedRow,
    /// One user comes twice in a page, the second time with another title; a group with another name (Q14). A full page has its last
    /// row one page later then.
    SameIdTwice {
        /// Whose id.
        id: String,
        /// The other title.
        title: String,
    },
    /// One row is left out of a page, and counted.
    RowDropped,
    /// `Resources` is missing (Q11); the rows of the page with it.
    ResourcesMissing,
    /// `Resources` is missing when it would be empty (Q11).
    EmptyWithoutResources,
    /// The total is told too low or too high (Q7).
    TotalOff {
        /// What is added to it; never below 0.
        by: i64,
    },

    /// Users who are inactive are hidden, also by id (Q24).
    InactiveHidden,
    /// A share of the users is hidden before the page is cut, also by id; always the same users.
    RowsHidden {
        /// How many, from 0 to 1; 1 is everybody (Q59).
        share: f64,
    },
    /// A share of the users is hidden after the page was cut and counted, also by id (Q8, Q9).
    RowsHiddenAfterCut {
        /// How many, from 0 to 1.
        share: f64,
    },
    /// Those with these ids are hidden before the page is cut, also by id.
    UsersHidden {
        /// Whom.
        ids: Vec<String>,
    },
    /// Lists leave users out that asking by id still finds.
    RowsUnlisted {
        /// How many of all, from 0 to 1; always the same users.
        #[serde(default)]
        share: f64,
        /// And whom besides.
        #[serde(default)]
        ids: Vec<String>,
    },
    /// Groups cannot be read: lists leave them out after the page was cut and counted, and asking by id is
    /// refused (section 13.4).
    GroupsUnreadable {
        /// Which; none named means all.
        #[serde(default)]
        ids: Vec<String>,
        /// How it is refused: 404, or 403.
        #[serde(default = "not_found")]
        status: u16,
    },
    /// Groups show nothing but `schemas`, `id` and `meta`: the right to read their columns was lost
    /// (section 13.4, field ACL).
    GroupsBlanked {
        /// Which; none named means all.
        #[serde(default)]
        ids: Vec<String>,
    },
    /// A list of members is cut off, and nothing says so (Q40).
    MembersCut {
        /// At most so many are shown.
        most: usize,
        /// Of which groups; none named means all.
        #[serde(default)]
        ids: Vec<String>,
    },
    /// A list of members is empty by error, and all else of the group is as it should be (Q40).
    MembersEmpty {
        /// Of which groups; none named means all.
        #[serde(default)]
        ids: Vec<String>,
    },
    /// Members' links end in another id than the one that is their `value` (section 9.1).
    MembersMislinked {
        /// Of which groups; none named means all.
        #[serde(default)]
        ids: Vec<String>,
    },
    /// Users show what they are members of, asked or not (section 8.1).
    MembershipsShown,
    /// Asking by id gives the next user, or the next group.
    AnotherUser,
    /// A node that shows users, groups and memberships as they were some time ago (Q6).
    NodeBehind {
        /// How long ago.
        seconds: u64,
    },
    /// An attribute is left out for everybody (section 13.4, field ACL).
    AttributeHidden {
        /// Its path.
        attribute: String,
    },

    /// What has no value is written as `""`, `null`, `[]` or `{}` (Q34).
    EmptyForms,
    /// Members and array elements come in another order each time.
    MembersShuffled,
    /// The core schema stands first in `schemas`, whose order carries no meaning (section 8.2).
    CoreSchemaFirst,
    /// References are plain strings (Q35).
    PlainReferences,
    /// The label of a reference is called `display` (Q35).
    DisplayLabels,
    /// `active` is a text (Q37).
    ActiveAsText,
    /// A top-level member is missing, whatever its value (Q38, Q28).
    MemberMissing {
        /// Its name.
        member: String,
    },
    /// A top-level member is added or replaced, as by a customised response (section 2).
    MemberAdded {
        /// Its name.
        member: String,
        /// Its JSON.
        json: String,
    },
    /// Stamps are written otherwise (Q42).
    StampForm {
        /// How.
        form: StampForm,
    },
    /// Links point elsewhere (Q41).
    LinksElsewhere {
        /// What they start with, in place of `https://HOST/api/now/scim`.
        base: String,
    },

    /// Before the answer, somebody is created whose id comes before all others (Q5); before one about
    /// groups, a group.
    RowInserted,
    /// Before the answer, the first by id is deleted (Q5); before one about groups, a group.
    RowDeleted,
    /// Before the answer, everybody is made inactive (Q59).
    EverybodyInactive,
    /// Before the answer, stamps move and nothing else (Q20); before one about groups, theirs.
    StampsMoved {
        /// Whose, from 0 to 1.
        share: f64,
    },
    /// Before the answer, titles change and no stamp moves (Q19); before one about groups, their names.
    SilentChange {
        /// Whose, from 0 to 1.
        share: f64,
    },
    /// Before the answer, titles change in a transaction that commits later (Q16).
    LateCommit {
        /// Whose, from 0 to 1.
        share: f64,
        /// When it commits.
        seconds: u64,
    },
    /// Before the answer, a department is renamed (Q32).
    DepartmentRenamed,
    /// Before the answer, users are deleted for good.
    UsersDeleted {
        /// Whom.
        #[serde(default)]
        ids: Vec<String>,
        /// And how many of all, from 0 to 1; always the same users.
        #[serde(default)]
        share: f64,
    },
    /// Before the answer, all users and groups that were deleted are recovered (Q23).
    Undeleted,
    /// Before the answer, somebody is created under an id that was set by hand (Q31), unless it is taken.
    OddId {
        /// Any text.
        id: String,
    },
    /// Before the answer, two users get one user name, but for case, and two others one address (Q26,
    /// Q27).
    Twins,
    /// Before the answer, managers get tangled: one is his own, two are each other's, one is nobody's id,
    /// and one has left (Q30).
    ManagersTangled,
    /// Before the answer, a column of users is set, as a person does in a form.
    Edited {
        /// Whose.
        ids: Vec<String>,
        /// Which, such as `title` or `department`; of a reference it is the id.
        column: Column,
        /// To what; an empty text clears it.
        value: String,
    },
    /// Before the answer, a member of a group is deleted for good, and his membership stays (section 9.1).
    MemberVanished,
    /// Before the answer, groups get nested in circles: one in itself, two in each other (Q40).
    GroupsTangled,
    /// Before the answer, a group is renamed: groups around it and its members' memberships show the new
    /// name, and its own stamp alone moves.
    GroupRenamed,
    /// Before the answer, a group is deleted for good and made anew under the same name, with the same
    /// members: under another id.
    GroupRemade,
    /// Before the answer, users, groups and memberships are set back to what they were (Q18).
    RolledBack {
        /// How long ago.
        seconds: u64,
    },
    /// Before the answer, the directory is replaced by that of another instance, and the token dies
    /// (section 14).
    Cloned {
        /// The other instance's seed.
        seed: u64,
    },
    /// Before the answer, the living access token dies (Q50).
    TokenEnds,
    /// The access token is somebody else's, too, who got it a while ago: little of its life is left (Q49,
    /// Q50).
    TokenShared {
        /// So much.
        seconds: u64,
    },
    /// Before the answer, the account locks: somebody typed five bad passwords (Q51).
    AccountLocked,
}

/// How one resource is spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Poison {
    /// A byte that is not UTF-8.
    InvalidUtf8,
    /// A raw control character in a string.
    ControlCharacter,
    /// Nested a hundred thousand times.
    Deep,
    /// A number beyond every number.
    HugeNumber,
    /// Half of a surrogate pair.
    LoneSurrogate,
    /// One key twice.
    DoubledKey,
    /// No `id`.
    NoId,
}

/// How stamps are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StampForm {
    /// With fractions of a second.
    Fraction,
    /// With an offset.
    Offset,
    /// Without a zone.
    NoZone,
    /// Not at all.
    Missing,
    /// In words.
    Nonsense,
    /// In the year 2099.
    Future,
}

impl Effect {
    /// The name that a script gives it.
    #[must_use]
    pub fn name(&self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|value| Some(value.get("kind")?.as_str()?.to_owned()))
            .unwrap_or_default()
    }
}

fn unavailable() -> u16 {
    503
}

fn not_found() -> u16 {
    404
}

fn an_hour() -> String {
    "3600".to_owned()
}

fn half() -> f64 {
    0.5
}

fn a_second() -> u64 {
    1_000
}
