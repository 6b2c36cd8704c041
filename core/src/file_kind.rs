//! What a file is by its first bytes, for files that are not what their name says.

/// Something that is found in place of a model's or a text's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    GitLfsPointer,
    WebPage,
    Xml,
    /// A file that was made as long as it should become, and never filled.
    Zeros,
    Utf16,
    Zip,
    Compressed(&'static str),
    Pickle,
    Parquet,
    Gguf,
    /// A picture or a document, by the name of its format.
    Picture(&'static str),
}

impl FileKind {
    /// How many bytes tell all there is to tell.
    pub const START: usize = 64;

    /// What a file that begins like this is, if it can be told.
    pub fn of(start: &[u8]) -> Option<Self> {
        // A safetensors file begins with the length of its header, which may look like any of these.
        if start.get(4..9) == Some(b"\0\0\0\0{") {
            return None;
        }
        let magic: [(&[u8], Self); 15] = [
            (b"version https://git-lfs", Self::GitLfsPointer),
            (b"\xff\xfe", Self::Utf16),
            (b"\xfe\xff", Self::Utf16),
            (b"PK\x03\x04", Self::Zip),
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
        let text = start.trim_ascii_start();
        let begins = |tag: &str| text.get(..tag.len()).is_some_and(|text| text.eq_ignore_ascii_case(tag.as_bytes()));
        if begins("<!doctype html") || begins("<html") {
            return Some(Self::WebPage);
        }
        let zeros = |first: usize| start.len() >= 8 && start.iter().skip(first).step_by(2).all(|byte| *byte == 0);
        match (zeros(0), zeros(1)) {
            (true, true) => Some(Self::Zeros),
            (false, false) => None,
            // Letters of Latin in UTF-16 without a mark in front.
            _ => Some(Self::Utf16),
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
            Self::Utf16 => "it is UTF-16 text; save it as UTF-8 (`iconv -f UTF-16 -t UTF-8`)".to_string(),
            Self::Zip => {
                "it is a ZIP archive, as PyTorch's checkpoints are, too, which are read as pytorch_model.bin beside \
                config.json; unpack another one"
                    .to_string()
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let cases: [(&[u8], Option<FileKind>); 16] = [
            (b"version https://git-lfs.github.com/spec/v1\n", Some(FileKind::GitLfsPointer)),
            (b"\n <!DOCTYPE HTML><title>", Some(FileKind::WebPage)),
            (b"<html lang=\"en\">", Some(FileKind::WebPage)),
            (b"<?xml version=\"1.0\"?><Error>", Some(FileKind::Xml)),
            (&[0; 16], Some(FileKind::Zeros)),
            (b"\xff\xfea\0b\0", Some(FileKind::Utf16)),
            (b"a\0b\0c\0d\0", Some(FileKind::Utf16)),
            (b"\0a\0b\0c\0d", Some(FileKind::Utf16)),
            (b"\x1f\x8b\x08\0", Some(FileKind::Compressed("gzip"))),
            (b"PK\x03\x04\x14", Some(FileKind::Zip)),
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
    }
}
