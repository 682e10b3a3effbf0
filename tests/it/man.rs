//! The manual and the completions: made of the definition of the command line, and nothing is missing.

use std::fs;

use crate::harness::Home;

#[test]
fn every_command_has_a_page_and_the_first_tells_what_holds_for_all() {
    let home = Home::new(&[]);
    let ran = home.run(&["man", "share"]);
    assert_eq!((ran.code, &*ran.stdout), (Some(0), ""), "{ran}");
    let share = home.path().join("share");
    let page = |name: &str| fs::read_to_string(share.join("man/man1").join(name)).expect(name);

    let first = page("musterd.1");
    for heading in ["\"EXIT CODES\"", "FILES", "ENVIRONMENT"] {
        assert!(first.contains(&format!("\n.SH {heading}\n")), "{first}");
    }
    assert!(!first.contains("SEE ALSO"), "{first}");
    let commands: Vec<&str> = first
        .lines()
        .filter_map(|line| line.strip_prefix("musterd\\-")?.strip_suffix("(1)"))
        .collect();
    assert!(commands.contains(&"run"), "{commands:?}");
    assert!(!commands.contains(&"man"), "it is hidden");
    for command in commands {
        let page = page(&format!("musterd-{command}.1"));
        assert!(page.contains("\n.SH EXAMPLE"), "{page}");
        assert!(page.contains("\n.SH \"SEE ALSO\"\n"), "{page}");
    }
    assert!(page("musterd-holds-approve.1").contains("\\-\\-digest"));

    for (shell, path) in [
        ("bash", "bash-completion/completions/musterd"),
        ("zsh", "zsh/vendor-completions/_musterd"),
        ("fish", "fish/vendor_completions.d/musterd.fish"),
    ] {
        let script = fs::read_to_string(share.join(path)).expect(path);
        let printed = home.run(&["completions", shell]);
        assert_eq!(printed.stdout.trim_end(), script.trim_end(), "{shell}");
        assert!(script.contains("approve") && !script.contains("vendor"));
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let home = Home::new(&[]);
    fs::write(home.path().join("taken"), "").unwrap();
    let ran = home.run(&["man", "taken/share"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(
        ran.stderr.starts_with("error: cannot write `taken/share/"),
        "{ran}"
    );
    assert!(ran.stderr.contains("hint: "), "{ran}");
}
