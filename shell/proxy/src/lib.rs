//! Data plane: capture, HBONE, HTTP, DNS, telemetry; decides nothing.
