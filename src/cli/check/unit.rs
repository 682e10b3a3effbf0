//! The unit as its files say it is. systemd is not asked: it may not run here, and a file says it before the first start.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::config;

/// The name that the unit is installed by.
pub(super) const NAME: &str = "musterd.service";

/// Folders with drop-ins for it, and for all services.
const DROP_INS: &str = "musterd.service.d";
const DROP_INS_OF_ALL: &str = "service.d";

/// Where systemd looks for units, first the places that come before others (systemd.unit(5)).
const FOLDERS: [&str; 7] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// An installed unit with its drop-ins.
pub(super) struct Unit {
    /// Its file.
    pub(super) path: PathBuf,
    /// Nobody may start it: the file is empty, or a link to `/dev/null`.
    pub(super) is_masked: bool,
    /// What stands in its section `[Service]`, in the order in which it counts.
    settings: Vec<(String, String)>,
}

/// How the unit comes by a credential.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// From this file.
    From(PathBuf),
    /// It stands in the unit, or systemd finds it.
    Otherwise,
}

impl Unit {
    /// Finds the unit. `search` is `$SYSTEMD_UNIT_PATH`, which systemd goes by as well.
    pub(super) fn find(search: Option<&OsStr>) -> Option<Self> {
        let folders = folders(search);
        let path = folders.iter().map(|folder| folder.join(NAME));
        let path = path.into_iter().find(|path| path.exists())?;
        let is_masked = path.metadata().is_ok_and(|file| file.len() == 0);
        let mut texts = vec![path.clone()];
        texts.extend(drop_ins(&folders));
        let texts = texts.iter().filter_map(|path| std::fs::read(path).ok());
        let settings = texts.flat_map(|text| service_settings(&String::from_utf8_lossy(&text)));
        Some(Self {
            path,
            is_masked,
            settings: settings.collect(),
        })
    }

    /// The values of a setting. An empty one takes those before it back.
    fn values(&self, key: &str) -> Vec<&str> {
        let mut values = Vec::new();
        for (_, value) in self.settings.iter().filter(|(name, _)| name == key) {
            match value.as_str() {
                "" => values.clear(),
                value => values.push(value),
            }
        }
        values
    }

    fn last(&self, key: &str) -> Option<&str> {
        self.values(key).pop()
    }

    /// The program that it runs.
    pub(super) fn program(&self) -> Option<PathBuf> {
        let begins = words(self.last("ExecStart")?).into_iter().next()?;
        // Prefixes that change how it is run (systemd.service(5)).
        Some(PathBuf::from(
            begins.trim_start_matches(['@', '-', ':', '+', '!']),
        ))
    }

    /// The account that it runs as.
    pub(super) fn user(&self) -> Option<&str> {
        self.last("User")
    }

    /// The configuration that it reads.
    pub(super) fn config(&self) -> PathBuf {
        let mut line = self.last("ExecStart").into_iter().flat_map(words);
        let named = line.find_map(|word| match word.strip_prefix("--config")? {
            "" => Some(None),
            rest => Some(rest.strip_prefix('=').map(str::to_owned)),
        });
        let named = named.map(|named| named.or_else(|| line.next()));
        let of_environment = || {
            let mut variables = self
                .values("Environment")
                .into_iter()
                .rev()
                .flat_map(|value| words(value).into_iter().rev());
            let named = |word: String| Some(word.strip_prefix("MUSTERD_CONFIG=")?.to_owned());
            variables.find_map(named)
        };
        let named = named.flatten().or_else(of_environment);
        PathBuf::from(named.unwrap_or_else(|| config::DEFAULT_FILE.to_owned()))
    }

    /// Whether it makes this folder when it starts.
    pub(super) fn makes(&self, folder: &Path) -> bool {
        let mut names = self.values("StateDirectory").into_iter().flat_map(words);
        names.any(|name| Path::new("/var/lib").join(name) == folder)
    }

