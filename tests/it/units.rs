//! The files for systemd are part of the product, and systemd itself says whether they are sound. Where
//! it is not installed, a test says so and ends; with `MUSTERD_REQUIRE_SYSTEMD=1` that is a failure.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let folder = TempDir::new().unwrap();
    let unit = folder.path().join("musterd.service");
    fs::write(&unit, text("musterd.service")).unwrap();
    let Some(told) = verify(&unit) else { return };
    assert_eq!(told, "");

    // What is misspelt is only warned about: such warnings must reach this test.
    let misspelt = text("musterd.service").replace("ProtectClock=", "ProtectClok=");
    fs::write(&unit, misspelt).unwrap();
    let told = verify(&unit).unwrap();
    assert!(told.contains("ProtectClok"), "{told}");
}

#[test]
fn credentials_are_loaded_by_a_drop_in_in_both_forms() {
    let folder = TempDir::new().unwrap();
    let unit = folder.path().join("musterd.service");
    fs::write(&unit, text("musterd.service")).unwrap();
    let drop_ins = folder.path().join("musterd.service.d");
    fs::create_dir(&drop_ins).unwrap();
    // As README shows them.
    let readme = include_str!("../../README.md");
    let forms = [
        "LoadCredential=acme:/etc/musterd/secrets/acme",
        "LoadCredentialEncrypted=acme:/etc/credstore.encrypted/acme",
    ];
    for form in forms {
        assert!(readme.contains(form), "{form}");
        fs::write(
            drop_ins.join("credential.conf"),
            format!("[Service]\n{form}\n"),
        )
        .unwrap();
        let Some(told) = verify(&unit) else { return };
        assert_eq!(told, "", "{form}");
    }
    let misspelt = "[Service]\nLoadCredentialEncryptd=acme:/x\n";
    fs::write(drop_ins.join("credential.conf"), misspelt).unwrap();
    let told = verify(&unit).unwrap();
    assert!(told.contains("LoadCredentialEncryptd"), "{told}");
}

/// What `systemd-creds encrypt` makes under a name is what the unit would be handed: one line, without what ends it.
#[test]
fn a_credential_is_encrypted_as_readme_shows() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("plain"), "hush").unwrap();
    // With no key of this machine: a test leaves none behind.
    let encrypt = ["encrypt", "--with-key=tpm2-absent", "--name=acme"];
    let decrypt = ["decrypt", "--name=acme"];
    let creds = |args: &[&str], from: &str, to: &str| {
        let mut command = Command::new("systemd-creds");
        run(command.args(args).arg(at(from)).arg(at(to)))
    };
    let Some(output) = creds(&encrypt, "plain", "sealed") else {
        return;
    };
    if !output.status.success() {
        return eprintln!("skipped: {}", told(&output));
    }
    assert!(
        !fs::read(at("sealed"))
            .unwrap()
            .windows(4)
            .any(|bytes| bytes == b"hush")
    );
    let output = creds(&decrypt, "sealed", "opened").unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(fs::read(at("opened")).unwrap(), b"hush");
}

#[test]
fn the_unit_is_exposed_to_no_more_than_it_needs() {
    // In tenths: 1.1 of 10.
    const THRESHOLD: &str = "--threshold=11";
    let folder = TempDir::new().unwrap();
    let unit = folder.path().join("musterd.service");
    fs::write(&unit, text("musterd.service")).unwrap();
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", THRESHOLD, "--no-pager"]);
    let Some(output) = run(command.arg(&unit)) else {
        return;
    };
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn the_unit_does_what_the_program_expects_of_it() {
    let unit = text("musterd.service");
    let status = musterd::config::Error::EXIT_CODE;
    for line in [
        "Type=notify",
        &format!("RestartPreventExitStatus={status}"),
        "UMask=0027",
        "StateDirectory=musterd",
        "StateDirectoryMode=0750",
        "RuntimeDirectory=musterd",
        "LimitCORE=0",
        // Two syncs of 200 instances, each with three files of the mirror, three of its stage and its connections.
        "LimitNOFILE=16384",
    ] {
        assert!(unit.lines().any(|other| other == line), "{line}");
    }
}

#[test]
fn the_account_and_the_folders_are_made() {
    let root = TempDir::new().unwrap();
    if fs::metadata(root.path()).unwrap().uid() != 0 {
        return skip("only root can give folders to other accounts");
    }
    fs::create_dir(root.path().join("etc")).unwrap();
    let in_root = |program: &str, args: &[&str], file: &str| {
        let mut command = Command::new(program);
        let root = root.path().display();
        run(command
            .args(args)
            .arg(format!("--root={root}"))
            .arg(shipped(file)))
    };
    let Some(output) = in_root("systemd-sysusers", &[], "musterd.sysusers.conf") else {
        return;
    };
    assert!(output.status.success(), "{}", told(&output));
    let passwd = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(passwd.starts_with("musterd:"), "{passwd}");

    let Some(output) = in_root("systemd-tmpfiles", &["--create"], "musterd.tmpfiles.conf") else {
        return;
    };
    assert!(output.status.success(), "{}", told(&output));
    let secrets = fs::metadata(root.path().join("etc/musterd/secrets")).unwrap();
    assert_eq!(secrets.mode() & 0o7777, 0o700);
    assert_ne!(secrets.uid(), 0);
    let instances = fs::metadata(root.path().join("etc/musterd/instances.d")).unwrap();
    assert_eq!(instances.mode() & 0o7777, 0o750);
    assert_eq!((instances.uid(), instances.gid()), (0, secrets.gid()));
}

/// What `systemd-analyze verify` has to say.
fn verify(unit: &Path) -> Option<String> {
    let mut command = Command::new("systemd-analyze");
    let output = run(command.args(["verify", "--man=no"]).arg(unit))?;
    let told = told(&output);
    assert!(output.status.success(), "{told}");
    Some(told)
}

fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip(&format!("{:?} is not installed", command.get_program()));
            None
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}

fn skip(why: &str) {
    assert!(
        std::env::var_os("MUSTERD_REQUIRE_SYSTEMD").is_none_or(|value| value != "1"),
        "{why}, and MUSTERD_REQUIRE_SYSTEMD=1 is set"
    );
    eprintln!("skipped: {why}");
}

fn told(output: &Output) -> String {
    let bytes = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("systemd")
        .join(file)
}

/// A shipped file, with the program where it is now: verifying looks for it.
fn text(file: &str) -> String {
    let text = fs::read_to_string(shipped(file)).unwrap();
    assert!(text.contains("ExecStart=/usr/bin/musterd run"));
    text.replace("/usr/bin/musterd", env!("CARGO_BIN_EXE_musterd"))
}
