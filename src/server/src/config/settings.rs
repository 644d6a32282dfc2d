//! Values by key, from wherever they come.
//!
//! Guarantees: a flag goes before the environment, the environment before the file, the file
//! before the default; a key that is not known is refused; an error names the key and where its
//! value came from. Leaves out: what the values mean together.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use toml::{Table, Value};

use super::{
    Error,
    keys::{KEYS, Key, Kind},
};

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// The default of the key.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(variable) => write!(f, "environment variable {variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

const ENV_PREFIX: &str = "ONCEKEY_";

struct Setting {
    value: Value,
    origin: Origin,
}

/// The values that are set.
pub(super) struct Settings(BTreeMap<&'static str, Setting>);

impl Settings {
    pub(super) fn defaults() -> Result<Self, Error> {
        let mut settings = Self(BTreeMap::new());
        for key in KEYS {
            if let Some(default) = key.default {
                let value = toml_value(key, default, &Origin::Default)?;
                settings.put(key, value, Origin::Default);
            }
        }
        Ok(settings)
    }

    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let origin = Origin::File(path.to_owned());
        let file: Table = toml::from_str(text).map_err(|error| Error::Toml {
            path: path.to_owned(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        for (section, values) in file {
            let Value::Table(values) = values else {
                return Err(Error::UnknownKey { key: section, origin });
            };
            for (name, value) in values {
                let key = find(&format!("{section}.{name}"), &origin)?;
                self.put(key, value, origin.clone());
            }
        }
        Ok(())
    }

    /// Takes `ONCEKEY_<SECTION>_<NAME>`. Variables of no known section are somebody else's, as the
    /// program's own `ONCEKEY_TOKEN`, and so are those that tell of services.
    pub(super) fn add_env(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), Error> {
        for (variable, text) in variables {
            let Some(rest) = variable.strip_prefix(ENV_PREFIX) else { continue };
            if is_of_a_service(rest) {
                continue;
            }
            let name = rest.to_ascii_lowercase().replacen('_', ".", 1);
            let section = name.split('.').next().unwrap_or_default();
            if !KEYS.iter().any(|key| key.name.split('.').next() == Some(section)) {
                continue;
            }
            let origin = Origin::Env(variable);
            let key = find(&name, &origin)?;
            let value = text_value(key, &text, &origin)?;
            self.put(key, value, origin);
        }
        Ok(())
    }

    pub(super) fn add_flag(&mut self, name: &str, text: &str) -> Result<(), Error> {
        let key = find(name, &Origin::Flag)?;
        let value = text_value(key, text, &Origin::Flag)?;
        self.put(key, value, Origin::Flag);
        Ok(())
    }

    /// The whole number `name`, when it lies in `range`.
    pub(super) fn integer<T>(&self, name: &'static str, range: Range<T>) -> Result<T, Error>
    where
        T: TryFrom<i64> + PartialOrd + fmt::Display + Copy,
    {
        let setting = self.required(name)?;
        let Value::Integer(number) = setting.value else {
            return Err(setting.error(name, "must be a whole number"));
        };
        T::try_from(number)
            .ok()
            .filter(|number| range.0 <= *number && *number <= range.1)
            .ok_or_else(|| {
                setting.error(name, format!("is {number}, allowed are {} to {}", range.0, range.1))
            })
    }

    /// Whether `name` is set.
    pub(super) fn has(&self, name: &'static str) -> bool {
        self.0.contains_key(name)
    }

    /// The text `name`, parsed.
    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(
        &self,
        name: &'static str,
    ) -> Result<T, Error> {
        let setting = self.required(name)?;
        let Value::String(text) = &setting.value else {
            return Err(setting.error(name, "must be a string"));
        };
        text.parse().map_err(|error: T::Err| setting.error(name, error))
    }

    /// The text `name`, parsed, when it is set.
    pub(super) fn optional<T: FromStr<Err: fmt::Display>>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, Error> {
        if self.0.contains_key(name) { self.parsed(name).map(Some) } else { Ok(None) }
    }

    /// The list `name`, empty when it is not set.
    pub(super) fn list<T: serde::de::DeserializeOwned>(
        &self,
        name: &'static str,
    ) -> Result<Vec<T>, Error> {
        let Some(setting) = self.0.get(name) else { return Ok(Vec::new()) };
        setting.value.clone().try_into().map_err(|error| {
            setting.error(name, error.to_string().lines().next().unwrap_or_default())
        })
    }

    /// An error that blames the value of `name`.
    pub(super) fn error(&self, name: &'static str, reason: impl fmt::Display) -> Error {
        match self.0.get(name) {
            Some(setting) => setting.error(name, reason),
            None => Error::Value { key: name, origin: Origin::Default, reason: reason.to_string() },
        }
    }

    fn required(&self, name: &'static str) -> Result<&Setting, Error> {
        self.0.get(name).ok_or(Error::Missing { key: name })
    }

    fn put(&mut self, key: &'static Key, value: Value, origin: Origin) {
        self.0.insert(key.name, Setting { value, origin });
    }
}

/// Smallest and largest value allowed.
#[derive(Clone, Copy)]
pub(super) struct Range<T>(pub(super) T, pub(super) T);

impl Setting {
    fn error(&self, key: &'static str, reason: impl fmt::Display) -> Error {
        Error::Value { key, origin: self.origin.clone(), reason: reason.to_string() }
    }
}

/// Whether `name` ends as the variables do that Kubernetes sets for a service, `oncekey-http` say:
/// `HTTP_SERVICE_HOST`, `HTTP_SERVICE_PORT_WEB`, `HTTP_PORT`, `HTTP_PORT_8080_TCP_ADDR`. No key does.
pub(super) fn is_of_a_service(name: &str) -> bool {
    let with_number =
        |(_, rest): (&str, &str)| rest.starts_with(|first: char| first.is_ascii_digit());
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(with_number)
}

fn find(name: &str, origin: &Origin) -> Result<&'static Key, Error> {
    KEYS.iter()
        .find(|key| key.name == name)
        .ok_or_else(|| Error::UnknownKey { key: name.to_owned(), origin: origin.clone() })
}

fn text_value(key: &'static Key, text: &str, origin: &Origin) -> Result<Value, Error> {
    match key.kind {
        Kind::Text => Ok(Value::String(text.to_owned())),
        Kind::Integer | Kind::List => toml_value(key, text, origin),
    }
}

fn toml_value(key: &'static Key, text: &str, origin: &Origin) -> Result<Value, Error> {
    Value::from_str(text).map_err(|_| Error::Value {
        key: key.name,
        origin: origin.clone(),
        reason: format!("{text:?} is not a value of TOML"),
    })
}
