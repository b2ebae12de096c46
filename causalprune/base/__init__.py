"""What every room builds on: errors, files, locks, signals, progress, units. Imports nothing else of causalprune."""
