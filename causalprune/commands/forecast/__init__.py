"""``run --dry-run``: what a pipeline will take, told before its first stage.

:mod:`causalprune.commands.forecast.command` puts together what the stages take:
:mod:`causalprune.commands.forecast.files` their bytes, :mod:`causalprune.commands.forecast.timing` their time.
"""
