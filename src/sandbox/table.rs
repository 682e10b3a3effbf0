//! A table in the order of `sys_id`, which is the order of the primary key: without regard to case,
//! as the platform's database compares text (facts page, section 6).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;

use super::column::Attribute;
use super::directory::Directory;

/// The tables of names that users refer to (facts page, section 9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `core_company`.
    Company,
    /// `cmn_cost_center`.
    CostCenter,
    /// `cmn_department`.
    Department,
    /// `cmn_location`.
    Location,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Company,
        Self::CostCenter,
        Self::Department,
        Self::Location,
    ];

    /// The SCIM resource type.
    #[must_use]
    pub fn resource_type(self) -> &'static str {
        match self {
            Self::Company => "Company",
            Self::CostCenter => "CostCenter",
            Self::Department => "Department",
            Self::Location => "Location",
        }
    }

    /// The endpoint below the SCIM path.
    #[must_use]
    pub fn endpoint(self) -> &'static str {
        match self {
            Self::Company => "Companies",
            Self::CostCenter => "CostCenters",
            Self::Department => "Departments",
            Self::Location => "Locations",
        }
    }

    /// The schema of its resources.
    #[must_use]
    pub fn schema(self) -> &'static str {
        match self {
            Self::Company => "urn:ietf:params:scim:schemas:custom:servicenow:2.0:Company",
            Self::CostCenter => "urn:ietf:params:scim:schemas:custom:servicenow:2.0:CostCenter",
            Self::Department => "urn:ietf:params:scim:schemas:custom:servicenow:2.0:Department",
            Self::Location => "urn:ietf:params:scim:schemas:custom:servicenow:2.0:Location",
        }
    }
}

/// One value of a record, as filters and sorts compare it. An empty column is [`Field::Missing`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field<'a> {
    /// Text; never empty.
    Text(Cow<'a, str>),
    /// A flag.
    Flag(bool),
    /// A stamp.
    Time(Timestamp),
    /// No value.
    Missing,
}

impl<'a> Field<'a> {
    /// Text, or nothing where it is empty.
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        let text = text.into();
        if text.is_empty() {
            Self::Missing
        } else {
            Self::Text(text)
        }
    }
}

/// A row that can be listed.
pub(super) trait Record {
    /// Its key.
    fn sys_id(&self) -> &str;

    /// One of its values; labels are read from `directory` at query time.
    fn field<'a>(&'a self, attribute: Attribute, directory: &'a Directory) -> Field<'a>;

    /// What a filter means by this path; `None` where it cannot be filtered by.
    fn filterable(path: &str) -> Option<Attribute>;

    /// What a sort means by this path.
    fn sortable(path: &str) -> Option<Attribute>;
}

/// Rows in ascending order of their key.
#[derive(Clone, Debug)]
pub(super) struct Rows<T>(Vec<Arc<T>>);

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Record> Rows<T> {
    /// Takes rows in any order; of rows with one key the last stays.
    #[must_use]
    pub(super) fn from_unsorted(rows: Vec<T>) -> Self {
        let mut rows: Vec<Arc<T>> = rows.into_iter().map(Arc::new).collect();
        rows.reverse();
        rows.sort_by(|a, b| compare_ids(a.sys_id(), b.sys_id()));
        rows.dedup_by(|a, b| a.sys_id() == b.sys_id());
        Self(rows)
    }

    /// All rows.
    #[must_use]
    pub(super) fn as_slice(&self) -> &[Arc<T>] {
        &self.0
    }

    /// The row with exactly this key.
    #[must_use]
    pub(super) fn get(&self, id: &str) -> Option<&Arc<T>> {
        place(&self.0, id).ok().map(|place| &self.0[place])
    }

    /// Puts a row in its place and gives back the one that stood there.
    pub(super) fn put(&mut self, row: Arc<T>) -> Option<Arc<T>> {
        match place(&self.0, row.sys_id()) {
            Ok(place) => Some(std::mem::replace(&mut self.0[place], row)),
            Err(place) => {
                self.0.insert(place, row);
                None
            }
        }
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, id: &str) -> Option<Arc<T>> {
        place(&self.0, id).ok().map(|place| self.0.remove(place))
    }
}

/// Where the row with exactly this key stands in rows that ascend by key, or would stand.
pub(super) fn place<T: Record>(rows: &[Arc<T>], id: &str) -> Result<usize, usize> {
    rows.binary_search_by(|row| compare_ids(row.sys_id(), id))
}

/// Bounds on the key, without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyBounds {
    /// The lowest: its text, and whether it is itself within.
    pub low: Option<(String, bool)>,
    /// The highest.
    pub high: Option<(String, bool)>,
}

impl KeyBounds {
    /// The part of `rows` within the bounds.
    #[must_use]
    pub(super) fn range<T: Record>(&self, rows: &[Arc<T>]) -> Range<usize> {
        let start = self.low.as_ref().map_or(0, |(low, within)| {
            rows.partition_point(|row| match fold_compare(row.sys_id(), low) {
                Ordering::Less => true,
                Ordering::Equal => !within,
                Ordering::Greater => false,
            })
        });
        let end = self.high.as_ref().map_or(rows.len(), |(high, within)| {
            rows.partition_point(|row| match fold_compare(row.sys_id(), high) {
                Ordering::Less => true,
                Ordering::Equal => *within,
                Ordering::Greater => false,
            })
        });
        start..end.max(start)
    }
}

/// The order of keys: without regard to case; keys equal but for case in the order of their bytes.
#[must_use]
pub(super) fn compare_ids(a: &str, b: &str) -> Ordering {
    fold_compare(a, b).then_with(|| a.cmp(b))
}

fn fold_compare(a: &str, b: &str) -> Ordering {
    a.bytes()
        .map(|byte| byte.to_ascii_lowercase())
        .cmp(b.bytes().map(|byte| byte.to_ascii_lowercase()))
}
