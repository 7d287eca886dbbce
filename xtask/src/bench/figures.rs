//! `cargo xtask bench figures`: the tables and plots that the repository shows, measured anew, all of one build.

use std::path::Path;

use super::results::{Results, copy_pages};
use super::{days, growth, peers, profile};
use crate::{Failure, workspace};

const USAGE: &str = "\
cargo xtask bench figures                measure everything anew and write benches/peers/figures: two and a half hours
                                         on two cores, 25 GB of disk, and nothing should run beside it
cargo xtask bench figures --soak         an hour without a pause, and nothing else
cargo xtask bench figures DIRECTORY ...  take over what `bench peers`, `days`, `growth` or `profile` left there
";

/// Where the tables and plots are.
const FIGURES: &str = "benches/peers/figures";

/// A command of which figures are shown.
struct Part {
    name: &'static str,
    measure: fn(&[String]) -> Result<Option<Results>, Failure>,
    options: &'static str,
}

/// All of them, in the order in which they are measured: the last ones leave gigabytes to be removed, which disks feel for seconds after.
const PARTS: [Part; 5] = [
    Part {
        name: "days",
        measure: days::run,
        options: "",
    },
    Part {
        name: "days",
        measure: days::run,
        options: "--client plain",
    },
    Part {
        name: "profile",
        measure: profile::run,
        options: "",
    },
    Part {
        name: "peers",
        measure: peers::run,
        options: "--rounds 2 --seconds 5",
    },
    Part {
        name: "growth",
        measure: growth::run,
        options: "--accounts-max 3000000",
    },
];

/// An hour, which is too long to be among the others.
const SOAK: Part = Part {
    name: "days",
    measure: days::run,
    options: "--only soak",
};

/// Runs the command.
pub(super) fn run(args: &[String]) -> Result<(), Failure> {
    let into = workspace::root().join(FIGURES);
    match args {
        [] => PARTS.iter().try_for_each(|part| part.show(&into)),
        [soak] if soak == "--soak" => SOAK.show(&into),
        [help] if help == "--help" || help == "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        _ => match args.iter().find(|arg| arg.starts_with('-')) {
            Some(option) => Err(format!("there is no `{option}`\n\n{USAGE}")),
            None => args
                .iter()
                .try_for_each(|from| copy_pages(Path::new(from), &into)),
        },
    }
}

impl Part {
    /// Measures, and copies what came out: a later part that fails loses nothing.
    fn show(&self, into: &Path) -> Result<(), Failure> {
        println!("\n==> bench {} {}", self.name, self.options);
        let options: Vec<String> = self.options.split_whitespace().map(str::to_owned).collect();
        let problem = |why| format!("bench {} {}: {why}", self.name, self.options);
        match (self.measure)(&options).map_err(problem)? {
            Some(results) => copy_pages(results.directory(), into),
            None => Ok(()),
        }
    }
}
