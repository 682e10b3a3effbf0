//! Values on their way into columns and out of them.

use jiff::Timestamp;
use rusqlite::Row;
use rusqlite::types::Type;
use serde::de::DeserializeOwned;

/// A count as SQLite's only whole number. None of ours comes near the end of it.
pub(super) fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count that was written by [`whole`].
pub(super) fn count(row: &Row<'_>, place: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(place)?;
    u64::try_from(number).map_err(|error| unreadable(place, error))
}

/// A time that was written as text, ours or an instance's.
pub(super) fn time(row: &Row<'_>, place: usize) -> rusqlite::Result<Option<Timestamp>> {
    let text: Option<String> = row.get(place)?;
    text.map(|text| text.parse())
        .transpose()
        .map_err(|error: jiff::Error| unreadable(place, error))
}

/// A value that was written as JSON.
pub(super) fn json<T: DeserializeOwned>(
    row: &Row<'_>,
    place: usize,
) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(place)?;
    text.map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| unreadable(place, error))
}

/// A value as JSON. Ours are plain structs, which cannot fail; an error is the database's to tell all the same.
pub(super) fn to_json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn unreadable(
    place: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(place, Type::Text, error.into())
}