    /// How it comes by a credential; `None` if it does not.
    pub(super) fn credential(&self, name: &str) -> Option<Loaded> {
        for key in ["LoadCredential", "LoadCredentialEncrypted"] {
            for value in self.values(key) {
                let (id, from) = value.split_once(':').unwrap_or((value, ""));
                let path = Path::new(from);
                let of_folder = || name.strip_prefix(id)?.strip_prefix('_');
                if id == name {
                    // A name alone is that of one of the system's; a specifier is for systemd to resolve.
                    let is_path = path.is_absolute() && !from.contains('%');
                    return Some(match is_path {
                        true => Loaded::From(path.to_owned()),
                        false => Loaded::Otherwise,
                    });
                } else if let Some(file) = of_folder().filter(|_| path.is_dir()) {
                    return Some(Loaded::From(path.join(file)));
                }
            }
        }
        let is_set = ["SetCredential", "SetCredentialEncrypted"]
            .into_iter()
            .flat_map(|key| self.values(key))
            .any(|value| value.split(':').next() == Some(name));
        let is_imported = self
            .values("ImportCredential")
            .into_iter()
            .any(|pattern| match pattern.split_once('*') {
                Some((begins, _)) => name.starts_with(begins),
                None => pattern == name,
            });
        (is_set || is_imported).then_some(Loaded::Otherwise)
    }
}

fn folders(search: Option<&OsStr>) -> Vec<PathBuf> {
    let usual = || FOLDERS.iter().map(PathBuf::from);
    let Some(search) = search.filter(|search| !search.is_empty()) else {
        return usual().collect();
    };
    let (mut folders, mut goes_on) = (Vec::new(), false);
    for folder in std::env::split_paths(search) {
        // One that ends in a colon goes on with the usual places.
        goes_on = folder.as_os_str().is_empty();
        folders.extend((!goes_on).then_some(folder));
    }
    folders.extend(usual().filter(|_| goes_on));
    folders
}

/// The words of a value. In quotes a word may have blanks in it.
fn words(value: &str) -> Vec<String> {
    // systemd takes no line with a quote that stays open.
    shlex::split(value).unwrap_or_default()
}

/// The drop-ins by their names, each where it comes first: those of all services come behind those of this one.
fn drop_ins(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = BTreeMap::new();
    let of = |name: &'static str| folders.iter().map(move |folder| folder.join(name));
    for folder in of(DROP_INS).chain(of(DROP_INS_OF_ALL)) {
        let entries = std::fs::read_dir(folder);
        for entry in entries.into_iter().flatten().flatten() {
            let path = entry.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "conf")
            {
                found.entry(entry.file_name()).or_insert(path);
            }
        }
    }
    found.into_values().collect()
}

