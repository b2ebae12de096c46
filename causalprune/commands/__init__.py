"""The commands of the command line, each a plain function from its configuration to a result, through files."""
