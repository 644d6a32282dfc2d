//! Where passphrases come from: the environment, a file, or the terminal.
//!
//! Guarantees: never from the command line, which every user of a machine can read; on the
//! terminal without echo, and twice when it locks something new. Leaves out: its strength.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    path::Path,
};

use anyhow::{Context, Result, anyhow, ensure};
use oncekey_client::{Unlock, keystore::Passphrase};
use oncekey_types::limits;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::Usage;

/// The passphrase of a key store or of a backup.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// What it locks, for the prompt.
    pub(super) of: &'a str,
    /// Variable of the environment that may hold it.
    pub(super) variable: &'a str,
    /// File whose first line is it.
    pub(super) file: Option<&'a Path>,
}

impl Source<'_> {
    /// To open something with.
    pub(super) fn to_open(self) -> Result<Unlock> {
        self.read(false)
    }

    /// To lock something new with.
    pub(super) fn to_lock(self) -> Result<Unlock> {
        self.read(true)
    }

    fn read(self, twice: bool) -> Result<Unlock> {
        let text = if let Some(file) = self.file {
            first_line(file)?
        } else if let Some(text) = env::var_os(self.variable) {
            text.into_string().map_err(|_| anyhow!("{} is not UTF-8", self.variable))?
        } else {
            self.ask(twice)?
        };
        let passphrase = Passphrase::new(text).map_err(|error| Usage(error.to_string()))?;
        Ok(Unlock::Passphrase(passphrase))
    }

    fn ask(self, twice: bool) -> Result<String> {
        let terminal = Terminal::open().map_err(|_| {
            Usage(format!(
                "no passphrase: there is no terminal to ask on, and {} is not set",
                self.variable
            ))
        })?;
        let text = terminal.ask(&format!("Passphrase of {}: ", self.of))?;
        if twice {
            let again = terminal.ask("The same again: ")?;
            ensure!(text == again, Usage("the two passphrases differ".to_owned()));
        }
        Ok(text)
    }
}

fn first_line(file: &Path) -> Result<String> {
    let mut text = fs::read_to_string(file)
        .with_context(|| format!("the passphrase file {}", file.display()))?;
    text.truncate(text.lines().next().map_or(0, str::len));
    Ok(text)
}

/// The terminal of the process, whatever its standard input is.
struct Terminal(fs::File);

impl Terminal {
    fn open() -> io::Result<Self> {
        fs::File::options().read(true).write(true).open("/dev/tty").map(Self)
    }

    fn ask(&self, prompt: &str) -> Result<String> {
        write!(&self.0, "{prompt}")?;
        let quiet = Quiet::begin(&self.0)?;
        let line = self.line();
        drop(quiet);
        writeln!(&self.0)?;
        line
    }

    /// Byte by byte, so that no buffer keeps the passphrase.
    fn line(&self) -> Result<String> {
        let mut line = Vec::with_capacity(limits::PASSPHRASE_MAX_BYTES + 1);
        let mut byte = [0];
        while (&self.0).read(&mut byte)? == 1 && byte != [b'\n'] {
            ensure!(line.len() <= limits::PASSPHRASE_MAX_BYTES, "the passphrase is too long");
            line.push(byte[0]);
        }
        String::from_utf8(line).map_err(|_| anyhow!("the passphrase is not UTF-8"))
    }
}

/// Echo is off while this lives.
struct Quiet<'a> {
    terminal: &'a fs::File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn begin(terminal: &'a fs::File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // A terminal that has gone away needs no echo.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
