//! Rows of Parquet files, by the `parquet` crate without Arrow.

use super::Row;
use crate::{Place, TextError};
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The rows of a file; lists and structures become JSON's.
pub(super) fn rows(bytes: Bytes, path: &Path) -> Result<Vec<Row>, TextError> {
    let broken = |reason: String| TextError::Parquet { path: path.to_path_buf(), reason };
    // The crate checks most of what files say, but damaged pages can make it panic.
    let values = match catch_unwind(AssertUnwindSafe(|| values(bytes))) {
        Ok(values) => values.map_err(|error| broken(error.to_string()))?,
        Err(_) => return Err(broken("a page of it is damaged".to_owned())),
    };
    let row = |(number, value): (usize, Value)| match value {
        Value::Object(fields) => Ok(Row { fields, place: Place::Row(path.to_path_buf(), number + 1) }),
        other => Err(broken(format!("row {} is {}, expected fields", number + 1, super::type_name(&other)))),
    };
    values.into_iter().enumerate().map(row).collect()
}

fn values(bytes: Bytes) -> Result<Vec<Value>, ParquetError> {
    let reader = SerializedFileReader::new(bytes)?;
    reader.get_row_iter(None)?.map(|row| Ok(row?.to_json_value())).collect()
}
