//! Every target is given the seeds and former findings of its corpus, and every base is accepted as it is.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use blockpruner::export::{Plan, SavedSearch, parse_order};
use blockpruner::model::{ModelSpec, families};
use blockpruner::text::Tokenizer;
use blockpruner_fuzz::{TARGETS, bases, results};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn no_target_finds_anything_in_its_corpus() {
    for target in TARGETS {
        let folder = corpus().join(target.name);
        let seeds = names(&folder);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for seed in seeds {
            let seed = folder.join(seed);
            eprintln!("{}", seed.display());
            (target.run)(&std::fs::read(&seed).unwrap());
        }
        // What libFuzzer begins with.
        for bytes in [&[][..], &[0], &[0xff; 64], &[0x5a; 1000]] {
            (target.run)(bytes);
        }
    }
}

#[test]
fn every_corpus_has_a_target() {
    assert_eq!(names(&corpus()), TARGETS.iter().map(|target| target.name.to_string()).collect());
}

#[test]
fn every_base_is_accepted() {
    let mut named = BTreeSet::new();
    for config in &bases::configs().documents {
        named.insert(ModelSpec::from_config(config.as_object().unwrap()).unwrap().family.name);
    }
    assert_eq!(named, families::ALL.iter().map(|family| family.name).collect());
    assert!(bases::folders().len() >= families::ALL.len());
    for tokenizer in &bases::tokenizers().documents {
        let tokenizer = Tokenizer::from_json(tokenizer.to_string().as_bytes()).unwrap();
        tokenizer.decode(&tokenizer.encode("a b").unwrap()).unwrap();
    }
    for plan in &bases::plans().documents {
        Plan::parse("plan.json", plan.to_string().as_bytes()).unwrap();
    }
    for order in &bases::orders().documents {
        parse_order("order.json", order.to_string().as_bytes()).unwrap();
    }
    for state in &bases::states().documents {
        let json = state.to_string();
        SavedSearch::resume(json.as_bytes(), &bases::fingerprint(), &bases::spec(), &bases::options()).unwrap();
    }
}

/// The target looks at more of a changed state than its digest.
#[test]
fn changed_states_are_read_behind_their_digest() {
    let resume =
        |json: &str| SavedSearch::resume(json.as_bytes(), &bases::fingerprint(), &bases::spec(), &bases::options());
    let changed = |pointer: &str| {
        let mut state = bases::states().documents[0].clone();
        *state.pointer_mut(pointer).unwrap() = 3.into();
        state.to_string()
    };
    let (harmless, wrong) = (changed("/search/work/head_tokens"), changed("/search/steps/0/step"));
    assert!(resume(&harmless).unwrap_err().to_string().contains("digest"));
    assert_eq!(resume(&results::sealed(harmless.as_bytes()).unwrap()).unwrap().work.head_tokens, 3);
    let error = resume(&results::sealed(wrong.as_bytes()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("steps[0].step"), "{error}");
}
