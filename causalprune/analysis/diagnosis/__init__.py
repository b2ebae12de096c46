"""Whether a fit can be trusted: placebo fits, stability, agreement of two recordings, and interventions."""
