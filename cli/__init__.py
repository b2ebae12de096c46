"""The command line of causalprune: parse, call the stage, print."""
