//! `cargo xtask bench`: the benchmarks of the parts (criterion), the comparison with other stores, bad days, growth, where the
//! time goes.

mod baseline;
mod calls;
mod cluster;
mod days;
mod etcd;
mod growth;
mod holdfast;
mod install;
mod live;
mod peers;
mod points;
mod postgres;
mod profile;
mod slow_syncs;
mod store;

use crate::{Failure, workspace};

/// Runs the command.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    match args.split_first() {
        Some((first, rest)) if first == "peers" => peers::run(rest),
        Some((first, rest)) if first == "days" => days::run(rest),
        Some((first, rest)) if first == "growth" => growth::run(rest),
        Some((first, rest)) if first == "profile" => profile::run(rest),
        Some((option, [name, rest @ ..])) if option == "--save" => baseline::save(name, rest),
        Some((option, [name, rest @ ..])) if option == "--against" => baseline::against(name, rest),
        _ => workspace::bench(args),
    }
}
