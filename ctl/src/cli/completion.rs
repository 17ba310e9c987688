//! `completion`: scripts that complete commands and flags in a shell, generated from the command table.

use clap_complete::{Shell, generate};

use super::PROGRAM;
use super::flags::{Flag, Kind};
use super::help::is_later;
use super::tree::{Action, Command, ROOT};

/// The script for the shell that `args` name.
pub fn script(args: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let [shell] = args else {
        return Err(format!("accepts 1 arg(s), received {}", args.len()));
    };
    let shell = match shell.as_slice() {
        b"bash" => Shell::Bash,
        b"zsh" => Shell::Zsh,
        b"fish" => Shell::Fish,
        b"powershell" => Shell::PowerShell,
        other => {
            let name = crate::golang::quote(other);
            return Err(format!("invalid argument {name} for \"{PROGRAM} completion\""));
        }
    };
    let mut script = Vec::new();
    generate(shell, &mut described(&ROOT), PROGRAM, &mut script);
    Ok(script)
}

/// A command and everything below it that is there, in the words of the generator.
fn described(command: &'static Command) -> clap::Command {
    let flags = command.flags.iter().map(argument);
    let inherited = command.inherited.iter().map(|flag| argument(flag).global(true));
    let children = command.children.iter().filter(|child| !is_later(child)).map(described);
    let mut described = clap::Command::new(command.name)
        .about(command.short)
        .disable_help_subcommand(true)
        .args(flags)
        .args(inherited)
        .subcommands(children);
    if command.action == Action::Completion {
        let shells = clap::Arg::new("shell").value_parser(["bash", "zsh", "fish", "powershell"]);
        described = described.arg(shells);
    }
    described
}

fn argument(flag: &'static Flag) -> clap::Arg {
    let mut argument = clap::Arg::new(flag.name).long(flag.name).help(flag.usage);
    if let Some(short) = flag.short {
        argument = argument.short(short);
    }
    match (flag.name, flag.kind) {
        (_, Kind::Bool) => argument.action(clap::ArgAction::SetTrue),
        ("write-out", _) => argument.value_parser(["fields", "json", "protobuf", "simple", "table"]),
        ("consistency", _) => argument.value_parser(["l", "s"]),
        ("order", _) => argument.value_parser(["ASCEND", "DESCEND"]),
        ("sort-by", _) => argument.value_parser(["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"]),
        ("load", _) => argument.value_parser(["s", "m", "l", "xl"]),
        ("cacert" | "cert" | "key", _) => argument.value_hint(clap::ValueHint::FilePath),
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_commands_and_flags() {
        for shell in ["bash", "zsh", "fish", "powershell"] {
            let script = script(&[shell.as_bytes().to_vec()]).expect("a script");
            let script = String::from_utf8(script).expect("text");
            for word in ["compaction", "print-value-only", "hashkv", "insecure-skip-tls-verify"] {
                assert!(script.contains(word), "{shell} lacks {word}");
            }
            assert!(!script.contains("downgrade"), "{shell} completes a command that is not there");
        }
    }

    #[test]
    fn anything_but_one_known_shell_is_refused() {
        assert_eq!(script(&[]).unwrap_err(), "accepts 1 arg(s), received 0");
        let refused = script(&[b"tcsh".to_vec()]).unwrap_err();
        assert_eq!(refused, "invalid argument \"tcsh\" for \"cairnctl completion\"");
    }
}
