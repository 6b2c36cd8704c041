//! What the documentation says about model families.

use blockpruner::model::families;
use blockpruner_tests::{fixture, fixture_names};

/// README.md's table has one row for each family, in the same order, and says truly how it is read and written.
#[test]
fn the_table_of_families_is_true() {
    let readme = include_str!("../../README.md");
    let (_, table) = readme.split_once("| `model_type` | models |").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let expected: Vec<Vec<String>> = families::ALL
        .iter()
        .map(|family| {
            let gguf = if family.gguf_architecture().is_some() { "yes" } else { "no" };
            // What is written without its blocks rests on a class of transformers.
            let hf = if family.in_transformers() { "`plain`, `hf`, `hf-zeroed`" } else { "`plain`, `hf-zeroed`" };
            let exports = if gguf == "yes" { format!("{hf}, `gguf`") } else { hf.to_string() };
            vec![format!("`{}`", family.name), "yes".into(), gguf.into(), exports]
        })
        .collect();
    let found: Vec<Vec<String>> =
        rows.iter().map(|row| [0, 2, 3, 4].map(|column| row[column].to_string()).to_vec()).collect();
    assert_eq!(found, expected);
    assert!(rows.iter().all(|row| row.len() == 5 && !row[1].is_empty()));
}

/// No family is without a model that is compared with transformers.
#[test]
fn every_family_has_a_fixture() {
    let covered: Vec<&str> = fixture_names().iter().map(|name| fixture(name).0.spec.family.name).collect();
    for family in families::ALL {
        assert!(covered.contains(&family.name), "{family} has no fixture");
    }
}
