//! How a run leaves: it prints its trace, its summary and its result, and writes a report if it failed.
//!
//! A run that panics leaves in the same way, from where it panicked: what the judges would have said nobody knows
//! any more, but the trace up to there and what clients saw are all there.

use std::backtrace::Backtrace;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::Configuration;
use crate::history::History;
use crate::judges::Violation;
use crate::report;
use crate::runner::Failure;
use crate::summary::Summary;
use crate::workload::Recorder;
use crate::{overheard, trace};

/// A run, as far as its end needs it.
pub(crate) struct Leaving {
    pub(crate) configuration: Configuration,
    /// The command that runs it again.
    pub(crate) replay: String,
    /// What clients see, while they see it.
    pub(crate) recorder: Recorder,
    /// Without the configuration and the trace.
    pub(crate) quiet: bool,
    /// Where the report of a failed run goes.
    pub(crate) reports: Option<PathBuf>,
}

impl Leaving {
    /// Prints what there is to print, and writes the report. The answer is whether the run passed.
    ///
    /// # Errors
    /// If the report cannot be written.
    pub(crate) fn leave(&self, summary: &Summary, history: &History) -> Result<bool, Failure> {
        self.leave_with(summary, history, None)
    }

    fn leave_with(
        &self,
        summary: &Summary,
        history: &History,
        panicked: Option<&Backtrace>,
    ) -> Result<bool, Failure> {
        let lines = trace::take();
        if !self.quiet {
            let configuration = toml::to_string(&self.configuration);
            println!("{}", configuration.map_err(|why| why.to_string())?);
            for line in &lines {
                println!("{line}");
            }
        }
        for violation in &summary.violations {
            println!("VIOLATION {}: {}", violation.judge, violation.message);
        }
        println!("{summary}");
        println!("{}", summary.to_line().map_err(|why| why.to_string())?);
        let passed = summary.violations.is_empty();
        if let (false, Some(directory)) = (passed, &self.reports) {
            let path = directory.join(format!("{}.txt", self.name()));
            let mut text = report::render(&self.configuration, summary, history, &lines, &overheard::take());
            if let Some(backtrace) = panicked {
                text.push_str(&format!("\n## Where it panicked\n\n{backtrace}"));
            }
            std::fs::write(&path, text).map_err(|why| format!("cannot write {}: {why}", path.display()))?;
            println!("report: {}", path.display());
        }
        Ok(passed)
    }

    /// A file's name for what failed.
    fn name(&self) -> String {
        let run = &self.configuration;
        let mut name = match run.scenario.as_str() {
            "swarm" => format!("seed-{}", run.seed),
            scenario => format!("{scenario}-{}", run.seed),
        };
        if let Some(bug) = &run.planted {
            name.push('-');
            name.push_str(bug);
        }
        name
    }

    /// A run that takes longer than this by the real clock says what it was at and ends.
    pub(crate) fn leave_when_it_hangs(self: &Arc<Self>, patience: Duration) {
        let run = Arc::clone(self);
        // Outside the simulation, which may never give its thread back.
        std::thread::spawn(move || {
            std::thread::sleep(patience);
            let message = format!("the run did not end within {} s of real time", patience.as_secs());
            let summary = run.cut_short(message);
            let history = run.recorder.history_if_free().unwrap_or_default();
            if let Err(why) = run.leave_with(&summary, &history, None) {
                eprintln!("{why}");
            }
            std::process::exit(1);
        });
    }

    /// From now on the first panic anywhere ends the process, after its last words.
    ///
    /// It ends in the hook, not where the panic would be caught: destructors that run on the way there could panic
    /// again, and then nothing would be left at all.
    pub(crate) fn leave_on_panic(self: &Arc<Self>) {
        let run = Arc::clone(self);
        let began = AtomicBool::new(false);
        let as_usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            as_usual(panic);
            if began.swap(true, Ordering::SeqCst) {
                // Panicked in its last words.
                std::process::abort();
            }
            let message = panic.to_string().replace('\n', " ");
            tracing::error!("{message}");
            let summary = run.cut_short(message);
            let history = run.recorder.history_if_free().unwrap_or_default();
            if let Err(why) = run.leave_with(&summary, &history, Some(&Backtrace::force_capture())) {
                eprintln!("{why}");
            }
            std::process::exit(1);
        }));
    }

    /// The summary of a run that came to no end.
    fn cut_short(&self, message: String) -> Summary {
        let history = self.recorder.history_if_free().unwrap_or_default();
        Summary {
            seed: self.configuration.seed,
            scenario: self.configuration.scenario.clone(),
            configuration: self.configuration.hash(),
            replay: self.replay.clone(),
            simulated_ms: trace::now_ms(),
            operations: history.outcomes(),
            reached: reached(),
            violations: vec![Violation {
                judge: "process".into(),
                message,
                operations: Vec::new(),
            }],
            ..Summary::default()
        }
    }
}

/// Marks of production code, and how often each was passed.
pub(crate) fn reached() -> std::collections::BTreeMap<String, u64> {
    holdfast_markers::simulated::counts()
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}
