"""Models for use elsewhere: dead filters removed, and files that load without causalprune."""
