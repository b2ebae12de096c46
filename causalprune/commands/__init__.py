"""The commands: each is a plain function of its configuration that reads files, writes files and returns a result.

The function ``fit_gamma`` of ``causalprune fit-gamma`` is in :mod:`causalprune.commands.fit_gamma`, and so on for the
other commands. Three commands are packages, in which the module ``command`` has the function:
:mod:`causalprune.commands.record.command`, :mod:`causalprune.commands.info.command` and
:mod:`causalprune.commands.sweep.command`. The commands on a whole store are in :mod:`causalprune.commands.store`.
:mod:`causalprune.commands.names` lists all of them. Modules that start with an underscore are shared by commands.
"""