/// The settings of the section `[Service]` (systemd.syntax(7)).
fn service_settings(text: &str) -> Vec<(String, String)> {
    let (mut settings, mut is_service) = (Vec::new(), false);
    let mut begun = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(goes_on) = line.strip_suffix('\\') {
            begun.push_str(goes_on);
            begun.push(' ');
            continue;
        }
        let line = std::mem::take(&mut begun) + line;
        if line.starts_with('[') {
            is_service = line == "[Service]";
        } else if let Some((key, value)) = line.split_once('=')
            && is_service
        {
            settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str) -> Unit {
        Unit {
            path: PathBuf::from(NAME),
            is_masked: false,
            settings: service_settings(text),
        }
    }

    #[test]
    fn a_unit_is_read_as_systemd_reads_it() {
        let unit = unit(
            "[Unit]\nUser=nobody\n[Service]\n# User=commented\nUser=musterd\nExecStart=/old/musterd run\nExecStart=\n\
             ExecStart=-/usr/bin/musterd \\\n  --config=/srv/m.toml run\nStateDirectory=other musterd\n[Install]\nUser=root\n",
        );
        assert_eq!(unit.user(), Some("musterd"));
        assert_eq!(unit.program(), Some(PathBuf::from("/usr/bin/musterd")));
        assert_eq!(unit.config(), Path::new("/srv/m.toml"));
        assert!(unit.makes(Path::new("/var/lib/musterd")));
        assert!(!unit.makes(Path::new("/var/lib")));
    }

    #[test]
    fn the_configuration_is_the_one_that_the_unit_names() {
        for (text, config) in [
            ("ExecStart=/usr/bin/musterd run", config::DEFAULT_FILE),
            ("ExecStart=/usr/bin/musterd --config /a.toml run", "/a.toml"),
            (
                "ExecStart=/usr/bin/musterd run\nEnvironment=A=1 \"MUSTERD_CONFIG=/b.toml\"",
                "/b.toml",
            ),
            (
                "ExecStart=\"/opt/my tools/musterd\" '--config=/c d.toml' run",
                "/c d.toml",
            ),
            (
                "Environment=MUSTERD_CONFIG=/old.toml\nEnvironment='MUSTERD_CONFIG=/e f.toml'",
                "/e f.toml",
            ),
        ] {
            assert_eq!(
                unit(&format!("[Service]\n{text}\n")).config(),
                Path::new(config)
            );
        }
    }

    #[test]
    fn a_credential_is_found_in_every_form() {
        let folder = tempfile::tempdir().unwrap();
        let unit = unit(&format!(
            "[Service]\nLoadCredential=gone:/x\nLoadCredential=\nLoadCredential=a:/etc/a\n\
             LoadCredentialEncrypted=b:/etc/b\nLoadCredential=c\nLoadCredential=s:%d/s\nLoadCredential=dir:{}\n\
             SetCredential=d:text\nSetCredentialEncrypted=e: \\\n  abc\nImportCredential=f.*\n",
            folder.path().display()
        ));
        let from = |path: &str| Some(Loaded::From(PathBuf::from(path)));
        for (name, loaded) in [
            ("gone", None),
            ("a", from("/etc/a")),
            ("b", from("/etc/b")),
            ("c", Some(Loaded::Otherwise)),
            ("s", Some(Loaded::Otherwise)),
            ("d", Some(Loaded::Otherwise)),
            ("e", Some(Loaded::Otherwise)),
            ("f.g", Some(Loaded::Otherwise)),
            ("f", None),
            ("dir_x", from(folder.path().join("x").to_str().unwrap())),
            ("a_x", None),
        ] {
            assert_eq!(unit.credential(name), loaded, "{name}");
        }
    }

    #[test]
    fn what_comes_first_counts_and_drop_ins_go_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("b/musterd.service", "[Service]\nUser=b\n");
        write("b/musterd.service.d/20.conf", "[Service]\nUser=late\n");
        write(
            "b/musterd.service.d/10.conf",
            "[Service]\nUser=overridden\n",
        );
        write(
            "a/musterd.service.d/10.conf",
            "[Service]\nUser=early\nStateDirectory=x\n",
        );
        write("a/musterd.service.d/30.txt", "[Service]\nUser=no\n");
        // Of all services: behind those of the unit by the same name, among the others by its name.
        write("a/service.d/10.conf", "[Service]\nStateDirectory=no\n");
        write("b/service.d/15.conf", "[Service]\nStateDirectory=y\n");
        let search = std::env::join_paths(["a", "b"].map(|name| folder.path().join(name)));
        let search = search.unwrap();
        let unit = Unit::find(Some(&search)).unwrap();
        assert_eq!(unit.path, folder.path().join("b/musterd.service"));
        assert_eq!(unit.user(), Some("late"));
        assert!(unit.makes(Path::new("/var/lib/x")) && unit.makes(Path::new("/var/lib/y")));
        assert!(!unit.makes(Path::new("/var/lib/no")) && !unit.is_masked);

        std::os::unix::fs::symlink("/dev/null", folder.path().join("a/musterd.service")).unwrap();
        assert!(Unit::find(Some(&search)).unwrap().is_masked);
    }
}
