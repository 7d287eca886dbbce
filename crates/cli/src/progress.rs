//! A progress bar with rate and remaining time, where a person is watching; silence where nobody is.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress of a stream of accounts, measured in bytes of its file where that size is known.
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    accounts: u64,
    rejected: u64,
}

impl Progress {
    /// `bytes_total` gives the remaining time; without it there is a spinner. `visible` false shows nothing.
    pub(crate) fn new(bytes_total: Option<u64>, visible: bool) -> Self {
        let bar = match bytes_total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        let template = match bytes_total {
            Some(_) => "{bar:32} {percent:>3}%  {msg}  {elapsed} elapsed, {eta} left",
            None => "{spinner} {msg}  {elapsed} elapsed",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━━ "));
        }
        bar.set_draw_target(if visible {
            ProgressDrawTarget::stderr_with_hz(8)
        } else {
            ProgressDrawTarget::hidden()
        });
        bar.enable_steady_tick(Duration::from_millis(250));
        Progress {
            bar,
            started: Instant::now(),
            accounts: 0,
            rejected: 0,
        }
    }

    /// Work done in an earlier run: counts for the bar, not for the rate.
    pub(crate) fn resume_at(&self, bytes: u64) {
        self.bar.set_position(bytes);
        self.bar.reset_eta();
    }

    /// One more account is settled, and with it everything up to this byte of the input.
    pub(crate) fn settled(&mut self, accepted: bool, bytes: u64) {
        self.accounts += 1;
        self.rejected += u64::from(!accepted);
        self.bar.set_position(bytes);
        // Formatting for each of a hundred thousand accounts would cost more than sending them.
        if self.accounts.is_multiple_of(64) {
            self.show();
        }
    }

    /// Accounts a second since the start.
    pub(crate) fn rate(&self) -> f64 {
        self.accounts as f64 / self.started.elapsed().as_secs_f64().max(0.001)
    }

    /// How long it took.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Prints a line above the bar (or plainly, without one).
    pub(crate) fn say(&self, text: &str) {
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&self) {
        let mut message = format!("{} accounts, {:.0}/s", thousands(self.accounts), self.rate());
        if self.rejected > 0 {
            message.push_str(&format!(", {} rejected", thousands(self.rejected)));
        }
        self.bar.set_message(message);
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1_000, 1_234_567]
                .map(thousands)
                .each_ref()
                .map(String::as_str)
        );
    }

    #[test]
    fn counting_works_without_a_terminal() {
        let mut progress = Progress::new(Some(100), false);
        progress.settled(true, 10);
        progress.settled(false, 20);
        assert_eq!((progress.accounts, progress.rejected), (2, 1));
        assert!(progress.rate() > 0.0);
    }
}
