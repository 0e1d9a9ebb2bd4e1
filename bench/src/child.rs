//! This program once more, as a process of its own: it is told things on its standard input and answers on its standard
//! output, one line of JSON each.
//!
//! A child ends when its input ends, so that none outlives this process, however this one dies.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BenchError;

pub struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts this program with other arguments.
    pub fn spawn<A: AsRef<str>>(args: impl IntoIterator<Item = A>) -> Result<Self, BenchError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (input, output) = pipes.ok_or_else(|| io::Error::other("a child has no pipes"))?;
        Ok(Self { process, input: Some(input), output: BufReader::new(output) })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for the child's next line.
    pub fn hear<T: DeserializeOwned>(&mut self) -> Result<T, BenchError> {
        let mut line = String::new();
        match self.output.read_line(&mut line)? {
            0 => Err(BenchError::ChildEnded),
            _ => Ok(serde_json::from_str(&line)?),
        }
    }

    /// Sends a line and waits for the answer.
    pub fn ask<T: DeserializeOwned>(&mut self, question: &impl Serialize) -> Result<T, BenchError> {
        let Some(input) = &mut self.input else { return Err(BenchError::ChildEnded) };
        write_line(input, question)?;
        self.hear()
    }

    /// Ends the child without a word to it.
    pub fn kill(mut self) -> Result<(), BenchError> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.input = None;
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // It does not react; nothing better can be done about a failure here either.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The child's side: says one line to the parent.
pub fn say(answer: &impl Serialize) -> Result<(), BenchError> {
    write_line(&mut io::stdout(), answer)
}

/// The child's side: the parent's next line, or `None` when it is time to end.
pub fn listen<T: DeserializeOwned>() -> Result<Option<T>, BenchError> {
    let mut line = String::new();
    match io::stdin().read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}

/// The child's side: waits until it is time to end.
pub fn wait_for_end() -> Result<(), BenchError> {
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn write_line(to: &mut impl Write, what: &impl Serialize) -> Result<(), BenchError> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()?;
    Ok(())
}
