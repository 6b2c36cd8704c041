//! What a file is by its first bytes, for files that are not what their name says.

/// Something that is found in place of a model's or a text's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    GitLfsPointer,
    WebPage,
    Xml,
    /// A file that was made as long as it should become, and never filled.
    Zeros,
    /// What a hub answers, as text, in place of a file that it does not give.
    HubAnswer,
    /// Text in units of so many bits.
    Utf(u8),
    Zip,
    /// By the name of the program that unpacks it.
    Archive(&'static str),
    Compressed(&'static str),
    Pickle,
    Parquet,
    Gguf,
    /// A picture or a document, by the name of its format.
    Picture(&'static str),
}

impl FileKind {
    /// How many bytes tell all there is to tell: the header of a tar archive.
    pub const START: usize = 512;

    /// What a file that begins like this is, if it can be told; `start` has at least [`FileKind::START`] bytes, or is the whole
    /// file.
    pub fn of(start: &[u8]) -> Option<Self> {
        // A safetensors file begins with the length of its header, which may look like any of these.
        if start.get(4..9) == Some(b"\0\0\0\0{") {
            return None;
        }
        let magic: [(&[u8], Self); 19] = [
            (b"version https://git-lfs", Self::GitLfsPointer),
            // Its first half is that of UTF-16.
            (b"\xff\xfe\0\0", Self::Utf(32)),
            (b"\0\0\xfe\xff", Self::Utf(32)),
            (b"\xff\xfe", Self::Utf(16)),
            (b"\xfe\xff", Self::Utf(16)),
            (b"PK\x03\x04", Self::Zip),
            (b"7z\xbc\xaf\x27\x1c", Self::Archive("7-Zip")),
            (b"Rar!\x1a\x07", Self::Archive("RAR")),
            (b"\x1f\x8b", Self::Compressed("gzip")),
            (b"\x28\xb5\x2f\xfd", Self::Compressed("zstd")),
            (b"\xfd7zXZ", Self::Compressed("xz")),
            (b"\x80\x02", Self::Pickle),
            (b"\x80\x04", Self::Pickle),
            (b"PAR1", Self::Parquet),
            (b"GGUF", Self::Gguf),
            (b"<?xml", Self::Xml),
            (b"\x89PNG", Self::Picture("PNG")),
            (b"\xff\xd8\xff", Self::Picture("JPEG")),
            (b"%PDF-", Self::Picture("PDF")),
        ];
        if let Some((_, kind)) = magic.into_iter().find(|(magic, _)| start.starts_with(magic)) {
            return Some(kind);
        }
        if start.starts_with(b"BZh") && start.get(4..).is_some_and(|rest| rest.starts_with(b"1AY&SY")) {
            return Some(Self::Compressed("bzip2"));
        }
        if start.get(257..).is_some_and(|rest| rest.starts_with(b"ustar")) {
            return Some(Self::Archive("tar"));
        }
        if start.len() < Self::START && is_hub_answer(start.trim_ascii()) {
            return Some(Self::HubAnswer);
        }
        let text = start.trim_ascii_start();
        let begins = |tag: &str| text.get(..tag.len()).is_some_and(|text| text.eq_ignore_ascii_case(tag.as_bytes()));
        if begins("<!doctype html") || begins("<html") {
            return Some(Self::WebPage);
        }
        // So many tell an encoding: further behind there may be anything.
        let units = &start[..start.len().min(64)];
        let zeros = |first: usize| units.len() >= 8 && units.iter().skip(first).step_by(2).all(|byte| *byte == 0);
        match (zeros(0), zeros(1)) {
            (true, true) => Some(Self::Zeros),
            (false, false) => None,
            // Letters of Latin without a mark in front.
            _ if units.chunks_exact(4).all(|letter| letter[1..3] == [0, 0]) => Some(Self::Utf(32)),
            _ => Some(Self::Utf(16)),
        }
    }

    /// What it is and what to do, to be put behind a file's name and a colon.
    pub fn problem(self) -> String {
        match self {
            Self::GitLfsPointer => {
                "it is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`".to_string()
            }
            Self::WebPage => "it is a web page (HTML), not the file itself; download it again from the address of the \
                file, logged in if the server asks for that"
                .to_string(),
            Self::Xml => "it is XML, perhaps a server's answer in place of the file; download it again".to_string(),
            Self::Zeros => {
                "it begins with zeros, as a file does whose download was cut off; download it again".to_string()
            }
            Self::HubAnswer => {
                "it is what a hub answers in place of a file that does not exist or is not open to all; check \
                the names of the model and the file, and download it again, logged in if the model asks for that"
                    .to_string()
            }
            Self::Utf(bits) => format!("it is UTF-{bits} text; save it as UTF-8 (`iconv -f UTF-{bits} -t UTF-8`)"),
            Self::Zip => {
                "it is a ZIP archive, as PyTorch's checkpoints are, too, which are read as pytorch_model.bin beside \
                config.json; unpack another one"
                    .to_string()
            }
            Self::Archive(format) => format!("it is a {format} archive; unpack it first"),
            Self::Compressed(how) => format!("it is compressed ({how}); unpack it first"),
            Self::Pickle => "it is a pickled file of Python, which is not read because it can run programs; take the \
                .safetensors file"
                .to_string(),
            Self::Parquet => "it is a Parquet file; save its rows as JSON Lines (pandas: \
                to_json(file, orient=\"records\", lines=True))"
                .to_string(),
            Self::Gguf => "it is a GGUF file; give its own path".to_string(),
            Self::Picture(format) => format!("it is a {format} file, neither text nor weights; give another file"),
        }
    }
}

/// Whether the whole content of a file is one of the answers of Hugging Face's hub, or of GitHub.
fn is_hub_answer(content: &[u8]) -> bool {
    let answers: [&[u8]; 5] = [
        b"Entry not found",
        b"Repository not found",
        b"Invalid username or password.",
        b"404: Not Found",
        b"Not Found",
    ];
    answers.contains(&content)
        || std::str::from_utf8(content)
            .is_ok_and(|content| content.starts_with("Access to ") && content.contains(" is restricted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        // The header of a tar archive begins with a file's name.
        let mut tar = b"one.txt".to_vec();
        tar.resize(257, 0);
        tar.extend(b"ustar\x0000");
        tar.resize(FileKind::START, 0);
        let cases: [(&[u8], Option<FileKind>); 21] = [
            (b"version https://git-lfs.github.com/spec/v1\n", Some(FileKind::GitLfsPointer)),
            (b"\n <!DOCTYPE HTML><title>", Some(FileKind::WebPage)),
            (b"<html lang=\"en\">", Some(FileKind::WebPage)),
            (b"<?xml version=\"1.0\"?><Error>", Some(FileKind::Xml)),
            (&[0; 16], Some(FileKind::Zeros)),
            (b"\xff\xfea\0b\0", Some(FileKind::Utf(16))),
            (b"a\0b\0c\0d\0", Some(FileKind::Utf(16))),
            (b"\0a\0b\0c\0d", Some(FileKind::Utf(16))),
            (b"\xff\xfe\0\0a\0\0\0", Some(FileKind::Utf(32))),
            (b"\0\0\xfe\xff\0\0\0a", Some(FileKind::Utf(32))),
            (b"a\0\0\0b\0\0\0", Some(FileKind::Utf(32))),
            (b"\0\0\0a\0\0\0b", Some(FileKind::Utf(32))),
            (b"\x1f\x8b\x08\0", Some(FileKind::Compressed("gzip"))),
            (b"PK\x03\x04\x14", Some(FileKind::Zip)),
            (&tar, Some(FileKind::Archive("tar"))),
            (b"\x89PNG\r\n\x1a\n", Some(FileKind::Picture("PNG"))),
            (b"In the beginning", None),
            // The header of a safetensors file: a length, and a brace.
            (b"\x40\x02\0\0\0\0\0\0{\"__metadata__\"", None),
            (b"\x80\x02\0\0\0\0\0\0{\"__metadata__\"", None),
            (b"\x80\x02}q\0", Some(FileKind::Pickle)),
            (b"", None),
        ];
        for (start, expected) in cases {
            assert_eq!(FileKind::of(start), expected, "{start:?}");
        }
        // What is behind the letters that tell an encoding does not hide it.
        let letters = [&b"a\0".repeat(40)[..], b"\x1c\x20"].concat();
        assert_eq!(FileKind::of(&letters), Some(FileKind::Utf(16)));
    }

    #[test]
    fn what_a_hub_answers_is_known_as_the_whole_of_a_file() {
        let restricted =
            "Access to model a/b is restricted. You must have access to it and be authenticated to access it.";
        for answer in ["Entry not found", "Repository not found\n", "Invalid username or password.", restricted] {
            assert_eq!(FileKind::of(answer.as_bytes()), Some(FileKind::HubAnswer), "{answer}");
        }
        for text in ["Entry not found in any book", "Access to the sea"] {
            assert_eq!(FileKind::of(text.as_bytes()), None, "{text}");
        }
    }
}
