//! Progress on a terminal.

use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use walarchive_core::Result;
use walarchive_core::progress::Progress;

use crate::output::Output;

const BAR: &str = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
/// Where nobody knows how much it will be.
const NO_END: &str = "{msg} {bytes} {bytes_per_sec}";

/// Draws a bar where there is a terminal, and passes notes on.
pub(crate) struct Terminal {
    output: Output,
    bar: Mutex<Option<ProgressBar>>,
}

impl Terminal {
    pub(crate) fn new(output: Output) -> Terminal {
        Terminal { output, bar: Mutex::new(None) }
    }

    fn with_bar(&self, act: impl FnOnce(&ProgressBar)) -> bool {
        match self.bar.lock().ok().as_deref() {
            Some(Some(bar)) => {
                act(bar);
                true
            }
            _ => false,
        }
    }
}

impl Progress for Terminal {
    fn begin(&self, what: &str, total: u64) {
        if !self.output.bars() {
            return self.output.detail(what);
        }
        let (bar, template) = match total {
            0 => (ProgressBar::no_length(), NO_END),
            _ => (ProgressBar::new(total), BAR),
        };
        let bar = bar.with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        if let Ok(mut place) = self.bar.lock() {
            *place = Some(bar);
        }
    }

    fn advance(&self, bytes: u64) -> Result<()> {
        self.with_bar(|bar| bar.inc(bytes));
        Ok(())
    }

    fn note(&self, message: &str) {
        let output = self.output;
        if !self.with_bar(|bar| bar.suspend(|| output.info(message))) {
            output.info(message);
        }
    }

    fn end(&self) {
        if let Ok(mut place) = self.bar.lock()
            && let Some(bar) = place.take()
        {
            bar.finish_and_clear();
        }
    }
}
