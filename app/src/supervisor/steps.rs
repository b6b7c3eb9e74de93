use std::time::{Duration, Instant};

/// The steps of starting, each with its time, as they happen.
pub struct Steps {
    begun: Instant,
    total: Duration,
}

impl Steps {
    pub fn new() -> Self {
        Steps { begun: Instant::now(), total: Duration::ZERO }
    }

    pub fn done(&mut self, what: &str, took: Duration) {
        self.total = self.begun.elapsed();
        println!("  {what:<28} ready {:.2} s", took.as_secs_f64());
    }

    /// From the start to the last step that was done.
    pub fn total(&self) -> Duration {
        self.total
    }
}
