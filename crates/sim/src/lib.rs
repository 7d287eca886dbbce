//! Simulated clusters, faults, workloads and oracles.
