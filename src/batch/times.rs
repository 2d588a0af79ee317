//! Columns of times: when something happened, when it was learned.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};

use crate::clock;

const MICROSECONDS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// When what a table says was learned: what `--known-at` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum KnownAt {
    /// When it is loaded.
    #[default]
    Now,
    /// When it happened: history that was known at once.
    Occurred,
    /// What this column says.
    Column(String),
}

impl KnownAt {
    /// Reads the value of `--known-at`.
    pub fn from_argument(argument: Option<&str>) -> KnownAt {
        match argument {
            None => KnownAt::Now,
            Some("occurred") => KnownAt::Occurred,
            Some(column) => KnownAt::Column(column.to_owned()),
        }
    }
}

/// The times of a batch of rows.
#[derive(Debug)]
pub struct Times {
    name: String,
    /// Text or microseconds.
    array: ArrayRef,
    /// The rows that have a value, in the column as it was.
    source: ArrayRef,
}

impl Times {
    /// Prepares a column of timestamps, dates (midnight in UTC) or text in RFC 3339. A timestamp without
    /// a zone is in UTC.
    ///
    /// # Errors
    /// The column, what it holds and what was expected.
    pub fn new(name: &str, column: &ArrayRef) -> Result<Times, String> {
        let array = to_micros_or_text(column).ok_or_else(|| {
            format!(
                "column {name:?}: expected timestamps, dates or text like 2026-01-31T12:00:00Z, found {}",
                column.data_type()
            )
        })?;
        Ok(Times {
            name: name.to_owned(),
            array,
            source: ArrayRef::clone(column),
        })
    }

    /// The name of the column.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The column as timestamps in microseconds without a zone, or as text.
    pub fn into_array(self) -> ArrayRef {
        self.array
    }

    /// The time in `row`, microseconds since the Unix epoch.
    ///
    /// # Errors
    /// The column and what was found instead of a time.
    pub fn at(&self, row: usize) -> Result<i64, String> {
        let missing = || {
            // A cast makes nothing of a time that is too far away to be told.
            let problem = if self.source.is_valid(row) {
                "beyond the times that can be told"
            } else {
                "missing, expected a time"
            };
            format!("{}: {problem}", self.name)
        };
        if self.array.is_null(row) {
            return Err(missing());
        }
        if let Some(times) = self.array.as_primitive_opt::<TimestampMicrosecondType>() {
            return Ok(times.value(row));
        }
        let text = self.array.as_string_opt::<i32>().ok_or_else(missing)?;
        let text = text.value(row).trim();
        if text.is_empty() {
            return Err(missing());
        }
        clock::from_rfc3339(text).map_err(|problem| format!("{}: {problem}", self.name))
    }
}

/// The column as timestamps in microseconds, or as text; `None` when it holds neither.
fn to_micros_or_text(column: &ArrayRef) -> Option<ArrayRef> {
    let target = match column.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            // The zone says how a time is shown, not when it was.
            let without_zone = cast(column, &DataType::Timestamp(*unit, None)).ok()?;
            return cast(&without_zone, &MICROSECONDS).ok();
        }
        DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64 => MICROSECONDS,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            DataType::Utf8
        }
        DataType::Dictionary(_, values) if **values == DataType::Utf8 => DataType::Utf8,
        _ => return None,
    };
    cast(column, &target).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Date32Array, Int64Array, StringArray, TimestampMillisecondArray, TimestampNanosecondArray,
    };

    use super::*;

    const NOON_US: i64 = 1_769_860_800_000_000;

    fn only(column: ArrayRef) -> Result<i64, String> {
        Times::new("opened", &column).and_then(|times| times.at(0))
    }

    #[test]
    fn times_are_read_from_text_timestamps_and_dates() {
        let text = StringArray::from(vec!["2026-01-31T13:00:00+01:00"]);
        assert_eq!(only(Arc::new(text)), Ok(NOON_US));
        let naive = TimestampMillisecondArray::from(vec![NOON_US / 1000]);
        assert_eq!(only(Arc::new(naive)), Ok(NOON_US));
        let zoned = TimestampNanosecondArray::from(vec![NOON_US * 1000]).with_timezone("+02:00");
        assert_eq!(only(Arc::new(zoned)), Ok(NOON_US));
        let day = Date32Array::from(vec![20_484]);
        assert_eq!(only(Arc::new(day)), Ok(NOON_US - 12 * 3_600_000_000));
    }

    #[test]
    fn what_is_no_time_is_said_with_its_column() {
        let columns: [ArrayRef; 5] = [
            Arc::new(StringArray::from(vec!["yesterday"])),
            Arc::new(StringArray::from(vec![""])),
            Arc::new(StringArray::from(vec![None::<&str>])),
            Arc::new(Date32Array::from(vec![i32::MAX])),
            Arc::new(Int64Array::from(vec![1_769_860_800])),
        ];
        for column in columns {
            let problem = only(column).unwrap_err();
            assert!(problem.contains("opened"), "{problem}");
        }
    }
}
