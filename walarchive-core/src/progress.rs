//! What long work tells while it goes on.

/// Hears of the progress of one piece of work. Called from several threads.
pub trait Progress: Send + Sync {
    /// Work of `total` bytes begins; `what` names it for people.
    fn begin(&self, what: &str, total: u64);

    /// That many bytes more are done.
    fn advance(&self, bytes: u64);

    /// Something that people should know while the work goes on.
    fn note(&self, message: &str);

    /// The work that began last is over.
    fn end(&self);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn note(&self, _: &str) {}
    fn end(&self) {}
}
