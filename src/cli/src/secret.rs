//! Arguments that are secret.
//!
//! Guarantees: they are neither in `Debug` nor in an error. Leaves out: who else on the machine may see
//! a command line.

use std::{convert::Infallible, fmt, str::FromStr};

use anyhow::{Context, Result};
use oncekey_client::http::Token;

/// A token as it was given, whatever it is.
#[derive(Clone)]
pub(crate) struct GivenToken(String);

impl GivenToken {
    /// The token, if it is one. Not clap's to find out, whose errors show what was given.
    pub(crate) fn token(&self) -> Result<Token> {
        self.0.parse().context("the token")
    }
}

impl FromStr for GivenToken {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for GivenToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GivenToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_not_repeated() {
        let given: GivenToken = "hush hush".parse().unwrap();
        let error = given.token().unwrap_err();
        assert!(!format!("{given:?} {error:?}").contains("hush"));
        assert!("a.b.c".parse::<GivenToken>().unwrap().token().is_ok());
    }
}
