//! A file that cannot be trained on is refused with the place and what to change.

use std::path::PathBuf;

use crate::common::ScratchDirectory;
use bellwether_training::table::{ColumnSpec, Kind, Table, Values};
use bellwether_training::train_churn;

const COLUMNS: [ColumnSpec; 3] = [
    ColumnSpec {
        header: "TotalCharges",
        name: "total_charges",
        kind: Kind::NumberOrBlank,
    },
    ColumnSpec {
        header: "tenure",
        name: "tenure",
        kind: Kind::Integer,
    },
    ColumnSpec {
        header: "Churn",
        name: "churn",
        kind: Kind::YesNo,
    },
];

fn file(scratch: &ScratchDirectory, text: &str) -> PathBuf {
    let file = scratch.path().join("data.csv");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_blank_total_is_missing_and_texts_stay_as_they_are() {
    // Given a file in which a total is a single space, as published.
    let scratch = ScratchDirectory::new("blank");
    let columns = [
        COLUMNS[0],
        ColumnSpec {
            header: "TechSupport",
            name: "tech_support",
            kind: Kind::Text,
        },
    ];
    let file = file(
        &scratch,
        "TechSupport,TotalCharges\nNo internet service, \nYes,10.5\n",
    );
    // When it is read.
    let table = Table::read(&file, b',', &columns).unwrap();
    // Then the total is missing and the text is unchanged.
    let total = table.column("total_charges").unwrap();
    assert_eq!(total, &Values::Number(vec![None, Some(10.5)]));
    assert_eq!(
        table.texts("tech_support").unwrap()[0],
        "No internet service"
    );
}

#[test]
fn a_wrong_cell_is_named_by_line_and_column() {
    let scratch = ScratchDirectory::new("cell");
    for (row, expected) in [
        (
            "1,twelve,No",
            "line 3, column 'tenure': expected a whole number, found 'twelve'",
        ),
        (
            "1,12,maybe",
            "line 3, column 'Churn': expected yes or no, found 'maybe'",
        ),
        (
            "inf,12,No",
            "line 3, column 'TotalCharges': expected a finite number, found 'inf'",
        ),
    ] {
        // Given a file whose second row has a cell of the wrong type.
        let file = file(
            &scratch,
            &format!("TotalCharges,tenure,Churn\n1,1,Yes\n{row}\n"),
        );
        // When it is read.
        let error = Table::read(&file, b',', &COLUMNS).unwrap_err().to_string();
        // Then the message says where, what was expected and what was found.
        assert!(error.starts_with(&file.display().to_string()), "{error}");
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn a_missing_column_is_named_with_those_found() {
    let scratch = ScratchDirectory::new("column");
    let file = file(&scratch, "tenure,Left\n1,No\n");
    let error = train_churn(&file, scratch.path()).unwrap_err().to_string();
    assert!(
        error.contains("expected a column 'gender', found only: tenure, Left"),
        "{error}"
    );
}

#[test]
fn a_row_with_too_few_fields_is_refused() {
    let scratch = ScratchDirectory::new("short");
    let file = file(&scratch, "TotalCharges,tenure,Churn\n1,1\n");
    let error = Table::read(&file, b',', &COLUMNS).unwrap_err().to_string();
    assert!(
        error.contains("is not readable as CSV") && error.contains("line: 2"),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_named() {
    let scratch = ScratchDirectory::new("absent");
    let file = scratch.path().join("absent.csv");
    let error = train_churn(&file, scratch.path()).unwrap_err().to_string();
    assert!(error.contains("absent.csv"), "{error}");
}
