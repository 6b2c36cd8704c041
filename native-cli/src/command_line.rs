//! The command as it was given, for the plan and the card of the model that it makes.

use std::path::Path;

/// The program's name and its arguments, on one line and so that a shell reads them again. Of files, only their names: where they
/// lie is nobody's business.
pub fn shown() -> String {
    let arguments = std::env::args_os().skip(1).map(|argument| quoted(&name_of(&argument.to_string_lossy())));
    std::iter::once("blockpruner".to_string()).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn name_of(argument: &str) -> String {
    let (option, value) = match argument.split_once('=') {
        Some((option, value)) if option.starts_with("--") => (format!("{option}="), value),
        _ => (String::new(), argument),
    };
    let path = Path::new(value);
    let name = path.file_name().filter(|_| path.is_absolute() || path.exists());
    option + &name.map_or(value.into(), |name| name.to_string_lossy())
}

fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_string();
    }
    if !argument.contains(char::is_control) {
        return format!("'{}'", argument.replace('\'', "'\\''"));
    }
    // Not POSIX before 2024, but bash, zsh and ksh know it.
    let escaped = argument.chars().map(|c| match c {
        '\'' | '\\' => format!("\\{c}"),
        c if c.is_control() => c.to_string().bytes().map(|byte| format!("\\{byte:03o}")).collect(),
        c => c.to_string(),
    });
    format!("$'{}'", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_where_a_shell_needs_it() {
        for (argument, expected) in [
            ("--remove", "--remove"),
            ("mha:4,mlp:3", "mha:4,mlp:3"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("$HOME", "'$HOME'"),
            ("\"it's\"\n\u{1b}[2J\\", "$'\"it\\'s\"\\012\\033[2J\\\\'"),
            ("\u{85}", "$'\\302\\205'"),
        ] {
            assert_eq!(quoted(argument), expected);
        }
    }

    #[test]
    fn files_are_named_without_their_folders() {
        let here = env!("CARGO_MANIFEST_DIR");
        assert_eq!(name_of(&format!("{here}/Cargo.toml")), "Cargo.toml");
        assert_eq!(name_of(&format!("--out={here}/Cargo.toml")), "--out=Cargo.toml");
        assert_eq!(name_of("/not/there/model"), "model");
        assert_eq!(name_of("organisation/name@main"), "organisation/name@main");
    }
}
