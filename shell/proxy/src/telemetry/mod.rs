//! What was counted: by source and destination workload, in cells of each worker's own, with a bounded number of series.
mod cells;
mod edge;
mod outcome;
mod render;

pub use cells::{Cells, EdgeCells, Ended};
pub use edge::{Carries, Edge, Opaque, Peers};
pub use outcome::{Flag, Grpc, Messages, Outcome};
use std::sync::{Arc, Mutex, PoisonError};

/// All workers' cells.
#[derive(Debug, Default)]
pub struct Telemetry {
    cells: Mutex<Vec<Arc<Cells>>>,
}

impl Telemetry {
    /// Cells for one more worker.
    pub fn cells(&self) -> Arc<Cells> {
        let cells = Arc::new(Cells::default());
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).push(cells.clone());
        cells
    }

    /// The sums over all workers, sorted.
    pub fn totals(&self) -> Vec<(Edge, cells::Totals)> {
        let mut sums = std::collections::BTreeMap::<Edge, cells::Totals>::new();
        for cells in self.cells.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for (edge, cell) in cells.list() {
                sums.entry(edge).or_default().add(&cell);
            }
        }
        sums.into_iter().collect()
    }

    /// Prometheus text.
    pub fn prometheus(&self) -> String {
        render::prometheus(&self.totals())
    }

    /// The service graph as JSON.
    pub fn edges_json(&self) -> serde_json::Value {
        render::edges(&self.totals())
    }
}
