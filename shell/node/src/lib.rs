//! Node agent: CRI, CNI, volumes, probes, cgroups.
