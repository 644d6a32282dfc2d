//! Tokens of the operator's account system.
//!
//! Guarantees: a source is asked before every attempt, so that a token may be renewed while a call is
//! tried; a token is never printed, and erased when it is done with.
//!
//! Leaves out: how an application gets them; and what they say, which is between the account system
//! and the servers.

use std::{fmt, fs, future::Future, path::PathBuf, pin::Pin, str::FromStr, sync::Arc};

use hyper::header::{HeaderValue, InvalidHeaderValue};
use oncekey_types::limits;
use zeroize::Zeroizing;

/// A bearer token.
pub struct Token(Zeroizing<String>);

/// Why there is no token.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not of the form of a token: empty, too long, or with characters that none has.
    #[error("that is not a token")]
    Form,
    /// The file cannot be read.
    #[error("the token cannot be read from {path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The application has none.
    #[error("{0}")]
    Source(String),
}

/// A token that is being got.
pub type TokenFuture = Pin<Box<dyn Future<Output = Result<Arc<Token>, TokenError>> + Send>>;

/// Where tokens come from: a [`Token`] for good, a [`TokenFile`], or a closure of the application.
pub trait TokenSource: Send + Sync + 'static {
    /// The token to use now.
    fn token(&self) -> TokenFuture;
}

/// A token in a file that something else keeps fresh; read at every attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenFile(pub PathBuf);

impl Token {
    /// The value of the header `authorization` that shows it; marked as sensitive, so that it is not
    /// printed.
    ///
    /// # Errors
    ///
    /// None: a token has no character that a header cannot have.
    pub fn bearer(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        let mut value = HeaderValue::from_str(&text)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let fits = (1..=limits::TOKEN_MAX_BYTES).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Form);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl TokenSource for Arc<Token> {
    fn token(&self) -> TokenFuture {
        let token = Self::clone(self);
        Box::pin(async move { Ok(token) })
    }
}

impl TokenSource for TokenFile {
    fn token(&self) -> TokenFuture {
        let path = self.0.clone();
        Box::pin(async move {
            let failed = |reason| TokenError::File { path: path.clone(), reason };
            let from = path.clone();
            let read = tokio::task::spawn_blocking(move || fs::read_to_string(from)).await;
            let text = read.map_err(|error| failed(error.to_string()))?;
            let text = Zeroizing::new(text.map_err(|error| failed(error.to_string()))?);
            Ok(Arc::new(text.parse()?))
        })
    }
}

impl<F, T> TokenSource for F
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Future<Output = Result<Arc<Token>, TokenError>> + Send + 'static,
{
    fn token(&self) -> TokenFuture {
        Box::pin(self())
    }
}

/// A source, shared.
#[derive(Clone)]
pub(super) struct Tokens(pub(super) Arc<dyn TokenSource>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let source = TokenFile(path.clone());
        let error = source.token().await.unwrap_err();
        assert!(matches!(error, TokenError::File { .. }), "{error}");
        for text in ["first\n", "second"] {
            fs::write(&path, text).unwrap();
            let bearer = source.token().await.unwrap().bearer().unwrap();
            assert_eq!(bearer, format!("Bearer {}", text.trim()));
        }
        fs::write(&path, "two words").unwrap();
        assert_eq!(source.token().await.unwrap_err(), TokenError::Form);
    }

    #[tokio::test]
    async fn a_closure_is_a_source_and_nothing_prints_a_token() {
        let source = || async { Ok(Arc::new("abc.def.ghi".parse::<Token>()?)) };
        let token = TokenSource::token(&source).await.unwrap();
        let bearer = token.bearer().unwrap();
        assert!(bearer == "Bearer abc.def.ghi" && bearer.is_sensitive());
        let tokens = Tokens(Arc::new(token.clone()));
        assert_eq!(format!("{token:?} {tokens:?}"), "Token(..) Tokens(..)");
    }
}
