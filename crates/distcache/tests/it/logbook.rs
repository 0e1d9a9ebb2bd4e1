//! What this process has logged, for tests that look for a line or for the absence of a word.

use std::io::{self, Write};
use std::sync::{Mutex, Once};

use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::harness::eventually;
use crate::traces::SpanBook;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Book;

impl Write for Book {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Book {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        Self
    }
}

/// From here on everything down to `debug` is written down, and every span. Once for the process: tests look for words and spans
/// of their own.
pub fn open() {
    static OPEN: Once = Once::new();
    OPEN.call_once(|| {
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Book);
        let books = tracing_subscriber::registry().with(lines.and_then(SpanBook).with_filter(LevelFilter::DEBUG));
        tracing::subscriber::set_global_default(books).unwrap();
    });
}

pub fn text() -> String {
    String::from_utf8_lossy(&LINES.lock().unwrap()).into_owned()
}

/// Waits for a line that warns and contains all of `words`.
pub async fn warns(words: &[&str]) {
    let is_it = |line: &str| line.contains("WARN") && words.iter().all(|word| line.contains(word));
    eventually(&format!("a warning with {words:?}"), || text().lines().any(is_it)).await;
}
