//! Runs the controllers over any Kubernetes API; serves xDS and workload certificates.
