//! `cargo xtask bench`: the benchmarks of the parts (criterion), the comparison with other stores, bad days, growth, where the
//! time goes.

mod baseline;
mod calls;
mod cluster;
mod compactions;
mod days;
mod etcd;
mod figures;
mod growth;
mod holdfast;
mod install;
mod live;
mod peers;
mod points;
mod postgres;
mod profile;
mod results;
mod slow_syncs;
mod store;

use crate::{Failure, workspace};

const USAGE: &str = "\
cargo xtask bench [FILTER]         the parts of a write, the engine, Raft, one by one (criterion); FILTER: those with this in their name
cargo xtask bench --save NAME [FILTER]
cargo xtask bench --against NAME [FILTER]
                                   keep what is measured under a name, and compare with it later, as ratios
cargo xtask bench peers            Holdfast, etcd and PostgreSQL in turns under the same load
cargo xtask bench days             what clients see while a leader dies, nodes restart, a disk is slow
cargo xtask bench growth           what Holdfast does and takes with more clients and more accounts
cargo xtask bench profile          what nodes spend their processor time on
cargo xtask bench figures          all that again, for the tables and plots that the repository shows

The last five have options: `cargo xtask bench peers --help`.
";

/// Runs the command.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    match args.split_first() {
        Some((first, rest)) if first == "peers" => peers::run(rest).map(drop),
        Some((first, rest)) if first == "days" => days::run(rest).map(drop),
        Some((first, rest)) if first == "growth" => growth::run(rest).map(drop),
        Some((first, rest)) if first == "profile" => profile::run(rest).map(drop),
        Some((first, rest)) if first == "figures" => figures::run(rest),
        Some((option, [name, rest @ ..])) if option == "--save" => baseline::save(name, rest),
        Some((option, [name, rest @ ..])) if option == "--against" => baseline::against(name, rest),
        Some((option, [])) if option == "--save" || option == "--against" => Err(format!(
            "`{option}` needs a name: under which to keep what is measured"
        )),
        _ if args.iter().any(|arg| arg == "--help") => {
            print!("{USAGE}");
            Ok(())
        }
        Some((filter, _)) if !filter.starts_with('-') => {
            println!(
                "Benchmarks of the parts that have `{filter}` in their name (`cargo xtask bench --help` tells what else there is):"
            );
            workspace::bench(args)
        }
        _ => workspace::bench(args),
    }
}
