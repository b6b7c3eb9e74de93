//! Usage windows, forecasts, horizontal demand.
