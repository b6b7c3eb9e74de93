//! Pool, filters, scores, preemption: where a pod runs and why.
