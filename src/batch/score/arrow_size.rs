//! How much memory the batches of an Arrow file take, from what the file says of them.
//!
//! An Arrow file is read a whole batch at a time, and who wrote it decided how large batches are: one that
//! was written from a table in memory may be a single batch. Their sizes are looked up before any is
//! decoded. Compressed columns are refused: how large they become is only known when it is too late.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use arrow::ipc::reader::read_footer_length;
use arrow::ipc::{Block, root_as_footer, root_as_message};

use super::inputs::{Format, InputFile};

/// The most bytes of what describes a batch or the file; it grows with the number of columns and batches.
const MOST_METADATA_BYTES: u64 = 64 * 1024 * 1024;
/// The part of the memory that a batch may take.
const MOST_OF_MEMORY: u64 = 4;
/// What the file ends with: the length of its footer, and a mark.
const END_BYTES: u64 = 10;

/// The bytes that the largest batch takes, together with the dictionaries, which are kept all the time.
///
/// # Errors
/// When that cannot be read, or columns are compressed.
pub fn largest_batch(path: &Path) -> Result<u64, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let broken = |what: &str| format!("it is not a whole Arrow file: {what}");
    let footer_end = length.checked_sub(END_BYTES);
    let footer_end = footer_end.ok_or_else(|| broken("it is too short"))?;
    let mut end = [0; END_BYTES as usize];
    file.seek(SeekFrom::Start(footer_end)).map_err(failed)?;
    file.read_exact(&mut end).map_err(failed)?;
    let footer_bytes = read_footer_length(end).map_err(|_| {
        broken("it has no footer (an Arrow stream is read by the server, not from a file)")
    })?;
    let footer_begin = footer_end.checked_sub(footer_bytes as u64);
    let footer_begin = footer_begin.ok_or_else(|| broken("its footer is longer than the file"))?;
    if footer_bytes as u64 > MOST_METADATA_BYTES {
        return Err(broken("its footer is too large"));
    }
    let footer = read_at(&mut file, footer_begin, footer_bytes).map_err(failed)?;
    let footer = root_as_footer(&footer).map_err(|error| broken(&error.to_string()))?;
    let mut largest = 0;
    for block in footer.recordBatches().into_iter().flatten() {
        largest = largest.max(bytes_of(&mut file, block, footer_begin)?);
    }
    let mut dictionaries: u64 = 0;
    for block in footer.dictionaries().into_iter().flatten() {
        let bytes = bytes_of(&mut file, block, footer_begin)?;
        dictionaries = dictionaries.saturating_add(bytes);
    }
    Ok(largest.saturating_add(dictionaries))
}

/// What the batches of Arrow inputs take: the one that is being read, and the one before it, of which rows
/// are still being scored.
///
/// # Errors
/// A file whose batches are too large for `memory`, or that is no Arrow file.
pub fn kept_bytes(files: &[InputFile], memory: u64) -> Result<u64, String> {
    let mut largest = 0;
    let is_arrow = |file: &&InputFile| Format::of(&file.path) == Some(Format::Arrow);
    for file in files.iter().filter(is_arrow) {
        let checked = check(&file.path, memory / MOST_OF_MEMORY);
        let bytes = checked.map_err(|problem| format!("{}: {problem}", file.path.display()))?;
        largest = largest.max(bytes);
    }
    Ok(2 * largest)
}

/// Checks that no batch takes more than `most` bytes.
///
/// # Errors
/// How large the largest one is, and how to write smaller ones.
pub fn check(path: &Path, most: u64) -> Result<u64, String> {
    let largest = largest_batch(path)?;
    if largest <= most {
        return Ok(largest);
    }
    let mebibytes = |bytes: u64| bytes.div_ceil(1024 * 1024);
    Err(format!(
        "its largest record batch takes {} MiB, and a batch is read as a whole: at most {} MiB fit (of \
         an input, a quarter of --memory). Write smaller batches (Polars: write_ipc(…, record_batch_size=65536); \
         pyarrow: write_table(…, max_chunksize=65536)), write Parquet, or give it more --memory",
        mebibytes(largest),
        mebibytes(most)
    ))
}

fn read_at(file: &mut File, at: u64, bytes: usize) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut buffer)?;
    Ok(buffer)
}

/// The bytes of one batch, which lies before `end`.
fn bytes_of(file: &mut File, block: &Block, end: u64) -> Result<u64, String> {
    let broken = || "it is not a whole Arrow file: a record batch lies outside of it".to_owned();
    let begin = u64::try_from(block.offset()).map_err(|_| broken())?;
    let described = u64::try_from(block.metaDataLength()).map_err(|_| broken())?;
    let body = u64::try_from(block.bodyLength()).map_err(|_| broken())?;
    let total = described.checked_add(body).ok_or_else(broken)?;
    let is_inside = begin.checked_add(total).is_some_and(|last| last <= end);
    if !is_inside || !(8..=MOST_METADATA_BYTES).contains(&described) {
        return Err(broken());
    }
    let size = usize::try_from(described).map_err(|_| broken())?;
    let message = read_at(file, begin, size).map_err(|error| error.to_string())?;
    // A mark of four bytes that older files do not have, and the length.
    let prefix = if message.starts_with(&[0xff; 4]) {
        8
    } else {
        4
    };
    let message = root_as_message(message.get(prefix..).unwrap_or_default());
    let message = message.map_err(|error| format!("a record batch: {error}"))?;
    let in_dictionary = || {
        message
            .header_as_dictionary_batch()
            .and_then(|it| it.data())
    };
    let batch = message.header_as_record_batch().or_else(in_dictionary);
    if batch.is_some_and(|batch| batch.compression().is_some()) {
        return Err("its columns are compressed; write them without (pandas: \
             to_feather(…, compression=\"uncompressed\"); Polars: write_ipc(…, \
             compression=\"uncompressed\")), or write Parquet"
            .to_owned());
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use arrow::ipc::writer::FileWriter;
    use std::sync::Arc;

    fn write(path: &Path, batches: &[i64]) {
        let batch = |rows: i64| {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
            RecordBatch::try_from_iter([("n", numbers)]).unwrap()
        };
        let schema = batch(0).schema();
        let mut writer = FileWriter::try_new(File::create(path).unwrap(), &schema).unwrap();
        for rows in batches {
            writer.write(&batch(*rows)).unwrap();
        }
        writer.finish().unwrap();
    }

    #[test]
    fn the_largest_batch_counts_and_one_that_is_too_large_is_refused_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.arrow");
        write(&file, &[10, 1000, 20]);
        let largest = largest_batch(&file).unwrap();
        assert!((8000..9000).contains(&largest), "{largest}");
        assert_eq!(check(&file, 9000), Ok(largest));
        let problem = check(&file, 7000).unwrap_err();
        assert!(problem.contains("record_batch_size"), "{problem}");
        write(&file, &[]);
        assert_eq!(largest_batch(&file), Ok(0));
    }

    #[test]
    fn a_file_that_is_cut_or_says_nonsense_of_itself_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.arrow");
        write(&file, &[100]);
        let whole = std::fs::read(&file).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&file, &whole[..length]).unwrap();
            assert!(largest_batch(&file).is_err(), "cut after {length} bytes");
        }
        let footer = whole.len()
            - 10
            - i32::from_le_bytes(whole[whole.len() - 10..whole.len() - 6].try_into().unwrap())
                as usize;
        for at in footer..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            std::fs::write(&file, &changed).unwrap();
            // It may still be read; what it must not do is take more than there is.
            if let Ok(bytes) = largest_batch(&file) {
                assert!(bytes <= whole.len() as u64, "byte {at}");
            }
        }
    }
}
