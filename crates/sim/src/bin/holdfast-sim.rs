//! The simulation's program: one run, or many, or what is done with failing ones. `cargo xtask sim` builds it and
//! passes its arguments on.

/// Without the simulator there is nothing to run.
#[cfg(not(madsim))]
fn main() {
    eprintln!(
        "this program only exists in a simulation: build it with RUSTFLAGS=\"--cfg madsim\", or use `cargo xtask sim`"
    );
    std::process::exit(2);
}

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    holdfast_sim::command_line::main()
}
