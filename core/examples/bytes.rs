//! A model from a byte source of one's own: here one that reads a folder's files and counts what is read.
//! `cargo run --release --example bytes -- FOLDER`.

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;

use blockpruner::model::{BlockSet, Checkpoint};
use blockpruner::session::{Session, WindowOptions};
use blockpruner::text::{CalibrationText, TextOptions};
use blockpruner::weights::{ByteSource, FileSource, ReadFuture};

/// A file, and the bytes that were read of all files.
struct Counted {
    file: FileSource,
    read: Rc<Cell<u64>>,
}

impl ByteSource for Counted {
    fn name(&self) -> &str {
        self.file.name()
    }

    fn len(&self) -> u64 {
        self.file.len()
    }

    // Whatever this awaits: a range request, a database, a decryption.
    fn read<'a>(&'a self, offset: u64, len: usize) -> ReadFuture<'a> {
        self.read.set(self.read.get() + len as u64);
        self.file.read(offset, len)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: bytes FOLDER")?;
    let read = Rc::new(Cell::new(0));
    let mut files: Vec<(String, Rc<dyn ByteSource>)> = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((name, Rc::new(Counted { file: FileSource::open(&path)?, read: read.clone() })));
    }
    blockpruner::block_on(async {
        let checkpoint = Checkpoint::from_files("mine", files).await?;
        println!("{} bytes read to open the model", read.get());
        let text = CalibrationText::open("builtin:sample", &TextOptions::default())?;
        let windows = checkpoint.windows(&text, WindowOptions::default().window(16).max_windows(2))?;
        let session = Session::builder(checkpoint).open().await?;
        let score = session.perplexity(&windows, &BlockSet::new(), &mut |_| {}).await?;
        println!("perplexity {:.4}, {} bytes read in all", score.perplexity, read.get());
        Ok(())
    })
}
