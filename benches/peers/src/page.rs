//! A page of tables and its plots, made of a file of lines that `cargo xtask bench` wrote.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::plot::Plot;

/// What to read and where to write.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// The file of lines.
    #[arg(long)]
    results: PathBuf,
    /// A text that goes above the tables, such as what machine it was.
    #[arg(long)]
    preface: Option<PathBuf>,
    /// The directory for the page and its plots.
    #[arg(long)]
    into: PathBuf,
}

impl PageArgs {
    /// The lines, whole.
    pub(crate) fn lines(&self) -> Result<String, String> {
        read(&self.results)
    }

    /// Prints the tables, and writes the page of this name.
    pub(crate) fn write(&self, name: &str, tables: &str) -> Result<(), String> {
        println!("\n{tables}");
        let preface = preface(self.preface.as_deref())?;
        let path = self.into.join(name);
        fs::write(&path, preface + tables).map_err(|why| format!("cannot write {}: {why}", path.display()))
    }

    /// Draws the plot of this name, without its ending, unless there is nothing to draw.
    pub(crate) fn draw(&self, name: &str, plot: &Plot) -> Result<bool, String> {
        plot.draw(&self.into.join(format!("{name}.svg")))
    }
}

/// What goes above the tables.
pub(crate) fn preface(path: Option<&Path>) -> Result<String, String> {
    path.map_or_else(|| Ok(String::new()), read)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|why| format!("cannot read {}: {why}", path.display()))
}

/// Shows a plot, with the command that draws it again.
pub(crate) fn shown(plot: &str, command: &str) -> String {
    format!("![{plot}]({plot}.svg)\n\n`cargo xtask bench {command}`\n")
}
