//! Where a value came from.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use config::Value;

/// The layer that a value came from. Later variants win over earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// `config/default.toml`, compiled in.
    BuiltIn,
    /// The configuration file.
    File(PathBuf),
    /// A file of `instances.d`, whose keys stand at its top level.
    InstanceFile(PathBuf),
    /// A variable `MUSTERD__…`.
    Environment,
}

// What the `config` crate carries along with each value. Its name for the environment is its own.
const FILE: &str = "file:";
const INSTANCE_FILE: &str = "instance file:";
const ENVIRONMENT: &str = "the environment";

/// How an environment variable that sets a key begins.
pub(super) const ENV_PREFIX: &str = "MUSTERD__";

impl Origin {
    /// The origin of a value, which was read by [`super::layers`].
    pub(super) fn of(value: &Value) -> Self {
        match value.origin() {
            Some(ENVIRONMENT) => Self::Environment,
            Some(uri) => uri
                .strip_prefix(FILE)
                .map(|path| Self::File(path.into()))
                .or_else(|| {
                    let path = uri.strip_prefix(INSTANCE_FILE)?;
                    Some(Self::InstanceFile(path.into()))
                })
                .unwrap_or(Self::BuiltIn),
            None => Self::BuiltIn,
        }
    }

    /// The text that stands for it in the `config` crate.
    pub(super) fn uri(&self) -> String {
        match self {
            Self::BuiltIn => "built in".to_owned(),
            Self::File(path) => format!("{FILE}{}", path.display()),
            Self::InstanceFile(path) => format!("{INSTANCE_FILE}{}", path.display()),
            Self::Environment => ENVIRONMENT.to_owned(),
        }
    }

    /// Where a person finds `key`, and what it is called there.
    pub(super) fn place(&self, key: &str) -> (String, String) {
        match self {
            Self::BuiltIn => ("default".to_owned(), key.to_owned()),
            Self::File(path) => (path.display().to_string(), key.to_owned()),
            Self::InstanceFile(path) => {
                let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
                let own = key.strip_prefix("instances.").and_then(|rest| {
                    let rest = rest.strip_prefix(stem)?;
                    rest.strip_prefix('.')
                });
                (path.display().to_string(), own.unwrap_or(key).to_owned())
            }
            Self::Environment => {
                let name = key.to_uppercase().replace('.', "__");
                ("environment".to_owned(), format!("{ENV_PREFIX}{name}"))
            }
        }
    }

    /// A file named by a value: one that is relative counts from the folder of the file that names it.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        let folder = match self {
            Self::File(file) | Self::InstanceFile(file) => file.parent(),
            Self::BuiltIn | Self::Environment => None,
        };
        folder.unwrap_or(Path::new("")).join(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_survives_the_way_through_the_config_crate() {
        for origin in [
            Origin::BuiltIn,
            Origin::File("/etc/m/musterd.toml".into()),
            Origin::InstanceFile("/etc/m/instances.d/acme.toml".into()),
            Origin::Environment,
        ] {
            let value = Value::new(Some(&origin.uri()), 1);
            assert_eq!(Origin::of(&value), origin);
        }
    }

    #[test]
    fn keys_are_called_as_they_are_written_there() {
        let file = Origin::InstanceFile("instances.d/acme.toml".into());
        assert_eq!(file.place("instances.acme.auth.type").1, "auth.type");
        assert_eq!(file.place("instances.acme2.url").1, "instances.acme2.url");
        assert_eq!(
            Origin::Environment.place("instances.acme.auth.type").1,
            "MUSTERD__INSTANCES__ACME__AUTH__TYPE"
        );
    }

    #[test]
    fn relative_paths_count_from_the_file_that_names_them() {
        let file = Origin::File("/etc/m/musterd.toml".into());
        assert_eq!(file.resolve("s/a"), Path::new("/etc/m/s/a"));
        assert_eq!(file.resolve("/s/a"), Path::new("/s/a"));
        assert_eq!(Origin::Environment.resolve("s/a"), Path::new("s/a"));
    }
}
