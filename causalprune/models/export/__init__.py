"""A network as a file that loads without causalprune."""
